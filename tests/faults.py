"""What the tests of faults share: commands in processes of their own, and ways to stop them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

CODE = """
import sys
from pathlib import Path
from mlworkbench.core.settings import open_workbench
wb = open_workbench(Path(sys.argv[1]))
"""


def python(wb: Path, code: str, *words: str, **how):
    """Run code with ``wb`` opened and ``sys.argv[2:]``, as `_run` does."""
    return _run([sys.executable, "-c", CODE + code, str(wb), *words], **how)


def mlworkbench(*words: str, **how):
    """Run the command line as a user does, as `_run` does."""
    beside = Path(sys.executable).with_name("mlworkbench")
    program = [str(beside)] if beside.exists() else [sys.executable, "-m", "mlworkbench.desk.cli"]
    return _run([*program, *words], **how)


def _run(program: list[str], *, wait: bool = True, cwd: Path | None = None, **environment: str):
    """Run a program in a process (and process group) of its own: its code, output and errors."""
    started = subprocess.Popen(
        program,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MLWORKBENCH_THREADS": "1"} | environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
    )
    if not wait:
        return started
    out, err = started.communicate(timeout=300)
    return started.returncode, out, err


def kill(process: subprocess.Popen) -> None:
    """Kill a process that a test started, with its group, and wait."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)


def until(condition, seconds: float = 60, step: float = 0.02):
    """Wait until a condition holds; its value, or the last one."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(step)
    return found


def acknowledged(text: str) -> list[str]:
    """The lines of work that a process said was done."""
    return [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("done ")]


def rows_hash(wb, table: str, at: int | None = None) -> str:
    """A hash of all rows of a table, read from its files (``count(*)`` comes from the catalog)."""
    from mlworkbench.data.connections import lake_cursor

    text = f"SELECT CAST(bit_xor(hash(t)) AS VARCHAR) || ':' || CAST(sum(hash(t) % 1000003) AS VARCHAR) FROM lake.main.\"{table}\" t"
    return str(lake_cursor(wb, at).execute(text).fetchone()[0])


def everything(wb) -> str:
    """What a workbench holds: each table's rows, the snapshots, every row of the store."""
    import sqlalchemy as sa

    from mlworkbench.core.store import metadata, reading
    from mlworkbench.data.catalog import snapshots
    from mlworkbench.data.connections import lake_cursor

    names = [
        r[0]
        for r in lake_cursor(wb)
        .execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY 1")
        .fetchall()
    ]
    found = {name: rows_hash(wb, name) for name in names}
    with reading(wb) as db:
        store = {
            t.name: [tuple(map(str, r)) for r in db.execute(sa.select(t))]
            for t in metadata.sorted_tables
            if t.name != "data_files"
        }
    return json.dumps([found, [s["snapshot"] for s in snapshots(wb=wb)], store], sort_keys=True)


COMMANDS = """
import json, os, sys
import duckdb, pandas, sqlalchemy
from mlworkbench.desk import cli
answers = []
for number, words in enumerate(json.load(sys.stdin)):
    names = [f"{sys.argv[1]}/{number}.{n}" for n in ("out", "err")]
    if not (child := os.fork()):
        for target, name in zip((1, 2), names):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), target)
        sys.argv, code = ["mlworkbench", *words], 1
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answers.append([code, *(open(name).read() for name in names)])
print(json.dumps(answers))
"""


def many(calls: list, cwd: Path, folder: Path) -> list:
    """Run many command lines, each in a process of its own forked from one that has imported the libraries."""
    folder.mkdir()
    env = os.environ | {"MLWORKBENCH_THREADS": "1"}
    words = [sys.executable, "-c", COMMANDS, str(folder)]
    done = subprocess.run(
        words,
        input=json.dumps(calls),
        cwd=cwd,
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def killed_again_and_again(begin, finished, kills: int) -> dict:
    """Begin an endless study's command and kill it (-9) once it has finished more; what it kept.

    ``finished()`` is what the study has finished, by trial: nothing of that may change or vanish.
    """
    kept, random = {}, Random(0)
    for number in range(1, kills + 1):
        process = begin()
        until(lambda: len(finished()) > len(kept) or process.poll() is not None, 300, 0.05)  # noqa: B023
        time.sleep(random.uniform(0, 0.3))
        assert process.poll() is None, process.communicate()
        before = finished()
        kill(process)
        now = finished()
        print(f"kill {number}: {len(before)} finished before it, {len(now)} after it")
        assert kept.items() <= before.items() <= now.items()
        kept = now
    return kept


HOLD = """
import sqlite3
db = sqlite3.connect(wb.root / sys.argv[2])
db.execute("PRAGMA locking_mode=EXCLUSIVE")
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holding(wb, file: str):
    """Another process that holds a SQLite file of a workbench, for the block; yields its number."""
    holder = subprocess.Popen(
        [sys.executable, "-c", CODE + HOLD, str(wb.root), file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
    finally:
        holder.communicate("")
