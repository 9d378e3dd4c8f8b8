"""Every notebook executes from top to bottom in a clean kernel (a forked one: our own), and shows what its file shows.

An example that no longer runs, or whose saved output is missing or old, is a failing test.
"""

import copy
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

from mlworkbench.execution.provisioner import install_kernelspec

BOOKS = sorted(
    p.relative_to(ROOT)
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not {"jobs", "_starter", ".ipynb_checkpoints"} & set(p.parts)
)
WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar of DuckDB's
FIGURE = "application/vnd.plotly.v1+json"
# what varies by machine: runs' ids, fractions, seconds, addresses, widths of tables
VARYING = re.compile(r"\([0-9a-z]{10}\)|\d*\.\d\S*|\d+ s\b|0x[0-9a-f]+|[─-]{2,}")


def figure_words(part) -> list[str]:
    """The words of a figure: titles, notes, and the names of its lines and marks."""
    if isinstance(part, list):
        return [word for p in part for word in figure_words(p)]
    if not isinstance(part, dict):
        return []
    own = [part[k] for k in ("text", "name") if isinstance(part.get(k), str)]
    rest = sorted(k for k in part if k not in ("text", "name", "template"))  # a file has its order
    return own + figure_words([part[k] for k in rest])


def shown(cell) -> tuple[list[str], str]:
    """What a cell shows: the kinds of its outputs, and their words less what varies by machine.

    Bars (ours are empty when they have ended) and what comes on standard error depend on how long
    something took, and do not count.
    """
    kinds, words = set(), []
    for output in cell.outputs:
        stream = output.output_type == "stream"
        data = {output.name: output.text} if stream else output.get("data", {})
        if "stderr" not in data and WIDGET not in data and any(data.values()):
            kinds |= set(data)
            words += [data.get("stdout", ""), data.get("text/plain", "")]
            words += figure_words(data.get(FIGURE))
    return sorted(kinds), VARYING.sub("#", " ".join(" ".join(words).split()))


def not_as_saved(saved: list, executed: list) -> list[str]:
    """The cells whose saved outputs are not those of the execution, and both."""
    found = [
        (c.id, *map(shown, (s, c))) for s, c in zip(saved, executed, strict=True) if "outputs" in c
    ]
    return [f"{i}: saved {then}, executed {now}" for i, then, now in found if then != now]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The folder where Jupyter finds our kernel, whose libraries are there before a notebook begins."""
    folder = tmp_path_factory.mktemp("kernels")
    install_kernelspec(folder)
    return folder / "share" / "jupyter"


def execute(notebook, book: Path) -> None:
    """Execute a notebook in a kernel of its own."""
    client = NotebookClient(
        notebook,
        timeout=300,
        iopub_timeout=300,  # a busy machine's output may come late, and none of it may be missed
        kernel_name="mlworkbench",
        resources={"metadata": {"path": str((ROOT / book).parent)}},
    )
    env = {name: value for name, value in os.environ.items() if name != "JUPYTER_PATH"}
    client.execute(env=env | {"PLOTLY_RENDERER": "plotly_mimetype"})  # no plotly.js


@pytest.mark.parametrize("book", BOOKS, ids=str)
def test_notebook_shows_what_it_shows_when_executed(book: Path, kernels, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(kernels))
    notebook = nbformat.read(ROOT / book, 4)
    notebook.cells = [
        c
        for c in notebook.cells
        if "nbdev_export()" not in c.source and "#| eval: false" not in c.source
    ]  # an export would write into the library under test
    saved = copy.deepcopy(notebook.cells)
    try:
        execute(notebook, book)
    except RuntimeError as err:
        if "before replying to kernel_info" not in str(err):
            raise
        execute(notebook, book)  # its ports were chosen free, and taken when it came to bind them
    assert all(
        c.execution_count for c in notebook.cells if c.cell_type == "code" and c.source.strip()
    )
    differ = not_as_saved(saved, notebook.cells)
    assert not differ, f"{book}: execute it from the top and save it. " + "; ".join(differ)


def test_an_output_that_is_missing_too_much_or_old_is_seen():
    executed = nbformat.read(ROOT / "nbs/2_data/05_profiles.ipynb", 4).cells
    assert not not_as_saved(copy.deepcopy(executed), executed)
    places = [i for i, c in enumerate(executed) if c.get("outputs")]
    for change in ("missing", "too much", "old"):
        saved = copy.deepcopy(executed)
        cell = saved[places[0]]
        if change == "missing":
            cell.outputs = []
        elif change == "too much":
            cell.outputs += [nbformat.v4.new_output("stream", text="more")]
        else:
            cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "another"})]
        (said,) = not_as_saved(saved, executed)
        assert said.startswith(cell.id)


def test_an_old_title_of_a_figure_is_seen():
    executed = nbformat.read(ROOT / "nbs/4_modelling/06_learning.ipynb", 4).cells
    saved = copy.deepcopy(executed)
    (figure,) = (o.data[FIGURE] for c in saved for o in c.get("outputs", []) if FIGURE in o.data)
    figure["layout"]["title"]["text"] = "As it was called before"
    (said,) = not_as_saved(saved, executed)
    assert "As it was called before" in said


def test_a_saved_figure_is_light_and_says_its_height():
    for book in BOOKS:
        for cell in nbformat.read(ROOT / book, 4).cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                assert len(json.dumps(data)) < 200_000, f"{book} {cell.id}: too heavy to keep"
                if FIGURE in data:  # JupyterLab would take 360 pixels for a figure's own choice
                    assert set(data) == {FIGURE} and data[FIGURE]["layout"].get("height"), cell.id
                    assert len(json.dumps(data)) < 60_000, f"{book} {cell.id}: draw fewer points"


def test_no_notebook_keeps_an_error_or_a_path():
    for book in BOOKS:
        text = (ROOT / book).read_text()
        assert '"output_type": "error"' not in text, book
        assert str(ROOT) not in text and "/site-packages/" not in text, book
