"""The notebook that a new workbench opens with runs from top to bottom, in a workbench that init has just made."""

import nbformat
from kernels import Kernel

from mlworkbench.desk.starting import init
from mlworkbench.execution.listing import list_runs


def test_the_starter_notebook_runs_in_a_fresh_workbench(tmp_path):
    wb = init(tmp_path / "mine", example="cards")
    notebook = nbformat.read(wb.root / "nbs" / "start.ipynb", 4)
    cells = [c.source for c in notebook.cells if c.cell_type == "code"]
    assert len(cells) <= 8 and not any(c.get("outputs") for c in notebook.cells)
    kernel = Kernel(wb.root / "nbs", wb)
    shown = [kernel.cell(c) for c in cells]
    kernel.end()
    assert [s.status for s in shown] == ["ok"] * len(cells), "\n".join(s.text for s in shown)
    assert all(s.html for s in shown), "each cell shows something"
    assert "train-1" in shown[-2].text and "rows" in shown[-1].text
    assert [(r.state, r.params["depth"]) for r in list_runs(wb=wb)] == [
        ("finished", 6),
        ("finished", 3),
    ]
