"""A grid of small trainings against Papermill's loop, Papermill in a pool, and the bare floor; then 500 trivial runs.

Everything is interleaved in one run, so that all meet the same machine; ratios are what count. The
floor is the same cells in a bare loop in as many warm processes, without notebooks and without a record.

    python benchmarks/grids.py [--runs 40 --rounds 2 --jobs 2 --trivial 500]
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

PARAMETERS = "seed: int = 0"
TRAINING = [
    "import catboost, duckdb, numpy as np, optuna, pandas as pd",
    "x = np.random.default_rng(seed).random((5000, 20)); y = (x[:, 0] * x[:, 1] > .25).astype(int)\n"
    "frame = duckdb.sql('select avg(1)').df()",
    "m = catboost.CatBoostClassifier(iterations=100, depth=6, verbose=0, thread_count=1, "
    "random_seed=seed, allow_writing_files=False).fit(x, y)",
    "print(m.score(x, y))",
]
TRIVIAL = ["print(seed + 1)"]
HALF = (
    ".draft.new",
    "progress.json",
    ".notebook.ipynb.new",
)  # not to be there when a run has ended


def write_notebook(path: Path, cells: list[str]) -> Path:
    """Write cells below a cell of parameters; return the path."""
    import nbformat

    made = [nbformat.v4.new_code_cell(c) for c in (PARAMETERS, *cells)]
    made[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
    return path


def one_papermill(source: str, seed: int) -> None:
    """Execute a notebook once by Papermill."""
    import papermill

    out = Path(source).with_name(f"out-{seed}-{time.time_ns()}.ipynb")
    papermill.execute_notebook(source, out, {"seed": seed}, progress_bar=False)


def one_bare(cells: list[str], seed: int) -> None:
    """Execute the cells in a bare namespace of this process."""
    import contextlib

    names = {"seed": seed}
    with contextlib.redirect_stdout(None):
        for cell in cells:
            exec(cell, names)


def quiet() -> None:
    """One thread for each process, and no warnings."""
    import logging
    import warnings

    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MLWORKBENCH_THREADS="1")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def quiet_worker() -> None:
    """Papermill's kernels say things on standard error that nobody here wants to read."""
    quiet()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def timed(work) -> float:
    """Seconds on the wall that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def pool_of(jobs: int) -> concurrent.futures.Executor:
    """A pool of fresh processes that say nothing."""
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(jobs, context, quiet_worker)


def in_pool(pool, work, what, seeds) -> None:
    """Do the same work for every seed in a pool, and wait."""
    list(pool.map(work, [what] * len(seeds), seeds))


def grid_of(wb, source: Path, seeds: list[int], jobs: int):
    """Run a grid over the seeds by the library; every run has to finish."""
    import mlworkbench as mw

    found = mw.grid(str(source), seed=seeds, jobs=jobs, force=True, wb=wb)
    assert len(found.runs) == len(seeds) and not found.failed, found.failed[:2]


def held() -> dict[str, int]:
    """What this process holds."""
    import psutil

    me = psutil.Process()
    folder = Path(tempfile.gettempdir()) / f"mlworkbench-{os.getuid()}"
    return {
        "memory": me.memory_info().rss,
        "handles": me.num_fds(),
        "children": len(me.children(recursive=True)),
        "ports": len(me.net_connections(kind="inet")),
        "sockets": len(list(folder.glob("*"))) if folder.exists() else 0,
    }


def with_spares(folder: Path):
    """A workbench whose runs take spares: what is had where forking is not safe."""
    from mlworkbench.core.settings import open_workbench
    from mlworkbench.data.lake import create_workbench

    file = create_workbench(folder / "spares").root / "settings.ini"
    file.write_text(file.read_text().replace("kernel = auto", "kernel = spare"))
    return open_workbench(file.parent)


def processor_seconds(pool, work) -> float:
    """Processor time that a piece of work takes: here, in the fork server and in a pool's processes."""
    from mlworkbench.execution.limits import cpu_seconds
    from mlworkbench.execution.server_status import status

    pids = [os.getpid(), *(p for s in status() for p in (s.pid, s.original)), *pool._processes]
    before = cpu_seconds(pids)
    work()
    return cpu_seconds(pids) - before


def trainings(wb, folder: Path, runs: int, rounds: int, jobs: int) -> dict:
    """Seconds a run of each way to do a number of small trainings; medians over the rounds."""
    source = write_notebook(folder / "training.ipynb", TRAINING)
    seeds = list(range(runs))
    times: dict[str, list[float]] = {"floor": [], "grid": [], "spares": [], "pool": [], "loop": []}
    spares = with_spares(folder)
    with pool_of(jobs) as bare, pool_of(jobs) as pool:
        in_pool(bare, one_bare, TRAINING, seeds[: 2 * jobs])  # warm
        in_pool(pool, one_papermill, str(source), seeds[:jobs])
        grid_of(wb, source, seeds[:jobs], jobs)
        grid_of(spares, source, seeds[:jobs], jobs)
        some = seeds[: max(2, runs // 4)]  # the slow ones do fewer, and are told a run
        for _ in range(rounds):
            times["floor"].append(timed(lambda: in_pool(bare, one_bare, TRAINING, seeds)) / runs)
            times["grid"].append(timed(lambda: grid_of(wb, source, seeds, jobs)) / runs)
            took = timed(lambda: grid_of(spares, source, some, jobs))
            times["spares"].append(took / len(some))
            took = timed(lambda: in_pool(pool, one_papermill, str(source), some))
            times["pool"].append(took / len(some))
            few = some[: max(2, len(some) // 2)]
            took = timed(lambda few=few: [one_papermill(str(source), s) for s in few])
            times["loop"].append(took / len(few))
    found = {k: statistics.median(v) for k, v in times.items()}
    print(f"{runs} trainings, {jobs} at once, {rounds} rounds; seconds a run:")
    for name, seconds in found.items():
        print(f"  {name:6s} {seconds:.3f}   {seconds / found['floor']:.2f} times the floor")
    print(
        f"  the grid is {found['pool'] / found['grid']:.1f} times faster than Papermill in a pool,"
    )
    print(f"  and {found['loop'] / found['grid']:.1f} times faster than Papermill's loop;")
    print(
        f"  spares are {found['pool'] / found['spares']:.1f} times faster than Papermill in a pool"
    )
    return found


def trivial(wb, folder: Path, runs: int, jobs: int) -> dict:
    """Time many runs that do nothing, and look at what they leave behind."""
    from mlworkbench.execution.listing import list_runs

    source = write_notebook(folder / "trivial.ipynb", TRIVIAL)
    with pool_of(jobs) as pool:
        in_pool(pool, one_papermill, str(source), list(range(jobs)))
        grid_of(wb, source, list(range(20)), jobs)
        before, known = held(), len(list_runs(wb=wb))
        ours = timed(lambda: grid_of(wb, source, list(range(runs)), jobs)) / runs
        middle = held()
        grid_of(wb, source, list(range(runs // 2)), jobs)
        after = held()
        many = list(range(min(50, runs)))
        times: dict[str, list[float]] = {"ours": [], "papermill": []}
        processor = {"ours": 0.0, "papermill": 0.0}
        works = {
            "ours": lambda: grid_of(wb, source, many, jobs),
            "papermill": lambda: in_pool(pool, one_papermill, str(source), many),
        }
        for name in ("ours", "papermill", "ours"):
            spent = processor_seconds(
                pool, lambda name=name: times[name].append(timed(works[name]) / len(many))
            )
            processor[name] = 1000 * spent / len(many)
    mine, theirs = statistics.mean(times["ours"]), times["papermill"][0]
    made = runs + runs // 2 + 2 * len(many)
    recorded = len(list_runs(wb=wb)) - known
    half = [f for f in (wb.files / "runs").glob("*/*") if f.name in HALF]
    print(f"{len(many)} trivial runs, {jobs} at once; seconds a run:")
    print(f"  ours {mine:.4f}, Papermill in a pool {theirs:.3f}: {theirs / mine:.1f} times faster")
    print(
        f"  processor time: {processor['ours']:.0f} ms a run, Papermill {processor['papermill']:.0f} ms"
    )
    print(f"{runs} trivial runs in one grid: {ours:.4f} s a run, {theirs / ours:.1f} times faster")
    print(f"  {recorded} of {made} recorded; half-written files left in their folders: {len(half)}")
    for name in before:
        print(
            f"  {name}: before {before[name]:,}, after {runs} {middle[name]:,}, after {runs // 2} more {after[name]:,}"
        )
    return {
        "ours": mine,
        "papermill": theirs,
        "ours in a long grid": ours,
        "recorded": recorded,
        "before": before,
        "after": after,
    }


def main() -> None:
    """Do the trainings and then the trivial runs in one new workbench."""
    asked = argparse.ArgumentParser(description=__doc__)
    for name, value in {"runs": 40, "rounds": 2, "jobs": 2, "trivial": 500}.items():
        asked.add_argument(f"--{name}", type=int, default=value)
    given = asked.parse_args()
    quiet()
    from mlworkbench.data.lake import create_workbench
    from mlworkbench.execution.forking import available

    if why := available():
        print(f"kernels cannot be forked here: {why}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wb = create_workbench(folder / "wb")
        print(f"load at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        found = {}
        if given.runs:
            found["trainings"] = trainings(wb, folder, given.runs, given.rounds, given.jobs)
        if given.trivial:
            found["trivial"] = trivial(wb, folder, given.trivial, given.jobs)
        print(f"load at the end: {os.getloadavg()[0]:.1f}")
        print(json.dumps(found))


if __name__ == "__main__":
    main()
