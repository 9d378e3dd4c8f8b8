"""Feature views: equal to a plain definition and to the published values, and blind to the future."""

import dataclasses
import datetime as dt
import math
import os
import pathlib

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import UserError
from mlworkbench.data import features as ft
from mlworkbench.data.feature_checks import check_columns, check_numbers
from mlworkbench.data.features import (
    FeatureView,
    calendar,
    check_late,
    column,
    count,
    decayed,
    deviation,
    distinct,
    expression,
    highest,
    last,
    lowest,
    mean,
    ratio,
    share,
    since,
    total,
)
from mlworkbench.data.handbook import handbook_for, handbook_view
from mlworkbench.data.simulation import simulate_cards
from mlworkbench.data.windows import view_sql

DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"
EXAMPLES = 1_000 if os.environ.get("TORTURE") else 60
real = pytest.mark.skipif(
    not (DATA / "handbook_features.parquet").exists(), reason="the published data is not at hand"
)

# Every aggregate over every kind of window, delayed or not, with and without the current row.
WINDOWS = ["2 seconds", "10 seconds", "1 minute", "3 rows", "all"]


def every_feature(window, delay, current):
    kept = {"delay": delay, "current": current}
    features = [
        count("who", window, name="count", **kept),
        total("amount", "who", window, name="sum", **kept),
        mean("amount", "who", window, name="mean", **kept),
        lowest("amount", "who", window, name="min", **kept),
        highest("amount", "who", window, name="max", **kept),
        deviation("amount", "who", window, name="std", **kept),
        share("flag", "where", window, name="share", **kept),
        distinct("amount", ("who", "where"), window, name="distinct", **kept),
        last("amount", "who", window, delay=delay, name="last"),
        since("who", window, name="since"),
        share("where", "who", window, of="x", name="share_of", **kept),
        ratio("amount", "who", window, delay=delay, name="usual"),
        decayed("amount", "who", "3 seconds", window, name="decayed", **kept),
        calendar("hour", "at", name="hour"),
        expression("ratio", "amount / nullif(mean, 0)"),
    ]
    late = {"flag": delay} if delay else {}
    return FeatureView("every", "t", "id", "at", features, late)


START = dt.datetime(2024, 2, 28, 23, 59, 0)  # a leap day follows
ROW = st.tuples(
    st.integers(0, 90),  # seconds: many ties
    st.sampled_from(["a", "b", None]),
    st.sampled_from(["x", "y"]),
    st.one_of(st.none(), st.integers(-40, 40).map(lambda n: n / 4)),
    st.sampled_from([0, 1, None]),
)
ROWS = st.lists(ROW, min_size=1, max_size=25)
KIND = st.tuples(st.sampled_from(WINDOWS), st.sampled_from(["", "5 seconds"]), st.booleans())


def table(rows, ids=None):
    ids = range(len(rows)) if ids is None else ids
    at = [None if r[0] is None else START + dt.timedelta(seconds=r[0]) for r in rows]
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "at": pa.array(at, pa.timestamp("us")),
            "who": pa.array([r[1] for r in rows], pa.string()),
            "where": pa.array([r[2] for r in rows], pa.string()),
            "amount": pa.array([r[3] for r in rows], pa.float64()),
            "flag": pa.array([r[4] for r in rows], pa.int8()),
        }
    )


CON = duckdb.connect()
CON.execute("SET threads = 1")


def computed(view, rows):
    CON.register("t", rows)
    found = CON.execute(view_sql(view, "t")).fetchall()
    names = [view.key, *(f.name for f in view.features)]
    return {row[0]: dict(zip(names, row, strict=True)) for row in found}


def by_hand(feature, row, rows):
    """The plain definition: which rows a feature may see, and what it makes of them."""
    by = [row[c] for c in feature.by]
    if None in by or row["at"] is None:
        return None
    delay = ft.microseconds(feature.delay) / 1e6 if feature.delay else 0

    def visible(other):
        if other["at"] is None or [other[c] for c in feature.by] != by:
            return False
        if delay:
            return (row["at"] - other["at"]).total_seconds() >= delay
        if other["id"] == row["id"]:
            return feature.current
        return (other["at"], other["id"]) < (row["at"], row["id"])

    seen = sorted((o for o in rows if visible(o)), key=lambda o: (o["at"], o["id"]))
    if feature.window.endswith("rows"):
        seen = seen[-int(feature.window.split()[0]) :]
    elif feature.window != "all":
        length = ft.microseconds(feature.window) / 1e6 + delay
        seen = [o for o in seen if (row["at"] - o["at"]).total_seconds() < length]
    if feature.kind == "count":
        return len(seen)
    if feature.kind == "since":
        return (row["at"] - seen[-1]["at"]).total_seconds() if seen else None
    values = [o[feature.column] for o in seen if o[feature.column] is not None]
    if feature.kind == "decayed":
        life = ft.microseconds(feature.half_life) / 1e6
        ages = [(row["at"] - o["at"]).total_seconds() for o in seen]
        pairs = zip(ages, (o[feature.column] for o in seen), strict=True)
        return sum(v * 2 ** (-age / life) for age, v in pairs if v is not None)
    if feature.of is not None:
        values = [v == feature.of for v in values]
    middle = sum(values) / len(values) if values else None
    return {
        "sum": lambda: sum(values),
        "mean": lambda: middle,
        "min": lambda: min(values, default=None),
        "max": lambda: max(values, default=None),
        "std": lambda: (
            math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1))
            if len(values) > 1
            else None
        ),
        "share": lambda: middle or 0,
        "ratio": lambda: (
            row[feature.column] / middle if middle and row[feature.column] is not None else None
        ),
        "distinct": lambda: len(set(values)),
        "last": lambda: values[-1] if values else None,
    }[feature.kind]()


def same(one, other):
    if one is None or other is None:
        return one is None and other is None
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROWS, KIND, st.integers(0, 3))
def test_every_aggregate_and_window_equals_its_plain_definition(rows, kind, timeless):
    rows = [(None if i < timeless - 1 else r[0], *r[1:]) for i, r in enumerate(rows)]
    view, data = every_feature(*kind), table(rows)
    plain, found = data.to_pylist(), computed(view, data)
    assert len(found) == len(rows)
    for row in plain:
        for feature in view.features:
            if feature.kind == "expression":
                continue
            wanted = by_hand(feature, row, plain)
            assert same(found[row["id"]][feature.name], wanted), (feature, row, wanted)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROWS, KIND, st.randoms(use_true_random=False), st.lists(ROW, max_size=8))
def test_no_feature_changes_when_later_rows_are_added_deleted_or_altered(rows, kind, rng, added):
    """Take any row as now. Whatever happens after it in the order (time, key), nothing up to it
    may change: later rows are dropped, altered (time, entity, amount, label) or new ones come,
    into the very same second too.
    """
    view = every_feature(*kind)
    order = sorted((r[0], i) for i, r in enumerate(rows))
    now = order[rng.randrange(len(order))]
    kept = [i for at, i in order if (at, i) <= now]
    future = []
    for at, i in order:
        if (at, i) > now and rng.random() < 0.5:
            altered = (at, rng.choice(["a", "b"]), "x", 1e6, 1)
            future.append((altered if rng.random() < 0.7 else rows[i], i))
    future += [((max(r[0], now[0]), *r[1:]), 1_000 + n) for n, r in enumerate(added)]
    before = computed(view, table(rows))
    after = computed(
        view, table([rows[i] for i in kept] + [r for r, _ in future], kept + [i for _, i in future])
    )
    for i in kept:
        for feature in view.features:
            assert same(before[i][feature.name], after[i][feature.name]), (feature, rows[i])


def test_a_range_frame_up_to_the_current_row_would_leak():
    """The trap itself, so that nobody 'simplifies' the SQL back to it."""
    rows = table([(0, "a", "x", 1.0, 0), (0, "a", "x", 100.0, 0)])
    CON.register("t", rows)
    naive = (
        'SELECT id, avg(amount) OVER (PARTITION BY who ORDER BY "at" RANGE BETWEEN '
        "INTERVAL 1 DAY PRECEDING AND CURRENT ROW) FROM t"
    )
    assert dict(CON.execute(naive).fetchall())[0] == 50.5
    ours = FeatureView("v", "t", "id", "at", (mean("amount", "who", "1 day", name="m"),))
    assert computed(ours, rows)[0]["m"] == 1.0


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_any_time_type_and_the_end_of_summer_time(unit, zone):
    """A day is 24 hours in UTC, also on the day that has 25 of them in Berlin."""
    moments = [dt.datetime(2024, 10, 26, 12), dt.datetime(2024, 10, 27, 11, 59, 59)]
    moments += [dt.datetime(2024, 10, 27, 12, 0, 0)]
    at = pa.array(moments, pa.timestamp("us")).cast(pa.timestamp(unit, zone and "UTC"))
    rows = pa.table({"id": [1, 2, 3], "at": at.cast(pa.timestamp(unit, zone)), "who": ["a"] * 3})
    features = (count("who", "1 day", name="n"), calendar("hour", "at", name="hour"))
    found = computed(FeatureView("v", "t", "id", "at", features), rows)
    assert [found[i]["n"] for i in (1, 2, 3)] == [1, 2, 2]
    assert [found[i]["hour"] for i in (1, 2, 3)] == [12, 11, 12]


def test_a_decayed_sum_over_thousands_of_half_lives():
    """Two sets of blocks of 512 half-lives: no moment may lose its past at a block's edge."""
    rows = pa.table(
        {
            "id": range(400),
            "at": [START + dt.timedelta(seconds=8 * i) for i in range(400)],
            "who": ["a"] * 400,
            "amount": [1.0 + i % 3 for i in range(400)],
        }
    )
    feature = decayed("amount", "who", "5 seconds", name="d")
    found = computed(FeatureView("v", "t", "id", "at", (feature,)), rows)
    plain = rows.to_pylist()
    for row in plain:
        assert same(found[row["id"]]["d"], by_hand(feature, row, plain)), row


def test_hostile_names_are_only_names():
    odd = 'a "b"; DROP TABLE t; --'
    rows = pa.table({"k'": [1, 2], 'ti"me': [START, START], odd: ["u", "u"], "x.y": [1.0, 3.0]})
    features = (mean("x.y", odd, "1 day", name='m "1"'), column("x.y"))
    view = FeatureView("v", "t", "k'", 'ti"me', features)
    found = computed(view, rows)
    assert [found[i]['m "1"'] for i in (1, 2)] == [1.0, 2.0]
    assert computed(view, rows)[2]["x.y"] == 3.0
    check_columns(view, rows.column_names)


def view_of(*features, late=None):
    return FeatureView("v", "cards", "transaction_id", "at", features, late or {})


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        (lambda: share("is_fraud", "terminal_id", "7 days"), "read the future"),
        (lambda: share("is_fraud", "terminal_id", "7 days", delay="6 days"), "after 6 days"),
        (lambda: mean("IS_FRAUD", "terminal_id", "7 days"), "read the future"),
        (lambda: count("is_fraud", "7 days"), "read the future"),
        (lambda: count("is_fraud", "7 days", delay="9 days"), "read the future"),
        (lambda: column("is_fraud"), "read the future"),
        (lambda: expression("e", "amount * (1 - is_fraud)"), "read the future"),
        (lambda: expression("e", "max(amount) OVER ()"), "other rows"),
        (lambda: expression("e", "(SELECT max(amount) FROM cards)"), "other rows"),
        (lambda: expression("e", "random() * amount"), "another answer"),
        (lambda: expression("e", "current_setting('temp_directory')"), "another answer"),
        (lambda: expression("e", "amount > (FROM read_text('/etc/passwd'))"), "other rows"),
        (lambda: expression("e", "sum(amount)"), "other rows"),
        (lambda: ratio("is_fraud", "terminal_id", "7 days", delay="7 days"), "read the future"),
        (lambda: decayed("is_fraud", "terminal_id", "7 days"), "read the future"),
        (lambda: decayed("amount", "terminal_id", "0 days"), "half-life"),
        (lambda: expression("e", "amount +"), "no SQL expression"),
        (lambda: expression("e", "1) FROM cards WHERE (1 = 1"), "more than one"),
        (lambda: mean("amount", "customer_id", "7 days", delay="-1 days"), "reads the future"),
        (lambda: mean("amount", "customer_id", "-7 days"), "has the window"),
        (lambda: mean("amount", "customer_id", "0 rows"), "has the window"),
        (lambda: mean("amount", "customer_id", "a month"), "no length of time"),
        (lambda: calendar("moon", "at"), "no 'moon'"),
    ],
)
def test_what_would_read_the_future_is_refused_with_the_reason(feature, reason):
    with pytest.raises(UserError, match=reason):
        view_of(feature(), late={"is_fraud": "7 days"})


def test_a_label_that_nobody_declared_late_is_caught_by_its_role():
    view = view_of(share("is_fraud", "terminal_id", "7 days"))
    with pytest.raises(UserError, match="read the future"):
        check_late(view, {"is_fraud": ""})
    check_late(view_of(share("is_fraud", "terminal_id", "7 days", delay="1 day")), {"is_fraud": ""})


def test_a_missing_column_is_named_with_the_nearest_right_one():
    with pytest.raises(UserError, match="Did you mean 'amount'"):
        check_columns(
            view_of(mean("amuont", "customer_id", "1 day")), simulate_cards(9, 9, 1).column_names
        )
    with pytest.raises(UserError, match="takes the mean of 'shop', which is text"):
        check_numbers(view_of(mean("shop", "customer_id", "1 day")), {"shop": "VARCHAR"})
    with pytest.raises(UserError, match="Did you mean 'at'|lacks"):
        check_columns(dataclasses.replace(handbook_view(), time="att"), ["transaction_id", "at"])


def test_the_handbook_view_over_simulated_cards():
    cards = simulate_cards(customers=60, terminals=60, days=50, seed=3)
    view = handbook_for("cards", cards.column_names)
    assert view.table == "cards" and len(view.features) == 15
    found = computed(view, cards)
    plain = [row | {"id": row["transaction_id"]} for row in cards.to_pylist()]
    windowed = [f for f in view.features if f.kind != "expression"]
    for row in plain[:: max(1, len(plain) // 40)]:
        for feature in windowed:
            assert same(found[row["transaction_id"]][feature.name], by_hand(feature, row, plain))
        late = row["at"].hour <= 6
        assert found[row["transaction_id"]]["during_night"] == late
        assert found[row["transaction_id"]]["during_weekend"] == (row["at"].weekday() >= 5)


@real
def test_the_published_features_on_every_row():
    transactions, published = (
        DATA / "handbook_transactions.parquet",
        DATA / "handbook_features.parquet",
    )
    with duckdb.connect() as con:
        con.execute("SET preserve_insertion_order = false")
        source = f"read_parquet('{transactions}')"
        columns = con.execute(f"SELECT * FROM {source} LIMIT 0").fetch_arrow_table().column_names
        view = handbook_for("cards", columns)
        con.execute(f"CREATE TABLE ours AS {view_sql(view, source)}")
        con.execute(f"CREATE TABLE theirs AS FROM read_parquet('{published}')")
        theirs = con.execute("SELECT * FROM theirs LIMIT 0").fetch_arrow_table().column_names
        ours = con.execute("SELECT * FROM ours LIMIT 0").fetch_arrow_table().column_names
        assert [c for c in ours if c != "TX_AMOUNT"] == theirs
        worst = ", ".join(f'max(abs(o."{c}" - t."{c}"))' for c in theirs[1:])
        missing = " + ".join(f'count(*) FILTER (o."{c}" IS NULL)' for c in theirs[1:])
        row = con.execute(
            f"SELECT count(*), {missing}, {worst} FROM ours o JOIN theirs t USING (TRANSACTION_ID)"
        ).fetchone()
        assert row[0] == con.execute("SELECT count(*) FROM theirs").fetchone()[0] > 200_000
        assert row[1] == 0 and max(row[2:]) < 1e-9
        assert con.execute("SELECT count(*) FROM ours").fetchone()[0] == 1_754_155
