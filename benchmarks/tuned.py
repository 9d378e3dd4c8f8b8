"""Tuned beside untuned CatBoost on the handbook's four prequential folds.

    python benchmarks/tuned.py [TRANSACTIONS.parquet] [--minutes 5] [--seeds 5]

The search sees the four validation folds alone (each fitted on one week and judged on the week
after the label delay). Then, once, each seed's tuned and untuned model is fitted on the four test
folds. Differences are means over folds and seeds, with a 95% interval from drawing customers and
the spread of the seeds; the ledger says how often the test folds were looked at.
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
from mlworkbench.modelling.draws import draw_counts
from mlworkbench.modelling.ledger import look_at_test
from mlworkbench.modelling.metrics import measure
from mlworkbench.modelling.problems import Problem
from mlworkbench.modelling.training import fit_catboost, predict_scores
from mlworkbench.modelling.tuning import tune_catboost

BOOK = {"auc": 0.876, "average_precision": 0.687, "card_precision_100": 0.303}


def halves(fold, features):
    """Return features and labels of a fold's training and test rows."""
    parts = (fold[fold["split"] == name] for name in ("train", "test"))
    return [x for part in parts for x in (part[features], part["TX_FRAUD"].to_numpy())]


def suspects(test, score):
    """Each day's cards, the most suspect first, and which of them are compromised."""
    by_card = test.assign(score=score).groupby(["day", "CUSTOMER_ID"])
    worst = by_card.agg(score=("score", "max"), bad=("TX_FRAUD", "max")).reset_index()
    worst = worst.sort_values("score", ascending=False, kind="stable")
    return [
        (d["CUSTOMER_ID"].to_numpy(), d["bad"].to_numpy() == 1) for _, d in worst.groupby("day")
    ]


def drawn_card_precision(days, count, k=100):
    """Card precision where customer `c` was drawn `count[c]` times, each time taking a place."""
    found, shares = np.zeros(len(count), dtype=bool), []
    for cards, bad in days:
        left = ~found[cards]
        cards, bad = cards[left], bad[left]
        places = np.minimum(np.cumsum(count[cards]), k)
        taken = np.diff(places, prepend=0)
        shares.append((taken * bad).sum() / k)
        found[cards[bad & (taken > 0)]] = True
    return float(np.mean(shares))


def resampled(tests, scores, resamples):
    """Return the difference of each metric, mean over the folds, under each draw of customers."""
    names = np.unique(np.concatenate([t["CUSTOMER_ID"] for t in tests]))
    tests = [t.assign(CUSTOMER_ID=np.searchsorted(names, t["CUSTOMER_ID"])) for t in tests]
    cards = [[suspects(t, s) for s in pair] for t, pair in zip(tests, scores, strict=True)]
    found = []
    for count in draw_counts(0, 0, resamples, len(names)):
        each = []
        for test, pair, days in zip(tests, scores, cards, strict=True):
            weight = count[test["CUSTOMER_ID"]]
            a, b = (
                [*measure("binary", test["TX_FRAUD"], s, weight=weight, only=METRICS[:2]).values(),
                 drawn_card_precision(d, count)]
                for s, d in zip(pair, days, strict=True)
            )  # fmt: skip
            each.append(np.subtract(b, a))
        found.append(np.mean(each, axis=0))
    return np.array(found)


def main():
    """Tune on the validation folds; measure untuned and tuned on the test folds, with intervals."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("file", nargs="?", default=PUBLISHED)
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--trials", type=int, default=0, help="in place of minutes")
    options.add_argument("--seeds", type=int, default=5)
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
    wb, began = create_workbench(tempfile.mkdtemp()), time.monotonic()
    tuned = tune_catboost(
        Bench(problem, tuple(validation)), metric=chosen.metric, trials=chosen.trials,
        minutes=0 if chosen.trials else chosen.minutes, wb=wb,
    )  # fmt: skip
    took = time.monotonic() - began
    print(
        f"{tuned.trials} trials in {took:.0f} s, {tuned.pruned} of them pruned; validation folds, {tuned.metric}:"
    )
    print(f"  untuned {tuned.untuned:.4f}, best {tuned.value:.4f} with {tuned.best}")
    test = [rows(con, fold) for fold, _ in pairs]
    tests = [fold[fold["split"] == "test"] for fold in test]
    found, drawn, looks = [], [], {}
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
                look = look_at_test(
                    "evaluation", tests[number]["TRANSACTION_ID"].astype(str), "cards", "TX_FRAUD",
                    about=f"{name}, seed {seed}", wb=wb,
                )  # fmt: skip
                looks[number] = look.evaluations
                found.append({"model": name, "seed": seed, "fold": number, **values})
                pair.append(score)
            scores.append(pair)
        drawn.append(resampled(tests, scores, chosen.resamples))
    table = pd.DataFrame(found)
    print("mean over the test folds, by seed:")
    print(table.groupby(["model", "seed"])[list(METRICS)].mean().round(4).to_string())
    means = table.groupby("model")[list(METRICS)].mean()
    by_seed = table.groupby(["seed", "model"])[list(METRICS)].mean().unstack()
    spread = np.mean(drawn, axis=0).std(axis=0, ddof=1)
    for place, metric in enumerate(METRICS):
        a, b = means.loc["untuned", metric], means.loc["tuned", metric]
        luck = (by_seed[metric]["tuned"] - by_seed[metric]["untuned"]).std(ddof=1)
        error = np.hypot(spread[place], luck / np.sqrt(chosen.seeds))
        low, high = b - a - 1.96 * error, b - a + 1.96 * error
        verdict = "better" if low > 0 else "worse" if high < 0 else "untuned is as good within luck"
        print(
            f"{metric}: untuned {a:.3f}, tuned {b:.3f}, the book's best {BOOK[metric]}; difference"
            f" {b - a:+.4f} ({low:+.4f} to {high:+.4f} by customer and seed): {verdict}"
        )
    print(f"the ledger: looks at the rows of each test fold: {list(looks.values())}")


if __name__ == "__main__":
    main()
