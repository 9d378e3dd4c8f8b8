"""Tuned beside untuned CatBoost on the handbook's four prequential folds.

    python benchmarks/tuned.py [TRANSACTIONS.parquet] [--minutes 5] [--seeds 3]

The search sees the four validation folds alone (each fitted on one week and judged on the week
after the label delay). Then, once, each seed's tuned and untuned model is fitted on the four test
folds. Differences are means over folds and seeds, with a 95% interval from drawing customers.
"""

import argparse
import tempfile
import time

import numpy as np
import pandas as pd
from handbook import BASELINE, METRICS, PUBLISHED, card_precision, prepared, rows

from mlworkbench.data.lake import create_workbench
from mlworkbench.data.splits import rolling_folds
from mlworkbench.modelling.candidates import Bench
from mlworkbench.modelling.datasets import Problem
from mlworkbench.modelling.draws import draw_counts
from mlworkbench.modelling.metrics import measure
from mlworkbench.modelling.training import fit_catboost, predict_scores
from mlworkbench.modelling.tuning import tune_catboost

BOOK = {"auc": 0.876, "average_precision": 0.687, "card_precision_100": 0.303}


def halves(fold, features):
    """Return features and labels of a fold's training and test rows."""
    parts = (fold[fold["split"] == name] for name in ("train", "test"))
    return [x for part in parts for x in (part[features], part["TX_FRAUD"].to_numpy())]


def resampled(folds, scores, resamples):
    """Return the difference of mean AUC and average precision under each draw of customers."""
    names = np.unique(np.concatenate([t["CUSTOMER_ID"] for t in folds]))
    counts = draw_counts(0, 0, resamples, len(names))
    found = []
    for count in counts:
        each = []
        for test, pair in zip(folds, scores, strict=True):
            weight = count[np.searchsorted(names, test["CUSTOMER_ID"])]
            a, b = (
                measure("binary", test["TX_FRAUD"], s, weight=weight, only=METRICS[:2])
                for s in pair
            )
            each.append([b[m] - a[m] for m in METRICS[:2]])
        found.append(np.mean(each, axis=0))
    return np.array(found)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("file", nargs="?", default=PUBLISHED)
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--metric", default="average_precision")
    options.add_argument("--resamples", type=int, default=200)
    chosen = options.parse_args()
    con, features = prepared(chosen.file)
    pairs = rolling_folds(BASELINE)
    kinds = dict.fromkeys(features, "number")
    problem = Problem(
        "cards", "TX_FRAUD", "", (), "t", "CUSTOMER_ID", None, kinds, "binary", (0, 1), "weeks", 0
    )
    validation = [halves(rows(con, twin), features) for _, twin in pairs]
    began = time.monotonic()
    tuned = tune_catboost(
        Bench(problem, tuple(validation)), metric=chosen.metric, trials=0, minutes=chosen.minutes,
        wb=create_workbench(tempfile.mkdtemp()),
    )  # fmt: skip
    took = time.monotonic() - began
    print(
        f"{tuned.trials} trials in {took:.0f} s, {tuned.pruned} of them pruned; validation folds, {tuned.metric}:"
    )
    print(f"  untuned {tuned.untuned:.4f}, best {tuned.value:.4f} with {tuned.best}")
    test = [rows(con, fold) for fold, _ in pairs]
    tests = [fold[fold["split"] == "test"] for fold in test]
    found, drawn = [], []
    for seed in range(chosen.seeds):
        scores = []
        for number, fold in enumerate(test):
            x, y, x_test, label = halves(fold, features)
            pair = []
            for name, params in (("untuned", tuned.plain), ("tuned", tuned.best)):
                score = predict_scores(
                    fit_catboost(x, y, problem, seed=seed, **params), x_test, "binary"
                )
                values = measure("binary", label, score, only=METRICS[:2])
                values["card_precision_100"] = card_precision(tests[number], score)
                found.append({"model": name, "seed": seed, "fold": number, **values})
                pair.append(score)
            scores.append(pair)
        drawn.append(resampled(tests, scores, chosen.resamples))
    table = pd.DataFrame(found)
    print("test folds, each looked at once a seed and model (mean over folds, by seed):")
    print(table.groupby(["model", "seed"])[list(METRICS)].mean().round(4).to_string())
    means = table.groupby("model")[list(METRICS)].mean()
    spread = np.mean(drawn, axis=0).std(axis=0, ddof=1)
    for place, metric in enumerate(METRICS):
        a, b = means.loc["untuned", metric], means.loc["tuned", metric]
        said = f"{metric}: untuned {a:.3f}, tuned {b:.3f}, the book's best {BOOK[metric]}"
        if place < 2:
            low, high = b - a - 1.96 * spread[place], b - a + 1.96 * spread[place]
            verdict = "beyond luck" if low > 0 or high < 0 else "untuned is as good within luck"
            said += f"; difference {b - a:+.4f} ({low:+.4f} to {high:+.4f} by customer): {verdict}"
        else:
            each = table.pivot_table(index=["seed", "fold"], columns="model", values=metric)
            gap = (each["tuned"] - each["untuned"]).groupby("fold").mean()
            said += f"; difference {b - a:+.4f} (over the four weeks {gap.min():+.4f} to {gap.max():+.4f})"
        print(said)


if __name__ == "__main__":
    main()
