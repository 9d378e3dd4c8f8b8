"""Splits with a name, seals, and what a data set makes of dates, texts and delays."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import mlworkbench as mw
from mlworkbench.core.audit import list_events
from mlworkbench.core.errors import UserError
from mlworkbench.core.looks import list_looks
from mlworkbench.data.catalog import declare_roles, newest_snapshot
from mlworkbench.data.commits import write_lake
from mlworkbench.data.kept import find_split, keep_split, list_splits, test_rows
from mlworkbench.data.queries import sql
from mlworkbench.desk.cli import cli
from mlworkbench.desk.verbs import tune
from mlworkbench.modelling.datasets import evaluation_part, load_dataset, split_summary
from mlworkbench.modelling.feature_kinds import feature_columns
from mlworkbench.modelling.problems import describe_problem
from mlworkbench.modelling.training import fit_catboost, predict_scores

WORDS = ["stolen card", "late parcel", "wrong size", "never came", "paid twice", "gift for mother"]
keys_of_test = test_rows  # not itself a test
del test_rows


def payments(n=600, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.3
    born = [dt.date(2026, 1, 1) - dt.timedelta(days=int(d)) for d in rng.integers(10, 900, n)]
    said = [" ".join(rng.choice(WORDS, 4)) + (" urgent" if bad else "") for bad in label]
    return pd.DataFrame(
        {
            "id": np.arange(n),
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n) // 6, unit="D"),
            "who": [f"w{i}" for i in rng.integers(0, 250, n)],
            "amount": rng.gamma(2, 20, n),
            "opened": born,
            "message": said,
            "fraud": label.astype(int),
        }
    )


@pytest.fixture
def cards(wb):
    with write_lake("payments", wb=wb) as write:
        write.con.register("new", payments())
        write.con.execute("CREATE TABLE pay AS FROM new")
        declare_roles(write.con, "pay", key="id", time="at", entity="who")
    return wb


def described(wb, **more):
    return describe_problem({"table": "pay", "target": "fraud"} | more, wb)


def test_two_runs_on_a_kept_split_share_their_rows_when_the_table_grows(cards):
    kept = keep_split("first", "pay", "time", label="fraud", wb=cards)
    before = load_dataset(described(cards, split="kept:first"), wb=cards)
    with write_lake("more", wb=cards) as write:
        write.con.register("new", payments(900).iloc[600:])
        write.con.execute("INSERT INTO pay FROM new")
    after = load_dataset(described(cards, split="kept:first"), wb=cards)
    assert before.rows.equals(after.rows) and len(after.rows) == sum(kept.rows.values())
    moved = load_dataset(described(cards, split="time"), wb=cards).rows
    assert set(moved.loc[moved["split"] == "test", "row_key"]) != set(keys_of_test("first", cards))
    assert [split.split for split in list_splits(cards)] == ["first"]


def test_a_sealed_test_gives_its_labels_to_evaluation_alone(cards):
    keep_split("sealed", "pay", "random", label="fraud", sealed=True, wb=cards)
    problem = described(cards, split="kept:sealed")
    data = load_dataset(problem, wb=cards)
    assert data.rows.loc[data.rows["split"] == "test", "label"].isna().all()
    assert data.part("train")[1]["label"].notna().all()
    with pytest.raises(UserError, match="sealed"):
        data.part("train", "test")
    assert split_summary(data, wb=cards)["positive"].isna()["test"]
    events = len(list_events(wb=cards))
    x, rows = evaluation_part(data, "run train-1", cards)
    truth = sql("SELECT id::VARCHAR AS k, fraud FROM pay", wb=cards).df().set_index("k")["fraud"]
    assert (rows["label"].to_numpy() == truth[rows["row_key"]].to_numpy()).all() and len(x) > 100
    said = list_events("sealed", cards)[-1]
    assert (said["action"], said["reason"]) == ("open test", "run train-1")
    assert len(list_events(wb=cards)) == events + 1
    keep_split("open", "pay", "random", label="fraud", wb=cards)
    same = load_dataset(described(cards, split="kept:open"), wb=cards).part("test")[1]
    assert same["label"].tolist() == rows["label"].tolist()


def test_a_query_that_may_read_sealed_labels_is_a_look(cards):
    keep_split("sealed", "pay", "random", label="fraud", sealed=True, wb=cards)
    sql("CREATE VIEW seen AS SELECT id, fraud AS x FROM pay", write=True, wb=cards)
    for query, looks in (
        ("SELECT id FROM pay", 0),
        ("SELECT count(*) FROM pay", 0),
        ("SELECT avg(fraud) FROM lake.pay", 1),
        ("FROM pay", 1),
        ("SELECT max(x) FROM seen", 1),
    ):
        before = len(list_looks("pay", "fraud", cards))
        sql(query, wb=cards)
        assert len(list_looks("pay", "fraud", cards)) - before == looks, query


def test_a_label_with_a_word_of_the_parser_is_watched_like_another(wb):
    with write_lake("cards", wb=wb) as write:
        write.con.execute(
            'CREATE TABLE pay AS SELECT i AS id, i % 9 = 0 AS "Class" FROM range(90) t(i)'
        )
    keep_split("sealed", "pay", "random", label="Class", key=("id",), sealed=True, wb=wb)
    sql("SELECT count(*), max(id) FROM pay", wb=wb)
    assert list_looks(wb=wb) == []
    sql("SELECT avg(class::INT) FROM pay", wb=wb)
    assert [look["target"] for look in list_looks(wb=wb)] == ["class"]


def test_a_table_with_sealed_labels_that_is_compared_or_profiled_is_looked_at(cards):
    looks = lambda: [x["about"] for x in list_looks("PAY", "fraud", cards)]  # noqa: E731
    first = newest_snapshot(cards)
    mw.profile("pay", wb=cards)
    mw.diff("pay", first, wb=cards)
    assert looks() == []  # nothing is sealed yet
    keep_split("sealed", "pay", "random", label="fraud", sealed=True, wb=cards)
    mw.profile("Pay", wb=cards)
    found = mw.diff("pay", first, wb=cards)
    assert looks() == ["profile Pay", f"diff pay {first} {found['after']}"]
    with write_lake("other", wb=cards) as write:
        write.con.execute("CREATE TABLE other AS SELECT id, amount FROM pay")
    mw.profile("other", wb=cards)
    assert len(list_looks(wb=cards)) == 2


def test_a_search_on_a_sealed_split_ends_with_a_run(cards):
    keep_split("sealed", "pay", "random", label="fraud", sealed=True, wb=cards)
    about = {"table": "pay", "target": "fraud", "iterations": 10, "folds": 2, "wb": cards}
    found = tune(split="kept:sealed", trials=2, **about)
    assert found.run.state == "finished" and "auc" in found.run.metrics
    assert "open test" in [e["action"] for e in list_events("sealed", cards)]


def test_what_a_kept_split_refuses(cards):
    keep_split("one", "pay", "random", wb=cards)
    for wrong, said in (
        (lambda: keep_split("one", "pay", wb=cards), "never changes"),
        (lambda: keep_split("../x", "pay", wb=cards), "cannot name"),
        (lambda: keep_split("two", "pay", label="frod", wb=cards), "Did you mean 'fraud'"),
        (lambda: keep_split("two", "pay", sealed=True, wb=cards), "needs to know the label"),
        (lambda: keep_split("two", "pya", wb=cards), "pay"),
        (lambda: find_split("on", cards), "Did you mean 'one'"),
        (lambda: described(cards, split="kept:none"), "no split 'none'"),
        (lambda: described(cards, split="kept:one", key="id,who"), "divides table"),
    ):
        with pytest.raises(UserError, match=said):
            wrong()


def test_splits_are_listed_with_all_their_parts_and_empty_ones_are_refused(cards):
    def call(*words):
        return CliRunner().invoke(cli, ["split", *words, "--workbench", str(cards.root)])

    keep = ("keep", "w", "--table", "pay", "--label", "fraud", "--recipe")
    refused = call(*keep, "weeks:2026-06-01")
    assert "would have no train rows; pay reaches from 2026-01-01" in str(refused.exception)
    assert list_splits(cards) == []
    assert call(*keep, "weeks:2026-01-01:3:1:2").exit_code == 0
    listed = call("list").output
    assert "train" in listed and "validation" in listed and "weeks:2026-01-01:3:1:2" in listed


def test_a_split_killed_between_rows_and_record_is_kept_anew(cards, monkeypatch):
    from mlworkbench.data import kept

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kept, "_record", killed)
        keep_split("cut", "pay", "random", wb=cards)
    assert list_splits(cards) == []
    again = keep_split("cut", "pay", "random", seed=1, wb=cards)
    assert sum(again.rows.values()) == 600 and len(keys_of_test("cut", cards)) == again.rows["test"]


def test_the_delay_of_a_declared_label_leaves_a_gap(cards):
    plain = load_dataset(described(cards), wb=cards)
    with write_lake("label", wb=cards) as write:
        declare_roles(write.con, "pay", label={"fraud": "7 days"})
    problem = described(cards)
    assert problem.gap == "7 days" and any("7 days" in note for note in problem.notes)
    data = load_dataset(problem, wb=cards)
    times = {p: data.part(p)[1]["at"] for p in ("train", "validation", "test")}
    assert times["test"].min() - times["validation"].max() >= pd.Timedelta(days=7)
    assert times["validation"].min() - times["train"].max() >= pd.Timedelta(days=7)
    told = split_summary(data, wb=cards)
    assert told["rows"].sum() == len(plain.rows) == 600 and told["rows"]["gap"] > 50
    assert told["positive"].sum() == plain.rows["label"].sum()
    assert told["last"]["train"] < told["first"]["test"]
    assert described(cards, split="random").gap == ""


def test_the_test_on_new_entities_leaves_out_the_known_ones(cards):
    with write_lake("label", wb=cards) as write:
        declare_roles(write.con, "pay", label={"fraud": "7 days"})
    data = load_dataset(described(cards, split="time:new"), wb=cards)
    whole = load_dataset(described(cards, split="time"), wb=cards)
    every = sql("SELECT * FROM pay", wb=cards).df()
    kept = set(data.part("test")[1]["row_key"])
    for _, row in whole.part("test")[1].iterrows():
        wait = row["at"] - pd.Timedelta(days=7)
        bad = every[(every["who"] == row["entity"]) & (every["fraud"] == 1) & (every["at"] < wait)]
        assert (row["row_key"] in kept) == bad.empty
    assert 0 < len(kept) < len(whole.part("test")[1])


def test_a_stratified_split_has_the_same_shares_in_each_class(cards):
    data = load_dataset(described(cards, split="stratified"), wb=cards)
    share = data.rows.groupby("split")["label"].mean()
    assert share.max() - share.min() < 0.01
    again = load_dataset(described(cards, split="stratified"), split_seed=1, wb=cards)
    assert (again.rows["split"] != data.rows["split"]).mean() > 0.3


def test_dates_and_texts_need_no_help(cards):
    problem = described(cards, split="random")
    assert problem.features == {
        "who": "category",
        "amount": "number",
        "opened": "days before at",
        "message": "text",
    }
    assert any("opened" in note for note in problem.notes)
    data = load_dataset(problem, wb=cards)
    raw = payments()
    days = (raw["at"] - pd.to_datetime(raw["opened"])).dt.days.to_numpy(float)
    order = data.rows["row_key"].astype(int).to_numpy()
    assert np.allclose(data.features["opened"], days[order])
    x, rows = data.part("train", "validation")
    model = fit_catboost(x, rows["label"], problem, iterations=30, depth=4, threads=1)
    score = predict_scores(model, data.part("test")[0], "binary", threads=1)
    bad = data.part("test")[1]["label"].to_numpy() == 1
    assert score[bad].min() > score[~bad].max()  # one word tells
    query = f"SELECT {feature_columns({'at': 'days since 1970'})} FROM pay ORDER BY id LIMIT 1"
    assert sql(query, wb=cards).fetchone()[0] == 20454


def test_the_split_of_a_run_depends_on_its_snapshot_alone(cards):
    snapshot = newest_snapshot(cards)
    sql("DELETE FROM pay WHERE id > 500", write=True, wb=cards)
    assert (
        len(
            load_dataset(
                describe_problem({"table": "pay", "target": "fraud"}, cards, snapshot), wb=cards
            ).rows
        )
        == 600
    )
