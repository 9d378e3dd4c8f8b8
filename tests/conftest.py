"""What tests share: the two sizes, the real data where it is, a workbench made once and copied."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.pop("MLWORKBENCH", None)
os.environ.pop("MLWORKBENCH_RUN", None)
os.environ.setdefault("MLWORKBENCH_THREADS", "1")


@pytest.fixture
def torture() -> bool:
    """Whether the full counts are asked for (make torture)."""
    return os.environ.get("TORTURE", "0") not in ("", "0")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; skips where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data is not here")
    return folder


@pytest.fixture(scope="session")
def empty_workbench(tmp_path_factory) -> Path:
    """An empty workbench, made once: copy it."""
    from mlworkbench.data.lake import create_workbench

    return create_workbench(tmp_path_factory.mktemp("empty") / "wb").root


@pytest.fixture
def wb(empty_workbench, tmp_path):
    """A workbench of one's own."""
    from mlworkbench.core.settings import open_workbench

    shutil.copytree(empty_workbench, tmp_path / "wb")
    return open_workbench(tmp_path / "wb")
