"""Do intervals hold the truth, and tests their level, as often as they say?

On simulated scores whose truth is known: prevalence by number of positives, rows independent or in
entities whose labels and scores hang together. `python tests/test_coverage.py` prints the whole
table; `make test` does two cells of it, and alarms only beyond the 99.9% quantile of the binomial.
"""

import argparse
import os
import sys
import zlib

import numpy as np
import pytest
from scipy import optimize, stats

from mlworkbench.modelling.resampling import intervals, paired
from mlworkbench.modelling.verdicts import rows_needed

TORTURE = os.environ.get("TORTURE", "0") not in ("", "0")
SHIFT, CUT, OWN, TOGETHER, SIZE = 1.5, 1.0, 0.4, 0.6, 4
MISSED, ALARM = 20.0, 1.0
METRICS = ("auc", "average_precision", "precision_at_k", "recall", "cost")
CELLS = [(rate, many) for rate in (0.2, 0.01, 0.001) for many in (30, 300, 3000)]


def top(rate, n):
    """How many rows are looked at: as many as there are positives."""
    return max(1, round(rate * n))


def truth(rate, n):
    """What the metrics are on endless rows: scores are normal, those of positives shifted."""
    x = np.linspace(-9, 12, 200_001)
    tpr, fpr = stats.norm.sf(x - SHIFT), stats.norm.sf(x)
    stopped = rate * tpr + (1 - rate) * fpr
    share = top(rate, n) / n
    at = optimize.brentq(
        lambda t: rate * stats.norm.sf(t - SHIFT) + (1 - rate) * stats.norm.sf(t) - share, -9, 12
    )
    recall = stats.norm.sf(CUT - SHIFT)
    return {
        "auc": stats.norm.cdf(SHIFT / 2**0.5),
        "average_precision": -np.trapezoid(rate * tpr / stopped, tpr),
        "precision_at_k": rate * stats.norm.sf(at - SHIFT) / share,
        "recall": recall,
        "cost": n * (rate * (1 - recall) * MISSED + (1 - rate) * stats.norm.sf(CUT) * ALARM),
    }


def drawn(rng, rate, n, clustered, gain=0.0):
    """Labels, entities (or None), the first model's scores, and an equally good or better second's."""
    while True:
        of = np.arange(n) // SIZE
        # a compromised card has fraud in half of its payments
        compromised = 0.5 * (rng.random(of[-1] + 1) < 2 * rate)[of]
        chance = compromised if clustered else rate
        label = (rng.random(n) < chance) * 1
        if 1 < label.sum() < n:
            break
    shared = rng.normal(size=n)
    if clustered:
        of_all = rng.normal(size=of[-1] + 1)[of]
        shared = np.sqrt(TOGETHER) * of_all + np.sqrt(1 - TOGETHER) * shared
    shared = SHIFT * label + np.sqrt(1 - OWN**2) * shared
    a, b = (shared + OWN * rng.normal(size=n) for _ in range(2))
    return label, of if clustered else None, a, b + gain * label


def worth_telling(rate, n, clustered, seed):
    """A difference of AUC that n rows should tell four times in five, and the shift that makes it."""
    rng = np.random.default_rng(seed)
    label, entity, a, b = drawn(rng, rate, min(20 * n, 400_000), clustered)
    pilot = paired("binary", label, a, b, entity=entity, metrics=["auc"], resamples=300)["auc"]
    worth = optimize.brentq(lambda w: rows_needed(pilot, w) - n, 1e-5, 0.9, xtol=1e-6)
    auc = lambda g: stats.norm.cdf((SHIFT + g) / 2**0.5)  # noqa: E731
    if auc(8.0) - auc(0) <= worth:
        return worth, None
    return worth, optimize.brentq(lambda g: auc(g) - auc(0) - worth, 0, 8)


def counted(rate, positives, clustered, reps, resamples=300):
    """Count over repetitions: truth held (all, and where nothing is noted), false alarms, calls."""
    n = round(positives / rate)
    known, more = truth(rate, n), {"threshold": CUT, "costs": (MISSED, ALARM), "top": top(rate, n)}
    more |= {"resamples": resamples, "metrics": METRICS}
    seed = zlib.crc32(f"{rate} {positives} {clustered}".encode())
    rng = np.random.default_rng(seed)
    held, noted, alarms, asked = ({m: 0 for m in METRICS} for _ in range(4))
    _, gain = worth_telling(rate, n, clustered, seed)
    called = 0
    for rep in range(reps):
        label, entity, a, b = drawn(rng, rate, n, clustered)
        found = intervals("binary", label, a, entity=entity, seed=rep, **more)
        tested = paired("binary", label, a, b, entity=entity, seed=rep, **more)
        for m, value in known.items():
            held[m] += bool(found[m].low <= value <= found[m].high)
            noted[m] += bool(found[m].note)
            asked[m] += bool(np.isfinite(tested[m].p))
            alarms[m] += bool(tested[m].p < 0.05)
        if gain is not None:
            label, entity, a, b = drawn(rng, rate, n, clustered, gain)
            one = paired(
                "binary", label, a, b, entity=entity, metrics=["auc"], resamples=resamples, seed=rep
            )
            called += bool(one["auc"].low > 0)
    return held, noted, alarms, asked, called if gain is not None else None


def said(count, of):
    """A share with its exact binomial interval, in per cent."""
    low, high = stats.binomtest(count, of).proportion_ci()
    return f"{100 * count / of:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def line(rate, positives, clustered, reps, found):
    held, noted, alarms, _, called = found
    head = f"{100 * rate:g}% | {positives:,} | {'entities' if clustered else 'rows'} | {reps:,}"
    rows = [
        f"| {head} | {m} | {said(held[m], reps)} | {100 * noted[m] / reps:.0f} | {said(alarms[m], reps)} | "
        + (said(called, reps) if m == "auc" and called is not None else "")
        + " |"
        for m in METRICS
    ]
    return "\n".join(rows)


HEAD = (
    "| prevalence | positives | drawn | repetitions | metric | 95% interval holds, % | noted, % "
    "| false alarms, % | worth called, % |\n|" + "---|" * 9
)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize(
    ("rate", "positives"), CELLS if TORTURE else [(0.2, 60)], ids=lambda v: f"{v:g}"
)
def test_intervals_and_tests_keep_what_they_say(rate, positives, clustered):
    reps = 2000 if TORTURE else 250
    found = counted(rate, positives, clustered, reps, 300 if positives / rate < 1e6 else 100)
    print("\n" + HEAD + "\n" + line(rate, positives, clustered, reps, found))
    held, noted, alarms, _, called = found
    for m in METRICS:
        if noted[m] < 0.05 * reps:  # where it is noted nothing is promised
            assert held[m] >= stats.binom.ppf(0.0005, reps, 0.94), (m, held[m] / reps)
            assert alarms[m] <= stats.binom.ppf(0.9995, reps, 0.055), (m, alarms[m] / reps)
        assert held[m] >= stats.binom.ppf(0.0005, reps, 0.90), (m, held[m] / reps)
    if called is not None and noted["auc"] < 0.05 * reps:
        assert called >= stats.binom.ppf(0.0005, reps, 0.77), called / reps


def test_weights_undo_what_the_champion_censored(torture):
    """The champion blocks what it suspects but for one in ten: weighted, the intervals hold the truth."""
    from mlworkbench.modelling.censoring import propensity_weights

    reps, rate, n = (2000 if torture else 120), 0.1, 2000
    known = {k: v for k, v in truth(rate, n).items() if k in ("auc", "average_precision", "recall")}
    rng = np.random.default_rng(4)
    held, naive = ({m: 0 for m in known} for _ in range(2))
    for rep in range(reps):
        label, _, champion, new = drawn(rng, rate, n, False)
        suspect = champion > 1.5
        seen = ~suspect | (rng.random(n) < 0.1)
        weight = propensity_weights(np.where(suspect, 0.1, 1.0)[seen])
        more = {"threshold": CUT, "metrics": list(known), "resamples": 200, "seed": rep}
        found = intervals("binary", label[seen], new[seen], weight=weight, **more)
        plain = intervals("binary", label[seen], new[seen], **more)
        for m, value in known.items():
            held[m] += bool(found[m].low <= value <= found[m].high)
            naive[m] += bool(plain[m].low <= value <= plain[m].high)
    for m in known:
        print(f"{m}: weighted {said(held[m], reps)}, unweighted {said(naive[m], reps)}")
        promised = 0.85 if m == "average_precision" else 0.935  # noted beside its interval
        assert held[m] >= stats.binom.ppf(0.0005, reps, promised), (m, held[m] / reps)
        assert naive[m] < 0.5 * reps


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--reps", type=int, default=2000)
    options.add_argument("--most", type=float, default=4e6, help="rows of the largest cell")
    options.add_argument("--least", type=float, default=0, help="rows of the smallest cell")
    given = options.parse_args()
    print(HEAD)
    for clustered in (False, True):
        for rate, positives in sorted(CELLS, key=lambda c: c[1] / c[0]):
            n = positives / rate
            if given.least < n <= given.most:
                found = counted(rate, positives, clustered, given.reps, 300 if n < 1e6 else 100)
                print(line(rate, positives, clustered, given.reps, found))
                sys.stdout.flush()
