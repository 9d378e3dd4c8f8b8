"""Papermill's own door: our engine under its name, with what `run` refuses refused there too."""

import os
import subprocess
import sys

import nbformat
import papermill
import pytest

from mlworkbench.core.errors import UserError
from mlworkbench.core.settings import open_workbench
from mlworkbench.execution.listing import list_runs

META = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
CELLS = (
    "import os\ndepth: int = 6\nfolder = os.getcwd()",
    "print('deep', depth, folder)",
)


def book(wb, *cells: str, tags: tuple[str, ...] = ("parameters",)) -> str:
    made = [nbformat.v4.new_code_cell(c) for c in cells]
    made[0].metadata["tags"] = list(tags)
    nb = nbformat.v4.new_notebook(cells=made, metadata=META)
    nbformat.write(nb, wb.root / "g.ipynb")
    return str(wb.root / "g.ipynb")


def execute(wb, path: str, **given):
    about = {"engine_name": "mlworkbench", "kernel_name": "python3", "progress_bar": False}
    return papermill.execute_notebook(path, wb.root / "o.ipynb", given, wb=wb, **about)


@pytest.mark.parametrize(
    "imports",
    [
        "import papermill",
        "import mlworkbench.execution.engine",
        "import mlworkbench.execution.jobs",
    ],
)
def test_engine_and_papermill_are_imported_in_any_order(imports):
    asked = f"""if True:
        {imports}
        import sys, papermill.engines
        ours = papermill.engines.papermill_engines.get_engine("mlworkbench")
        print("mlworkbench.execution.engine" in sys.modules, ours.execute_notebook.__self__.__name__)
    """
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    early = imports != "import papermill"  # whoever wants Papermill alone need not wait for us
    assert said.stdout.split() == [str(early), "WorkbenchEngine"], said.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dept": 3}, "no parameter 'dept'. Did you mean 'depth'"),
        ({"depth": "abc"}, "depth=abc is not of type int"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_before_a_kernel_starts(wb, given, said):
    with pytest.raises(UserError, match=said):
        execute(wb, book(wb, *CELLS), **given)
    assert list_runs(wb=wb) == []


def test_a_setting_takes_what_papermill_takes(wb):
    file = wb.root / "settings.ini"
    file.write_text(file.read_text().replace("undeclared = refuse", "undeclared = take"))
    path = book(wb, *CELLS)
    done = execute(open_workbench(wb.root), path, dept=3)
    assert done.cells[-1].outputs[0].text.startswith("deep 6 ")
    assert list_runs(wb=wb)[0].params == {"dept": 3}


def test_runs_are_numbered_and_a_computed_default_may_be_given(wb):
    path = book(wb, *CELLS)
    done = execute(wb, path, depth=7, folder="elsewhere")
    assert done.cells[-1].outputs[0].text == "deep 7 elsewhere\n"
    env = os.environ | {"MLWORKBENCH": str(wb.root)}
    words = [sys.executable, "-m", "papermill", "--engine", "mlworkbench", "g.ipynb", "o.ipynb"]
    told = {"cwd": wb.root, "env": env, "capture_output": True, "text": True}
    assert subprocess.run([*words, "-p", "depth", "8"], **told).returncode == 0
    again = subprocess.run([*words, "-p", "dept", "8"], **told)
    assert again.returncode and "Did you mean 'depth'" in again.stderr
    found = [(r.name, r.experiment, r.params["depth"]) for r in list_runs(wb=wb)]
    assert found == [("g-1", "g", 7), ("g-2", "g", 8)]


def test_a_notebook_that_declares_nothing_takes_what_it_is_given(wb):
    path = book(wb, "x = 1", "print(x)", tags=())
    assert execute(wb, path, y=2).cells[0].source.endswith("y = 2\n")
    (run,) = list_runs(wb=wb)
    assert (run.state, run.params) == ("finished", {"y": 2})
