import dataclasses
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.modelling.resampling import Difference, paired
from mlworkbench.modelling.verdicts import (
    Facts,
    error_at,
    higher_is_better,
    judge,
    rows_needed,
    verdict,
)

TORTURE = os.environ.get("TORTURE", "0") not in ("", "0")
FACTS = Facts("old", "new", entity="cards", days=21)


def seen(low, high, metric="auc", n=1000, clusters=50, note=""):
    se = (high - low) / 3.92
    return Difference(metric, (low + high) / 2, low, high, 0.1, n, clusters, "entities", note, se)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 1), st.booleans())
def test_the_word_follows_the_interval_alone(low, wide, worth, higher):
    high = low + wide
    word = judge(low, high, worth, higher)
    assert judge(-high, -low, worth, not higher) == word
    if -worth < low and high < worth:
        assert word == "equivalent"
    elif low > 0:
        assert word == ("better" if higher else "worse")
    elif high < 0:
        assert word == ("worse" if higher else "better")
    else:
        assert word == "cannot tell"
    if low <= 0 <= high:
        assert judge(low, high, None, higher) == "cannot tell"


def test_no_interval_is_no_verdict():
    nothing = Difference(
        "auc", 0.2, np.nan, np.nan, np.nan, 12, 0, "rows", "1 positives are too few"
    )
    got = verdict(nothing, FACTS, worth=0.01)
    assert (
        got.verdict == "cannot tell" and "no interval" in got.sentence and "too few" in got.sentence
    )


def test_directions_are_known():
    assert higher_is_better("auc") and higher_is_better("recall") and not higher_is_better("cost")
    assert not higher_is_better("rmse") and not higher_is_better("brier")
    with pytest.raises(WorkbenchError, match="not known"):
        higher_is_better("lift")


def test_worth_has_to_make_sense():
    with pytest.raises(WorkbenchError, match="worth is 0"):
        judge(0.1, 0.2, worth=0)
    with pytest.raises(WorkbenchError, match="needs a worth"):
        judge(0.1, 0.2, not_worse=True)
    with pytest.raises(WorkbenchError):
        rows_needed(seen(0.1, 0.1), 0.1)


@pytest.mark.parametrize(
    ("low", "high", "more", "word", "said"),
    [
        (0.01, 0.03, {}, "better", "new is better than old"),
        (-0.03, -0.01, {}, "worse", "new is worse than old"),
        (-0.001, 0.002, {"worth": 0.005}, "equivalent", "inside ±0.005"),
        (
            -0.003,
            0.02,
            {"worth": 0.005, "not_worse": True},
            "equivalent",
            "not worse than old by more",
        ),
        (0.001, 0.008, {"worth": 0.005}, "better", "may be less than the 0.005"),
        (-0.01, 0.02, {"worth": 0.005}, "cannot tell", "more rows, about"),
        (-0.01, 0.02, {}, "cannot tell", "Cannot tell new from old"),
    ],
)
def test_sentences(low, high, more, word, said):
    got = verdict(seen(low, high), FACTS, **more)
    assert got.verdict == word and said in got.sentence
    for always in ("old", "new", "AUC", "50 cards", "1,000 rows", "later drift", "95% interval"):
        assert always in got.sentence
    assert "\n" not in got.sentence


def test_the_time_that_rows_span_is_told_in_days_and_what_is_missing_in_weeks():
    one = dataclasses.replace(seen(-0.01, 0.02), evidence=900)
    assert "from 21 days and" in verdict(one, FACTS, worth=0.01).sentence
    more = verdict(one, FACTS, worth=0.01).rows_still_needed
    short = dataclasses.replace(FACTS, days=1_000 * 7 // more)
    assert "about 1 more week." in verdict(one, short, worth=0.01).sentence


def test_caveats_are_said():
    got = verdict(
        seen(0.01, 0.03, note="stands on about 12 positives"), Facts("a", "b", days=5, looks=7)
    )
    assert (
        "one week alone" in got.sentence
        and "12 positives" in got.sentence
        and "7 times" in got.sentence
    )
    money = verdict(seen(-900, -100, metric="cost"), Facts("a", "b", unit="EUR"))
    assert money.verdict == "better" and "-500 EUR" in money.sentence


def test_a_promise_that_few_units_would_carry_is_a_rough_one():
    few = dataclasses.replace(seen(-0.01, 0.02), evidence=9)
    many = dataclasses.replace(few, evidence=900)
    assert "roughly four times in five" in verdict(few, FACTS, worth=0.01).sentence
    said = verdict(many, FACTS, worth=0.01).sentence
    assert "four times in five" in said and "roughly" not in said


def test_on_thin_evidence_a_number_is_given_and_no_promise():
    thin = dataclasses.replace(seen(-0.01, 0.02), evidence=4, note="stands on about 4 positives")
    said = verdict(thin, FACTS, worth=0.01)
    told = int(re.search(r"may take ([\d,]+) more rows", said.sentence)[1].replace(",", ""))
    assert said.rows_still_needed <= told < 1.1 * said.rows_still_needed + 1  # two digits of it
    assert "no number can be promised" in said.sentence and "in five" not in said.sentence
    near = dataclasses.replace(seen(-0.0005, 0.02), evidence=12, note=thin.note)
    assert (
        "These rows may show a difference of 0.0199;" in verdict(near, FACTS, worth=0.0199).sentence
    )


def test_the_standard_error_is_that_at_the_worth_and_the_pilots_own_luck_counts():
    """Against a simulation: an average precision that doubles, and pilots of few units."""
    rng, n, pilots, apart = np.random.default_rng(1), 3000, [], []
    for rep in range(120):
        label = (rng.random(n) < 0.01) * 1
        base = 1.5 * label + 0.9 * rng.normal(size=n)
        a, b = (base + 0.4 * rng.normal(size=n) for _ in range(2))
        given = {"metrics": ["average_precision"], "resamples": 60, "seed": rep}
        for found, second in ((pilots, b), (apart, b + 0.4 * label)):
            found.append(paired("binary", label, a, second, **given)["average_precision"])
    worth = np.mean([d.value for d in apart])
    truly, at_none = (np.sqrt(np.mean([d.se**2 for d in s])) for s in (apart, pilots))
    at_worth = np.sqrt(np.mean([error_at(d, worth) ** 2 for d in pilots]))
    print(f"{worth:.3f}: {truly:.4f}, foreseen {at_worth:.4f}, at none {at_none:.4f}")
    assert 0.95 * truly < at_worth < 1.25 * truly and at_none < 0.85 * truly
    few, many = (dataclasses.replace(seen(-0.01, 0.01), evidence=e) for e in (6, 1e6))
    stein = stats.nct.ppf(0.8, 5, stats.t.ppf(0.975, 5)) / stats.norm.ppf([0.975, 0.8]).sum()
    wide = few.se * (stats.norm.ppf([0.975, 0.8]).sum() * stein)
    assert rows_needed(few, wide) == pytest.approx(few.n, rel=0.01)
    assert rows_needed(many, wide) < 0.7 * few.n


def test_decimals_grow_with_the_interval():
    assert (
        "+0.00020 (95% interval +0.00010 to +0.00030)"
        in verdict(seen(0.0001, 0.0003), FACTS).sentence
    )


def test_rows_needed_come_true():
    """Draw that many rows with a true difference of `worth`: it is called four times in five."""
    reps = 2000 if TORTURE else 200
    rng = np.random.default_rng(0)

    def rows(n, gain):
        label = (rng.random(n) < 0.2) * 1
        base = rng.normal(size=n)
        a = 1.2 * label + base + 0.5 * rng.normal(size=n)
        return label, a, (1.2 + gain) * label + base + 0.5 * rng.normal(size=n)

    gain, shift = 0.16, np.sqrt(2 * (1 + 0.25))
    worth = stats.norm.cdf((1.2 + gain) / shift) - stats.norm.cdf(1.2 / shift)
    pilot = paired("binary", *rows(30_000, 0.0), metrics=["auc"], resamples=400)["auc"]
    n = rows_needed(pilot, worth)
    called = sum(
        paired("binary", *rows(n, gain), metrics=["auc"], resamples=100, seed=r)["auc"].low > 0
        for r in range(reps)
    )
    print(f"{n} rows, called {called / reps:.3f}")
    assert stats.binom.ppf(0.0005, reps, 0.77) <= called <= stats.binom.ppf(0.9995, reps, 0.84)
