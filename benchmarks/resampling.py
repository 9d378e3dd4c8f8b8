"""Resampling against a plain scikit-learn loop: a million rows, two models, three metrics.

The loop is measured on a few resamples and scaled; everything else is measured whole, in this one
process. Prints ratios; fails when a promise is broken.
"""

import argparse
import resource
import sys
import time

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from mlworkbench.modelling.metrics import cost
from mlworkbench.modelling.resampling import paired

METRICS = ("auc", "average_precision", "cost")


def peak() -> float:
    """Return the peak memory of this process in MB."""
    scale = 1024 if sys.platform != "darwin" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def timed(work):
    """Seconds on the wall that a call takes, and its answer."""
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


def loop(label, scores, amount, resamples):
    """Resample as tutorials do: draw rows, call scikit-learn."""
    rng = np.random.default_rng(0)
    for _ in range(resamples):
        at = rng.integers(0, len(label), len(label))
        for score in scores:
            roc_auc_score(label[at], score[at])
            average_precision_score(label[at], score[at])
            cost(label[at], score[at], threshold=0.3, missed=amount[at], false_alarm=5.0)


def main():
    """Time paired resamples by row and by entity against a loop over scikit-learn."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--rows", type=int, default=1_000_000)
    ask.add_argument("--resamples", type=int, default=1000)
    ask.add_argument("--looped", type=int, default=5)
    ask.add_argument("--rate", type=float, default=0.01)
    a = ask.parse_args()
    rng = np.random.default_rng(0)
    label = (rng.random(a.rows) < a.rate) * 1
    shared = 1.5 * label + rng.normal(size=a.rows) - 3
    scores = [1 / (1 + np.exp(-shared - 0.5 * rng.normal(size=a.rows))) for _ in range(2)]
    amount, customer = rng.exponential(50, a.rows), rng.integers(0, a.rows // 20, a.rows)
    more = {"threshold": 0.3, "costs": (amount, 5.0), "metrics": METRICS}
    first, _ = timed(
        lambda: paired("binary", label[:30_000], scores[0][:30_000], scores[1][:30_000])
    )
    by_row, one = timed(lambda: paired("binary", label, *scores, resamples=a.resamples, **more))
    by_entity, _ = timed(
        lambda: paired("binary", label, *scores, entity=customer, resamples=a.resamples, **more)
    )
    memory = peak()
    few, _ = timed(lambda: loop(label, scores, amount, a.looped))
    plain = few / a.looped * a.resamples
    want = roc_auc_score(label, scores[1]) - roc_auc_score(label, scores[0])
    print(f"{a.rows:,} rows, 2 models, {a.resamples:,} paired resamples of {', '.join(METRICS)}")
    print(f"scikit-learn loop, scaled from {a.looped}: {plain:8.1f} s")
    print(f"ours, rows drawn:                  {by_row:8.2f} s, {plain / by_row:.0f} times faster")
    print(
        f"ours, customers drawn:             {by_entity:8.2f} s, {by_entity / by_row:.2f} of that"
    )
    print(f"a first call on 30,000 rows:       {first:8.2f} s (compiles when nothing is cached)")
    print(
        f"peak memory {memory:.0f} MB; difference of auc against scikit-learn's {abs(one['auc'].value - want):.1e}"
    )
    kept = plain / by_row >= 150 and by_entity <= 2 * by_row and memory < 1000
    sys.exit(0 if kept else "a promise is broken: 150 times faster, entities within 2, under 1 GB")


if __name__ == "__main__":
    main()
