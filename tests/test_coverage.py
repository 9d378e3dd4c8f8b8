"""Do intervals hold the truth, and tests their level, as often as they say?

On simulated scores whose truth is known: prevalence by number of positives, rows independent or in
entities whose labels and scores hang together. `python tests/test_coverage.py` prints the whole
table, and with `--called` how often a difference is called; `make test` does small ones of both, and alarms only beyond the 99.9% quantile of the binomial.
"""

import argparse
import os
import sys
import time
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from mlworkbench.modelling.draws import _replicate_large, replicate
from mlworkbench.modelling.measures import cut_model, prepare_models
from mlworkbench.modelling.resampling import _difference, _interval, intervals, paired
from mlworkbench.modelling.verdicts import rows_needed

TORTURE = os.environ.get("TORTURE", "0") not in ("", "0")
SHIFT, CUT, OWN, TOGETHER, SIZE = 1.5, 1.0, 0.4, 0.6, 4
MISSED, ALARM = 20.0, 1.0
METRICS = ("auc", "average_precision", "precision_at_k", "recall", "cost")
CELLS = [(rate, many) for rate in (0.2, 0.01, 0.001) for many in (30, 300, 3000)]
THIN = 10  # units below which the product's note speaks by number


def top(rate, n):
    """How many rows are looked at: as many as there are positives."""
    return max(1, round(rate * n))


def asked(rate, n):
    """What is asked of the product, as `prepare_models` and the two doors take it."""
    return {"threshold": CUT, "costs": (MISSED, ALARM), "metrics": METRICS, "top": top(rate, n)}


def truth(rate, n, gain=0.0):
    """What the metrics are on endless rows: scores are normal, those of positives shifted."""
    x, shift = np.linspace(-9, 14, 40_001), SHIFT + gain
    tpr, fpr = stats.norm.sf(x - shift), stats.norm.sf(x)
    stopped = rate * tpr + (1 - rate) * fpr
    share = top(rate, n) / n
    at = optimize.brentq(
        lambda t: rate * stats.norm.sf(t - shift) + (1 - rate) * stats.norm.sf(t) - share, -9, 14
    )
    recall = stats.norm.sf(CUT - shift)
    return {
        "auc": stats.norm.cdf(shift / 2**0.5),
        "average_precision": -np.trapezoid(rate * tpr / stopped, tpr),
        "precision_at_k": rate * stats.norm.sf(at - shift) / share,
        "recall": recall,
        "cost": n * (rate * (1 - recall) * MISSED + (1 - rate) * stats.norm.sf(CUT) * ALARM),
    }


def drawn(rng, rate, n, clustered):
    """Labels, entities (or None) and the scores of two equally good models.

    Independent rows come in the order of what both models see: drawn so, they are sorted faster.
    """
    if not clustered:
        many = 0
        while not 1 < many < n:
            many = rng.binomial(n, rate)
        found = np.sort(SHIFT + np.sqrt(1 - OWN**2) * rng.normal(size=many))
        others = np.sort(np.sqrt(1 - OWN**2) * rng.normal(size=n - many))
        at = np.searchsorted(others, found)
        label = np.insert(np.zeros(n - many, int), at, 1)
        shared = np.insert(others, at, found)
        return label, None, *(shared + OWN * rng.normal(size=n) for _ in range(2))
    while True:
        of = np.arange(n) // SIZE
        # a compromised card has fraud in half of its payments
        compromised = 0.5 * (rng.random(of[-1] + 1) < 2 * rate)[of]
        label = (rng.random(n) < compromised) * 1
        if 1 < label.sum() < n:
            break
    of_all = rng.normal(size=of[-1] + 1)[of]
    shared = np.sqrt(TOGETHER) * of_all + np.sqrt(1 - TOGETHER) * rng.normal(size=n)
    shared = SHIFT * label + np.sqrt(1 - OWN**2) * shared
    return label, of, *(shared + OWN * rng.normal(size=n) for _ in range(2))


def by_gain(rate, n):
    """What the metrics become if positives score higher by ever more: gains, and values by metric."""
    gains = np.linspace(0, 8, 201)
    found = [truth(rate, n, g) for g in gains]
    return gains, {m: np.array([f[m] for f in found]) for m in METRICS}


def worth_telling(pilot, metric, n, known):
    """How much better positives must score for a difference that n rows should tell, or None.

    The difference is the one for which `rows_needed` of the pilot says n: it should then be called
    four times in five. There may be no room for it, whatever positives score.
    """
    gains, values = known
    moved = np.abs(values[metric] - values[metric][0])
    most = moved.max() * 0.999
    if not pilot.se > 0 or rows_needed(pilot, most) > n:
        return None
    short = lambda x: np.log(rows_needed(pilot, np.exp(x)) / n)  # noqa: E731
    worth = np.exp(optimize.brentq(short, np.log(most * 1e-4), np.log(most), xtol=1e-3))
    return float(np.interp(worth, moved, gains))


def judge_once(rng, rate, n, clustered, resamples, seed):
    """Draw rows once; the interval of a and the difference of b, on the same resamples."""
    label, entity, a, b = drawn(rng, rate, n, clustered)
    more = asked(rate, n)
    made, models = prepare_models("binary", label, [a, b], None, entity, None, **more)
    both = replicate(made, 0, seed), _replicate_large(made, resamples, seed, 1, None)
    cut = [(m, *(cut_model(models, i, *v) for v in both)) for i, m in enumerate(models)]
    resampled = "rows" if entity is None else "entities"
    found = {s.name: _interval(models[0], s, *cut[0][1:], 0.95) for s in models[0].found}
    tested = {m: _difference(cut, m, resampled, 0.95) for m in METRICS}
    return (label, entity, a, b), found, tested


def seeded(rate, positives, clustered, word):
    return np.random.default_rng(zlib.crc32(f"{rate} {positives} {clustered}{word}".encode()))


def counted(rate, positives, clustered, reps, world=""):
    """Count over repetitions, by metric: truth held, no interval, noted, false alarms, units.

    A coverage hardly depends on how many resamples stand behind it, since Student's law allows for
    their number; so large cells take few.
    """
    n = round(positives / rate)
    resamples = 200 if n < 1e4 else 100 if n < 1e5 else 50 if n < 1e6 else 25
    known, rng = truth(rate, n), seeded(rate, positives, clustered, world)
    count = {
        m: dict.fromkeys(("held", "none", "noted", "alarms"), 0) | {"units": []} for m in METRICS
    }
    for rep in range(reps):
        _, found, tested = judge_once(rng, rate, n, clustered, resamples, rep)
        for m, c in count.items():
            c["held"] += bool(found[m].low <= known[m] <= found[m].high)
            c["none"] += bool(np.isnan(found[m].low))
            c["noted"] += bool(found[m].note) and not np.isnan(found[m].low)
            c["alarms"] += bool(tested[m].p < 0.05)
            c["units"].append(tested[m].evidence)
    return count


def called(rate, positives, clustered, metric, reps, world=""):
    """Count how often a difference is called that the rows should tell, and how often one was asked.

    Here the number of resamples matters: each chance that they leave costs power, so they come
    nearer to what the product takes. The difference judged in one repetition is the pilot of the
    next: as many rows, and drawn anew each time, since what `rows_needed` promises it promises of
    pilots and not of one.
    """
    n = round(positives / rate)
    resamples = 2000 if n < 1e4 else 400 if n < 1e5 else 200
    later, rng = by_gain(rate, n), seeded(rate, positives, clustered, f"{metric}{world}")
    pilot, many, sure = None, 0, 0
    for rep in range(reps + 1):
        gain = worth_telling(pilot, metric, n, later) if pilot else None
        label, entity, a, b = drawn(rng, rate, n, clustered)
        rows = "binary", label, a, b + (gain or 0) * label
        more = asked(rate, n) | {"metrics": [metric]}
        pilot = paired(*rows, entity=entity, resamples=resamples, seed=rep, threads=1, **more)[
            metric
        ]
        if gain is not None:
            many += 1
            sure += bool(pilot.high < 0 if metric == "cost" else pilot.low > 0)
    return sure, many


def said(count, of):
    """A share with its exact binomial interval, in per cent."""
    if not of:
        return "no room"
    low, high = stats.binomtest(count, of).proportion_ci()
    return f"{100 * count / of:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def line(rate, positives, clustered, reps, found):
    head = f"{100 * rate:g}% | {positives:,} | {'entities' if clustered else 'rows'} | {reps:,}"
    return "\n".join(
        f"| {head} | {m} | {said(c['held'], reps - c['none'])} | {100 * c['none'] / reps:.1f} "
        f"| {100 * c['noted'] / reps:.0f} | {said(c['alarms'], reps)} |"
        for m, c in found.items()
    )


HEAD = (
    "| prevalence | positives | drawn | repetitions | metric | 95% interval holds, % | no interval, % "
    "| noted, % | false alarms, % |\n|" + "---|" * 9
)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize(
    ("rate", "positives"), CELLS if TORTURE else [(0.2, 60)], ids=lambda v: f"{v:g}"
)
def test_intervals_and_tests_keep_what_they_say(rate, positives, clustered):
    reps = 2000 if TORTURE else 200
    found = counted(rate, positives, clustered, reps)
    print("\n" + HEAD + "\n" + line(rate, positives, clustered, reps, found))
    for m, c in found.items():
        given = reps - c["none"]
        assert c["held"] >= stats.binom.ppf(0.001, given, 0.95), (m, c)
        assert c["alarms"] <= stats.binom.ppf(0.999, reps, 0.05), (m, c)
        if positives >= 300 and np.median(c["units"]) >= 2 * THIN:
            # 300 at 0.1% carry average precision like 12 units
            assert c["noted"] + c["none"] < 0.05 * reps, (m, c)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("metric", METRICS if TORTURE else ["average_precision", "cost"])
@pytest.mark.parametrize(
    ("rate", "positives"),
    [c for c in CELLS if c[1] > 30] if TORTURE else [(0.2, 300)],
    ids=lambda v: f"{v:g}",
)
def test_a_difference_that_the_rows_should_tell_is_called(rate, positives, metric, clustered):
    sure, many = called(rate, positives, clustered, metric, 400 if TORTURE else 40)
    print(f"\n{rate:g} {positives} {metric} clustered={clustered}: {said(sure, many)}")
    assert many and sure >= stats.binom.ppf(0.001, many, 0.8)


def test_what_is_counted_is_what_the_doors_say():
    args = (0.2, 400, True, 60, 3)
    (label, entity, a, b), found, tested = judge_once(np.random.default_rng(1), *args)
    more = asked(0.2, 400) | {"entity": entity, "resamples": 60, "seed": 3}
    one, two = intervals("binary", label, a, **more), paired("binary", label, a, b, **more)
    for m in METRICS:
        assert (one[m].low, one[m].note) == (pytest.approx(found[m].low, rel=1e-9), found[m].note)
        assert (two[m].p, two[m].note) == (pytest.approx(tested[m].p, rel=1e-9), tested[m].note)


def censored(rng, n, rate=0.1, let_through=0.1):
    """The champion blocks what it suspects but for one in ten: labels, scores, who is seen, weights."""
    from mlworkbench.modelling.censoring import propensity_weights

    label, _, champion, new = drawn(rng, rate, n, False)
    suspect = champion > 1.5
    seen = ~suspect | (rng.random(n) < let_through)
    weight = propensity_weights(np.where(suspect, let_through, 1.0), ~seen)
    return label, champion, new, seen, weight


def test_weights_undo_what_the_champion_censored(torture):
    """Weighted by the chance of having been let through, the intervals hold the truth."""
    reps, n = (2000 if torture else 120), 2000
    known = {k: v for k, v in truth(0.1, n).items() if k in ("auc", "average_precision", "recall")}
    more = {"threshold": CUT, "metrics": list(known), "resamples": 100}
    rng, plain = np.random.default_rng(4), 0
    held, naive, noted = ({m: 0 for m in known} for _ in range(3))
    for rep in range(reps):
        label, _, new, seen, weight = censored(rng, n)
        rows = "binary", label[seen], new[seen]
        found = intervals(*rows, weight=weight[seen], seed=rep, **more)
        for m, value in known.items():
            held[m] += bool(found[m].low <= value <= found[m].high)
            noted[m] += bool(found[m].note)
        if rep % 5 == 0:
            plain += 1
            for m, f in intervals(*rows, seed=rep, **more).items():
                naive[m] += bool(f.low <= known[m] <= f.high)
    for m in known:
        said_of = f"weighted {said(held[m], reps)}, unweighted {said(naive[m], plain)}"
        print(f"{m}: {said_of}, noted {100 * noted[m] / reps:.0f}")
        assert held[m] >= stats.binom.ppf(0.001, reps, 0.94), (m, held[m] / reps)
        assert naive[m] < 0.5 * plain


def test_a_model_trained_with_weights_learns_what_comes_in(torture):
    """Unweighted, it learns the champion's leftovers: suspects are fewer, and so look harmless."""
    from mlworkbench.modelling.problems import Problem
    from mlworkbench.modelling.training import fit_catboost, predict_scores

    problem = Problem(
        "t", "y", "", ("k",), None, None, None, {"a": "number"}, "binary", (0, 1), "", 0
    )
    off, rng = {"weighted": [], "plain": []}, np.random.default_rng(6)
    for _ in range(100 if torture else 5):
        label, champion, _, seen, weight = censored(rng, 20_000)
        features = {"a": champion + 2 * (rng.random(20_000) < 0.5)}  # suspicion alone is hidden
        frame = pd.DataFrame(features)
        for name, given in (("weighted", weight[seen]), ("plain", None)):
            model = fit_catboost(
                frame[seen], label[seen], problem, weight=given, iterations=60, depth=3, threads=1
            )
            off[name].append(predict_scores(model, frame, "binary", 1).mean() - label.mean())
    print({k: f"{np.mean(v):+.4f}" for k, v in off.items()}, f"of {0.1}")
    assert abs(np.mean(off["weighted"])) < 0.01 and np.mean(off["plain"]) < -0.015


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--reps", type=int, default=2000)
    options.add_argument("--most", type=float, default=4e6, help="rows of the largest cell")
    options.add_argument("--least", type=float, default=0, help="rows of the smallest cell")
    options.add_argument("--called", action="store_true", help="count power, by metric, instead")
    options.add_argument("--world", default="", help="any word: other seeds than those reported")
    given = options.parse_args()
    print(HEAD)
    for rate, positives in sorted(CELLS, key=lambda c: c[1] / c[0]):
        for clustered in (False, True):
            if given.least < positives / rate <= given.most:
                start = time.process_time()
                args = (rate, positives, clustered)
                if given.called:
                    for m in METRICS:
                        print(
                            *args, m, said(*called(*args, m, given.reps, given.world)), flush=True
                        )
                else:
                    found = counted(*args, given.reps, given.world)
                    print(line(*args, given.reps, found), flush=True)
                print(f"{time.process_time() - start:.0f} s of processor", file=sys.stderr)
