"""Grids: reused while nothing changed, not when the data did; killed and resumed, nothing lost and nothing double."""

import signal
import subprocess
import sys
import time

import nbformat

import mlworkbench as mw
from mlworkbench.data.lake import write_lake
from mlworkbench.execution.record import list_runs


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
        counts.append((len(found.runs), len(found.reused), len(found.failed)))
    assert counts == [(2, 0, 0), (0, 2, 0), (2, 0, 0)]
    forced = mw.grid(job, least=[0, 1], jobs=2, force=True, wb=wb)
    assert (len(forced.runs), len(forced.reused)) == (2, 0)


def test_a_killed_grid_goes_on_with_what_is_missing(wb, torture):
    job = notebook(
        wb,
        "n: int = 0",
        "import time\ntime.sleep(0.5)",
        "import mlworkbench as mw\nmw.log_metric('score', n)",
    )
    wanted = range(12 if torture else 5)
    script = f"import mlworkbench as mw; mw.grid({job!r}, n=range({len(wanted)}), jobs=2, wb=mw.open({str(wb.root)!r}))"
    for _ in range(20 if torture else 2):
        grid = subprocess.Popen([sys.executable, "-c", script])
        end = time.monotonic() + 60
        done = len([r for r in list_runs(wb=wb) if r.state == "finished"])
        while grid.poll() is None and time.monotonic() < end:
            if len([r for r in list_runs(wb=wb) if r.state == "finished"]) > done:
                break
            time.sleep(0.05)
        grid.send_signal(signal.SIGKILL)
        grid.wait()
    time.sleep(2)  # its workers end with it
    found = mw.grid(job, n=wanted, jobs=2, wb=wb)
    assert not found.failed and len(found.runs) + len(found.reused) == len(wanted)
    finished = [r for r in list_runs(wb=wb) if r.state == "finished"]
    assert sorted(r.params["n"] for r in finished) == list(wanted)
    assert all(r.metrics["score"]["value"] == r.params["n"] for r in finished)
    assert not [r for r in list_runs(wb=wb) if r.state == "running"]


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
