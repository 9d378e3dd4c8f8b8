"""The command line through its executable: refusals, documents, help, and a regression from end to end."""

import gzip
import io
import json
import random
import shutil
import sys
from pathlib import Path

import click
import nbformat
import pandas as pd
import pytest
from faults import everything, many, mlworkbench

from mlworkbench.core.progress import progress_bar
from mlworkbench.core.settings import open_workbench

RUN = {"run", "name", "state", "experiment", "params", "metrics"}
REQUEST = {"request", "state", "model", "version", "alias"}


def ask(wb, *words: str, code: int = 0):
    """A command's JSON document; stdout holds nothing else."""
    got, out, err = mlworkbench(*words, "--json", cwd=wb.root)
    assert got == code, (words, got, out, err)
    return json.loads(out)


def asked(wb, folder: Path, calls: dict[str, tuple]) -> dict:
    """The documents of several commands."""
    answers = many([[*words, "--json"] for words in calls.values()], wb.root, folder)
    assert all(code == 0 for code, *_ in answers), answers
    return {name: json.loads(out) for name, (_, out, _) in zip(calls, answers, strict=True)}


@pytest.fixture(scope="module")
def road(empty_workbench, tmp_path_factory):
    """A workbench with two runs, a version and a champion, made by the command line; and its documents."""
    root = tmp_path_factory.mktemp("road") / "wb"
    shutil.copytree(empty_workbench, root)
    wb, dice = open_workbench(root), random.Random(0)
    rows = [(i, dice.gauss(0, 1), dice.choice("xyz"), dice.gauss(0, 1)) for i in range(400)]
    frame = pd.DataFrame(rows, columns=["id", "size", "kind", "noise"])
    frame["price"] = 3 * frame["size"] + (frame["kind"] == "x") + 0.3 * frame["noise"]
    frame["dear"] = (frame["price"] > 0).astype(int)
    frame["one"] = 1
    file = root / "houses.csv"
    frame.drop(columns="noise").to_csv(file, index=False)
    common = ("-p", "table=houses", "-p", "depth=3", "-p", "drop=dear,one", "-p", "target=price")
    said = asked(
        wb,
        tmp_path_factory.mktemp("first") / "said",
        {
            "ingest": ("ingest", str(file), "--table", "houses", "--key", "id"),
            "run": ("run", "train", *common, "-p", "iterations=30"),
            "second": ("run", "train", *common, "-p", "iterations=5", "--name", "short"),
            "register": ("register", "train-1", "--name", "prices"),
            "promote": ("promote", "prices@1", "--to", "champion", "--reason", "the first model"),
            "requests": ("requests",),
        },
    )
    said |= asked(
        wb,
        tmp_path_factory.mktemp("then") / "said",
        {
            "approve": ("approve", said["promote"]["request"], "--reason", "evidence read"),
            "score": ("score", "houses", "--model", "prices@champion", "--to", "scores"),
            "again": ("score", "houses", "--model", "prices@1", "--to", "scores"),
            "runs": ("runs", "--sort", "rmse"),
            "show": ("show", "prices@champion"),
            "compare": ("compare", "prices@champion", "short"),
            "models": ("models",),
            "tables": ("tables",),
            "snapshots": ("snapshots",),
            "verify": ("verify",),
            "audit verify": ("audit", "verify"),
        },
    )
    return root, said


@pytest.fixture
def wb(road, tmp_path):
    shutil.copytree(road[0], tmp_path / "wb")
    return open_workbench(tmp_path / "wb")


def test_a_regression_from_end_to_end(road):
    root, said = road
    from mlworkbench.data.queries import sql

    wb = open_workbench(root)
    assert said["run"]["state"] == "finished" and {"rmse", "mae", "r2"} <= set(
        said["run"]["metrics"]
    )
    r2 = said["run"]["metrics"]["r2"]
    assert 0.6 < r2["low"] <= r2["value"] <= r2["high"] <= 1
    assert [r["name"] for r in said["runs"]] == [said["run"]["name"], "short"]
    assert said["compare"]["verdict"] == "worse" and "short" in said["compare"]["sentence"]
    assert said["score"] == {"table": "scores", "rows": 400, "model": "prices", "version": 1}
    n, keys, near = sql(
        "SELECT count(*), count(DISTINCT row_key), corr(score, price) FROM scores JOIN houses ON row_key = CAST(id AS VARCHAR)",
        wb=wb,
    ).fetchone()
    assert (n, keys) == (400, 400) and near > 0.9
    assert said["again"]["rows"] == 400 and [t["rows"] for t in said["tables"]] == [400, 400]


def test_documents_have_the_keys_that_were_promised(road, tmp_path):
    root, said = road
    assert set(said["ingest"]) == {
        "table",
        "snapshot",
        "rows",
        "added",
        "updated",
        "unchanged",
        "quarantined",
        "files",
    }
    assert set(said["run"]) == RUN == set(said["runs"][0])
    assert all(set(m) == {"value", "low", "high"} for m in said["run"]["metrics"].values())
    assert set(said["show"]) >= RUN | {
        "snapshots",
        "code",
        "packages",
        "started",
        "seconds",
        "files",
        "error",
    }
    assert set(said["register"]) == {"model", "version"}
    for request in (said["promote"], *said["requests"]):
        assert set(request) >= REQUEST | {"gates"} and request["state"] == "waiting"
        assert all(set(g) == {"gate", "result", "required", "evidence"} for g in request["gates"])
        assert {g["result"] for g in request["gates"]} <= {"pass", "fail", "cannot tell"}
    assert (
        set(said["approve"]) >= REQUEST | {"self_approved"}
        and said["approve"]["state"] == "approved"
    )
    assert said["models"] == [
        {"model": "prices", "version": 1, "aliases": ["champion"], "run": said["run"]["run"]}
    ]
    assert set(said["tables"][0]) == {"table", "rows", "columns", "snapshot"}
    assert [t["table"] for t in said["tables"]] == ["houses", "scores"]
    assert set(said["snapshots"][0]) == {"snapshot", "at", "author", "message", "run", "tables"}
    assert set(said["compare"]) >= {"runs", "metrics", "verdict", "sentence"}
    assert all(set(m) == {"metric", "values", "difference"} for m in said["compare"]["metrics"])
    assert all(
        set(m["difference"]) == {"value", "low", "high", "p"} for m in said["compare"]["metrics"]
    )
    assert set(said["score"]) == {"table", "rows", "model", "version"}
    assert (
        set(said["audit verify"]) >= {"valid", "events", "head", "fault"}
        and said["audit verify"]["valid"]
    )
    code, out, _ = mlworkbench("init", "fresh", "--json", cwd=tmp_path)
    assert (code, json.loads(out)) == (0, {"workbench": str(tmp_path / "fresh")})
    fresh = open_workbench(tmp_path / "fresh")
    lists = {name: (name,) for name in ("tables", "runs", "models", "requests")}
    assert asked(fresh, tmp_path / "said", lists) == dict.fromkeys(lists, [])
    shutil.copytree(root, tmp_path / "wb")
    back = ask(open_workbench(tmp_path / "wb"), "rollback", "prices@champion", "--reason", "try it")
    assert back == {"model": "prices", "alias": "champion", "version": None, "was": 1}


def bad_files(folder: Path) -> dict[str, Path]:
    """Sources that cannot be taken in."""
    made = {
        name: folder / name
        for name in (
            "empty.csv",
            "header.csv",
            "torn.csv",
            "late.csv",
            "cut.parquet",
            "cut.csv.gz",
            "fake.parquet",
            "nul.csv",
        )
    }
    made["empty.csv"].write_text("")
    made["torn.csv"].write_text("a,b\n1,2\n3\n4,5\n")
    made["late.csv"].write_text("a,b\n" + "1,2\n" * 50 + "1,2,3\n" * 5)
    pd.DataFrame({"a": range(1000)}).to_parquet(folder / "whole.parquet")
    made["cut.parquet"].write_bytes((folder / "whole.parquet").read_bytes()[:-40])
    made["cut.csv.gz"].write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 5000)[:-9])
    made["fake.parquet"].write_text("a,b\n1,2\n")
    made["nul.csv"].write_bytes(bytes(range(256)) * 20)
    made.pop("header.csv")
    (folder / "folder.csv").mkdir()
    return made | {"missing.csv": folder / "missing.csv", "folder.csv": folder / "folder.csv"}


class Refusals:
    """Commands that must each end with a code and one line naming the thing, and change nothing."""

    def __init__(self, wb, folder: Path):
        self.wb, self.folder, self.calls = wb, folder, []

    def __call__(self, *words: str, code: int = 2, naming: str = "", hint: str = "") -> None:
        self.calls.append((words, code, naming, hint))

    def amiss(self) -> list:
        """The calls that ended otherwise, and what was written all the same."""
        before = everything(self.wb)
        answers = many([words for words, *_ in self.calls], self.wb.root, self.folder / "said")
        wrong = []
        for (words, code, naming, hint), (got, out, err) in zip(self.calls, answers, strict=True):
            lines = err.strip().splitlines()
            fine = got == code and out == "" and len(lines) == 1 and lines[0].startswith("error: ")
            fine = fine and naming in lines[0] and hint in lines[0] and len(lines[0]) < 700
            if not fine or "unexpected" in lines[0]:
                wrong.append((words, code, naming, got, out, err))
        return wrong + ["something was written all the same"] * (everything(self.wb) != before)


@pytest.fixture
def refused(wb, tmp_path):
    return Refusals(wb, tmp_path)


def test_sources_that_cannot_be_taken_in(wb, refused, tmp_path):
    for name, path in bad_files(tmp_path).items():
        refused("ingest", str(path), "--table", "fresh", naming=name)
        refused("ingest", str(path), "--table", "houses", naming=name)
    good = tmp_path / "good.csv"
    good.write_text("a,b\n1,2\n")
    refused("ingest", str(good), str(tmp_path / "torn.csv"), "--table", "fresh", naming="torn.csv")
    for name in ('"; drop table x; --', "a b", "predictions", "MLW_roles", "1x", "", "x" * 64, "ä"):
        refused("ingest", str(good), "--table", name, naming=name[:20])
    refused("ingest", str(good), "--table", "houses", naming="houses")
    refused("ingest", str(good), "--table", "fresh", "--key", "c", naming="c")
    refused("ingest", str(good), "--table", "fresh", "--mode", "upset", naming="upset")
    assert refused.amiss() == []


def test_parameters_tables_and_targets_that_are_wrong(wb, refused):
    from mlworkbench.data.queries import sql

    train = ("run", "train", "-p", "table=houses", "-p", "target=price")
    refused(*train, "-p", "dept=6", naming="dept", hint="depth")
    refused(*train, "-p", "depth=six", naming="depth")
    refused(*train, "-p", "depth=6.5", naming="depth")
    refused(*train, "-p", "depth", naming="depth")
    refused(
        "run", "train", "-p", "table=house", "-p", "target=price", naming="house", hint="houses"
    )
    refused(
        "run", "train", "-p", "table=houses", "-p", "target=prices", naming="prices", hint="price"
    )
    refused("run", "train", "-p", "table=houses", "-p", "target=one", naming="one")
    refused(
        "run",
        "train",
        "-p",
        'table="; drop table houses; --',
        "-p",
        "target=price",
        naming="drop table",
    )
    refused(*train, "-p", "drop=nothing", naming="nothing")
    refused(*train, "-p", "task=binry", naming="binry")
    refused(*train, "-p", "view=none", naming="none")
    kept = ("run", "train", "-p", "table=houses", "-p", "target=dear", "-p", "drop=price,one")
    sql("alter table houses add column sold_as varchar", write=True, wb=wb)
    sql("update houses set sold_as = case when dear = 1 then 'villa' end", write=True, wb=wb)
    refused(*kept, naming="sold_as", hint="drop=price,one,sold_as")
    refused("run", "trian", naming="train")
    refused("run", "nowhere.ipynb", naming="nowhere.ipynb")
    refused("run", "settings.ini", naming="settings.ini")
    assert refused.amiss() == []


def test_other_things_that_are_not_there(wb, refused):
    refused("show", "nothing", naming="nothing")
    refused("show", "../../etc/passwd", naming="../../etc/passwd")
    refused("compare", "nothing", "short", naming="nothing")
    refused("register", "nothing", "--name", "x", naming="nothing")
    refused("promote", "prices@9", "--reason", "why not", naming="prices@9")
    refused("promote", "prices@1", "--to", "a b", "--reason", "why not", naming="a b")
    refused("promote", "prices@1", "--to", "shadow", naming="reason")
    refused("approve", "nothing", "--reason", "why not", naming="nothing")
    refused("rollback", "prices@shadow", "--reason", "why not", naming="prices@shadow")
    refused("score", "nothing", "--model", "prices@1", "--to", "s", naming="nothing")
    refused("score", "houses", "--model", "prices@shadow", "--to", "s", naming="prices@shadow")
    refused("score", "houses", "--model", "prices@1", "--to", "houses", naming="houses")
    refused("score", "houses", "--model", "prices@1", "--to", "predictions", naming="predictions")
    refused(
        "score", "houses", "--model", "prices@1", "--to", '"; drop table x; --', naming="drop table"
    )
    refused("sql", "FROM house", naming="house")
    refused("sql", "SELEC 1", naming="parsed")
    refused("sql", "SELECT CAST(kind AS INTEGER) FROM houses", naming="INT")
    refused("sql", "FROM houses", "--at", "99999", naming="99999")
    refused("sql", "DELETE FROM houses", naming="--write")
    refused("sql", "FROM houses", "--format", "parquet", naming="--output")
    refused(
        "sql",
        "FROM houses",
        "--format",
        "csv",
        "--output",
        "/no/such/folder/x.csv",
        naming="/no/such/folder",
    )
    refused("tables", "--at", "no-such-tag", naming="no-such-tag")
    refused("features", "build", "no_such_view", naming="no_such_view")
    refused("runs", "--where", "no_such = 1", naming="no_such")
    refused("runs", "--sort", "no_such", naming="no_such")
    refused("nothing", naming="nothing")
    refused("tables", "--nothing", naming="--nothing")
    refused("tables", "--workbench", "/no/such/folder", naming="/no/such/folder")
    assert refused.amiss() == []


def test_a_notebook_that_raises_is_one_failed_run(wb):
    cells = ["fine = 1", "# a comment\nfine = 2\nprint(fine / 0)", "never = 3"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbformat.write(book, wb.root / "raises.ipynb")
    before = len(ask(wb, "runs"))
    code, out, err = mlworkbench("run", "raises.ipynb", cwd=wb.root)
    assert code == 1 and out == "" and len(err.strip().splitlines()) == 1, err
    assert "cell 2, line 3: ZeroDivisionError" in err
    runs = ask(wb, "runs")
    assert len(runs) == before + 1 and runs[-1]["state"] == "failed"
    kept = nbformat.read(wb.root / "runs" / runs[-1]["run"] / "notebook.ipynb", 4)
    assert [c.execution_count for c in kept.cells] == [1, 2, None]
    document = ask(wb, "run", "raises.ipynb", code=1)
    assert set(document) == {"error", "hint"} and "ZeroDivisionError" in document["error"]


def test_a_flipped_byte_of_a_model_stops_the_work(wb, refused):
    file = wb.root / "models" / "prices" / "1" / "model.cbm"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refused(
        "score", "houses", "--model", "prices@champion", "--to", "fresh", code=1, naming="prices@1"
    )
    assert refused.amiss() == []


def test_a_flipped_byte_of_a_table_stops_verify(wb):
    from mlworkbench.data.commits import lake_files
    from mlworkbench.data.connections import data_path

    name = next(f for f in sorted(lake_files(wb)) if "houses" in f)
    data = bytearray((data_path(wb) / name).read_bytes())
    data[100] ^= 1
    (data_path(wb) / name).write_bytes(data)
    code, out, err = mlworkbench("verify", cwd=wb.root)
    assert code == 1 and out == "" and name in err and len(err.splitlines()) == 1


def test_a_changed_event_stops_the_audit(wb, refused):
    from mlworkbench.core.store import events, writing

    with writing(wb) as db:
        db.execute(events.update().where(events.c.seq == 1).values(reason="x"))
    refused("audit", "verify", code=1, naming="event 1")
    assert refused.amiss() == []


def test_errors_are_one_document_too(wb, tmp_path):
    calls = (
        (("tables", "--at", "x"), 2),
        (("show", "x"), 2),
        (("nothing",), 2),
        (("ingest",), 2),
        (("sql", "SELEC"), 2),
        (("audit", "verify", "--head", "x"), 1),
        (("run", "train", "-p", "dept=1"), 2),
    )
    answers = many([[*words, "--json"] for words, _ in calls], wb.root, tmp_path / "said")
    for (words, code), (got, out, err) in zip(calls, answers, strict=True):
        assert got == code and set(json.loads(out)) == {"error", "hint"}, (words, got, out, err)
        assert len(err.strip().splitlines()) == 1 and err.startswith("error: ")


def test_no_workbench(tmp_path):
    code, out, err = mlworkbench("tables", cwd=tmp_path)
    assert code == 2 and "init" in err and len(err.splitlines()) == 1
    code, out, err = mlworkbench("init", ".", cwd=tmp_path)
    again, _, err = mlworkbench("init", ".", cwd=tmp_path)
    assert (code, again) == (0, 2) and "already" in err
    text = (tmp_path / "settings.ini").read_text()
    (tmp_path / "settings.ini").write_text(text.replace("approval =", "aproval ="))
    code, out, err = mlworkbench("tables", cwd=tmp_path)
    assert code == 2 and "Did you mean 'approval'?" in err


def commands(group: click.Group, path: tuple = ()):
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


def test_every_command_has_help_with_an_example():
    from mlworkbench.desk.cli import COMMANDS  # noqa: F401 they add themselves
    from mlworkbench.desk.cli_data import cli

    for path, found in commands(cli):
        text = found.help or ""
        assert f"mlworkbench {' '.join(path)}" in text, f"{path} has no example"
        assert {"json_", "workbench"} <= {p.name for p in found.params}, path
        for option in found.params:
            if isinstance(option, click.Option) and option.name not in (
                "rows",
                "customers",
                "terminals",
                "days",
                "seed",
                "table",
                "form",
            ):
                assert option.help or option.metavar, (path, option.name)
    code, out, _ = mlworkbench("--help", cwd=Path.cwd())
    assert code == 0 and all(f" {path[0]} " in out for path, _ in commands(cli))


def test_the_help_on_contracts_can_be_copied_and_names_every_role():
    from mlworkbench.data.odcs import ROLES, read_contract

    code, out, _ = mlworkbench("contract", "--help", cwd=Path.cwd())
    above, _, roles = out.partition("A role is")
    assert code == 0 and all(role in roles for role in ROLES)
    head = "apiVersion: v3.2.0\nkind: DataContract\nid: t\nversion: 1.0.0\nstatus: active\n"
    columns = above[above.index("    - name:") :]
    text = f"{head}schema:\n  - name: t\n    properties:\n{columns}"
    found = read_contract(text, "help", "t")
    assert found.key == ("customer_id",) and found.promise("is_fraud").delay == "7 days"
    assert found.promise("channel").roles == ("sensitive",) and found.unchecked == ()


@pytest.mark.parametrize("words", [(), ("features",)])
def test_a_command_without_anything_shows_its_help_line_by_line(words):
    code, out, err = mlworkbench(*words, cwd=Path.cwd())
    assert code == 2 and out == "" and err.startswith("Usage: mlworkbench")
    assert "error" not in err and len(err.splitlines()) > 8


def test_a_progress_bar_is_wiped_away_before_the_answer(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar("train") as progress:
        assert screen.getvalue() == ""
        progress(0.5, "cell 2 of 4")
        assert "train: cell 2 of 4" in screen.getvalue()
    *_, last, end = screen.getvalue().split("\r")
    assert last.strip() == end == ""


def test_progress_does_not_reach_standard_output(wb):
    """With a terminal to draw on, the document is alone on standard output all the same."""
    import os
    import pty
    import subprocess
    import sys

    beside = Path(sys.executable).with_name("mlworkbench")
    program = [str(beside)] if beside.exists() else [sys.executable, "-m", "mlworkbench.desk.cli"]
    master, slave = pty.openpty()
    words = ("score", "houses", "--model", "prices@1", "--to", "scores", "--json")
    done = subprocess.run(
        [*program, *words], cwd=wb.root, stdout=subprocess.PIPE, stderr=slave, timeout=120
    )
    os.close(slave)
    os.close(master)
    assert done.returncode == 0 and json.loads(done.stdout)["rows"] == 400
    assert done.stdout.count(b"\n") == 1
