"""Grids: reused while nothing changed, not when the data did; killed and resumed, nothing lost and nothing double."""

import contextlib
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import nbformat
import psutil
import pytest
from faults import kill, mlworkbench, until

import mlworkbench as mw
from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.settings import open_workbench
from mlworkbench.data.commits import write_lake
from mlworkbench.execution import grids
from mlworkbench.execution.engine import tracked_run
from mlworkbench.execution.fingerprints import code_beside, fingerprint
from mlworkbench.execution.jobs import find_notebook, run_job
from mlworkbench.execution.journal import log_read
from mlworkbench.execution.listing import list_runs, run_details
from mlworkbench.execution.opening import Taken, close_run, open_run
from mlworkbench.execution.workers import run_one


def notebook(wb, *cells: str) -> str:
    made = [nbformat.v4.new_code_cell(c) for c in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made), wb.root / "mine.ipynb")
    return str(wb.root / "mine.ipynb")


def test_new_rows_of_a_table_that_was_read_make_a_run_anew(wb):
    with write_lake("rows", wb=wb) as write:
        write.con.execute("CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 1 AS x")
    job = notebook(
        wb,
        "least = 0",
        "import mlworkbench as mw\nmw.sql('SELECT * FROM a WHERE x > $n', params={'n': least}).fetchall()",
    )
    counts = []
    for table in (None, "b", "a"):
        if table:
            with write_lake("more rows", wb=wb) as write:
                write.con.execute(f"INSERT INTO {table} VALUES (2)")
        found = mw.grid(job, least=[0, 1], jobs=2, wb=wb)
        assert not found.failed, found.failed
        counts.append((len(found.runs), len(found.reused), len(found.failed)))
    assert counts == [(2, 0, 0), (0, 2, 0), (2, 0, 0)]
    forced = mw.grid(job, least=[0, 1], jobs=2, force=True, wb=wb)
    assert (len(forced.runs), len(forced.reused)) == (2, 0)


def test_a_run_by_itself_is_taken_by_a_grid_and_is_always_executed(wb):
    (wb.root / "rates.py").write_text("rate = 2")
    job = notebook(
        wb, "n = 1", "import rates, mlworkbench as mw; mw.log_metric('m', n * rates.rate)"
    )
    alone = mw.run(job, n=2, wb=wb)
    found = mw.grid(job, n=[1, 2], jobs=2, wb=wb)
    assert [r.run for r in found.reused] == [alone.run] and len(found.runs) == 1
    assert mw.run(job, n=2, wb=wb).run != alone.run  # whoever asks for a run gets one
    (wb.root / "rates.py").write_text("rate = 3")
    found = mw.grid(job, n=[1, 2], jobs=2, wb=wb)
    assert (len(found.runs), len(found.reused)) == (2, 0)
    kept = alone.folder / "source.ipynb"
    elsewhere = run_job(kept, {"n": 2}, cwd=wb.root, wb=wb)  # it imports what lies there
    assert "fingerprint" not in run_details(elsewhere.run, wb)["facts"]


def test_a_killed_grid_goes_on_with_what_is_missing(wb, torture, monkeypatch):
    """The command is killed at a random moment and given again at once: the record is an uninterrupted one's."""
    monkeypatch.setenv("MLW_TEST_MARK", str(wb.root))
    notebook(
        wb,
        "n: int = 0",
        "import mlworkbench as mw\nfor step in range(20): mw.log_metric('loss', n / (step + 1), step=step)",
        "mw.log_metric('score', (n * 7919) % 1000 / 7)",
    )
    seed, table, many = random.randrange(10**6), [], 6
    chance = random.Random(seed)
    for nth in range(20 if torture else 2):
        wanted = range(nth * many, (nth + 1) * many)
        words = ("grid", "mine.ipynb", "-p", f"n={wanted[0]}:{wanted[-1]}", "--jobs", "2", "--json")
        done, opened = chance.randrange(many), chance.random() < 0.5
        grid = mlworkbench(*words, cwd=wb.root, wait=False)
        moment = lambda: grid.poll() is not None or reached(wb, wanted, done, opened)  # noqa: B023, E731
        assert until(moment, 120, step=0.002)
        time.sleep(chance.random() * 0.05)
        grid.send_signal(signal.SIGKILL)
        grid.communicate(timeout=60)
        code, out, err = mlworkbench(*words, cwd=wb.root)
        assert code == 0, err
        found = json.loads(out)
        rows = [r for r in list_runs(wb=wb) if r.params["n"] in wanted]
        states = Counter(r.state for r in rows)
        table.append((nth, done, opened, len(found["reused"]), states["interrupted"]))
        finished = {
            r.params["n"]: r.metrics["score"]["value"] for r in rows if r.state == "finished"
        }
        assert finished == {n: (n * 7919) % 1000 / 7 for n in wanted}, (seed, table)
        assert states["finished"] == many and set(states) <= {"finished", "interrupted"}, (
            seed,
            table,
        )
        assert {r["run"] for r in found["runs"] + found["reused"]} == {
            r.run for r in rows if r.state == "finished"
        }
    assert until(lambda: not running_here("MLW_TEST_MARK", str(wb.root)), 60)
    print(f"seed {seed}; kill, finished before it, in the middle of a run, reused, interrupted:")
    print("\n".join(map(str, table)))


def reached(wb, wanted, done: int, opened: bool) -> bool:
    """Whether so many of these runs have finished, and (if asked) another is at work."""
    states = [r.state for r in list_runs(wb=wb) if r.params.get("n") in wanted]
    return states.count("finished") >= done and (not opened or "running" in states)


def running_here(name: str, value: str) -> list[int]:
    """The processes that have a variable in their environment, but for this one and fork servers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.append(process.pid)
    return found


def test_a_grid_runs_from_a_script_without_a_guard_and_from_one_that_cannot_be_imported(wb):
    """Workers import our modules alone; importing the caller's script again would run it again, or fail."""
    job = notebook(wb, "n: int = 0")
    script = wb.root / "theirs.py"
    script.write_text(
        "import sys, mlworkbench as mw\n"
        "if not hasattr(sys, 'ps0'): sys.ps0 = open('once', 'x')  # a second run of this script fails here\n"
        f"found = mw.grid({job!r}, n=[1, 2], jobs=2, wb=mw.open({str(wb.root)!r}))\n"
        "print(len(found.runs), len(found.failed))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=wb.root, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "0"], done.stderr[-1500:]


def test_a_plan_from_a_file_and_a_metric_that_nobody_logged(wb):
    notebook(
        wb,
        "depth: int = 6\nseed: int = 0",
        "import mlworkbench as mw; mw.log_metric('auc', depth / 10)",
    )
    plan = "product: {depth: [4, 6], seed: 1:2}\nexclude:\n- {depth: 6, seed: 2}\n"
    (wb.root / "plan.yaml").write_text(plan)
    code, out, err = mlworkbench(
        "grid", "mine.ipynb", "-f", "plan.yaml", "--sort", "auc", cwd=wb.root
    )
    assert code == 0 and out.startswith("3 finished, 0 reused, 0 failed"), err
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert [r[:3] for r in rows] == [["6", "1", "0.6"], ["4", "2", "0.4"]]
    code, out, err = mlworkbench(
        "grid", "mine.ipynb", "-f", "plan.yaml", "--sort", "acu", cwd=wb.root
    )
    assert code == 0 and "has the metric 'acu'. Did you mean 'auc'?" in out, err
    assert out.startswith("0 finished, 3 reused, 0 failed") and out.count("0.4") and err == ""


def test_what_passes_by_itself_is_tried_again_and_the_rest_is_not(wb):
    job = notebook(
        wb,
        "n: int = 0",
        "import pathlib\nseen = pathlib.Path(f'seen-{n}'); times = len(seen.read_text()) if seen.exists() else 0\n"
        "seen.write_text('x' * (times + 1))",
        "if n == 1 and times < 1: raise ConnectionError('the database is away')\n"
        "if n == 2: raise ValueError('wrong for ever')",
    )
    found = mw.grid(job, n=[1, 2, 3], jobs=2, wb=wb)
    assert [r.params["n"] for r in found.runs] == [1, 3] and len(found.failed) == 1
    assert [(wb.root / f"seen-{n}").read_text() for n in (1, 2, 3)] == ["xx", "x", "x"]
    states = sorted((r.params["n"], r.state) for r in list_runs(wb=wb))
    assert states == [(1, "failed"), (1, "finished"), (2, "failed"), (3, "finished")]


def test_two_grids_at_once_lose_nothing(wb):
    job = notebook(wb, "n: int = 0", "import mlworkbench as mw; mw.log_metric('score', n)")
    script = "import sys, mlworkbench as mw; found = mw.grid({!r}, n={!r}, jobs=2, wb=mw.open({!r})); print(len(found.runs), found.failed)"
    spans = (list(range(6)), list(range(6, 12)))
    words = [[sys.executable, "-c", script.format(job, s, str(wb.root))] for s in spans]
    both = [subprocess.Popen(w, stdout=subprocess.PIPE, text=True) for w in words]
    assert [p.communicate(timeout=300)[0].split()[0] for p in both] == ["6", "6"]
    finished = [r for r in list_runs(wb=wb) if r.state == "finished"]
    assert sorted(r.metrics["score"]["value"] for r in finished) == list(range(12))


SLOW = """import mlworkbench as mw, pathlib, time
pathlib.Path(f"began-{n}").touch()
while not pathlib.Path("go").exists(): time.sleep(0.05)
mw.log_metric('score', n)"""


@contextlib.contextmanager
def another_grid(wb, *words: str):
    """The command in a process that ends with the block, whatever happens in it."""
    grid = mlworkbench("grid", "mine.ipynb", *words, "--json", cwd=wb.root, wait=False)
    try:
        yield grid
    finally:
        kill(grid)


def test_two_grids_that_overlap_execute_what_they_share_once(wb):
    job = notebook(wb, "n: int = 0", SLOW)
    began = lambda *all_: all((wb.root / f"began-{n}").exists() for n in all_)  # noqa: E731
    with another_grid(wb, "-p", "n=1:2", "--jobs", "2") as first, ThreadPoolExecutor(1) as pool:
        try:
            assert until(lambda: began(1, 2), 90)
            second = pool.submit(mw.grid, job, n=[1, 2, 3], jobs=3, wb=wb)
            assert until(lambda: began(3), 90)  # with more at once than there are cores
        finally:
            (wb.root / "go").touch()
        made = json.loads(first.communicate(timeout=120)[0])
        found = second.result()
    assert [r.params["n"] for r in found.runs] == [3] and not found.failed
    assert {r.run for r in found.reused} == {r["run"] for r in made["runs"]}
    assert sorted(r.params["n"] for r in list_runs(wb=wb)) == [1, 2, 3]
    assert len(list((wb.root / "runs").iterdir())) == 3  # and no folder of one that was not opened


THREADS = """import os
print(*(os.environ[n] for n in ("MLWORKBENCH_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")))"""
GATED = """import pathlib, time
pathlib.Path(f"began-{n}").touch()
while not pathlib.Path(f"go-{n}").exists(): time.sleep(0.05)"""


def test_two_grids_that_overlap_in_one_process_leave_its_environment_alone(wb, monkeypatch):
    """The first to leave is the first that came: neither takes anything away, nor puts it back for good."""
    monkeypatch.setenv("MKL_NUM_THREADS", "3")  # somebody has decided
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    job, began = notebook(wb, "n: int = 0", GATED, THREADS), threading.Event()
    before, script = dict(os.environ), sys.modules["__main__"]
    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as at_last:
        at_last.callback(lambda: [(wb.root / f"go-{n}").touch() for n in (1, 2)])
        first = pool.submit(grids.run_grid, job, {"n": [1]}, jobs=1, wb=wb)
        assert until((wb.root / "began-1").exists, 90)
        show = lambda *_: began.set()  # noqa: E731
        second = pool.submit(grids.run_grid, job, {"n": [2]}, jobs=1, wb=wb, show=show)
        assert began.wait(90)
        (wb.root / "go-1").touch()
        made = first.result(90).runs
        (wb.root / "go-2").touch()
        made += second.result(90).runs
    assert dict(os.environ) == before and sys.modules["__main__"] is script
    share = str(len(os.sched_getaffinity(0)))
    for run in made:
        assert run_details(run.run, wb)["facts"]["threads"] == share
        assert f"{share} {share} 3" in (run.folder / "notebook.ipynb").read_text()
    assert len(made) == 2


def test_a_shared_run_whose_process_dies_is_run_by_the_grid_that_waits(wb):
    job = notebook(wb, "n: int = 0", SLOW)
    with another_grid(wb, "-p", "n=1") as first, ThreadPoolExecutor(1) as pool:
        try:
            assert until((wb.root / "began-1").exists, 90)
            second = pool.submit(mw.grid, job, n=[1, 2, 3], jobs=3, wb=wb)
            assert until(lambda: any((wb.root / f"began-{n}").exists() for n in (2, 3)), 90)
            kill(first)
        finally:
            (wb.root / "go").touch()
        found = second.result()
    assert sorted(r.params["n"] for r in found.runs) == [1, 2, 3] and not found.failed
    states = sorted((r.params["n"], r.state) for r in list_runs(wb=wb))
    assert states == [(1, "finished"), (1, "interrupted"), (2, "finished"), (3, "finished")]


def test_a_place_is_taken_once_and_who_held_it_is_fenced(wb):
    """A worker that was cut off comes back: the run that took its place stands, the old one may not finish."""
    cut_off = open_run("one", marks={"place": "g:1"}, wb=wb)
    other = open_run("other", marks={"place": "g:2"}, wb=wb)
    again = open_run("one", marks={"place": "g:1"}, wb=wb)
    with pytest.raises(WorkbenchError, match="declared interrupted"):
        mw.log_metric("auc", 0.9, run=cut_off.run, wb=wb)
    with pytest.raises(WorkbenchError, match="already interrupted"):
        close_run(cut_off.run, "finished", wb=wb)
    close_run(again.run, "finished", wb=wb)
    with pytest.raises(Taken):
        open_run("one", marks={"place": "g:1"}, wb=wb)
    close_run(other.run, "finished", wb=wb)
    assert sorted(r.state for r in list_runs(wb=wb)) == ["finished", "finished", "interrupted"]


def test_a_worker_whose_place_was_taken_waits_for_what_is_made_there(wb):
    """Its grid's line is no failure: the run that stands in its place is finished by another."""
    notebook(wb, "n: int = 0", SLOW)
    here = {"place": "g:1", "fingerprint": "f"}
    stop, words = threading.Event(), (str(wb.root / "mine.ipynb"), {"n": 1}, wb, {"marks": here})
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as at_last:
        at_last.callback(stop.set)
        first = pool.submit(run_one, *words, stop=stop)
        assert until((wb.root / "began-1").exists, 90)
        other = open_run("other", marks=here, wb=wb)
        (wb.root / "go").touch()
        assert until(lambda: all(not held(r) or r.run == other.run for r in list_runs(wb=wb)), 90)
        with pytest.raises(FutureTimeout):
            first.result(0.5)
        close_run(other.run, "finished", wb=wb)
        assert first.result(60) == (other.run, False)
    assert sorted(r.state for r in list_runs(wb=wb)) == ["finished", "interrupted"]
    assert {r.name for r in list_runs(wb=wb)} == {"other", "mine-1-failed"}


def held(run) -> bool:
    """Whether a process holds a run's lock."""
    with open(run.folder / ".alive") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_ctrl_c_ends_a_grid_and_its_runs_and_says_how_far_it_came(wb):
    notebook(wb, "n: int = 0", "import time; time.sleep(120 * (n > 1))")
    words = ("grid", "mine.ipynb", "-p", "n=0:4", "--jobs", "2")
    grid = mlworkbench(*words, cwd=wb.root, wait=False)
    states = lambda: sorted(r.state for r in list_runs(wb=wb))  # noqa: E731
    assert until(lambda: states() == ["finished"] * 2 + ["running"] * 2, 90)
    grid.send_signal(signal.SIGINT)
    _, err = grid.communicate(timeout=60)
    assert grid.returncode == 130
    assert err.splitlines()[-1] == "interrupted: 2 of 5 finished; the same command goes on"
    assert states() == ["finished"] * 2 + ["interrupted"] * 2


def test_an_interrupt_ends_what_a_callers_executor_has_at_work(wb):
    """Its workers hear no signal of ours: a cluster's are on other machines."""
    job = notebook(wb, "n: int = 0", "import time; time.sleep(120)")

    def press(lines: list, left: float) -> None:
        if sum(line.state == "running" for line in lines) == 2:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(KeyboardInterrupt, match="0 of 3 finished"):
            grids.run_grid(job, {"n": [1, 2, 3]}, executor=pool, wb=wb, show=press)
        assert [r.state for r in list_runs(wb=wb)] == ["cancelled"] * 2
        assert pool.submit(int, "7").result() == 7


def test_what_a_grid_cannot_do_is_refused_before_it_begins(wb):
    job = notebook(wb, "n: int = 0")
    with pytest.raises(UserError, match="a grid parks no kernels. Run the one .* --park 30"):
        mw.grid(job, n=[1], park=5, wb=wb)
    code, _, err = mlworkbench("grid", "mine.ipynb", "--park", "5", cwd=wb.root)
    assert code == 2 and "a grid parks no kernels" in err
    code, _, err = mlworkbench("grid", "mine.ipynb", "--jobs", "-3", cwd=wb.root)
    assert code == 2 and "-3 runs at the same time" in err
    assert list_runs(wb=wb) == []


def test_a_wrong_range_starts_nothing(wb):
    job = notebook(wb, "from typing import Annotated\ndepth: Annotated[int, (1, 16)] = 6")
    with pytest.raises(UserError, match="depth=17 is out of range. depth goes from 1 to 16"):
        mw.grid(job, depth=[4, 17], wb=wb)
    assert list_runs(wb=wb) == []


def test_a_changed_module_beside_the_notebook_makes_runs_anew(wb):
    helper = wb.root / "helper.py"
    helper.write_text("x = 1\n")
    job = notebook(wb, "n: int = 0", "1 / 1")
    book, counts = Path(job), []
    packages = {}
    for text in ("x = 1\n", "x = 2\n"):
        helper.write_text(text)
        beside = code_beside(book, {}, wb)
        counts.append(fingerprint(book, {"n": 0}, packages, beside))
    assert counts[0] != counts[1]
    shipped = find_notebook("train", wb)
    assert code_beside(shipped, {"view": ""}, wb) == {}
    found = mw.grid(job, n=[1], jobs=1, wb=wb)
    again = mw.grid(job, n=[1], jobs=1, wb=wb)
    helper.write_text("x = 3\n")
    anew = mw.grid(job, n=[1], jobs=1, wb=wb)
    assert [(len(g.runs), len(g.reused)) for g in (found, again, anew)] == [(1, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("file", "cell"),
    [
        ("parts/rates.py", "from parts import rates"),
        ("parts/deep/rates.py", "import json, parts.deep.rates"),
        ("parts/rates.py", "x = 1; import parts"),
        ("parts/rates.py", "%%time\nfrom parts import rates"),
        ("parts/rates.py", "!python -m parts.rates"),
        ("other.ipynb", "%run other.ipynb"),
        ("far/rates.py", "import near"),
    ],
)
def test_what_a_notebook_brings_in_from_beside_it_makes_runs_anew(wb, file, cell):
    changed = wb.root / file
    changed.parent.mkdir(parents=True, exist_ok=True)
    (wb.root / "near.py").write_text("from far import rates\n")
    (wb.root / "unused").mkdir()
    (wb.root / "unused" / "rates.py").write_text("x = 1\n")
    told = 'help = """\nimport unused\n"""'
    job, counts = Path(notebook(wb, "n: int = 0", cell, told, "import unused as")), []
    for text in ("x = 1", "x = 2", "x = 2"):
        cells = [nbformat.v4.new_code_cell(text)]
        whole = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
        changed.write_text(whole if file.endswith(".ipynb") else text + "\n")
        counts.append(code_beside(job, {}, wb))
    assert counts[0] != counts[1] == counts[2]
    assert not any("unused" in name for name in counts[0])


def test_a_grid_with_a_failure_prints_its_document_and_ends_with_1(wb):
    notebook(wb, "name: int = 0", "1 / name")
    words = ("grid", "mine.ipynb", "-p", "name=0,1", "--json")
    code, out, err = mlworkbench(*words, cwd=wb.root)
    found = json.loads(out)
    assert code == 1 and len(found["runs"]) == 1, err
    (failed,) = found["failed"]
    assert set(failed) == {"run", "name", "state", "error", "params"}
    assert failed["state"] == "failed" and failed["params"] == {"name": 0}
    assert "ZeroDivisionError" in failed["error"]
    code, out, err = mlworkbench("run", "mine.ipynb", "-p", "name=1", "--json", cwd=wb.root)
    assert code == 0 and json.loads(out)["params"] == {"name": 1}, err
    code, out, err = mlworkbench("tune", "mine.ipynb", "-p", "trials=3", cwd=wb.root)
    assert code == 2 and "Say --trials" in err


def test_a_grid_that_stops_leaves_the_callers_executor_open():
    with ThreadPoolExecutor(1) as pool:
        grids.stop_pool(pool, [], ours=False)
        assert pool.submit(int, "7").result() == 7


def test_runs_of_a_team_with_a_folder_of_files_elsewhere(wb, tmp_path):
    text = (wb.root / "settings.ini").read_text()
    files = tmp_path / "team"
    files.mkdir()
    (wb.root / "settings.ini").write_text(re.sub(r"(?m)^files =.*$", f"files = {files}", text))
    home = mw.open(str(wb.root))
    run = open_run("there", wb=home)
    assert run.folder == files / "runs" / run.run and run.folder.is_dir()
    close_run(run.run, "finished", wb=home)
    assert "finished" in run._repr_html_() and open_workbench(run.root).root == wb.root


def test_retries_that_are_no_number_are_refused(wb):
    settings = wb.root / "settings.ini"
    settings.write_text(re.sub(r"(?m)^retries =.*$", "retries = two", settings.read_text()))
    with pytest.raises(UserError, match="retries = two"):
        mw.open(str(wb.root))


def test_a_run_declared_dead_takes_no_reads(wb):
    run = open_run("one", wb=wb)
    close_run(run.run, "interrupted", wb=wb)
    with pytest.raises(WorkbenchError, match="takes nothing more"):
        log_read("cards", 1, run=run.run, wb=wb)


def test_a_run_stopped_by_its_user_leaves_no_progress_file(wb):
    with pytest.raises(KeyboardInterrupt), tracked_run("one", wb=wb) as run:
        (run.folder / "progress.json").write_text("{}")
        (run.folder / "notebook.ipynb").write_text("{}")
        raise KeyboardInterrupt
    assert not (run.folder / "progress.json").exists()
    assert [f["path"] for f in run_details(run.run, wb)["files"]] == ["notebook.ipynb"]


def test_a_grid_on_a_dask_cluster_of_this_machine(wb, monkeypatch):
    """Real workers of a real scheduler; the record is the same as with the pool."""
    pytest.importorskip("distributed")
    monkeypatch.delenv("MLWORKBENCH_THREADS")
    cells = "import mlworkbench as mw\nmw.log_metric('score', n * n)", THREADS
    job, before = notebook(wb, "n: int = 0", *cells), dict(os.environ)
    found = mw.grid(job, n=[1, 2, 3], jobs=2, executor="dask", wb=wb)
    assert (len(found.runs), found.reused, found.failed) == (3, [], [])
    changed = {n for n in {*os.environ, *before} if os.environ.get(n) != before.get(n)}
    assert {n for n in changed if "DASK" not in n} == set()  # its nanny sets OMP_NUM_THREADS
    assert sorted(r.metrics["score"]["value"] for r in list_runs(wb=wb)) == [1, 4, 9]
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert {run_details(r.run, wb)["facts"]["threads"] for r in found.runs} == {share}
    books = [(r.folder / "notebook.ipynb").read_text() for r in found.runs]
    assert all(f'"{share} {share} {share}\\n"' in text for text in books)
    again = mw.grid(job, n=[1, 2, 3, 4], jobs=2, executor="dask", wb=wb)
    assert (len(again.runs), len(again.reused)) == (1, 3)


def test_a_broken_notebook_that_is_only_mentioned_refuses_no_run(wb):
    cells = [nbformat.v4.new_code_cell("# after old.ipynb\nx = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), wb.root / "new.ipynb")
    (wb.root / "old.ipynb").write_text("no notebook")
    before = code_beside(wb.root / "new.ipynb", {}, wb)
    (wb.root / "old.ipynb").write_text("no notebook, otherwise")
    assert "old.ipynb" in before
    assert before != code_beside(wb.root / "new.ipynb", {}, wb)  # and it counts, by its text
