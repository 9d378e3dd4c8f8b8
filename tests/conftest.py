"""What tests share: the two sizes, the real data where it is, a workbench made once and copied."""

import itertools
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOGETHER = "test_command_line.py"  # what all of its tests stand on is made once
os.environ.pop("MLWORKBENCH", None)
os.environ.pop("MLWORKBENCH_RUN", None)
os.environ.setdefault("MLWORKBENCH_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give test by test to whichever worker is free, but one file whole (pytest 9.2 knows no xdist_group)."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.endswith(TOGETHER) else nodeid

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Importing streamlit sets MPLBACKEND=Agg for the process; a test's kernels shall not inherit that."""
    monkeypatch.delenv("MPLBACKEND", raising=False)


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


@pytest.fixture(scope="session")
def postgres():
    """A running PostgreSQL; skips where none is installed."""
    from postgres import programs, running

    if programs() is None:
        pytest.skip("PostgreSQL is not installed here")
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def empty_shared(postgres, tmp_path_factory) -> Path:
    """An empty workbench on PostgreSQL, made once, by a process that has ended: its database is a template."""
    from faults import mlworkbench

    folder = tmp_path_factory.mktemp("shared")
    postgres.run("CREATE DATABASE empty_workbench")
    words = ("init", "wb", "--catalog", postgres.url("empty_workbench"))
    code, _, err = mlworkbench(*words, cwd=folder)
    assert code == 0, err
    return folder / "wb"


CATALOGS = ("sqlite", "postgresql")
_databases = itertools.count()


@pytest.fixture
def catalog() -> str:
    """The kind of catalog that ``wb`` has; a file of tests for both gives this fixture ``params=CATALOGS``."""
    return "sqlite"


@pytest.fixture
def wb(catalog, request, tmp_path):
    """A workbench of one's own."""
    from mlworkbench.core.settings import open_workbench

    make = _shared_copy if catalog == "postgresql" else _private_copy
    make(request, tmp_path / "wb")
    return open_workbench(tmp_path / "wb")


def _private_copy(request, folder: Path) -> None:
    shutil.copytree(request.getfixturevalue("empty_workbench"), folder)


def _shared_copy(request, folder: Path) -> str:
    """Copy the empty shared workbench, its database and where it says that its files are; returns the name."""
    source, postgres = request.getfixturevalue("empty_shared"), request.getfixturevalue("postgres")
    name = f"wb_{next(_databases)}"
    postgres.run(f"CREATE DATABASE {name} TEMPLATE empty_workbench")
    moved = "UPDATE work.meta SET value = replace(value, %s, %s) WHERE name IN ('files', 'data')"
    with psycopg_connect(postgres.url(name)) as db:
        db.execute(moved, [str(source), str(folder)])
    shutil.copytree(source, folder)
    text = (folder / "settings.ini").read_text()
    (folder / "settings.ini").write_text(text.replace("/empty_workbench?", f"/{name}?"))
    return name


def psycopg_connect(url: str):
    """A plain connection, committed at the end of its block."""
    import psycopg

    return psycopg.connect(url)
