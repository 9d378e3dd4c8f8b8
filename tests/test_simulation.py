"""The simulated cards against the facts published about the Fraud Detection Handbook's data."""

import numpy as np
import pytest

from mlworkbench.core.errors import UserError
from mlworkbench.data.simulation import simulate_cards

COLUMNS = ["transaction_id", "at", "customer_id", "terminal_id", "amount", "is_fraud", "scenario"]
PUBLISHED = {"rows": 1_754_155, 1: 973, 2: 9_077, 3: 4_631, "genuine": 52.98}
DAY = np.timedelta64(1, "D")


@pytest.fixture(scope="module")
def worlds():
    return [simulate_cards(seed=seed) for seed in range(4)]


def column(table, name):
    return table[name].to_numpy()


def test_the_published_counts_lie_among_ours(worlds):
    """Over four seeds, every published figure lies within four standard errors of the mean.

    The spread between worlds (who lives where, how busy they are) is larger than binomial; it is
    estimated from the rules: a rate is U(0, 4), a purse U(5, 100), a compromised customer has
    about 27 transactions in 14 days with a standard deviation of 16.
    """
    ours = {kind: [(column(w, "scenario") == kind).sum() for w in worlds] for kind in (1, 2, 3)}
    ours["rows"] = [w.num_rows for w in worlds]
    ours["genuine"] = [column(w, "amount")[column(w, "is_fraud") == 0].mean() for w in worlds]
    spread = {"rows": 14_500, 1: 60, 2: 150, 3: 130, "genuine": 0.6}
    for what, published in PUBLISHED.items():
        error = spread[what] * np.sqrt(1 + 1 / len(worlds))
        assert abs(np.mean(ours[what]) - published) < 4 * error, (what, ours[what], published)


def test_the_fraud_rate_is_the_published_one(worlds):
    for world in worlds:
        assert 0.0078 < column(world, "is_fraud").mean() < 0.0090


def test_two_terminals_and_three_customers_a_day(worlds):
    """A terminal stays bad for 28 days and two are drawn a day: 56 at a time, once filled."""
    world = worlds[0]
    day = (column(world, "at") - np.datetime64("2018-04-01")) // DAY
    bad = column(world, "scenario") == 2
    on = [np.unique(column(world, "terminal_id")[bad & (day == d)]).size for d in (0, 60, 120)]
    assert on[0] <= 2 and 22 <= on[1] <= 56 and 22 <= on[2] <= 56
    robbed = column(world, "scenario") == 3
    on = [np.unique(column(world, "customer_id")[robbed & (day == d)]).size for d in (0, 60, 120)]
    assert on[0] <= 3 and max(on) <= 42


def test_a_compromised_terminal_has_no_genuine_rows_for_28_days(worlds):
    world = worlds[1]
    day = (column(world, "at") - np.datetime64("2018-04-01")) // DAY
    terminal, kind = column(world, "terminal_id"), column(world, "scenario")
    first = terminal[np.flatnonzero((kind == 2) & (day == 40))[0]]
    mine = terminal == first
    days = np.unique(day[mine & (kind == 2)])
    inside = mine & (day >= days.min()) & (day <= days.max())
    assert (kind[inside] > 0).all()


def test_where_people_pay_is_within_reach():
    """A customer uses a fixed, small set of terminals, and uses each of them alike."""
    world = simulate_cards(customers=200, terminals=10_000, days=183)
    customer, terminal = column(world, "customer_id"), column(world, "terminal_id")
    sizes = [np.unique(terminal[customer == c]).size for c in range(200)]
    # about 78 are within distance 5 inside the square, a quarter of that in a corner
    assert 40 < np.mean(sizes) < 90 and max(sizes) < 120


def test_large_amounts_are_fraud(worlds):
    world = worlds[0]
    assert (column(world, "is_fraud")[column(world, "amount") > 220] == 1).all()
    amount = column(world, "amount")
    assert np.abs(np.round(amount, 2) - amount).max() == 0 and amount.min() >= 0


@pytest.mark.parametrize("size", [(300, 600, 90), (300, 600, 10), (50, 20, 3), (1, 1, 1)])
def test_small_worlds_are_sensible(size):
    customers, terminals, days = size
    world = simulate_cards(customers=customers, terminals=terminals, days=days, seed=1)
    assert world.column_names == COLUMNS
    assert (column(world, "transaction_id") == np.arange(world.num_rows)).all()
    assert (np.diff(column(world, "at").astype(np.int64)) >= 0).all()
    assert set(column(world, "customer_id")) <= set(range(customers))
    assert set(column(world, "terminal_id")) <= set(range(terminals))
    if customers == 300:
        assert 0.75 < world.num_rows / (customers * 2 * days * 0.969) < 1.25
        assert 0.0005 < column(world, "is_fraud").mean() < 0.03


def test_one_seed_one_table_and_a_longer_one_starts_the_same():
    short = simulate_cards(customers=100, terminals=200, days=20, seed=5)
    assert short.equals(simulate_cards(customers=100, terminals=200, days=20, seed=5))
    assert not short.equals(simulate_cards(customers=100, terminals=200, days=20, seed=6))
    longer = simulate_cards(customers=100, terminals=200, days=40, seed=5).slice(0, short.num_rows)
    for name in ("at", "customer_id", "terminal_id"):
        assert longer[name].equals(short[name])


def test_progress_rises_to_one():
    seen = []
    simulate_cards(
        customers=20, terminals=20, days=9, progress=lambda done, text: seen.append(done)
    )
    assert seen == sorted(seen) and seen[-1] == 1


@pytest.mark.parametrize("wrong", [{"days": 0}, {"customers": -1}, {"start": "April"}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(UserError):
        simulate_cards(**wrong)
