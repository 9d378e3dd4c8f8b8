"""The Fraud Detection Handbook's protocol, with our features, our splits and untuned CatBoost.

    python benchmarks/handbook.py [TRANSACTIONS.parquet] [--iterations 300] [--seeds 3] [--baseline]

Prints AUC, average precision and card precision at 100 of the baseline week, then of the four
prequential folds over several seeds (mean and standard deviation over the folds, as in the book).
Needs the published transactions.
"""

import argparse
import datetime as dt
import pathlib
import statistics

import catboost
import duckdb
from sklearn.metrics import average_precision_score, roc_auc_score

from mlworkbench.data.handbook import handbook_view
from mlworkbench.data.splits import Split, rolling_folds, weeks_split_sql
from mlworkbench.data.windows import view_sql
from mlworkbench.modelling.metrics import card_precision_at

PUBLISHED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "handbook_transactions.parquet"
NAMES = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")
BASELINE = Split("weeks", dt.date(2018, 7, 25))
METRICS = ("auc", "average_precision", "card_precision_100")


def prepared(file):
    """Compute the features of all transactions once."""
    con = duckdb.connect()
    con.execute(f"CREATE TABLE cards AS SELECT {', '.join(NAMES)} FROM read_parquet('{file}')")
    view = handbook_view("cards", *NAMES, published=True)
    con.execute(f"CREATE TABLE features AS {view_sql(view, 'cards')}")
    return con, [feature.name for feature in view.features]


def rows(con, split):
    """Read the rows of one fold, in the order of their keys."""
    fold = weeks_split_sql(
        split, "cards", ["TRANSACTION_ID"], "TX_DATETIME", "CUSTOMER_ID", "TX_FRAUD"
    )
    return con.execute(
        "SELECT f.*, CUSTOMER_ID, TX_DATETIME::DATE AS day, TX_FRAUD, split "
        f"FROM ({fold}) JOIN cards c ON row_key = c.TRANSACTION_ID::VARCHAR "
        "JOIN features f USING (TRANSACTION_ID) ORDER BY TRANSACTION_ID"
    ).df()


def card_precision(test, score):
    """Share of compromised cards among each day's hundred most suspect ones."""
    return card_precision_at(test["day"], test["CUSTOMER_ID"], score, test["TX_FRAUD"])


def measured(fold, features, iterations, seed):
    """Fit untuned CatBoost on a fold and measure it on the fold's test."""
    train, test = fold[fold["split"] == "train"], fold[fold["split"] == "test"]
    model = catboost.CatBoostClassifier(
        iterations=iterations,
        random_seed=seed,
        thread_count=2,
        verbose=False,
        allow_writing_files=False,
    )
    model.fit(train[features], train["TX_FRAUD"])
    score = model.predict_proba(test[features])[:, 1]
    label = test["TX_FRAUD"]
    values = (roc_auc_score(label, score), average_precision_score(label, score))
    return dict(zip(METRICS, (*values, card_precision(test, score)), strict=True))


def shown(found):
    """Write the mean and, over folds, the standard deviation of each metric."""
    parts = []
    for name in METRICS:
        values = [one[name] for one in found]
        spread = f" ± {statistics.pstdev(values):.3f}" if len(values) > 1 else ""
        parts.append(f"{name} {statistics.mean(values):.3f}{spread}")
    return ", ".join(parts)


def main():
    """Train the book's features on its folds and print the metrics of each seed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("file", nargs="?", default=PUBLISHED)
    options.add_argument("--iterations", type=int, default=300)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--baseline", action="store_true", help="the baseline week alone")
    chosen = options.parse_args()
    con, features = prepared(chosen.file)
    week = rows(con, BASELINE)
    for name in ("train", "test"):
        part = week[week["split"] == name]
        print(f"{name}: {len(part):,} rows, {int(part['TX_FRAUD'].sum())} frauds")
    test = week[week["split"] == "test"]
    print(f"a perfect scorer's card precision at 100: {card_precision(test, test['TX_FRAUD']):.3f}")
    pairs = [] if chosen.baseline else rolling_folds(BASELINE)
    folds = [[rows(con, one) for one in side] for side in zip(*pairs, strict=True)]
    for seed in range(chosen.seeds):
        print(f"seed {seed}, {chosen.iterations} iterations")
        print(f"  baseline week: {shown([measured(week, features, chosen.iterations, seed)])}")
        for name, side in zip(("prequential", "validation "), folds, strict=False):
            found = [measured(fold, features, chosen.iterations, seed) for fold in side]
            print(f"  {name}  : {shown(found)}")


if __name__ == "__main__":
    main()
