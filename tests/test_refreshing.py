"""Refreshing computes little, and gives what a full build gives."""

import dataclasses
import random

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_features import EXAMPLES, ROW, ROWS, computed, every_feature, same, table

from mlworkbench.data.building import build, explain
from mlworkbench.data.catalog import snapshots
from mlworkbench.data.commits import write_lake
from mlworkbench.data.features import FeatureView, expression, mean
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql
from mlworkbench.data.refreshing import refresh
from mlworkbench.data.simulation import simulate_cards
from mlworkbench.data.touched import touched_sql, touched_view_sql
from mlworkbench.data.windows import view_sql

CON = duckdb.connect()
CON.execute("SET threads = 1")
KIND = st.tuples(
    st.sampled_from(["2 seconds", "10 seconds", "1 minute", "3 rows", "all"]),
    st.sampled_from(["", "5 seconds"]),
    st.booleans(),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROWS, KIND, st.randoms(use_true_random=False), st.lists(ROW, max_size=6))
def test_incremental_equals_full_after_any_change(rows, kind, rng, added):
    view = every_feature(*kind)
    view = dataclasses.replace(view, features=(*view.features, expression("twice", "2 * sum")))
    old = dict(enumerate(rows))
    new = {i: rng.choice([row, row, row, rng.choice(rows), None]) for i, row in old.items()}
    new = {i: row for i, row in new.items() if row is not None}
    new |= {rng.randrange(-50, 100): row for row in added}
    changed = [(i, side[i]) for side in (old, new) for i in side if old.get(i) != new.get(i)]
    before = computed(view, table(list(old.values()), list(old)))
    now = table(list(new.values()), list(new))
    CON.register("t", now)
    CON.register("changed", table([row for _, row in changed], [i for i, _ in changed]))
    touched = touched_sql(view, "t", "changed")
    names = [view.key, *(f.name for f in view.features)]
    CON.execute(
        'CREATE OR REPLACE TABLE touched AS SELECT *, epoch_us("at") AS "_mlw_us" '
        f"FROM t WHERE id IN ({touched})"
    )
    span = CON.execute('SELECT min("_mlw_us"), max("_mlw_us") FROM touched').fetchone()
    span = tuple(edge or 0 for edge in span)
    timed = '(SELECT *, epoch_us("at") AS "_mlw_us" FROM t)'
    found = CON.execute(touched_view_sql(view, timed, "touched", span)).fetchall()
    again = {row[0]: dict(zip(names, row, strict=True)) for row in found}
    assert len(again) == len(found)
    gone = {i for i, _ in changed}
    after = {i: row for i, row in before.items() if i not in gone} | again
    full = computed(view, now)
    assert set(after) == set(full)
    for i, row in full.items():
        for name in names:
            assert same(after[i][name], row[name]), (name, i, new[i])


@pytest.fixture(scope="module")
def wb(tmp_path_factory):
    wb = create_workbench(tmp_path_factory.mktemp("refresh") / "wb")
    cards = simulate_cards(customers=60, terminals=120, days=70)
    with write_lake("cards", wb=wb) as write:
        write.con.register("all_cards", cards)
        write.con.execute(
            "CREATE TABLE later AS SELECT * FROM all_cards WHERE transaction_id >= 7000 OR transaction_id % 50 = 0"
        )
        write.con.execute(
            "CREATE TABLE cards AS FROM all_cards WHERE transaction_id NOT IN (SELECT transaction_id FROM later)"
        )
    build("handbook", wb, table="cards")
    return wb


def agrees(wb):
    full = sql(explain("handbook", wb), wb=wb).order("transaction_id").df()
    ours = sql("FROM handbook ORDER BY transaction_id", wb=wb).df()
    assert len(full) == len(ours) and list(full) == list(ours)
    assert full.isna().equals(ours.isna())
    assert (full - ours).abs().max().max() < 1e-9


def test_a_history_of_changes_in_the_lake(wb):
    """Appended, late, corrected and deleted rows, one or several commits between two refreshes."""
    change = [
        "INSERT INTO cards FROM later WHERE transaction_id BETWEEN 7000 AND 7200",  # appended
        "INSERT INTO cards FROM later WHERE transaction_id < 7000 AND transaction_id % 100 = 0",  # late
        "UPDATE cards SET is_fraud = 1 WHERE transaction_id % 997 = 1",  # corrected
        'UPDATE cards SET "at" = "at" + INTERVAL 3 DAY, customer_id = 5 WHERE transaction_id = 4321',
        "DELETE FROM cards WHERE transaction_id % 501 = 3",
        "DELETE FROM cards WHERE customer_id = (SELECT max(customer_id) FROM cards)",
    ]
    rng = random.Random(0)
    waiting = 0
    for statement in change:
        sql(statement, write=True, wb=wb)
        waiting += 1
        if rng.random() < 0.7 or statement == change[-1]:
            done, waiting = refresh("handbook", wb), 0
            assert 0 < done["recomputed"] < done["rows"], statement
            agrees(wb)
    assert waiting == 0 and refresh("handbook", wb)["recomputed"] == 0


def test_what_cannot_be_continued_is_built_in_full(wb):
    newest = snapshots("handbook", wb=wb)[-1]["snapshot"]
    assert refresh("handbook", wb)["snapshot"] == newest
    sql("DELETE FROM handbook WHERE transaction_id = 1", write=True, wb=wb)  # somebody's hands
    done = refresh("handbook", wb)
    assert done["recomputed"] == done["rows"]
    agrees(wb)
    sql(
        "CREATE OR REPLACE TABLE cards AS SELECT * FROM cards WHERE customer_id < 40",
        write=True,
        wb=wb,
    )
    done = refresh("handbook", wb)
    assert done["recomputed"] == done["rows"] < 7_000
    agrees(wb)

    ten = FeatureView(
        "ten", "cards", "transaction_id", "at", (mean("amount", "customer_id", "10 rows"),)
    )
    build(ten, wb)
    who = sql("SELECT customer_id FROM cards WHERE transaction_id = 2", wb=wb).fetchone()[0]
    sql("DELETE FROM cards WHERE transaction_id = 2", write=True, wb=wb)
    mine = sql(f"SELECT count(*) FROM cards WHERE customer_id = {who}", wb=wb).fetchone()[0]
    assert 0 < refresh(ten, wb)["recomputed"] <= mine
    full = sql(view_sql(ten, "cards"), wb=wb).order("transaction_id").df()
    assert full.equals(sql("FROM ten ORDER BY transaction_id", wb=wb).df())
