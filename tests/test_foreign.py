"""What comes from elsewhere, or goes there: hostile workbenches, half-made folders, backups, odd names of folders."""

import hashlib
import shutil

import pandas as pd
import pytest
import sqlalchemy as sa

from mlworkbench.core.audit import record_event, verify_events
from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.looks import list_looks, record_look
from mlworkbench.core.settings import actor, open_workbench
from mlworkbench.core.store import (
    artifacts,
    facts,
    meta,
    models,
    now,
    reading,
    reads,
    runs,
    versions,
    writing,
)
from mlworkbench.data.catalog import last_changes
from mlworkbench.data.commits import write_lake
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql
from mlworkbench.desk import examining
from mlworkbench.desk.backup import export_backup, import_backup
from mlworkbench.desk.importing import import_workbench
from mlworkbench.execution.listing import list_runs
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.modelling.studies import list_studies, open_study
from mlworkbench.registry.promotion import verify_audit


def ended(wb, name: str = "one") -> str:
    run = open_run(name, wb=wb).run
    close_run(run, "finished", wb=wb)
    return run


def claim(wb, model, number, run: str) -> None:
    """A version of any name, with an event, so that the chain holds."""
    row = {"model": model, "version": number, "run": run, "sha256": "0", "bytes": 1}
    row |= {"signature": "{}", "created": now(), "actor": "me"}
    said = {"run": run, "sha256": "0", "signature_sha256": hashlib.sha256(b"{}").hexdigest()}
    with writing(wb) as db:
        db.execute(models.insert(), {"model": model, "created": now(), "actor": "me"})
        db.execute(versions.insert(), row)
        record_event(db, "register", f"{model}@{number}", "made", **said)


@pytest.mark.parametrize(("model", "number"), [("../nbs", 1), ("fraud", "../../nbs"), ("..", 1)])
def test_a_model_that_is_a_path_does_not_come_in(wb, tmp_path, model, number):
    mine = create_workbench(tmp_path / "mine")
    claim(mine, model, number, ended(mine))
    (wb.root / "nbs" / "1").mkdir(parents=True)
    (wb.root / "nbs" / "1" / "thesis.ipynb").write_text("years of work")
    assert verify_audit(wb=mine)["valid"]
    with pytest.raises(WorkbenchError, match="may not come in"):
        import_workbench(mine.root, wb)
    assert (wb.root / "nbs" / "1" / "thesis.ipynb").read_text() == "years of work"


def test_runs_files_and_links_that_point_elsewhere_do_not_come_in(wb, tmp_path):
    mine = create_workbench(tmp_path / "mine")
    run = ended(mine)
    link = mine.root / "runs" / run / "link"
    link.symlink_to("/etc/hostname")
    with pytest.raises(WorkbenchError, match="symbolic link"):
        import_workbench(mine.root, wb)
    link.unlink()
    file = {"run": run, "path": "../../settings.ini", "kind": "file", "sha256": "0", "bytes": 1}
    with writing(mine) as db:
        db.execute(artifacts.insert(), file)
    with pytest.raises(WorkbenchError, match="a file"):
        import_workbench(mine.root, wb)
    with writing(mine) as db:
        db.execute(artifacts.delete())
        row = db.execute(sa.select(runs)).mappings().one()
        db.execute(runs.insert(), dict(row) | {"run": "../../elsewhere"})
    (mine.root.parent / "elsewhere").mkdir()
    with pytest.raises(WorkbenchError, match="a run "):
        import_workbench(mine.root, wb)
    assert not (wb.root / "runs" / run).exists() and not (wb.root / "elsewhere").exists()


def test_one_commit_of_two_tables_is_two_states(wb, tmp_path):
    """The run that read one of them sees the rows it saw."""
    mine = create_workbench(tmp_path / "mine")
    with write_lake("two at once", wb=mine) as write:
        write.con.execute("CREATE TABLE a AS SELECT range AS id FROM range(9)")
        write.con.execute("CREATE TABLE b AS SELECT range AS id FROM range(5)")
    run = ended(mine)
    seen = [{"run": run, "table_name": t, "snapshot": write.snapshot} for t in "ab"]
    with writing(mine) as db:
        db.execute(reads.insert(), seen)
    sql("DELETE FROM a WHERE id < 5", write=True, wb=mine)
    import_workbench(mine.root, wb)
    with reading(wb) as db:
        found = dict(db.execute(sa.select(reads.c.table_name, reads.c.snapshot)).all())
    for table, rows in {"a": 9, "b": 5}.items():
        assert sql(f"SELECT count(*) FROM {table}", at=found[table], wb=wb).fetchone() == (rows,)
        assert found[table] <= last_changes(wb=wb)[table]


def test_the_doctor_takes_no_folder_of_a_run_that_came_and_went(wb, monkeypatch):
    """A run that opens and closes while the doctor looks, and a folder whose row is not written yet."""
    young = wb.root / "runs" / "0000000000"
    young.mkdir()
    assert examining.mend(wb)["removed"] == 0 and young.is_dir()
    monkeypatch.setattr(examining, "_GRACE", -1.0)
    looked, runs_made = examining.reading, []

    def reads_late(wb):
        seen = looked(wb)
        if not runs_made:  # between looking at the folders and looking at the rows, or before both
            runs_made.append(ended(wb))
        return seen

    monkeypatch.setattr(examining, "reading", reads_late)
    left = examining._left_by_runs(wb)
    assert left == [young] and (wb.root / "runs" / runs_made[0]).is_dir()


def test_a_backup_is_whole_and_nothing_more(wb, tmp_path):
    (wb.root / "contracts").mkdir()
    (wb.root / "contracts" / "pay.yaml").write_text("# ours")
    (wb.root / "nbs").mkdir(exist_ok=True)
    (wb.root / "nbs" / "same.yaml").symlink_to(wb.root / "contracts" / "pay.yaml")
    back = import_backup(export_backup(tmp_path / "one.tar", wb)["backup"], tmp_path / "back")
    assert (back.root / "contracts" / "pay.yaml").read_text() == "# ours"
    assert (back.root / "nbs" / "same.yaml").read_text() == "# ours"
    (wb.root / "nbs" / "away").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="away is a symbolic link"):
        export_backup(tmp_path / "two.tar", wb)
    (wb.root / "nbs" / "away").unlink()
    made = export_backup(tmp_path / "three", wb)["backup"]
    (tmp_path / "three" / "work.sqlite-wal").write_bytes(b"more")
    with pytest.raises(WorkbenchError, match="work.sqlite-wal .* not in its list"):
        import_backup(made, tmp_path / "third")
    text = (wb.root / "settings.ini").read_text().replace("folder = nbs", "folder = .")
    (wb.root / "settings.ini").write_text(text)
    (wb.root / "mine.ipynb").write_text("{}")
    made = export_backup(tmp_path / "four.tar", open_workbench(wb.root))["backup"]
    assert (import_backup(made, tmp_path / "fourth").root / "mine.ipynb").exists()


@pytest.mark.parametrize("name", ["a?b #1", "50%41 it's"])
def test_folders_may_have_odd_names(tmp_path, name):
    wb = create_workbench(tmp_path / name)
    ingest(pd.DataFrame({"id": [1, 2], "v": [3.0, 4.0]}), table="pay", key="id", wb=wb)
    sql("UPDATE pay SET v = 5 WHERE id = 1", write=True, wb=wb)
    run = ended(wb)
    open_study("tries", wb=wb)
    assert [r.run for r in list_runs(wb=wb)] == [run] and len(list_studies(wb=wb)) == 1
    assert examining.doctor(wb) == {"well": True, "findings": []}
    back = import_backup(export_backup(tmp_path / name / "b.tar", wb)["backup"], tmp_path / "back")
    assert sql("SELECT sum(v) FROM pay", wb=back).fetchone() == (9,)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "back"])


def test_no_door_writes_into_a_newer_store(wb, tmp_path):
    with writing(wb) as db:
        db.execute(meta.update().where(meta.c.name == "schema").values(value="99"))
    newer = shutil.copytree(wb.root, tmp_path / "newer")
    with pytest.raises(UserError, match="newer mlworkbench"):
        open_run("one", wb=open_workbench(newer))


def test_a_head_that_is_not_there_vouches_for_nothing(wb):
    found = verify_events("0" * 64, wb=wb)
    assert not found["valid"] and "agrees" not in found["strength"]


@pytest.mark.parametrize("catalog", ["postgresql"])
def test_a_team_reads_one_moment_and_its_looks_have_its_logins(wb, catalog):
    run = ended(wb)
    with reading(wb) as db:
        count = sa.select(sa.func.count()).select_from(facts)
        before = db.scalar(count)
        with writing(wb) as other:
            other.execute(facts.insert(), {"run": run, "name": "later", "value": "1"})
        assert db.scalar(count) == before
    record_look("report", "pay", wb=wb)
    assert [x["actor"] for x in list_looks(wb=wb)] == [actor(wb)] and actor(wb) != actor()
