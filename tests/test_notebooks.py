"""Every notebook executes from top to bottom in a clean kernel: an example that no longer runs is a failing test."""

from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

BOOKS = sorted(
    p.relative_to(ROOT)
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not {"jobs", "_starter", ".ipynb_checkpoints"} & set(p.parts)
)


@pytest.mark.parametrize("book", BOOKS, ids=str)
def test_notebook_executes(book: Path):
    notebook = nbformat.read(ROOT / book, 4)
    notebook.cells = [
        c
        for c in notebook.cells
        if "nbdev_export()" not in c.source and "#| eval: false" not in c.source
    ]  # an export would write into the library under test
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str((ROOT / book).parent)}},
    )
    client.execute()
    assert all(
        c.execution_count for c in notebook.cells if c.cell_type == "code" and c.source.strip()
    )


def test_no_notebook_keeps_an_error_or_a_path():
    for book in BOOKS:
        text = (ROOT / book).read_text()
        assert '"output_type": "error"' not in text, book
        assert str(ROOT) not in text and "/site-packages/" not in text, book
