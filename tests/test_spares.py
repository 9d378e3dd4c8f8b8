"""Spares: fresh processes that have imported the libraries in advance, used once, gone with their maker."""

import ast
import json
import os
import re

import nbformat
import psutil
import pytest
from faults import python, until

import mlworkbench as mw
from mlworkbench.core.errors import WorkbenchError
from mlworkbench.core.settings import open_workbench
from mlworkbench.execution.forking import available
from mlworkbench.execution.jobs import run_job
from mlworkbench.execution.listing import list_runs, run_details
from mlworkbench.execution.spares import end_spares


@pytest.fixture
def spare(wb, monkeypatch):
    """A workbench whose runs take spares that import little."""
    monkeypatch.setenv("MLWORKBENCH_PRELOAD", "numpy")
    monkeypatch.setenv("MLW_TEST_MARK", str(wb.root))
    settings = wb.root / "settings.ini"
    text = re.sub(r"(?m)^kernel =.*$", "kernel = spare", settings.read_text())
    settings.write_text(re.sub(r"(?m)^cell_timeout =.*$", "cell_timeout = 60", text))
    yield open_workbench(wb.root)
    end_spares()
    assert until(lambda: not marked(wb.root), 30), marked(wb.root)


def marked(root) -> list[str]:
    """The living processes that a test has started."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if ours and process.environ().get("MLW_TEST_MARK") == str(root):
                found.append(" ".join(process.cmdline())[:200])
        except psutil.Error:
            continue
    return found


def notebook(wb, *cells: str) -> str:
    made = [nbformat.v4.new_code_cell(c) for c in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made), wb.root / "mine.ipynb")
    return str(wb.root / "mine.ipynb")


LOOK = """
import os, random, sys, tempfile, numpy
import matplotlib.pyplot as plt
seen = [os.getpid(), random.random(), numpy.random.rand(), os.getcwd(), os.environ.get("LEFT"), hasattr(numpy, "left"),
        "left" in globals(), "left" in Out, len(In), plt.get_fignums(), os.path.exists(os.path.join(tempfile.gettempdir(), "left"))]
print(repr(seen))
tempfile.tempdir = tempfile.mkdtemp(); open(os.path.join(tempfile.gettempdir(), "left"), "w").close()
os.environ["LEFT"], numpy.left, left = "1", 1, 1
os.chdir("/"); random.seed(1); numpy.random.seed(1); plt.plot([1, 2])
"""


@pytest.mark.parametrize("kernel", ["spare", "forked"])
def test_two_runs_in_a_row_share_nothing(spare, kernel, monkeypatch):
    """The shell of a fork is made before it, so this holds for it as for a process of its own."""
    if kernel == "forked":
        if why := available():
            pytest.skip(why)
        preload = "numpy,matplotlib.pyplot,mlworkbench.execution.cells:make_ready"
        monkeypatch.setenv("MLWORKBENCH_PRELOAD", preload)
        settings = spare.root / "settings.ini"
        settings.write_text(settings.read_text().replace("kernel = spare", "kernel = forked"))
        spare = open_workbench(spare.root)
    job = notebook(spare, "n: int = 0", LOOK)
    found = mw.grid(job, n=[1, 2, 3], jobs=1, wb=spare)
    assert len(found.runs) == 3 and not found.failed, found.failed
    seen = []
    for run in found.runs:
        assert run_details(run, spare)["facts"]["kernel"] == f"{kernel}, without a wire"
        shown = nbformat.read(run.folder / "notebook.ipynb", 4).cells[-1].outputs
        seen.append(ast.literal_eval(shown[0].text))
        assert "image/png" in shown[-1].data
    assert all(len({s[place] for s in seen}) == 3 for place in range(3)), seen
    assert [s[3:] for s in seen] == [[str(spare.root), None, False, False, False, 4, [], False]] * 3


@pytest.mark.parametrize("kernel", ["spare", "forked"])
def test_a_process_has_imported_what_its_notebook_imports_and_no_more(spare, kernel, monkeypatch):
    if kernel == "forked":
        if why := available():
            pytest.skip(why)
        settings = spare.root / "settings.ini"
        settings.write_text(settings.read_text().replace("kernel = spare", "kernel = forked"))
        spare = open_workbench(spare.root)
    monkeypatch.delenv("MLWORKBENCH_PRELOAD")
    look = "import sys\nprint([m for m in ('numpy', 'scipy', 'sklearn') if m in sys.modules])"
    job = notebook(spare, "n: int = 0", look, "import numpy")
    (run,) = mw.grid(job, n=[1], jobs=1, wb=spare).runs
    shown = nbformat.read(run.folder / "notebook.ipynb", 4).cells[2].outputs
    assert shown[0].text == "['numpy']\n"


def test_a_run_that_leaves_things_running_and_one_that_kills_itself(spare):
    job = notebook(
        spare,
        "import os, signal, subprocess",
        "subprocess.Popen(['sleep', '300'], start_new_session=True); os.system('echo past python')",
        "1 / 0",
    )
    with pytest.raises(WorkbenchError, match="cell 3, line 1: ZeroDivisionError"):
        run_job(job, {}, wb=spare)
    (failed,) = list_runs(wb=spare)
    assert "past python" in (failed.folder / "notebook.ipynb").read_text()
    assert until(lambda: not any("sleep" in line for line in marked(spare.root)))
    job = notebook(spare, "import os, signal", "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(WorkbenchError, match=r"the kernel died in cell 2 \(SIGKILL\)"):
        run_job(job, {}, wb=spare)


def test_a_spare_at_work_and_one_that_waits_end_with_their_maker(spare):
    job = notebook(spare, "n: int = 0", "import time; time.sleep(600)")
    code = f"import mlworkbench as mw\nmw.grid({job!r}, n=[1], jobs=1, wb=wb)"
    process = python(spare.root, code, wait=False)
    assert until(
        lambda: (found := list_runs(wb=spare)) and (found[0].folder / "progress.json").exists()
    )
    assert json.loads((list_runs(wb=spare)[0].folder / "progress.json").read_text())["cell"]
    process.kill()
    process.communicate(timeout=30)
    assert until(lambda: not marked(spare.root), 30), marked(spare.root)
    assert [r.state for r in list_runs(wb=spare)] == ["interrupted"]
