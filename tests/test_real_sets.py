"""The real sets: file to table to split to model, with no setting but target and the ids and leaks that their README names.

The README's anchors come from scikit-learn's stratified split, so that is what they are held
against. On our own splits the model has to be, row for row, that of a bare CatBoost loop over the
file: a result that is better would be a leak, one that is worse a fault of ours. (Which rows are
test moves the AUC of taiwan by .005 from seed to seed, in either kind of split.)
"""

import statistics

import catboost
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from mlworkbench.data.ingestion import ingest
from mlworkbench.modelling.datasets import check_training, load_dataset
from mlworkbench.modelling.training import fit_catboost, predict_scores

SETS = {  # file, target, drop, AUC, how near
    "german": ("german_credit.parquet", "bad", "", 0.790, 0.05),
    "bank": ("bank_marketing_additional.parquet", "y", "duration", 0.800, 0.01),
    "taiwan": ("taiwan_credit_default.parquet", "default_next_month", "ID", 0.772, 0.01),
    "adult": ("adult_census_income.parquet", "income_gt_50k", "split", 0.930, 0.01),
}


def ours(problem, train, test, iterations):
    """The AUC of our training and scoring: features and rows of both parts."""
    model = fit_catboost(train[0], train[1]["label"], problem, iterations=iterations, threads=1)
    return roc_auc_score(test[1]["label"], predict_scores(model, test[0], problem.task))


def bare(file, target, drop, train, test, iterations):
    """The AUC of CatBoost on the file itself, native categories and defaults, by the numbers of rows."""
    frame = pd.read_parquet(file)
    label = frame.pop(target)
    frame = frame.drop(columns=[d for d in [drop] if d])
    words = [c for c in frame if frame[c].dtype.kind not in "iufb"]
    frame[words] = frame[words].astype(object).where(frame[words].notna(), "(missing)").astype(str)
    model = catboost.CatBoostClassifier(
        iterations=iterations, random_seed=0, thread_count=1, cat_features=words, verbose=False
    )
    model.set_params(allow_writing_files=False).fit(frame.iloc[train], label.iloc[train])
    return roc_auc_score(label.iloc[test], model.predict_proba(frame.iloc[test])[:, 1])


def whole(data):
    """All rows of a data set as the file has them."""
    order = data.rows["row_key"].astype(int).argsort(kind="stable").to_numpy()
    features, rows = data.features.iloc[order], data.rows.iloc[order]
    assert (rows["row_key"].astype(int).to_numpy() == np.arange(len(rows))).all()
    return features, rows


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_goes_from_file_to_its_anchor(name, wb, data, torture):
    """Five seeds and 300 trees; in the small size one seed of the two small sets."""
    file, target, drop, anchor, near = SETS[name]
    if not torture and name not in ("german", "bank"):
        pytest.skip("in make torture")
    ingest([str(data / file)], table=name, wb=wb)
    problem = check_training({"table": name, "target": target, "drop": drop}, wb)
    seeds, trees = range(5 if torture else 1), 300 if torture or name == "german" else 100
    found, splits = [], []
    for seed in seeds:
        held = load_dataset(problem, split_seed=seed, wb=wb)
        train, test = held.part("train", "validation"), held.part("test")
        numbers = [part[1]["row_key"].astype(int).to_numpy() for part in (train, test)]
        found.append(ours(problem, train, test, trees))
        assert found[-1] == pytest.approx(
            bare(data / file, target, drop, *numbers, trees), abs=1e-4
        )
        if torture:
            features, rows = whole(held)
            places = np.arange(len(rows))
            cut = train_test_split(places, test_size=0.3, random_state=seed, stratify=rows["label"])
            splits.append(ours(problem, *((features.iloc[c], rows.iloc[c]) for c in cut), trees))
    shown = [round(a, 4) for a in found]
    print(
        f"{name} anchor {anchor}, our splits {shown}, scikit-learn's {[round(a, 4) for a in splits]}"
    )
    assert abs(statistics.mean(splits or found) - anchor) <= (near if torture else 0.05)
