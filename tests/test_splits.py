"""Splits: old rows stay where they are, and the handbook's protocol to the row."""

import datetime as dt
import os
import pathlib

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import UserError
from mlworkbench.data.splits import (
    Split,
    hash_split_sql,
    parse_split,
    rolling_folds,
    split_sql,
    time_split_sql,
    weeks_split_sql,
)

DATA = pathlib.Path(__file__).parents[2] / "shared" / "data" / "handbook_transactions.parquet"
EXAMPLES = 1_000 if os.environ.get("TORTURE") else 60
real = pytest.mark.skipif(not DATA.exists(), reason="the published data is not at hand")
CON = duckdb.connect()
CON.execute("SET threads = 1")
COLUMNS = ["TRANSACTION_ID"], "TX_DATETIME", "CUSTOMER_ID", "TX_FRAUD"


def splits(query, **tables):
    for name, table in tables.items():
        CON.register(name, table)
    rows = CON.execute(query).fetchall()
    assert len({key for key, _ in rows}) == len(rows)
    return dict(rows)


PEOPLE = st.dictionaries(st.integers(), st.sampled_from(["a", "b", "c", "", None]), max_size=40)


def people(rows):
    ids = pa.array(map(str, rows), pa.string())
    return pa.table({"id": ids, "who": pa.array(rows.values(), pa.string())})


@settings(max_examples=EXAMPLES, deadline=None)
@given(PEOPLE, PEOPLE, st.integers(0, 5), st.sampled_from([None, "who"]))
def test_appended_rows_and_another_order_move_no_old_row(old, new, seed, entity):
    query = hash_split_sql("t", ["id"], entity, seed=seed)
    before = splits(query, t=people(old))
    both = dict(reversed((new | old).items()))
    after = splits(query, t=people(both))
    assert set(before) == set(map(str, old)) and set(after) == set(map(str, both))
    assert all(after[key] == split for key, split in before.items())


@settings(max_examples=EXAMPLES, deadline=None)
@given(PEOPLE, st.integers(0, 5))
def test_an_entity_is_on_one_side_only(rows, seed):
    found = splits(hash_split_sql("t", ["id"], "who", seed=seed), t=people(rows))
    for who in "abc":
        assert len({found[str(key)] for key, value in rows.items() if value == who}) <= 1


@pytest.mark.parametrize("entity", [None, "who"])
def test_the_shares_come_out_and_seeds_differ(entity):
    table = pa.table({"id": range(20_000), "who": [f"w{i % 5_000}" for i in range(20_000)]})
    for test, validation in ((0.3, 0.2), (0.2, 0.0)):
        found = list(
            splits(hash_split_sql("t", ["id"], entity, test, validation), t=table).values()
        )
        assert abs(found.count("test") / 20_000 - test) < 0.02
        assert abs(found.count("validation") / 20_000 - (1 - test) * validation) < 0.02
    one, other = (splits(hash_split_sql("t", ["id"], entity, seed=s), t=table) for s in (0, 1))
    same = sum(one[key] == other[key] for key in one) / len(one)
    assert 0.38 < same < 0.52  # .3² + .14² + .56²: two independent splits


def test_a_key_of_two_columns_is_one_key():
    table = pa.table({"a": ["1", "11"], "b": ["12", "2"]})
    assert len(splits(hash_split_sql("t", ["a", "b"]), t=table)) == 2


MOMENTS = st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=40)


@settings(max_examples=EXAMPLES, deadline=None)
@given(MOMENTS, st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.0, 0.2]), st.integers(0, 3))
def test_time_never_runs_backwards_and_no_moment_is_torn(days, test, validation, gap):
    start = dt.datetime(2024, 2, 20)
    at = [None if d is None else start + dt.timedelta(days=d) for d in days]
    table = pa.table({"id": range(len(days)), "at": pa.array(at, pa.timestamp("us"))})
    query = time_split_sql("t", ["id"], "at", test, validation, f"{gap} days" if gap else "")
    found = splits(query, t=table)
    parts = {
        name: [days[int(k)] for k, s in found.items() if s == name and days[int(k)] is not None]
        for name in ("train", "validation", "test")
    }
    order = [parts[name] for name in ("train", "validation", "test") if parts[name]]
    for earlier, later in zip(order, order[1:], strict=False):
        assert max(earlier) + gap < min(later) or (gap == 0 and max(earlier) < min(later))
    assert all(
        found[str(i)] == "train" for i, d in enumerate(days) if d is None and str(i) in found
    )
    assert gap or len(found) == len(days)
    assert len(parts["test"]) <= len(days) * test + 1 or len(set(parts["test"])) == 1


def test_the_newest_third_is_test():
    table = pa.table(
        {
            "id": range(1_000),
            "at": [dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(1_000)],
        }
    )
    found = splits(time_split_sql("t", ["id"], "at"), t=table)
    assert {k for k, s in found.items() if s == "test"} == {str(i) for i in range(700, 1_000)}
    assert list(found.values()).count("validation") == 140


def test_known_customers_are_dropped_day_by_day():
    """A fraud on day d drops a customer from day d + 8 on, not a day earlier or later."""
    rows = [(0, "2018-07-31", "a", 1)]  # the last day of training: known on 08-08
    rows += [(1, "2018-08-02", "b", 1)]  # within the delay: known on 08-10
    rows += [(2, "2018-07-24 23:59:59", "c", 1)]  # before training: nobody looked
    days = [f"2018-08-{d:02}" for d in range(8, 15)]
    rows += [
        (10 * (i + 1) + j, day, who, 0)
        for i, day in enumerate(days)
        for j, who in enumerate("abcd")
    ]
    table = pa.table(
        dict(zip(("id", "at", "who", "bad"), map(list, zip(*rows, strict=True)), strict=True))
    )
    source = '(SELECT * REPLACE (CAST("at" AS TIMESTAMP) AS "at") FROM t)'
    found = splits(
        weeks_split_sql(parse_split("weeks:2018-07-25"), source, ["id"], "at", "who", "bad"),
        t=table,
    )
    tested = {
        (days[int(k) // 10 - 1], "abcd"[int(k) % 10]) for k, s in found.items() if s == "test"
    }
    assert {who for day, who in tested if day == "2018-08-09"} == set("bcd")
    assert {who for day, who in tested if day == "2018-08-10"} == set("cd")
    assert {k for k, s in found.items() if s == "train"} == {"0"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tiem", "Did you mean 'time'"),
        ("week:2018-07-25", "Did you mean 'weeks'"),
        ("weeks", "takes a date"),
        ("weeks:25.7.2018", "no date"),
        ("weeks:2018-02-30", "no date"),
        ("weeks:2018-07-25:7", "three numbers"),
        ("weeks:2018-07-25:7:-7:7", "three numbers"),
        ("weeks:2018-07-25:0:7:7", "no days to train"),
        ("random:3", "nothing behind"),
        ("", "no recipe"),
    ],
)
def test_a_wrong_text_is_explained(text, said):
    with pytest.raises(UserError, match=said) as refused:
        parse_split(text)
    assert "weeks:2018-07-25" in str(refused.value) or "YYYY-MM-DD" in str(refused.value)


def test_a_recipe_without_its_column_is_refused():
    for text, column in (("time", "time="), ("weeks:2018-07-25", "time="), ("grouped", "entity=")):
        with pytest.raises(UserError, match=column):
            split_sql(text, "t", ["id"])
    with pytest.raises(UserError, match="leave no rows"):
        split_sql("random", "t", ["id"], test=1.0)


def test_hostile_names_are_only_names():
    odd = 'a"; DROP TABLE t; --'
    table = pa.table({odd: [1, 2], "at": [dt.datetime(2018, 7, 25)] * 2})
    for text in ("random", "grouped", "time", "weeks:2018-07-25"):
        query = split_sql(text, "t", [odd], time="at", entity=odd, label=odd)
        assert set(splits(query, t=table)) == {"1", "2"}


def counts(con, split):
    query = weeks_split_sql(split, "cards", *COLUMNS)
    return {
        name: (rows, frauds)
        for name, rows, frauds in con.execute(
            f"SELECT split, count(*), sum(TX_FRAUD) FROM ({query}) JOIN cards ON row_key = TRANSACTION_ID::VARCHAR GROUP BY 1"
        ).fetchall()
    }


@real
def test_the_handbooks_baseline_week_to_the_row():
    with duckdb.connect() as con:
        con.execute(
            f"CREATE TABLE cards AS FROM read_parquet('{DATA}') WHERE TX_DATETIME BETWEEN '2018-06-01' AND '2018-09-15'"
        )
        assert counts(con, parse_split("weeks:2018-07-25")) == {
            "train": (67_240, 598),
            "test": (58_264, 385),
        }
        for fold, twin in rolling_folds(Split("weeks", dt.date(2018, 7, 25))):
            for one in (fold, twin):
                found = counts(con, one)
                assert 66_000 < found["train"][0] < 68_500 and found["train"][1] > 500
                assert 55_000 < found["test"][0] < 60_000 and found["test"][1] > 300
            assert (fold.start - twin.start).days == 35
