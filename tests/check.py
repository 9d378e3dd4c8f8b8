"""Guards: the library is what the notebooks export, notebooks are clean, imports go down the floors and the numbers, style holds.

Works on a copy, so that a failing check never changes the checkout.
"""

import ast
import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LEFT_OUT = shutil.ignore_patterns(
    ".venv", ".git", "__pycache__", "demo", "lake", "runs", "*.egg-info", ".nbt", "build", "dist"
)


def run(*words: str, cwd: Path = ROOT) -> tuple[int, str]:
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=cwd, capture_output=True, text=True
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def exported_differences(copy: Path) -> list[str]:
    """Files of the library that differ after an export and a format."""
    code, said = run("nbdev-export", cwd=copy)
    if code:
        return [f"nbdev-export failed: {said[-500:]}"]
    run("ruff", "format", "-q", "mlworkbench", cwd=copy)
    ours = {p.relative_to(ROOT) for p in (ROOT / "mlworkbench").rglob("*.py")}
    theirs = {p.relative_to(copy) for p in (copy / "mlworkbench").rglob("*.py")}
    names = sorted(n for n in ours | theirs if n.name != "_modidx.py")
    return [
        str(n)
        for n in names
        if n not in ours or n not in theirs or not filecmp.cmp(ROOT / n, copy / n, shallow=False)
    ]


def unclean_notebooks(copy: Path) -> list[str]:
    """Notebooks that cleaning and formatting change."""
    run("ruff", "format", "-q", "nbs", cwd=copy)
    run("nbdev-clean", cwd=copy)
    books = sorted((ROOT / "nbs").rglob("*.ipynb"))
    return [
        str(b.relative_to(ROOT))
        for b in books
        if json.loads(b.read_text()) != json.loads((copy / b.relative_to(ROOT)).read_text())
    ]


def imports_upwards() -> list[str]:
    """Modules that import one of their own floor whose notebook does not come before their own."""
    books = {p.stem[3:]: p for p in (ROOT / "nbs").glob("[0-9]_*/[0-9][0-9]_*.ipynb")}
    found = []
    for name, book in sorted(books.items()):
        floor = book.parent.name[2:]
        module = ROOT / "mlworkbench" / floor / f"{name}.py"
        if book.stem.startswith("00_") or not module.exists():
            continue  # a floor's front door
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            whole = node.module if node.level != 1 else f"mlworkbench.{floor}.{node.module}"
            taken = books.get(whole.rpartition(".")[2])
            if (
                whole.startswith(f"mlworkbench.{floor}.")
                and taken
                and taken.stem[:2] >= book.stem[:2]
            ):
                found.append(f"{book.relative_to(ROOT)} imports {taken.name}")
    return found


def main() -> int:
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        subprocess.run(["git", "init", "-q", "."], cwd=copy)
        if differ := exported_differences(copy):
            faults.append("library and notebooks differ (make export): " + ", ".join(differ))
        if unclean := unclean_notebooks(copy):
            faults.append("notebooks are not clean (make export): " + ", ".join(unclean))
    if upwards := imports_upwards():
        faults.append("a notebook's number is its place: " + ", ".join(upwards))
    for words in (
        ("ruff", "check", "-q", "--output-format", "concise", "."),
        ("ruff", "format", "-q", "--check", "."),
        ("lint-imports",),
    ):
        code, said = run(*words)
        if code:
            faults.append(f"{' '.join(words)}:\n{said[-3000:]}")
    for fault in faults:
        print("check:", fault)
    print(f"{len(faults)} of 6 checks failed" if faults else "6 checks hold")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
