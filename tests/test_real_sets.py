"""The real sets: file to table to split to model, with no setting but target and the ids and leaks that their README names."""

import statistics

import pytest
from sklearn.metrics import roc_auc_score

from mlworkbench.data.ingestion import ingest
from mlworkbench.modelling.datasets import check_training, load_dataset
from mlworkbench.modelling.training import fit_catboost, predict_scores

SETS = {  # file, target, drop, AUC, how near
    "german": ("german_credit.parquet", "bad", "", 0.790, 0.05),
    "bank": ("bank_marketing_additional.parquet", "y", "duration", 0.800, 0.01),
    "taiwan": ("taiwan_credit_default.parquet", "default_next_month", "ID", 0.772, 0.01),
    "adult": ("adult_census_income.parquet", "income_gt_50k", "split", 0.930, 0.01),
}


def auc(values, seed, wb, iterations):
    problem = check_training(values, wb)
    data = load_dataset(problem, split_seed=seed, wb=wb)
    x, rows = data.part("train", "validation")
    model = fit_catboost(x, rows["label"], problem, iterations=iterations, seed=0)
    test, held = data.part("test")
    return roc_auc_score(held["label"], predict_scores(model, test, problem.task))


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_goes_from_file_to_its_anchor(name, wb, data, torture):
    """Five seeds and 300 trees; in the small size one seed of the two small sets."""
    file, target, drop, anchor, near = SETS[name]
    if not torture and name not in ("german", "bank"):
        pytest.skip("in make torture")
    ingest([str(data / file)], table=name, wb=wb)
    values = {"table": name, "target": target, "drop": drop}
    seeds = range(5 if torture else 1)
    found = [auc(values, seed, wb, 300 if torture or name == "german" else 150) for seed in seeds]
    print(name, "seeds", list(seeds), "AUC", [round(a, 4) for a in found], "anchor", anchor)
    assert abs(statistics.mean(found) - anchor) <= (near if torture else 0.05)
