"""Building views: declared in a notebook, written whole, remembered, and refused when they leak."""

import functools
import json
import random

import duckdb
import pytest
import sqlalchemy as sa
from test_features import WINDOWS, every_feature, same, table

from mlworkbench.core.errors import UserError
from mlworkbench.core.progress import silent
from mlworkbench.core.store import reading
from mlworkbench.core.store import views as built_views
from mlworkbench.data import contracts
from mlworkbench.data.building import build, declared_views, explain, find_view, views
from mlworkbench.data.catalog import declare_roles, declared_roles, snapshots, table_columns
from mlworkbench.data.commits import write_lake
from mlworkbench.data.computing import compute_view, part_sql, parts_needed
from mlworkbench.data.features import FeatureView, column, definition_hash, expression, mean, share
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql
from mlworkbench.data.refreshing import refresh
from mlworkbench.data.simulation import simulate_cards
from mlworkbench.modelling.datasets import check_training

DECLARED = """#| export
from mlworkbench.data.features import FeatureView, count, mean
habits = FeatureView("habits", "cards", "transaction_id", "at", (
    count("customer_id", "1 day", name="today"), mean("amount", "customer_id", "9 days", name="usual"),
))
also_habits = habits
"""


def write(wb, table, data):
    with write_lake(f"new {table}", wb=wb) as change:
        change.con.register("data", data)
        change.con.execute(f'CREATE OR REPLACE TABLE "{table}" AS FROM data')


def declare(wb, *cells):
    (wb.root / "nbs").mkdir(exist_ok=True)
    cells = [{"cell_type": "code", "source": text.splitlines(keepends=True)} for text in cells]
    (wb.root / "nbs" / "features.ipynb").write_text(json.dumps({"cells": cells}))


@pytest.fixture
def wb(tmp_path):
    wb = create_workbench(tmp_path / "wb")
    write(wb, "cards", simulate_cards(customers=30, terminals=60, days=20))
    return wb


def test_a_view_from_the_notebook_is_built_and_remembered(wb):
    declare(wb, "raise SystemExit  # not exported, never run", DECLARED)
    assert list(declared_views(wb)) == ["habits"]
    seen = []
    built = build("habits", wb=wb, progress=lambda done, text: seen.append(done))
    assert seen == sorted(seen) and seen[-1] == 1
    assert list(table_columns("habits", wb=wb)) == ["transaction_id", "today", "usual"]
    assert built["rows"] == sql("SELECT count(*) FROM cards", wb=wb).fetchone()[0]
    assert declared_roles("habits", wb)["key"] == ["transaction_id"]
    history = snapshots("habits", wb=wb)
    assert len(history) == 1 and history[0]["snapshot"] == built["snapshot"]
    with reading(wb) as db:
        row = db.execute(sa.select(built_views)).one()
    assert (row.name, row.source, row.rows) == ("habits", "cards", built["rows"])
    assert row.definition_sha256 == definition_hash(find_view("habits", wb=wb))
    assert row.source_snapshot == snapshots("cards", wb=wb)[-1]["snapshot"]
    assert json.loads(row.definition)["features"][1]["window"] == "9 days"


def test_what_is_built_is_what_explain_shows(wb):
    build("handbook", wb=wb)
    ours = sql(explain("handbook", wb), wb=wb).order("transaction_id").df()
    assert ours.equals(sql("FROM handbook ORDER BY transaction_id", wb=wb).df())


def test_the_handbook_needs_no_declaration(wb):
    assert [v["view"] for v in views(wb)] == ["handbook"] and not views(wb)[0]["current"]
    build("handbook", wb=wb)
    assert views(wb)[0]["current"]
    write(wb, "more", simulate_cards(customers=5, terminals=5, days=5))
    assert find_view("handbook", wb=wb).table == "cards"
    assert find_view("handbook", "more", wb).table == "more"
    sql("DROP TABLE cards", write=True, wb=wb)
    assert find_view("handbook", wb=wb).table == "more"
    write(wb, "other", simulate_cards(customers=5, terminals=5, days=5))
    with pytest.raises(UserError, match="fits several tables: more, other"):
        find_view("handbook", wb=wb)


def test_a_workbench_without_cards_says_how_to_get_some(tmp_path):
    wb = create_workbench(tmp_path / "empty")
    assert views(wb) == []
    with pytest.raises(UserError, match="simulate cards"):
        build("handbook", wb=wb)


def test_a_past_source_can_be_built(wb):
    first = snapshots("cards", wb=wb)[-1]["snapshot"]
    rows = build("handbook", wb=wb)["rows"]
    sql("DELETE FROM cards WHERE transaction_id < 100", write=True, wb=wb)
    assert build("handbook", wb=wb)["rows"] == rows - 100
    past = build("handbook", wb=wb, at=first)
    assert past["rows"] == rows and past["source_snapshot"] == first
    assert not views(wb)[0]["current"]
    with pytest.raises(UserError):
        build("handbook", wb=wb, at=9_999)


def view(name, *features, table="cards", late=None):
    return FeatureView(name, table, "transaction_id", "at", features, late or {})


WRONG = [
    (lambda: "handbok", "Did you mean 'handbook'"),
    (lambda: view("v", mean("amuont", "customer_id", "1 day")), "Did you mean 'amount'"),
    (lambda: view("v", mean("amount", "customer_id", "1 day"), table="crads"), "cards"),
    (lambda: view("cards", mean("amount", "customer_id", "1 day")), "a table already"),
    (lambda: view("kept", mean("amount", "customer_id", "1 day")), "a table already"),
    (lambda: view("predictions", mean("amount", "customer_id", "1 day")), "reserved"),
    (lambda: view("mlw_x", mean("amount", "customer_id", "1 day")), "reserved"),
    (lambda: view("v", share("is_fraud", "terminal_id", "1 day")), "would read the future"),
    (
        lambda: view("v", expression("e", "amount || nothing_of_it(amount)")),
        "may not use nothing_of_it",
    ),
    (lambda: view("v", expression("e", "CAST('x' || amount AS DATE)")), "does not fit"),
    (
        lambda: FeatureView("v", "cards", "customer_id", "at", (column("amount"),)),
        "one that another row has",
    ),
]


def test_what_cannot_be_built_changes_nothing(wb):
    write(wb, "kept", simulate_cards(customers=5, terminals=5, days=5))
    with write_lake("roles", wb=wb) as change:
        declare_roles(change.con, "cards", label="is_fraud")
    before = snapshots(wb=wb)
    for wrong, said in WRONG:
        with pytest.raises(UserError, match=said):
            build(wrong(), wb=wb)
    assert snapshots(wb=wb) == before
    with reading(wb) as db:
        assert not db.execute(sa.select(built_views)).all()


def test_a_declared_delay_wins_over_the_role(wb):
    with write_lake("roles", wb=wb) as change:
        declare_roles(change.con, "cards", label="is_fraud")
    late = {"is_fraud": "2 days"}
    fits = view("v", share("is_fraud", "terminal_id", "1 day", delay="2 days"), late=late)
    assert build(fits, wb=wb)["rows"] == sql("SELECT count(*) FROM cards", wb=wb).fetchone()[0]


LATE = """#| export
from mlworkbench.data.features import FeatureView, share
known = share("is_fraud", "terminal_id", "5 days", delay="2 days")
lab = FeatureView("lab", "cards", "transaction_id", "at", (known,))
"""


def test_the_contract_of_today_judges_what_was_built_yesterday(wb):
    say = functools.partial(contracts.declare, "cards", wb)
    say(key="transaction_id", label={"is_fraud": "2 days"})
    declare(wb, LATE)
    build("lab", wb=wb)
    asked = {"table": "cards", "target": "is_fraud", "view": "lab", "split": "random"}
    assert [v["current"] for v in views(wb)][:1] == [True] and check_training(asked, wb).view
    say(label={"is_fraud": "6 days"})
    assert [v["current"] for v in views(wb)][:1] == [False]
    for again in (lambda: build("lab", wb=wb), lambda: check_training(asked, wb)):
        with pytest.raises(UserError, match="known only 6 days later"):
            again()
    say(label={"is_fraud": "2 days"}, forbidden="scenario")
    assert check_training(asked, wb).view == "lab"
    for feature in (column("scenario"), share("scenario", "customer_id", "1 day", of=1)):
        with pytest.raises(UserError, match="made of 'scenario', which the contract of 'cards'"):
            build(view("v", feature), wb=wb)
    grouped = mean("amount", ("customer_id", "scenario"), "1 day")
    assert build(view("v", grouped), wb=wb)["rows"]


BROKEN = [
    (["#| export\nx = 1\nx / 0"], "cell 1: line 3: ZeroDivisionError"),
    (["x = (1", "#| export\nx = (1"], "cell 2: line 2: SyntaxError"),
    ([DECLARED, DECLARED.replace("9 days", "8 days").replace("habits =", "other =")], "twice"),
    (
        ["#| export\nfrom mlworkbench.data.features import count\nc = count('a', 'a month')"],
        "cell 1: 'a month' is no length",
    ),
]


def test_an_error_in_the_notebook_says_where(wb):
    for cells, said in BROKEN:
        declare(wb, *cells)
        with pytest.raises(UserError, match=said):
            declared_views(wb)


def test_what_is_no_notebook_is_said(wb):
    (wb.root / "nbs").mkdir()
    (wb.root / "nbs" / "features.ipynb").write_text("not JSON")
    with pytest.raises(UserError, match="is not a notebook"):
        views(wb)


UPPER = """#| export
from mlworkbench.data.features import FeatureView, column, count, highest, mean
habits = FeatureView("habits", "cards", "transaction_id", "at", (
    column("customer_id"), column("at"), mean("amount", "customer_id", "9 days", name="usual"),
))
upper = FeatureView("upper", "habits", "transaction_id", "at", (
    highest("usual", "customer_id", "5 days", name="most_usual"),
))
"""


def test_a_view_over_a_view_follows_it(wb):
    declare(wb, UPPER)
    build("upper", wb=wb)
    assert {v["view"]: v["current"] for v in views(wb)}["upper"]
    sql("UPDATE cards SET amount = 1000 WHERE transaction_id % 100 = 3", write=True, wb=wb)
    sql("DELETE FROM cards WHERE transaction_id % 100 = 4", write=True, wb=wb)
    done = refresh("upper", wb)
    assert 0 < done["recomputed"] < done["rows"]
    full = sql(explain("upper", wb), wb=wb).order("transaction_id").df()
    ours = sql("FROM upper ORDER BY transaction_id", wb=wb).df()
    assert (full - ours).abs().max().max() < 1e-9 and len(full) == len(ours)
    declare(wb, UPPER.replace('"habits", "cards"', '"habits", "upper"'))
    with pytest.raises(UserError, match="ring"):
        build("habits", wb=wb)


def test_nobody_waits_while_a_view_is_computed(wb, monkeypatch):
    """Somebody commits while the rows are being computed; the build is of the snapshot before."""
    before = snapshots("cards", wb=wb)[-1]["snapshot"]
    rows = sql("SELECT count(*) FROM cards", wb=wb).fetchone()[0]
    from mlworkbench.data import building

    compute = building.compute_view

    def busy(*given):
        found = compute(*given)
        sql("DELETE FROM cards WHERE transaction_id < 5", write=True, wb=wb)
        return found

    monkeypatch.setattr(building, "compute_view", busy)
    built = build("handbook", wb=wb)
    assert (built["source_snapshot"], built["rows"]) == (before, rows)
    assert not views(wb)[0]["current"]
    monkeypatch.undo()
    assert refresh("handbook", wb)["rows"] == rows - 5


def test_a_refresh_that_was_overtaken_starts_again(wb, monkeypatch):
    build("handbook", wb=wb)
    sql("DELETE FROM cards WHERE transaction_id < 5", write=True, wb=wb)
    from mlworkbench.data import refreshing

    compute, other = refreshing.computed, []

    def busy(*given):
        if not other:
            other.append(1)
            other.append(refresh("handbook", wb)["recomputed"])
        return compute(*given)

    monkeypatch.setattr(refreshing, "computed", busy)
    last = refresh("handbook", wb)
    assert other[1] > 0 and last["recomputed"] == 0
    ours = sql(explain("handbook", wb), wb=wb).order("transaction_id").df()
    assert len(ours) == last["rows"]


def test_a_build_that_fails_midway_leaves_the_old_one(wb, monkeypatch):
    build("handbook", wb=wb)
    before = sql("SELECT sum(hash(handbook)) FROM handbook", wb=wb).fetchone()

    def broken(view, source):
        return "SELECT transaction_id, error('no') AS x FROM cards"

    monkeypatch.setattr("mlworkbench.data.computing.view_sql", broken)
    with pytest.raises(UserError, match="does not fit"):
        build("handbook", wb=wb)
    assert sql("SELECT sum(hash(handbook)) FROM handbook", wb=wb).fetchone() == before


@pytest.mark.parametrize("window", WINDOWS)
def test_parts_of_the_entities_together_are_the_whole(window, tmp_path):
    """Three entities (one of two columns), empty ones and empty times among them, in one to five parts."""
    rng, con = random.Random(window), duckdb.connect()
    columns = (
        [*range(90), None],
        ["a", "b", "c", "d", None],
        ["x", "y"],
        [-3.5, 0.25, None],
        [0, 1],
    )
    con.register("t", table([[rng.choice(column) for column in columns] for _ in range(300)]))
    for delay in ("", "5 seconds"):
        view = every_feature(window, delay, current=False)
        whole, *others = (
            con.execute(compute_view(con, view, "t", tmp_path, parts, silent)).fetchall()
            for parts in (1, 2, 5)
        )
        whole = {row[0]: row for row in whole}
        assert len(whole) == 300
        for rows in others:
            assert len(rows) == 300
            for row in rows:
                assert all(map(same, row, whole[row[0]])), (row, whole[row[0]])
    sizes = [con.execute(part_sql(view, ("who",), "t", p, 5)).fetchall() for p in range(5)]
    assert sum(map(len, sizes)) == 300 and max(map(len, sizes)) < 300


def test_a_table_larger_than_memory_is_built_part_by_part(wb, monkeypatch):
    """A build that thinks of memory as tiny says its parts, gives the same table and leaves no file."""
    build("handbook", wb=wb)
    whole = sql("FROM handbook ORDER BY transaction_id", wb=wb).df()
    with duckdb.connect(config={"memory_limit": "1GB"}) as con:
        con.execute("CREATE VIEW cards AS SELECT 1 AS x FROM range(20_000_000)")
        assert parts_needed(con, find_view("handbook", wb=wb), "cards") > 4
        assert parts_needed(con, find_view("handbook", wb=wb), "(FROM cards LIMIT 9)") == 1
    monkeypatch.setattr("mlworkbench.data.building.parts_needed", lambda *_: 3)
    said = []
    built = build("handbook", wb=wb, progress=lambda done, text: said.append((done, text)))
    assert "handbook by terminal_id, part 3 of 3" in [text for _, text in said]
    assert said == sorted(said, key=lambda step: step[0])
    ours = sql("FROM handbook ORDER BY transaction_id", wb=wb).df()
    assert len(ours) == built["rows"] == len(whole) and list(ours) == list(whole)
    assert (ours.dtypes == whole.dtypes).all() and (ours - whole).abs().max().max() < 1e-9
    assert not list((wb.root / "lake" / "tmp").glob("work-*"))
