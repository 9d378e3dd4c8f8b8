"""Write README.md from nbs/index.ipynb (nbdev's own command for it needs Quarto)."""

from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def readme() -> str:
    """The README's text: the notebook's cells and outputs, without directives."""
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    kept = [c for c in notebook.cells if not (c.cell_type == "code" and "#| hide" in c.source)]
    for cell in kept:
        cell.source = "\n".join(s for s in cell.source.splitlines() if not s.startswith("#|"))
    notebook.cells, notebook.metadata["language_info"] = kept, {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return text.strip() + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
