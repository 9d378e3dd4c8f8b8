"""Grids on a Dask cluster that shares a PostgreSQL: a worker is killed, one is paused, and each run stands once."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import nbformat
import pytest
from faults import CODE, kill, until

from mlworkbench.core.settings import open_workbench
from mlworkbench.execution.executors import open_executor
from mlworkbench.execution.fingerprints import await_place
from mlworkbench.execution.grids import run_grid
from mlworkbench.execution.listing import list_runs
from mlworkbench.execution.opening import Replaced, Taken, close_run, open_run

JOB = """import pathlib, time
import mlworkbench as mw
mw.log_metric("score", n * n)
while not pathlib.Path("go").exists(): time.sleep(0.05)"""
HOLDS = """
from mlworkbench.core import store
store.STALLED = "1s"
with store.writing(wb):
    print("has the turn", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def catalog():
    return "postgresql"


@contextlib.contextmanager
def cluster(wb, silence: str):
    """A scheduler and three workers, each a process of its own; yields the workers and the workbench told of it.

    ``silence``: how long Dask waits for a worker's heartbeat before it gives the worker up.
    """
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": silence}
    about = {"env": env, "cwd": wb.root, "start_new_session": True}
    about |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(what: str, *words: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "distributed.cli." + what, "--no-dashboard", *words]
        return subprocess.Popen(words, **about)

    alone = [f"tcp://127.0.0.1:{port}", "--nthreads=1", "--no-nanny", "--memory-limit=0"]
    alone += [
        "--preload",
        "mlworkbench.execution.workers",
    ]  # imports do not keep it from its heartbeat
    all_ = [start("dask_scheduler", "--host=127.0.0.1", f"--port={port}")]
    try:
        all_ += [start("dask_worker", *alone, f"--name={n}") for n in range(3)]
        assert until(lambda: answers(port), 120)
        file = wb.root / "settings.ini"
        file.write_text(file.read_text().replace("\nscheduler =", f"\nscheduler = {alone[0]}"))
        yield all_[1:], open_workbench(wb.root)
    finally:
        for process in all_:
            kill(process)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True


def book(wb):
    cells = [nbformat.v4.new_code_cell(c) for c in ("n: int = 0", JOB)]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), wb.root / "mine.ipynb")
    return wb.root / "mine.ipynb"


def give_up(executor, name: int) -> None:
    """What Dask does with a worker whose heartbeat it misses, at once: a test waits for no clock."""
    client = executor._client
    known = client.scheduler_info(n_workers=-1)["workers"].items()
    (address,) = (a for a, about in known if int(about["name"]) == name)
    client.sync(client.scheduler.unregister, address=address, stimulus_id="a test")


def test_a_worker_is_killed_and_one_paused_and_each_run_stands_once(wb, torture):
    job, many = book(wb), 60 if torture else 9
    at_work: list = []
    with cluster(wb, "30s" if torture else "300s") as (workers, wb):

        def show(lines, left):
            """Wait until the live table shows three workers at work, and strike."""
            busy = [x for x in lines if x.state == "running" and x.metric is not None]
            if len(busy) == 3 and not at_work:
                assert all(x.metric == x.given["n"] ** 2 for x in busy)
                at_work.extend(x.run for x in busy)
                workers[0].kill()
                workers[1].send_signal(signal.SIGSTOP)
                (wb.root / "go").touch()
                if not torture:
                    give_up(executor, 1)

        with open_executor("dask", wb) as executor:
            found = run_grid(job, {"n": f"0:{many - 1}"}, executor=executor, wb=wb, show=show)
        assert (len(found.runs), found.failed) == (many, []) and len(at_work) == 3
        scores = {r.params["n"]: r.metrics["score"]["value"] for r in found.runs}
        assert scores == {n: n * n for n in range(many)}
        lost = [r for r in list_runs(wb=wb) if r.run in at_work and r.state == "interrupted"]
        assert len(lost) == 2, lost  # the killed one's and the paused one's
        workers[1].send_signal(signal.SIGCONT)  # it comes back, and its word counts no more
        assert until(lambda: workers[1].poll() is not None, 60)
    ended = Counter((r.params["n"], r.state) for r in list_runs(wb=wb))
    assert {n: ended[n, "finished"] for n in range(many)} == dict.fromkeys(range(many), 1)
    assert len(list_runs(wb=wb)) == many + 2


def test_of_many_who_start_in_one_place_at_one_instant_one_finishes(wb, torture):
    """Nobody opens a place twice for nothing: who would, and at once, keeps the others from finishing."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for place in range(40 if torture else 4):
        waits = [place % 4 * dice.uniform(0, 0.15) for _ in range(6)]  # at once, or nearly so
        ready, said, opened = threading.Barrier(6), [], Counter()

        def start(wait, place=f"g:{place}", ready=ready, said=said, opened=opened):
            ready.wait(60)
            time.sleep(wait)
            while True:
                try:
                    opened[threading.get_ident()] += 1
                    run = open_run("one", marks={"place": place}, wb=wb)
                    said.append(close_run(run.run, "finished", wb=wb).state)
                    return
                except Taken:
                    said.append("taken")
                    return
                except Replaced:
                    await_place(place, wb)

        threads = [threading.Thread(target=start, args=[wait]) for wait in waits]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert sorted(said) == ["finished", *["taken"] * 5], said
        assert max(opened.values()) <= 2, opened
    assert sum(r.state == "finished" for r in list_runs(wb=wb)) == place + 1


def test_who_is_paused_while_it_writes_loses_its_turn(wb):
    """Otherwise one paused worker would make a whole team wait."""
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    stuck = subprocess.Popen([sys.executable, "-c", CODE + HOLDS, wb.root], text=True, **pipes)
    assert stuck.stdout.readline() == "has the turn\n"
    stuck.send_signal(signal.SIGSTOP)
    run = open_run("of somebody else", wb=wb)
    stuck.send_signal(signal.SIGCONT)
    out, err = stuck.communicate("go on\n", timeout=60)
    assert stuck.returncode == 1 and "the store of" in err.strip().splitlines()[-1], err
    assert close_run(run.run, "finished", wb=wb).state == "finished"
