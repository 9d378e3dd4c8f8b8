import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.modelling import draws, measures
from mlworkbench.modelling.draws import draw_counts, replicate
from mlworkbench.modelling.metrics import cost, measure, precision_at, recall_at
from mlworkbench.modelling.resampling import evidence_note, interval_from, intervals, paired
from mlworkbench.modelling.slices import holm
from mlworkbench.modelling.textbook import delong, mcnemar

TORTURE = os.environ.get("TORTURE", "0") not in ("", "0")


def squash(x):
    return 1 / (1 + np.exp(-x))


def rows(rng, n, rate, shift=2.0):
    label = (rng.random(n) < rate) * 1
    return label, squash(rng.normal(size=n) + shift * label - 2)


# ---------------------------------------------------------------- counts


def test_counts_are_poisson_and_independent():
    counts = draw_counts(5, 0, 200, 20_000).astype(float)
    assert counts.mean() == pytest.approx(1, abs=4 / np.sqrt(counts.size))
    assert counts.var() == pytest.approx(1, abs=0.01)
    seen = np.bincount(counts.astype(int).ravel(), minlength=7)[:6]
    want = stats.poisson.pmf(np.arange(6), 1) * counts.size
    assert np.all(np.abs(seen / want - 1) < [0.01, 0.01, 0.01, 0.02, 0.04, 0.15])
    sums = counts.sum(axis=1)  # across units within a resample
    assert sums.var(ddof=1) / 20_000 == pytest.approx(1, abs=0.4)
    assert abs(np.corrcoef(counts[0], counts[1])[0, 1]) < 0.03
    assert abs(np.corrcoef(counts[:, :-1].ravel(), counts[:, 1:].ravel())[0, 1]) < 0.005
    assert not np.array_equal(draw_counts(6, 0, 1, 100), draw_counts(5, 0, 1, 100))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 500), st.integers(1, 40))
def test_compiled_counts_are_the_plain_ones(seed, number, units):
    out = np.empty(units, np.uint8)
    key = draws._mix(np.array([seed], dtype=np.uint64))[0]
    draws._draw(key, np.uint64(number), draws._COUNTS, out)
    assert np.array_equal(out, draw_counts(seed, number, 1, units)[0])


# ---------------------------------------------------------------- values


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.booleans(),
    st.booleans(),
    st.sampled_from([3, 30, 10**6]),
    st.sampled_from([0.03, 0.5]),
)
def test_each_resample_equals_the_metric_under_its_weights(seed, weighted, clustered, levels, rate):
    """Both ways of computing, against scikit-learn's weighted values, to 1e-12."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 120))
    label = np.r_[0, 1, 0, 1, (rng.random(n - 4) < rate) * 1]
    scores = [np.round(squash(rng.normal(size=n) + label), 6) for _ in range(2)]
    scores = [np.floor(s * levels) / levels for s in scores]
    weight = rng.uniform(0.1, 4, n) if weighted else None
    entity = rng.integers(0, 12, n) if clustered else None
    amount = rng.exponential(30, n)
    made, models = measures.prepare_models(
        "binary", label, scores, weight, entity, None, 0.4, (amount, 3.0), None, top=7
    )
    small = replicate(made, 6, seed)
    large = draws._replicate_large(made, 6, seed, 2, None)
    np.testing.assert_allclose(small[0], large[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(small[1], large[1], rtol=1e-12, atol=1e-12)
    whole = replicate(made, 0, seed), draws._replicate_large(made, 0, seed, 2, None)
    np.testing.assert_allclose(whole[0][0], whole[1][0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole[0][1], whole[1][1], rtol=1e-12, atol=1e-12)
    _, of = np.unique(entity, return_inverse=True) if clustered else (None, np.arange(n))
    counts = draw_counts(seed, 0, 6, made.units)
    for which, score in enumerate(scores):
        got = {
            s.name: s.value(*measures.cut_model(models, which, *large)) for s in models[which].found
        }
        for r in range(6):
            w = counts[r][of] * (weight if weighted else 1.0)
            if not 0 < (w * label).sum() < w.sum():
                assert np.isnan(got["auc"][r])
                continue
            want = measure("binary", label, score, weight=w)
            want["recall"] = recall_at(label, score, 0.4, w)
            lost = cost(label, score, threshold=0.4, missed=amount, false_alarm=3.0, weight=w)
            want["precision_at_k"] = precision_at(label, score, 7, w)
            want["cost"] = lost / w.sum() * (weight.sum() if weighted else n)
            for name, value in want.items():
                assert got[name][r] == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("weighted", [False, True])
def test_values_are_those_of_the_metrics(task, weighted):
    rng = np.random.default_rng(3)
    n = 400
    weight = rng.uniform(0.1, 5, n) if weighted else None
    if task == "binary":
        label, score = rows(rng, n, 0.3)
    elif task == "multiclass":
        score = rng.dirichlet([1, 1, 1], n)
        label = np.array(["x", "y", "z"])[[rng.choice(3, p=p) for p in score]]
    else:
        label = rng.normal(50, 9, n)
        score = label + rng.normal(0, 4, n)
    got = intervals(task, label, score, weight=weight, resamples=200)
    want = measure(task, label, score, weight=weight)
    assert {k: v.value for k, v in got.items()} == pytest.approx(want, rel=1e-12)
    for v in got.values():
        assert v.low < v.value < v.high and v.n == n


def test_metrics_can_be_chosen_and_a_misspelt_one_is_named():
    label, score = rows(np.random.default_rng(1), 500, 0.3)
    every = intervals("binary", label, score, resamples=100)
    just = intervals("binary", label, score, resamples=100, metrics=["brier", "auc"])
    assert just == {k: every[k] for k in ("auc", "brier")}
    with pytest.raises(WorkbenchError, match="Did you mean 'brier'"):
        intervals("binary", label, score, metrics=["briar"])
    with pytest.raises(WorkbenchError, match="threshold"):
        intervals("binary", label, score, costs=(100, 5))


@pytest.mark.parametrize(
    ("label", "score", "more", "said"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], {}, "one label"),
        ([], [], {}, "no rows"),
        ([0, 1], [0.1, np.nan], {}, "missing"),
        ([0, 1], [0.1, 0.2], {"entity": ["a"]}, "1 entities"),
    ],
)
def test_what_cannot_be_resampled_is_refused(label, score, more, said):
    with pytest.raises(WorkbenchError, match=said):
        intervals("binary", label, score, **more)


# ---------------------------------------------------------------- determinism


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_same_seed_same_answer_whatever_the_threads(clustered, weighted):
    rng = np.random.default_rng(4)
    n = 30_000
    label, a = rows(rng, n, 0.05)
    b = squash(rng.normal(size=n) + 2 * label - 2)
    more = {"entity": rng.integers(0, 900, n) if clustered else None}
    more["weight"] = rng.uniform(0.5, 2, n) if weighted else None
    one, many = (paired("binary", label, a, b, resamples=401, threads=t, **more) for t in (1, 7))
    assert one == many
    assert paired("binary", label, a, b, resamples=401, seed=1, **more) != one


def test_order_of_rows_does_not_move_the_value_and_hardly_the_interval():
    rng = np.random.default_rng(5)
    label, score = rows(rng, 2000, 0.2)
    mixed = rng.permutation(2000)
    one = intervals("binary", label, score)["auc"]
    two = intervals("binary", label[mixed], score[mixed])["auc"]
    assert one.value == pytest.approx(two.value, rel=1e-12)
    assert one.low == pytest.approx(two.low, abs=0.004)


def test_progress_is_told_and_ends_at_one():
    rng = np.random.default_rng(6)
    label, score = rows(rng, 40_000, 0.1)
    told = []
    intervals("binary", label, score, resamples=400, progress=lambda d, t: told.append((d, t)))
    assert told[-1][0] == 1 and sorted(told) == told and told[0][1]


# ---------------------------------------------------------------- what the interval says


def test_few_positives_and_few_entities_are_said():
    rng = np.random.default_rng(7)
    label = np.r_[np.ones(6), np.zeros(500)]
    score = squash(rng.normal(size=506) + 1.5 * label)
    assert (
        "positives: the interval may be too narrow" in intervals("binary", label, score)["auc"].note
    )
    label, score = rows(rng, 1000, 0.3)
    assert intervals("binary", label, score)["auc"].note == ""
    few = intervals("binary", label, score, entity=np.arange(1000) % 8)["auc"].note
    assert "entities with positives: the interval may be too narrow" in few
    # six degrees of freedom are enough for a share, and not for a sum that has no bound
    assert evidence_note(30, "rows", 6.0) == "" != evidence_note(30, "rows", 6.0, "log")
    assert evidence_note(30, "rows", 3.0).startswith("stands on about 4 rows")
    alone = intervals("binary", [1] + [0] * 50, rng.random(51))["auc"]
    assert np.isnan(alone.low) and "1 positives are too few" in alone.note


def test_rows_without_an_entity_are_drawn_each_for_itself():
    """As if each of them had a name of its own, and not as if all were one customer."""
    rng = np.random.default_rng(8)
    label, score = rows(rng, 600, 0.3)
    names = np.array([f"c{i % 90:02d}" for i in range(600)], dtype=object)
    missing, named = names.copy(), names.copy()
    missing[::4], named[::4] = np.nan, [f"d{i:03d}" for i in range(150)]
    found, meant = (intervals("binary", label, score, entity=e)["auc"] for e in (missing, named))
    assert (found.low, found.high) == (meant.low, meant.high)


def test_money_without_the_dearer_mistake_has_no_interval():
    """No fraud was missed: however many false alarms there are, the sum says nothing of frauds."""
    label, more = np.r_[np.ones(20), np.zeros(400)], {"threshold": 0.5, "metrics": ["cost"]}
    score = np.where(label == 1, 0.9, np.linspace(0, 0.8, 420))
    found = intervals("binary", label, score, costs=(100, 1), **more)["cost"]
    assert np.isnan(found.low) and "0 rows that were missed are too few" in found.note
    cheap = intervals("binary", label, score, costs=(1, 100), **more)["cost"]
    assert cheap.low < cheap.value < cheap.high and cheap.note == ""
    worse = np.where(np.arange(420) < 8, 0.1, score)  # the difference is carried by those eight
    told = paired("binary", label, score, worse, costs=(100, 1), **more)["cost"]
    assert told.low > 0 and 8 < told.evidence < 30


def test_notes_speak_where_coverage_is_short_and_are_silent_where_it_is_not(torture):
    """Losses from equal to a hundred times apart; the note is what a reader has to go by."""
    reps, n = (2000 if torture else 150), 2000
    for spread, positives, short in ((0.0, 100, False), (0.5, 100, False), (2.0, 20, True)):
        rng, held, noted = np.random.default_rng(int(10 * spread)), 0, 0
        for rep in range(reps):
            label = (rng.random(n) < positives / n) * 1
            amount = np.exp(spread * rng.normal(size=n) - spread**2 / 2)
            more = {"threshold": 0.5, "costs": (amount, 0.0), "metrics": ["cost"], "seed": rep}
            found = intervals("binary", label, np.zeros(n), resamples=100, **more)["cost"]
            held += bool(found.low <= positives <= found.high)
            noted += bool(found.note)
        print(f"losses {spread}: held {held / reps:.3f}, noted {noted / reps:.3f}")
        assert noted > 0.75 * reps if short else noted < 0.02 * reps
        assert short or held >= stats.binom.ppf(0.001, reps, 0.95)
        assert not short or held <= stats.binom.ppf(0.999, reps, 0.93)


# ---------------------------------------------------------------- influence


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.sampled_from([3, 10**6]))
def test_influence_is_the_slope_by_a_units_weight(seed, weighted, clustered, levels):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 60))
    label = np.r_[0, 1, 0, 1, rng.integers(0, 2, n - 4)]
    score = np.floor(squash(rng.normal(size=n) + label) * levels) / levels
    weight = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    entity = rng.integers(0, 9, n) if clustered else np.arange(n)
    unit = int(rng.integers(n))
    mine, names = (
        entity == entity[unit],
        ("auc", "average_precision", "brier", "recall", "precision"),
    )

    def at(weight):
        made, (model,) = measures.prepare_models(
            "binary", label, [score], weight, entity, None, 0.4, None, names
        )
        whole = measures.cut_model([model], 0, *replicate(made, 0, 0))
        return model, whole, {s.name: float(s.value(*whole)[0]) for s in model.found}

    model, whole, _ = at(weight)
    place = int(np.flatnonzero(np.unique(entity) == entity[unit])[0])
    more, less = (at(weight * np.where(mine, 1 + h, 1.0))[2] for h in (1e-5, -1e-5))
    for s in model.found:
        moved = measures.unit_influence(model, s, *whole)
        assert abs(moved.sum()) < 1e-7
        assert moved[place] == pytest.approx((more[s.name] - less[s.name]) / 2e-5, abs=1e-6), s.name


@pytest.mark.parametrize("clustered", [False, True])
def test_influence_and_resamples_agree_on_the_standard_error(clustered):
    rng, n = np.random.default_rng(8), 6000
    label, score = rows(rng, n, 0.2)
    args = (label, [score], None, np.arange(n) // 3 if clustered else None, None, 0.3, (50, 5.0))
    made, (model,) = measures.prepare_models("binary", *args, None)
    whole, drawn = (measures.cut_model([model], 0, *replicate(made, k, 0)) for k in (0, 1000))
    for s in model.found:
        moved = measures.unit_influence(model, s, *whole)
        assert np.sqrt(moved @ moved) == pytest.approx(np.std(s.value(*drawn)), rel=0.08), s.name


def test_a_perfect_share_gets_the_exact_bound():
    label = np.r_[np.ones(40), np.zeros(60)]
    found = intervals("binary", label, label * 0.8 + 0.1, threshold=0.5)
    assert found["auc"].value == found["auc"].high == 1
    exact = stats.binomtest(40, 40).proportion_ci().low
    assert found["auc"].low == pytest.approx(exact) and found["recall"].low == pytest.approx(exact)
    assert "exact bound" in found["auc"].note
    assert found["accuracy"].low == pytest.approx(stats.binomtest(100, 100).proportion_ci().low)


def test_interval_from_is_symmetric_on_its_own_scale():
    replicas = np.random.default_rng(0).normal(0.9, 0.02, 4000)
    low, high = interval_from(0.9, replicas, "logit", 1e9)
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    assert logit(0.9) - logit(low) == pytest.approx(logit(high) - logit(0.9))
    five = 0.9 + 0.02 * np.array([-1, -1, 0, 1, 1])
    for fewer in ({"free": 4.0}, {"replicas": five}):  # of units, or of resamples
        asked = {"value": 0.9, "replicas": replicas, "link": "logit", "count": 1e9} | fewer
        wide = interval_from(**asked)
        assert wide[0] < low and wide[1] > high


@pytest.mark.parametrize("clustered", [False, True])
def test_equal_models_are_told_apart_no_more_often_than_said(clustered):
    reps = 2000 if TORTURE else 300
    rng = np.random.default_rng(11 + clustered)
    n, alarms = 600, {"auc": 0, "average_precision": 0, "log_loss": 0, "brier": 0}
    for rep in range(reps):
        of = np.arange(n) // (3 if clustered else 1)
        label = (rng.random(n) < 0.15) * 1
        shared = rng.normal(size=n // (3 if clustered else 1))[of]
        base = 1.5 * label - 2.5 + 0.8 * rng.normal(size=n)
        a, b = (squash(base + 0.6 * rng.normal(size=n) + s * 0.5 * shared) for s in (1, -1))
        found = paired(
            "binary", label, a, b, entity=of if clustered else None, resamples=100, seed=rep
        )
        for name in alarms:
            alarms[name] += found[name].p < 0.05
            assert (found[name].p < 0.05) == (found[name].low > 0 or found[name].high < 0)
    for name, count in alarms.items():
        assert count <= stats.binom.ppf(0.9995, reps, 0.055), (name, count / reps)
        assert count >= stats.binom.ppf(0.0005, reps, 0.035), (name, count / reps)


def test_a_real_difference_is_found_and_has_its_sign():
    rng = np.random.default_rng(12)
    label, a = rows(rng, 5000, 0.2, shift=1.0)
    b = squash(np.log(a / (1 - a)) + 0.5 * label)
    found = paired("binary", label, a, b)
    assert found["auc"].low > 0 and found["log_loss"].metric == "log_loss"
    back = paired("binary", label, b, a)
    assert back["auc"].value == pytest.approx(-found["auc"].value) and back["auc"].high < 0
    assert found["auc"].b - found["auc"].a == pytest.approx(found["auc"].value)


# ---------------------------------------------------------------- textbook tests


def delong_by_definition(label, a, b):
    """DeLong, DeLong and Clarke-Pearson (1988), equations 4 to 8, pair by pair."""
    label = np.asarray(label)
    v10, v01 = [], []
    for s in (np.asarray(a, float), np.asarray(b, float)):
        x, y = s[label == 1][:, None], s[label == 0][None, :]
        psi = (x > y) + 0.5 * (x == y)
        v10.append(psi.mean(axis=1))
        v01.append(psi.mean(axis=0))
    s = np.cov(v10) / (label == 1).sum() + np.cov(v01) / (label == 0).sum()
    return v10[1].mean() - v10[0].mean(), np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([4, 10**6]))
def test_delong_equals_its_definition(seed, levels):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(8, 80))
    label = np.r_[0, 0, 1, 1, rng.integers(0, 2, n - 4)]
    a, b = (np.floor(rng.random(n) * levels) + label for _ in range(2))
    value, se = delong_by_definition(label, a, b)
    got = delong(label, a, b)
    assert got.value == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert got.se == pytest.approx(se, rel=1e-9, abs=1e-12)


def test_delong_agrees_with_the_bootstrap():
    rng = np.random.default_rng(13)
    label, a = rows(rng, 4000, 0.2)
    b = squash(np.log(a / (1 - a)) + 0.4 * rng.normal(size=4000))
    one, two = delong(label, a, b), paired("binary", label, a, b)["auc"]
    assert one.value == pytest.approx(two.value, rel=1e-9)
    assert one.se == pytest.approx(two.se, rel=0.08)


def test_mcnemar_is_the_exact_binomial():
    label = np.ones(30, int)
    a, b = np.ones(30, int), np.ones(30, int)
    a[:9], b[9:11] = 0, 0
    got = mcnemar(label, a, b)
    assert (got.only_a, got.only_b) == (2, 9)
    assert got.p == pytest.approx(stats.binomtest(2, 11).pvalue, rel=1e-12)
    assert mcnemar(label, a, a).p == 1
    with pytest.raises(WorkbenchError):
        mcnemar([1], [1, 0], [1, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_mcnemar_and_holm_equal_statsmodels(seed):
    from statsmodels.stats.contingency_tables import mcnemar as theirs
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(seed)
    label, a, b = rng.integers(0, 2, (3, int(rng.integers(1, 60))))
    got, one, two = mcnemar(label, a, b), a == label, b == label
    table = [[np.sum(one & two), np.sum(one & ~two)], [np.sum(~one & two), np.sum(~one & ~two)]]
    assert got.p == pytest.approx(theirs(table, exact=True).pvalue, rel=1e-12, abs=1e-300)
    assert (got.only_a, got.only_b) == (table[0][1], table[1][0])
    p = rng.random(int(rng.integers(1, 9))) ** 3
    want = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(holm(p), want, rtol=1e-12)
    kept = holm(np.append(p, np.nan))
    np.testing.assert_allclose(kept[:-1], want, rtol=1e-12)
    assert np.isnan(kept[-1])


# ---------------------------------------------------------------- cost


def test_small_data_needs_no_compiler():
    code = """
import numpy as np
from mlworkbench.modelling import draws, resampling as r
rng = np.random.default_rng(0)
y = (rng.random(1000) < .2) * 1
r.paired("binary", y, rng.random(1000), rng.random(1000))
assert not draws._resample.signatures and not draws._under.signatures, "compiled for small data"
"""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.perf_counter() - start < 60
