"""A team of two on PostgreSQL, with logins and passwords; a private workbench comes in; nothing is doubled."""

import json
import os
import signal

import duckdb
import pandas as pd
import pytest
from conftest import psycopg_connect
from faults import everything, mlworkbench, python, rows_hash
from test_registry import trained

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.settings import open_workbench
from mlworkbench.core.store import reads, writing
from mlworkbench.data.catalog import snapshots, tables
from mlworkbench.data.commits import verify_files
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql
from mlworkbench.data.turns import lake_turn
from mlworkbench.desk.backup import export_backup, import_backup
from mlworkbench.desk.examining import doctor
from mlworkbench.desk.importing import import_workbench
from mlworkbench.execution.listing import list_runs
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.modelling.studies import open_study
from mlworkbench.registry.promotion import approve, promote, verify_audit
from mlworkbench.registry.versions import list_versions, load_model, register

SECRETS = {"ann": "s3cret-of-ann", "bob": "s3cret-of-bob"}


@pytest.fixture
def team(postgres, tmp_path, monkeypatch, request):
    """Two people's folders on one database, and its name: logins with passwords, members of a role."""
    name = f"team_{abs(hash(request.node.name)) % 10**6}"
    postgres.run(
        f"CREATE ROLE {name}",
        *(f"DROP ROLE IF EXISTS {who}" for who in SECRETS),
        *(f"CREATE ROLE {who} LOGIN PASSWORD '{p}' IN ROLE {name}" for who, p in SECRETS.items()),
        f"CREATE DATABASE {name} OWNER {name}",
    )
    file = tmp_path / "pgpass"
    file.write_text("".join(f"*:*:*:{who}:{p}\n" for who, p in SECRETS.items()))
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    mine = {"workbench_files": str(shared), "lake_data": str(shared / "lake" / "data")}
    ann = create_workbench(
        tmp_path / "ann", lake_catalog=postgres.url(name, "ann", tcp=True), **mine
    )
    bob = create_workbench(tmp_path / "bob", lake_catalog=postgres.url(name, "bob", tcp=True))
    yield ann, bob, name
    postgres.run(f"DROP DATABASE {name} WITH (FORCE)")
    postgres.run(f"DROP ROLE {', '.join(SECRETS)}", f"DROP ROLE {name}")


def payments(n: int = 300) -> pd.DataFrame:
    """A table that a small model can be fitted to."""
    frame = pd.DataFrame(
        {"id": range(n), "a": [i % 17 for i in range(n)], "b": [i % 5 for i in range(n)]}
    )
    return frame.assign(y=((frame["a"] * 7 + frame["b"] * 3) % 11 < 4).astype(int))


def test_two_people_one_workbench(team, postgres, tmp_path):
    ann, bob, name = team
    assert (bob.files, bob.setting("promotion", "approval")) == (ann.files, "second-person")
    ingest(payments(), table="payments", key="id", wb=ann)
    sql("DELETE FROM payments WHERE id = 7", write=True, wb=bob)
    told = {s["message"]: s["author"] for s in snapshots("payments", wb=ann)}
    assert sorted(told.values()) == ["ann", "bob"]
    assert rows_hash(ann, "payments") == rows_hash(bob, "payments")
    run = trained(ann, "of ann", 0.1)
    living = open_run("at work", wb=ann)
    assert {r.name: (r.actor, r.state) for r in list_runs(wb=bob)} == {
        "of ann": ("ann", "finished"),
        "at work": ("ann", "running"),
    }
    close_run(living.run, "finished", wb=ann)
    register(run, "fraud", bob)
    asked = promote("fraud@1", "champion", "it is better", bob)
    with pytest.raises(WorkbenchError, match="bob, who cannot approve"):
        approve(asked.request, "evidence read", bob)
    assert approve(asked.request, "evidence read", ann).self_approved is False
    assert load_model("fraud@champion", bob).tree_count_ == 5
    assert verify_audit(wb=bob)["valid"] and verify_files(bob) == []
    with (
        psycopg_connect(postgres.url(name, "bob", tcp=True)) as db,
        pytest.raises(Exception, match="denied"),
    ):
        db.execute("UPDATE work.events SET actor = 'ann'")
    study = open_study("ours", wb=ann)
    assert open_study("ours", wb=bob).study_name == study.study_name
    for wb in (ann, bob):
        assert doctor(wb) == {"well": True, "findings": []}
    for file in (f for f in tmp_path.rglob("*") if f.is_file() and f.name != "pgpass"):
        assert b"s3cret" not in file.read_bytes(), file


def test_a_password_is_refused_and_never_repeated(team, postgres, tmp_path, monkeypatch):
    _, bob, name = team
    bad = postgres.url(name, "bob", tcp=True).replace("bob@", "bob:s3cret-of-bob@")
    with pytest.raises(UserError) as found:
        create_workbench(tmp_path / "third", lake_catalog=bad)
    assert "s3cret" not in str(found.value) and not (tmp_path / "third").exists()
    code, out, err = mlworkbench("init", "third", "--catalog", bad, "--json", cwd=tmp_path)
    assert code == 2 and "holds a password" in err and "s3cret" not in out + err
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    monkeypatch.setenv("PGPASSWORD", "wrong-s3cret")
    script = "from mlworkbench.data.catalog import tables\nprint(tables(wb=wb))"
    code, out, err = python(bob.root, script)
    assert code == 1 and "password authentication failed" in err and "s3cret" not in out + err


def private(folder, runs: int = 1):
    """A private workbench with two states of a table, runs, and a champion of its own."""
    wb = create_workbench(folder)
    ingest(payments(), table="payments", key="id", wb=wb)
    names = [trained(wb, f"mine {i}", 0.1) for i in range(runs)]
    state = snapshots("payments", wb=wb)[-1]["snapshot"]
    with writing(wb) as db:
        seen = [{"run": r, "table_name": "payments", "snapshot": state} for r in names]
        db.execute(reads.insert(), seen)
    sql("UPDATE payments SET a = a + 1 WHERE id < 9", write=True, wb=wb)
    register(names[0], "fraud", wb)
    approve(promote("fraud@1", "champion", "first", wb).request, "mine", wb)
    return wb


def test_a_private_workbench_comes_in_once(team, postgres, tmp_path):
    ann, bob, name = team
    mine = private(tmp_path / "mine")
    before = {
        s["snapshot"]: rows_hash(mine, "payments", s["snapshot"])
        for s in snapshots("payments", wb=mine)
    }
    owner = list_runs(wb=mine)[0].actor
    found = import_workbench(mine.root, bob)
    assert (found["tables"], found["runs"], found["versions"]) == (["payments"], 1, ["fraud@1"])
    assert found["events"] == 3 and verify_audit(wb=ann)["valid"]
    here = [rows_hash(ann, "payments", s["snapshot"]) for s in snapshots("payments", wb=ann)]
    assert [h for h in here if h in before.values()] == here and here[-1] == rows_hash(
        mine, "payments"
    )
    run = list_runs(wb=ann)[0]
    assert (run.name, run.actor, owner not in SECRETS) == ("mine 0", owner, True)
    read = sql("SELECT snapshot FROM work.reads WHERE table_name = 'payments'", wb=ann).fetchall()
    assert all(rows_hash(ann, "payments", n) == list(before.values())[0] for (n,) in read)
    assert list_versions(wb=ann)[0].aliases == () and load_model("fraud@1", ann).tree_count_ == 5
    kept = everything(ann)
    again = import_workbench(mine.root, ann)
    assert (again["runs"], again["versions"], again["events"]) == (0, [], 0) and everything(
        bob
    ) == kept
    assert doctor(bob)["well"]
    trained(mine, "later", 0.1)
    assert import_workbench(mine.root, bob)["runs"] == 1
    assert {r.name for r in list_runs(wb=ann)} == {"mine 0", "later"}
    assert len(sql("SELECT DISTINCT run FROM predictions", wb=ann).fetchall()) == 2
    assert verify_audit(wb=bob)["valid"] and verify_files(bob) == []
    made = export_backup(tmp_path / "saved.tar", bob)
    back = import_backup(made["backup"], tmp_path / "back")
    assert rows_hash(back, "payments") == rows_hash(ann, "payments") and doctor(back)["well"]
    assert verify_audit(wb=back)["head"] == verify_audit(wb=ann)["head"]
    with psycopg_connect(postgres.url(name)) as db:
        db.execute("UPDATE work.chains SET reason = 'x' WHERE seq = 2")
    fault = verify_audit(wb=ann)
    assert not fault["valid"] and "imported chain" in fault["fault"]


def test_a_login_outside_the_team_is_told_whom_to_ask(team, postgres, tmp_path):
    """The database's owner is who a team has in common: another login is refused before it leaves anything."""
    ann, _, name = team
    postgres.run(f"REVOKE {name} FROM bob", f"GRANT ALL ON DATABASE {name} TO bob")
    with pytest.raises(WorkbenchError, match=f"bob is no member of {name}") as refused:
        create_workbench(tmp_path / "third", lake_catalog=postgres.url(name, "bob", tcp=True))
    assert "GRANT" in refused.value.hint and not list((tmp_path / "third").glob("settings.ini*"))
    postgres.run(f"GRANT {name} TO bob")
    third = create_workbench(tmp_path / "third", lake_catalog=postgres.url(name, "bob", tcp=True))
    assert third.files == ann.files


IMPORT = """
from mlworkbench.desk.importing import import_workbench
print("done", import_workbench(sys.argv[2], wb)["runs"])
"""


@pytest.mark.parametrize("point", ["table_imported", "before_commit", "folders_imported"])
def test_an_import_that_is_killed_is_taken_up_again(tmp_path, point, torture):
    if not torture and point != "table_imported":
        pytest.skip("in make torture")
    mine, ours = private(tmp_path / "mine"), create_workbench(tmp_path / "ours")
    for number in (1, 2, 3) if torture else (1,):
        python(ours.root, IMPORT, str(mine.root), MLWORKBENCH_CRASH=f"{point}:{number}")
    code, out, err = python(ours.root, IMPORT, str(mine.root))
    assert (code, out) == (0, "done 1\n"), err
    ours = open_workbench(ours.root)
    assert [t["table"] for t in tables(wb=ours)] == ["payments"] and len(list_runs(wb=ours)) == 1
    assert rows_hash(ours, "payments") == rows_hash(mine, "payments")
    assert rows_hash(ours, "predictions") == rows_hash(mine, "predictions")
    assert len(snapshots("payments", wb=ours)) == 2 and verify_audit(wb=ours)["valid"]
    assert verify_files(ours) == []
    if not doctor(ours)["well"]:
        from mlworkbench.desk.examining import mend

        assert mend(ours)["well"], json.dumps(doctor(ours))


def test_what_may_not_come_in(tmp_path):
    mine, ours = private(tmp_path / "mine"), create_workbench(tmp_path / "ours")
    sql("CREATE TABLE payments AS SELECT 1 AS other", write=True, wb=ours)
    before = everything(ours)
    with pytest.raises(UserError, match="another one"):
        import_workbench(mine.root, ours)
    with pytest.raises(UserError, match="itself"):
        import_workbench(ours.root, ours)
    victim = next((mine.root / "lake" / "data").rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(WorkbenchError, match="changed"):
        import_workbench(mine.root, ours)
    assert everything(ours) == before


WRITER = """
from mlworkbench.data.commits import write_lake
with write_lake("killed", wb=wb) as write:
    write.con.execute("CREATE TABLE t AS SELECT range AS id FROM range(9)")
"""


def test_the_doctor_after_kills(wb, tmp_path):
    """What is left by the killed is named, mended, and nothing else is touched."""
    for point in ("before_fsync", "before_commit"):
        assert python(wb.root, WRITER, MLWORKBENCH_CRASH=f"{point}:1")[0] == -signal.SIGKILL
    before = everything(wb)
    found = doctor(wb)
    assert (
        "2 data files" in found["findings"][0]["what"] and "--mend" in found["findings"][0]["mend"]
    )
    code, out, err = mlworkbench("doctor", "--mend", "--json", cwd=wb.root)
    told = json.loads(out)
    assert (code, told["well"], told["removed"], len(told["names"])) == (0, True, 2, 2), err
    assert everything(wb) == before and doctor(wb)["well"]
    (wb.root / "lake" / "catalog.sqlite").rename(tmp_path / "gone")
    code, out, err = mlworkbench("doctor", cwd=wb.root)
    assert code == 1 and "catalog.sqlite is missing" in out
    lost = doctor(wb)
    assert not lost["well"] and "catalog.sqlite is missing" in lost["findings"][0]["what"]


def test_the_doctor_on_permissions_evidence_and_contracts(tmp_path):
    wb = private(tmp_path / "mine")
    [version] = list_versions(wb=wb)
    folder = wb.files / "runs" / version.run
    assert doctor(wb)["well"]
    model = next(folder.glob("*.cbm"))
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # its size stays
    (wb.root / "work.sqlite").chmod(0o666)
    (wb.root / "contracts").mkdir(exist_ok=True)
    (wb.root / "contracts" / "later.yaml").write_text("kind: DataContract\n")
    said = [f["what"] for f in doctor(wb)["findings"]]
    assert len(said) == 3, said
    assert "every user of this machine can write to" in said[0] and "work.sqlite" in said[0]
    assert f"{model.name} of run {version.run}, which fraud@1 stands on, was changed" in said[1]
    assert "later.yaml is no contract" in said[2]
    model.write_bytes(whole)
    (wb.root / "work.sqlite").chmod(0o600)
    (wb.root / "contracts" / "later.yaml").unlink()
    assert doctor(wb)["well"]


def test_who_waits_is_told_for_whom(wb):
    """A writer behind another says so on standard error, and the doctor names one that has it for long."""
    sql("CREATE TABLE t AS SELECT 1 AS i", write=True, wb=wb)
    with lake_turn(wb):
        waits = mlworkbench("sql", "--write", "INSERT INTO t VALUES (2)", cwd=wb.root, wait=False)
        line = waits.stderr.readline()
        assert f"waiting for process {os.getpid()} (" in line and "to finish writing" in line
        assert doctor(wb)["well"]  # for a moment is no finding
        os.utime(wb.root / "lake" / ".turn", (0, 0))
        [found] = doctor(wb)["findings"]
        assert f"process {os.getpid()}" in found["what"] and f"kill {os.getpid()}" in found["mend"]
    assert waits.communicate(timeout=300)[0] == "done\n" and waits.returncode == 0
    assert sql("SELECT sum(i) FROM t", wb=wb).fetchone() == (3,)


def test_one_large_file_tells_how_far_it_is(wb, tmp_path):
    told = []
    for n in (3_000_000, 30_000_000):  # a fast machine may need the larger one
        query = (
            f"COPY (SELECT range AS id, random() AS x FROM range({n})) TO '{tmp_path}/{n}.parquet'"
        )
        duckdb.sql(query)
        progress = lambda done, text: told.append(done) if "writing" in text else None  # noqa: E731
        ingest(tmp_path / f"{n}.parquet", table=f"t{n}", wb=wb, progress=progress)
        if len(set(told)) > 2:
            break
    assert len(set(told)) > 2 and min(told) >= 0.5 and max(told) <= 0.9
