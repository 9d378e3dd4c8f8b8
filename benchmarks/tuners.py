"""Our tune beside the tutorials' loop, FLAML and untuned CatBoost, at an equal wall-clock budget.

    python benchmarks/tuners.py [--seconds 60] [--seeds 3] [--sets handbook taiwan adult bank]

Every tuner gets the same training rows and two threads, and never sees a test row; its one model
then scores the test, once. Tuners take turns, set by set and seed by seed. FLAML (with LightGBM
and XGBoost, for its own choice of learners) is left out where it is not installed. Differences are
over the seeds, with a 95% interval that has the luck of the rows and of the seeds in it.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time
import warnings

import catboost
import optuna
import pandas as pd
from handbook import BASELINE, PUBLISHED, prepared, rows
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from mlworkbench.data.ingestion import ingest
from mlworkbench.data.lake import create_workbench
from mlworkbench.execution.journal import log_params
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.modelling.datasets import Dataset, check_training, load_dataset
from mlworkbench.modelling.evaluation import log_predictions
from mlworkbench.modelling.problems import Problem
from mlworkbench.modelling.repeats import compare_repeats
from mlworkbench.modelling.training import fit_catboost, predict_scores
from mlworkbench.modelling.tuning import tune_catboost, validate_gain

SETS = {
    "taiwan": ("taiwan_credit_default.parquet", "default_next_month", "ID"),
    "adult": ("adult_census_income.parquet", "income_gt_50k", "split"),
    "bank": ("bank_marketing_additional.parquet", "y", "duration"),
}
THREADS = 2


def handbook(folder):
    """The handbook's baseline week; the last fifth of its training days is our validation."""
    con, features = prepared(folder / "handbook_transactions.parquet")
    fold = rows(con, BASELINE)
    fold = fold[fold["split"].isin(["train", "test"])].reset_index(drop=True)
    train = fold["split"] == "train"
    late = train & (fold["day"] > fold["day"][train].quantile(0.8))
    about = pd.DataFrame(
        {
            "row_key": fold["TRANSACTION_ID"].astype(str),
            "split": fold["split"].mask(late, "validation"),
            "label": fold["TX_FRAUD"].astype(int),
            "entity": fold["CUSTOMER_ID"].astype(str),
            "at": pd.to_datetime(fold["day"]),
        }
    )
    kinds = dict.fromkeys(features, "number")
    problem = Problem(
        "handbook",
        "TX_FRAUD",
        "",
        (),
        "at",
        "CUSTOMER_ID",
        None,
        kinds,
        "binary",
        (0, 1),
        "time",
        0,
    )
    return Dataset(problem, fold[features].astype(float), about)


def real_set(name, folder, wb):
    """One of the real sets, split by our own door."""
    file, target, drop = SETS[name]
    ingest([str(folder / file)], table=name, wb=wb)
    problem = check_training({"table": name, "target": target, "drop": drop}, wb)
    return load_dataset(problem, wb=wb)


def ours(data, seconds, seed, wb):
    """The job's own steps: search on folds of `train`, compare on `validation`, fit on both.

    Each thread has a trial of its own (`jobs`): small fits gain little from a second thread.
    """
    found = tune_catboost(
        data, metric="auc", trials=0, minutes=seconds / 60, seed=seed, threads=THREADS, warm=False,
        study=f"{data.problem.table}.{seed}", jobs=THREADS, wb=wb,
    )  # fmt: skip
    gain = validate_gain(data, found, seed=seed, threads=THREADS)
    x, about = data.part("train", "validation")
    chosen = found.best if gain.holds else found.plain
    model = fit_catboost(x, about["label"], data.problem, seed=seed, threads=THREADS, **chosen)
    return lambda x: predict_scores(model, x, "binary", THREADS), found.trials


def untuned(data, seconds, seed, wb):
    """CatBoost as it comes, with the number of trees that our jobs have."""
    x, about = data.part("train", "validation")
    model = fit_catboost(x, about["label"], data.problem, seed=seed, threads=THREADS)
    return lambda x: predict_scores(model, x, "binary", THREADS), 1


def loop(data, seconds, seed, wb):
    """The tutorials': one shuffled validation split, early stopping, a fit of CatBoost a trial."""
    x, about = data.part("train", "validation")
    y = about["label"].to_numpy()
    category = [n for n, kind in data.problem.features.items() if kind == "category"]
    x_fit, x_stop, y_fit, y_stop = train_test_split(
        x, y, test_size=0.25, stratify=y, random_state=seed
    )
    models = {}

    def objective(trial):
        params = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 0.3, log=True),
            "depth": trial.suggest_int("depth", 4, 10),
            "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 1e-2, 10, log=True),
            "bagging_temperature": trial.suggest_float("bagging_temperature", 0, 1),
            "random_strength": trial.suggest_float("random_strength", 1e-2, 10, log=True),
        }
        model = catboost.CatBoostClassifier(
            **params, iterations=1000, eval_metric="AUC", random_seed=seed, thread_count=THREADS,
            cat_features=category, allow_writing_files=False, verbose=False,
        )  # fmt: skip
        model.fit(x_fit, y_fit, eval_set=(x_stop, y_stop), early_stopping_rounds=100)
        models[trial.number] = model
        return roc_auc_score(y_stop, model.predict_proba(x_stop)[:, 1])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, timeout=seconds)
    trees = models[study.best_trial.number].tree_count_
    model = catboost.CatBoostClassifier(
        **study.best_params, iterations=trees, random_seed=seed, thread_count=THREADS,
        cat_features=category, allow_writing_files=False, verbose=False,
    )  # fmt: skip
    model.fit(x, y)
    return lambda x: model.predict_proba(x)[:, 1], len(study.trials)


def flaml(data, seconds, seed, wb):
    """FLAML as its manual shows it, with its own choice of learners and of resampling."""
    from flaml import AutoML

    def typed(x):
        kinds = data.problem.features
        return x.assign(**{n: x[n].astype("category") for n, k in kinds.items() if k == "category"})

    x, about = data.part("train", "validation")
    log, search = pathlib.Path(tempfile.mkdtemp()) / "flaml.log", AutoML()
    search.fit(
        typed(x), about["label"].to_numpy(), task="classification", metric="roc_auc", seed=seed,
        time_budget=seconds, n_jobs=THREADS, verbose=0, log_file_name=str(log), log_type="all",
    )  # fmt: skip
    trials = sum("record_id" in line for line in log.read_text().splitlines())
    return lambda x: search.predict_proba(typed(x))[:, 1], trials


def installed():
    """The tuners that can be had here, ours last."""
    found = {"untuned": untuned, "loop": loop, "flaml": flaml, "ours": ours}
    try:
        import flaml as _  # noqa: F401
    except ImportError:
        print("FLAML is not installed (pip install 'flaml[automl]'): its column is left out")
        del found["flaml"]
    return found


def scored(name, tuner, data, seconds, seed, wb):
    """Let a tuner work without the test rows, then score them, once; returns the run and a line."""
    known = data.rows["split"].ne("test").to_numpy()
    blind = Dataset(data.problem, data.features[known], data.rows[known].reset_index(drop=True))
    began = time.monotonic()
    score, trials = tuner(blind, seconds, seed, wb)
    took = time.monotonic() - began
    x, about = data.part("test")
    values = score(x)
    run = open_run(name=f"{data.problem.table}.{name}.{seed}", wb=wb)
    log_params(wb=wb, run=run.run, seed=seed)
    whose = {"entity": about["entity"].to_numpy()} if data.problem.entity else {}
    key = about["row_key"].to_numpy()
    log_predictions(
        about["label"].to_numpy(), values, key=key, metrics=False, run=run.run, wb=wb, **whose
    )
    auc = roc_auc_score(about["label"], values)
    line = {"set": data.problem.table, "seed": seed, "tuner": name, "auc": auc}
    line |= {"trials": trials, "seconds": round(took, 1), "load": round(os.getloadavg()[0], 1)}
    return close_run(run.run, "finished", wb=wb), line


def compared(sets, runs, tuners, wb):
    """Print ours against each other tuner, set by set; returns where it was significantly worse."""
    worse = []
    for name in sets:
        for other in tuners[:-1]:
            pair = [[runs[name, seed, t] for seed in range(len(runs)) if (name, seed, t) in runs]
                    for t in (other, tuners[-1])]  # fmt: skip
            if len(pair[0]) < 2:
                continue
            d = compare_repeats(pair, metric="auc", wb=wb).difference
            said = "better" if d.low > 0 else "worse" if d.high < 0 else "within luck"
            print(
                f"  {name}: ours less {other} {d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f}): {said}"
            )
            worse += [(name, other)] if said == "worse" else []
    return worse


def told(table, runs, sets, tuners, wb):
    """Print what is known after the seeds so far."""
    table["rank"] = table.groupby(["set", "seed"])["auc"].rank(ascending=False)
    print(f"after {table['seed'].nunique()} seeds, AUC on the test rows:")
    print(table.pivot_table(index="set", columns="tuner", values="auc").round(4).to_string())
    many = table.groupby("tuner")["trials"].mean()
    print("trials, mean:", many.round(1).to_dict())
    print("mean rank:", table.groupby("tuner")["rank"].mean().round(2).to_dict())
    if {"loop", "ours"} <= set(tuners):
        print(f"trials of ours for one of the loop's: {many['ours'] / many['loop']:.1f}")
    worse = compared(sets, runs, tuners, wb)
    print("significantly worse than another:", worse or "nowhere", flush=True)


def main():
    """Give every tuner the same seconds on every set, seed by seed; print what is known so far."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--data", type=pathlib.Path, default=PUBLISHED.parent)
    options.add_argument("--sets", nargs="*", default=["handbook", *SETS])
    options.add_argument("--tuners", nargs="*", default=[])
    chosen = options.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    wb, tuners = create_workbench(tempfile.mkdtemp()), installed()
    tuners = {n: t for n, t in tuners.items() if not chosen.tuners or n in chosen.tuners}
    data = {
        n: handbook(chosen.data) if n == "handbook" else real_set(n, chosen.data, wb)
        for n in chosen.sets
    }
    runs, lines = {}, []
    for seed in range(chosen.seeds):
        for name in data:
            for tuner, work in tuners.items():
                found = scored(tuner, work, data[name], chosen.seconds, seed, wb)
                runs[name, seed, tuner], line = found
                print(json.dumps(line), flush=True)
                lines.append(line)
        told(pd.DataFrame(lines), runs, list(data), list(tuners), wb)


if __name__ == "__main__":
    main()
