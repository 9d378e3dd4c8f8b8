"""Scoring a table: every row once, bounded, in one commit, and nobody waits for a model."""

import catboost
import numpy as np
import pandas as pd
import pytest

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.data.catalog import declare_roles, newest_snapshot, snapshots
from mlworkbench.data.commits import write_lake
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.queries import sql
from mlworkbench.execution.journal import log_model
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.modelling.problems import describe_problem
from mlworkbench.modelling.rows import rows_sql
from mlworkbench.production import scoring
from mlworkbench.production.scoring import score
from mlworkbench.registry.versions import Version, register

CLASSES = ["it's", 'a "b"', "c"]


@pytest.fixture
def version(wb):
    """A model of three classes with quotes in their names, over a table of 1,000 payments."""
    dice = np.random.default_rng(0)
    frame = pd.DataFrame({"id": [f"p{i}" for i in range(1000)], "amount": dice.normal(size=1000)})
    ingest(frame, table="pay", key="id", wb=wb)
    label = np.array(CLASSES)[np.digitize(frame["amount"], [-0.5, 0.5])]
    model = catboost.CatBoostClassifier(
        iterations=5, verbose=False, allow_writing_files=False, loss_function="MultiClass"
    ).fit(frame[["amount"]], label)
    signature = {
        "task": "multiclass",
        "classes": [str(c) for c in model.classes_],
        "table": "pay",
        "view": "",
        "key": ["id"],
        "features": {"amount": "number"},
    }
    run = open_run("a model", wb=wb)
    log_model(model, signature, run=run.run, wb=wb)
    close_run(run.run, "finished", wb=wb)
    return register(run, "kinds", wb)


def test_every_row_once_with_all_classes_and_again_only_the_same_rows(wb, version, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 300)
    assert score("pay", version, "scores", wb=wb)["rows"] == 1000
    before = sql("FROM scores ORDER BY row_key", wb=wb).df()
    assert sorted(before["scores"][0]) == sorted(CLASSES)
    assert np.allclose([sum(s.values()) for s in before["scores"]], 1)
    assert np.allclose(before["score"], [max(s.values()) for s in before["scores"]])
    sql(
        "INSERT INTO scores SELECT 'other', model, 7, 0.5, scores FROM scores LIMIT 1",
        write=True,
        wb=wb,
    )
    sql("DELETE FROM pay WHERE id = 'p0'", write=True, wb=wb)
    count = len(snapshots(wb=wb))
    assert score("pay", version, "scores", wb=wb)["rows"] == 999
    assert len(snapshots(wb=wb)) == count + 1, "one commit"
    after = sql("FROM scores WHERE version = 1 ORDER BY row_key", wb=wb).df()
    pd.testing.assert_frame_equal(after, before)
    assert sql("SELECT count(*) FROM scores WHERE version = 7", wb=wb).fetchone() == (1,)
    assert list((wb.root / "lake" / "tmp").iterdir()) == []


@pytest.mark.timeout(120)
def test_others_write_while_it_scores(wb, version):
    """The writers' turn is taken for the commit alone; a write in the middle would wait for ever."""

    def meanwhile(done: float, text: str) -> None:
        with write_lake("meanwhile", wb=wb) as write:
            write.con.execute("CREATE TABLE IF NOT EXISTS beside (x INTEGER)")

    assert score("pay", version, "scores", wb=wb, progress=meanwhile)["rows"] == 1000
    assert sql("SELECT count(*) FROM scores", wb=wb).fetchone() == (1000,)


def test_what_does_not_fit_changes_nothing(wb, version):
    count = len(snapshots(wb=wb))
    for table, model, to in (
        ("nowhere", "kinds@1", "scores"),
        ("pay", "kinds@9", "scores"),
        ("pay", "kinds@champion", "scores"),
        ("pay", "kinds@1", "pay"),
        ("pay", "kinds@1", 'x"; drop table pay'),
    ):
        with pytest.raises(UserError):
            score(table, model, to, wb=wb)
    version.file.write_bytes(version.file.read_bytes()[:-1])
    with pytest.raises(WorkbenchError):
        score("pay", version, "scores", wb=wb)
    assert len(snapshots(wb=wb)) == count


def test_a_table_without_a_key_is_joined_to_its_view_by_the_views_key(wb):
    """By row number each payment had another one's amount, in training and in scoring."""
    with write_lake("payments and a view of them", wb=wb) as write:
        write.con.execute("CREATE TABLE pay AS SELECT i AS id, i % 2 AS y FROM range(100) t(i)")
        write.con.execute(
            "CREATE TABLE seen AS SELECT id, id * 10.0 AS amount FROM pay ORDER BY id DESC"
        )
    values = {"table": "pay", "target": "y", "view": "seen"}
    with pytest.raises(UserError, match="declares no key"):
        describe_problem(values, wb)
    signature = {"view": "seen", "features": {"amount": "number"}, "key": []}
    version = Version("m", 1, "r", "", signature)
    with pytest.raises(UserError, match="declares no key"):
        scoring._source("pay", version, newest_snapshot(wb), wb)
    with write_lake("the view's key", wb=wb) as write:
        declare_roles(write.con, "seen", key="id")
    problem = describe_problem(values, wb)
    frame = sql(rows_sql(problem), wb=wb).df()
    assert problem.key == ("id",) and len(frame) == 100
    assert (frame["amount"] == frame["mlw_row_key"].astype(int) * 10).all()
    with pytest.raises(UserError, match="lacks the key"):
        gone = Version("m", 1, "r", "", signature | {"key": ["number"]})
        scoring._source("pay", gone, newest_snapshot(wb), wb)
