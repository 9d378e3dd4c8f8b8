"""What is promised of the package as a whole: light, documented, without clashes, whole as a wheel."""

import ast
import importlib
import inspect
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import click
import pytest
from conftest import ROOT

import mlworkbench as mw

HEAVY = (
    "catboost",
    "optuna",
    "pandas",
    "duckdb",
    "streamlit",
    "sqlalchemy",
    "papermill",
    "numpy",
    "plotly",
)


def modules() -> list[str]:
    """Every module of the library, without what ships beside it."""
    found = [
        m.name
        for m in pkgutil.walk_packages(mw.__path__, "mlworkbench.")
        if "_modidx" not in m.name
    ]
    return [
        m
        for m in found
        if not m.startswith(("mlworkbench.apps", "mlworkbench.jobs", "mlworkbench.starter"))
    ]


@pytest.mark.parametrize("words", ["import mlworkbench", "import mlworkbench.desk.cli"])
def test_import_stays_light(words):
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; {words}; print([m for m in {HEAVY!r} if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "[]", said


def test_every_door_opens_and_is_listed():
    for name in mw._NAMES:
        assert getattr(mw, name) is not None and name in dir(mw)
    with pytest.raises(AttributeError):
        mw.nothing  # noqa: B018


def test_type_checkers_see_what_python_sees():
    tree = ast.parse(Path(mw.__file__).read_text())
    seen = {
        a.asname or a.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        for n in node.body
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }
    assert set(mw._NAMES) <= seen, sorted(set(mw._NAMES) - seen)


def test_no_function_has_the_name_of_a_module_beside_it():
    """`mw.runs` and a package `runs` would shadow each other after the first import."""
    names = modules()
    for name in names:
        importlib.import_module(name)
    children = {n.rsplit(".", 1)[0]: set() for n in names} | {"mlworkbench": set()}
    for name in names:
        children.setdefault(name.rsplit(".", 1)[0], set()).add(name.rsplit(".", 1)[1])
    assert not children["mlworkbench"] & set(mw._NAMES)
    for name in names:
        floor = name.rsplit(".", 1)[0]
        public = {
            n
            for n, v in vars(sys.modules[name]).items()
            if inspect.isfunction(v) and v.__module__ == name and not n.startswith("_")
        }
        assert not public & children.get(floor, set()), (
            name,
            public & children[floor],
        )


def test_public_names_have_docstrings():
    missing = []
    for name in modules():
        module = importlib.import_module(name)
        missing += [
            f"{name}.{n}"
            for n, v in vars(module).items()
            if not n.startswith("_")
            and getattr(v, "__module__", "") == name
            and callable(v)
            and not isinstance(v, click.Command)
            and not (v.__doc__ or "").strip()
        ]
    assert missing == []


def commands(group: click.Group, path: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        found += (
            commands(command, f"{path} {name}".strip())
            if isinstance(command, click.Group)
            else [(f"{path} {name}".strip(), command)]
        )
    return found


def test_every_command_is_documented_with_an_example_and_takes_json():
    from mlworkbench.desk.cli import cli

    for name, command in commands(cli):
        assert "Example" in (command.help or ""), name
        options = {o for p in command.params for o in p.opts}
        assert {"--json", "--workbench", "--debug"} <= options, name


def test_cleaning_keeps_the_parameters_and_the_check(tmp_path):
    """nbdev-clean drops metadata it does not know; then a job's defaults would silently win over every -p."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "nbs" / "jobs", copy / "nbs" / "jobs")
    shutil.copy(ROOT / "pyproject.toml", copy)
    subprocess.run(["git", "init", "-q", "."], cwd=copy, check=True)
    subprocess.run([Path(sys.executable).parent / "nbdev-clean"], cwd=copy, check=True)
    from mlworkbench.execution.parameters import (
        check_parameters,
        notebook_parameters,
        read_notebook,
    )

    for book in (copy / "nbs" / "jobs").glob("*.ipynb"):
        notebook = read_notebook(book)
        assert check_parameters(
            notebook_parameters(notebook), {"depth": "3"} if book.stem in ("train", "tune") else {}
        ), book
        if book.stem in ("train", "tune"):
            assert "check" in notebook["metadata"]["mlworkbench"], book


def test_the_wheel_works_outside_the_repository(tmp_path):
    """Built, installed into an environment that sees only our dependencies, with jobs, starter and app inside."""
    copy = tmp_path / "source"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(".venv", ".git", "demo", "*.egg-info", "build", ".nbt"),
    )
    build = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wheel = copy / done.stdout.strip().splitlines()[-1]
    target = tmp_path / "env"
    venv.create(target, with_pip=False)
    site = next((target / "lib").glob("python*/site-packages"))
    shutil.unpack_archive(wheel, site, "zip")
    ours = [p for p in sys.path if p.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(ours))
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLWORKBENCH")}
    exe = [
        str(target / "bin" / "python"),
        "-c",
        "import sys; from mlworkbench.desk.cli import main; main()",
    ]
    where = subprocess.run(
        [exe[0], "-c", "import mlworkbench; print(mlworkbench.__file__)"],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
    )
    assert str(site) in where.stdout
    for words in (
        ["--help"],
        ["init", "mine", "--json"],
        ["params", "train", "--workbench", "mine", "--json"],
    ):
        done = subprocess.run([*exe, *words], capture_output=True, text=True, cwd=tmp_path, env=env)
        assert done.returncode == 0, (words, done.stderr)
    assert {p["name"] for p in json.loads(done.stdout)} >= {"table", "target", "depth"}
    assert (tmp_path / "mine" / "nbs" / "features.ipynb").exists()
    assert (site / "mlworkbench" / "apps" / "app.py").exists()
