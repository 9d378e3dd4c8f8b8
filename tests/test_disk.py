"""Rows that do not fit into memory train from the disk, to the same model; and what is refused before a kernel starts."""

import json

import numpy as np
import pandas as pd
import pytest
from faults import mlworkbench

from mlworkbench.core.errors import UserError
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.queries import sql
from mlworkbench.modelling.datasets import check_training, load_dataset
from mlworkbench.modelling.problems import describe_problem
from mlworkbench.modelling.quantized import pool_on_disk, score_test
from mlworkbench.modelling.training import fit_catboost, pool_in_memory, predict_scores


def payments(rows: int, seed: int = 0) -> pd.DataFrame:
    """Numbers with gaps, wide ranges, ties and names that are hard to write."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": rng.permutation(rows),
            "amount": rng.lognormal(3, 2, rows).round(2),
            "a, b\t'c'": rng.normal(size=rows) * 1e-7,
            "big": rng.integers(0, 2**60, rows),
            "few": rng.integers(0, 3, rows),
            "flag": rng.random(rows) < 0.5,
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**7, rows), "s"),
        }
    )
    frame.loc[rng.random(rows) < 0.1, "amount"] = None
    signal = frame["amount"].fillna(5).rank(pct=True) + frame["few"] + rng.normal(size=rows)
    frame["fraud"] = signal > 3
    frame["kind"] = np.digitize(signal, [1, 2.5]) * 5 + 1
    frame["cost"] = signal * 1000
    return frame


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("fraud", {}),
        ("fraud", {"negatives": 0.5, "positive_weight": 3.0, "seed": 4}),
        ("kind", {}),
        ("cost", {}),
    ],
)
def test_both_roads_lead_to_the_same_model(wb, target, more, torture):
    ingest(payments(300_000 if torture else 3000), table="pay", key="id", wb=wb)
    out = ",".join({"fraud", "kind", "cost"} - {target})
    problem = describe_problem(
        {"table": "pay", "target": target, "drop": out, "split": "random"}, wb
    )
    data, how = load_dataset(problem, wb=wb), {"iterations": 30, "threads": 1}
    pool = pool_in_memory(problem, *data.part("train", "validation"), **more)
    if (
        torture
    ):  # drawing rows for the bins, CatBoost uses up random numbers, but not of a quantized pool
        pool.quantize(random_seed=more.get("seed", 0))
    plain = fit_catboost(pool, None, problem, **how)
    disk = fit_catboost(pool_on_disk(problem, wb=wb, **more), None, problem, **how)
    features, held = data.part("test")
    rows, scores = score_test(disk, problem, wb=wb)
    assert rows["row_key"].tolist() == held["row_key"].tolist()
    assert np.array_equal(rows["label"].to_numpy(), held["label"].to_numpy())
    np.testing.assert_allclose(scores, predict_scores(plain, features, problem.task), rtol=1e-9)
    assert disk.feature_names_ == plain.feature_names_ == list(problem.features)
    assert not list((wb.root / "lake" / "tmp").iterdir())


def test_the_job_trains_from_the_disk(wb):
    ingest(payments(2000), table="pay", key="id", wb=wb)
    words = (
        "run",
        "train",
        "-p",
        "table=pay",
        "-p",
        "target=fraud",
        "-p",
        "drop=kind,cost",
        "--json",
    )
    words += ("-p", "iterations=20", "-p", "threads=1")
    found = []
    for disk in ("false", "true"):
        code, out, err = mlworkbench(*words, "-p", f"disk={disk}", cwd=wb.root)
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0]["metrics"] == found[1]["metrics"]
    query = "SELECT count(*), count(DISTINCT (row_key, label, score)), count(DISTINCT run) FROM predictions"
    assert sql(query, wb=wb).fetchone() == (1200, 600, 2)


def test_what_the_rows_forbid_is_refused_before_a_kernel_starts(wb):
    frame = payments(400).assign(shop=["a", "b"] * 200)
    frame["rare"] = np.where(frame["id"] % 2 == 0, "x", "y")
    ingest(frame, table="pay", key="id", wb=wb)
    asked = {"table": "pay", "target": "fraud", "drop": "kind,cost,rare"}
    test = load_dataset(describe_problem(asked | {"target": "rare"}, wb), wb=wb).part("test")[1]
    changed = int(test["row_key"].iloc[0])
    sql(f"UPDATE pay SET rare = 'z' WHERE id = {changed}", write=True, wb=wb)
    for wrong, said in {
        (("disk", True),): r"disk=true trains on numbers alone, and shop.*drop=kind,cost,rare,shop",
        (("key", "few"),): "the key few of 'pay' names no row: 0 stands",
        (("target", "rare"), ("drop", "kind,cost")): "'z' of 'rare' stands in the test rows alone",
        (("test", 0.001),): "the only test row of 'pay' has fraud=False",
        (("test", 1.5),): "test=1.5 is not a share",
        (("drop", 'kind,"a; b"'),): "drop: column 'a; b' is not a column",
    }.items():
        with pytest.raises(UserError, match=said):
            check_training(asked | dict(wrong), wb)
    odd = check_training(asked | {"drop": "kind,cost,rare,\"a, b\t'c'\""}, wb)
    assert "a, b\t'c'" not in odd.features and "amount" in odd.features
    words = ("run", "train", "-p", "table=pay", "-p", "target=fraud", "-p", "key=few")
    code, _, err = mlworkbench(*words, cwd=wb.root)
    assert code == 2 and "names no row" in err
    assert sql("SELECT count(*) FROM work.runs", wb=wb).fetchone() == (0,)
