"""The public doors, walked as a new user would: the acceptance script where it is present, and the demo."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = ROOT.parent / "shared" / "accept" / "road.py"
EXE = Path(sys.executable).parent / "mlworkbench"


@pytest.mark.parametrize("part", ["german", "refusals", "cards", "taiwan", "adult"])
def test_road(part, torture):
    if not SCRIPT.exists() or not EXE.exists():
        pytest.skip("the acceptance script or the command is not here")
    if part in ("taiwan", "adult") and not torture:
        pytest.skip("make torture")
    done = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            "--exe",
            EXE,
            "--data",
            ROOT.parent / "shared" / "data",
            "--only",
            part,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_demo_ends_well_and_can_be_run_again(tmp_path):
    if not EXE.exists():
        pytest.skip("the command is not here")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "demo.py", tmp_path / "demo"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    for words in (
        "Cannot tell",
        "Did you mean 'depth'?",
        "alone determines is_fraud",
        "is refused",
        "self-approved",
        "app --page 'compare?runs=",
    ):
        assert words in done.stdout, words
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    again = subprocess.run(
        [sys.executable, ROOT / "docs" / "demo.py", tmp_path / "theirs"],
        capture_output=True,
        text=True,
    )
    assert again.returncode and (tmp_path / "theirs" / "thesis.txt").exists()


def test_the_six_lines_of_the_readme_run(tmp_path, monkeypatch):
    """The code in the README, exactly as it stands there, on a file as a newcomer would have it."""
    import duckdb

    text = (ROOT / "README.md").read_text()
    code = text.split("```python")[1].split("```")[0].strip()
    assert len(code.splitlines()) <= 8
    monkeypatch.chdir(tmp_path)
    duckdb.sql(
        "COPY (SELECT i AS id, (i * 7919) % 997 / 10.0 AS amount, 'shop ' || i % 5 AS shop, "
        "((i * 7919) % 997 > 800 AND hash(i) % 3 > 0)::INT AS is_fraud FROM range(3000) t(i)) TO 'payments.parquet'"
    )
    names: dict = {}
    exec(code, names)
    found = names["mw"].compare([names["shallow"], names["deep"]], wb=names["wb"])
    assert found.verdict in ("better", "worse", "cannot tell") and len(found.rows) > 500
