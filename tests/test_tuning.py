"""Tuning: kills, two processes, rows it must not see, pruning, the command."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from faults import killed_again_and_again, mlworkbench

from mlworkbench.core.errors import UserError
from mlworkbench.execution.record import get_run
from mlworkbench.modelling import candidates, studies, tuning
from mlworkbench.modelling.datasets import Dataset
from mlworkbench.modelling.problems import Problem

EXE = Path(sys.executable).parent / "mlworkbench"


def made(rows=900, split="random", seed=0, task="binary", entity=None):
    """A small data set that exists nowhere but here."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({"amount": rng.normal(size=rows), "age": rng.normal(size=rows)})
    x["city"] = rng.choice(["a", "b", "c", "d"], rows)
    value = x["amount"] * x["age"] + (x["city"] == "a") + 0.7 * rng.normal(size=rows)
    label = {"binary": (value > 0.6) * 1, "regression": value}.get(task)
    if task == "multiclass":
        label = pd.cut(value, [-99, 0, 1, 99], labels=["low", "mid", "high"]).astype(str)
    place = np.arange(rows) / rows
    part = np.where(place < 0.55, "train", np.where(place < 0.75, "validation", "test"))
    frame = pd.DataFrame({"row_key": np.arange(rows).astype(str), "split": part, "label": label})
    frame["entity"] = (np.arange(rows) % 90).astype(str)
    frame["at"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(rows), "h")
    kinds = {"amount": "number", "age": "number", "city": "category"}
    classes = {"binary": (0, 1), "multiclass": ("high", "low", "mid")}.get(task, ())
    time_ = "at" if split in ("time", "weeks") else None
    problem = Problem("pay", "bad", "", (), time_, entity, None, kinds, task, classes, split, 1)
    return Dataset(problem, x, frame)


QUICK = {"folds": 2, "iterations": 20, "threads": 1, "warm": False}


def test_the_untuned_model_comes_first_and_stays_in_the_race(wb):
    found = tuning.tune_catboost(made(), trials=5, wb=wb, **QUICK)
    study = optuna.load_study(study_name=found.study, storage=studies.study_url(wb))
    first = study.trials[0]
    assert first.user_attrs["untuned"] and first.value == found.untuned
    assert first.params["depth"] == 6 and 0 < first.params["learning_rate"] <= 0.5
    assert found.value >= found.untuned and found.trials == 5 == len(study.trials)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_task_and_metric(wb, task):
    from mlworkbench.modelling.metrics import metric_table

    data = made(task=task)
    for metric, known in metric_table(task).items():
        found = tuning.tune_catboost(data, trials=2, metric=metric, wb=wb, **QUICK)
        better = found.value >= found.untuned if known.higher else found.value <= found.untuned
        assert better and np.isfinite(found.value), metric
        gain = tuning.validate_gain(data, found, threads=1)
        assert gain.sentence.endswith(".")
        if gain.difference:  # how much being picked flatters, as a number
            lead = (found.value - found.untuned - gain.difference.value) * (known.higher or -1)
            said = (
                f"flattered it by about {lead:.4f}:" if lead > 0 else "no less than on the folds:"
            )
            assert said in gain.sentence


@pytest.mark.parametrize("split", ["random", "grouped", "time", "weeks"])
def test_folds_lie_inside_the_training_rows(split):
    data = made(split=split, entity="who" if split == "grouped" else None)
    train = set(np.flatnonzero(data.rows["split"] == "train"))
    at, whose = data.rows["at"].to_numpy(), data.rows["entity"].to_numpy()
    folds = candidates.inner_folds(data, 3)
    assert len(folds) == 3
    judged = [set(judge) for _, judge in folds]
    assert sum(map(len, judged)) == len(set.union(*judged))  # no row is judged twice
    for fit, judge in folds:
        assert {*fit, *judge} <= train and not {*fit} & {*judge}
        if split in ("time", "weeks"):
            assert at[fit].max() < at[judge].min()
        if split == "weeks":
            assert at[judge].min() - at[fit].max() > np.timedelta64(3, "D")
        if split == "grouped":
            assert not {*whose[fit]} & {*whose[judge]}


@pytest.mark.parametrize("split", ["random", "time"])
def test_labels_outside_the_training_rows_change_nothing(wb, split):
    data = made(split=split)
    turned = data.rows.assign(
        label=np.where(data.rows["split"] == "train", data.rows["label"], 1 - data.rows["label"])
    )
    other = Dataset(data.problem, data.features, turned)
    one = tuning.tune_catboost(data, trials=4, study="one", wb=wb, **QUICK)
    two = tuning.tune_catboost(other, trials=4, study="two", wb=wb, **QUICK)
    assert one.values == two.values and one.best == two.best


def test_the_same_seed_gives_the_same_study(wb):
    one, two, three = (
        tuning.tune_catboost(made(), trials=5, study=n, seed=s, wb=wb, **QUICK)
        for n, s in (("one", 1), ("two", 1), ("three", 2))
    )
    assert one.values == two.values != three.values


def test_pruning_happens(wb):
    data = made(2000)
    found = tuning.tune_catboost(
        data,
        trials=16,
        space={"learning_rate": [1e-5, 0.1]},
        folds=2,
        iterations=40,
        threads=1,
        wb=wb,
    )
    assert found.pruned >= 1 and found.trials == 16
    study = optuna.load_study(study_name=found.study, storage=studies.study_url(wb))
    pruned = study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    assert all(len(t.intermediate_values) for t in pruned)


def test_several_metrics_make_a_front(wb):
    found = tuning.tune_catboost(made(), trials=8, metric="auc,brier", wb=wb, **QUICK)
    study = optuna.load_study(study_name=found.study, storage=studies.study_url(wb))
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    tried = {t.number: t.values for t in study.trials}
    assert found.metric == "auc" and found.value == max(auc for auc, _ in tried.values())
    beaten = {
        n for n, (a, b) in tried.items() for c, d in tried.values() if (c > a and d <= b) or (c >= a and d < b)
    }  # fmt: skip
    assert {f["trial"] for f in found.front} == set(tried) - beaten and found.pruned == 0
    assert [[f["auc"], f["brier"]] for f in found.front] == [tried[f["trial"]] for f in found.front]
    assert "front" in studies.study_figures(found.study, wb)
    went_on = tuning.tune_catboost(made(), trials=9, metric="auc,brier", wb=wb, **QUICK)
    assert went_on.study == found.study and went_on.trials == 9


def test_minutes_end_a_study(wb):
    began = time.monotonic()
    found = tuning.tune_catboost(made(), trials=0, minutes=0.05, wb=wb, **QUICK)
    assert found.trials >= 1 and time.monotonic() - began < 60


def test_two_trials_at_a_time(wb):
    found = tuning.tune_catboost(made(), trials=8, jobs=2, wb=wb, **QUICK)
    study = optuna.load_study(study_name=found.study, storage=studies.study_url(wb))
    done = study.get_trials(states=studies.DONE)  # a last one that leads lines up another, untried
    lined_up = [t.state.name for t in study.trials if t not in done]
    assert found.trials == len(done) == 8 and lined_up in ([], ["WAITING"])


def test_mistakes_are_named(wb):
    data = made()
    for options, words in (
        ({"metric": "acu"}, "acu"),
        ({"trials": 0}, "no budget"),
        ({"space": {"depth": "8:2"}}, "empty range"),
        ({"space": {"depth": "deep"}}, "not a range"),
        ({"folds": 1}, "too few"),
    ):
        with pytest.raises(UserError, match=words):
            tuning.tune_catboost(data, wb=wb, **QUICK | {"trials": 2} | options)
    tuning.tune_catboost(data, trials=2, study="mine", wb=wb, **QUICK)
    with pytest.raises(UserError, match="begun on other rows"):
        tuning.tune_catboost(made(seed=1, rows=800), trials=2, study="mine", wb=wb, **QUICK)


WORDS = ("tune", "-p", "table=pay", "-p", "target=bad", "-p", "iterations=20", "-p", "folds=2")
WORDS += ("--study", "shared", "--json")


def with_table(wb, rows=900):
    """The data set as a table of the lake, for the command."""
    from mlworkbench.data.ingestion import ingest

    data = made(rows)
    frame = data.features.assign(id=data.rows["row_key"], bad=data.rows["label"])
    ingest(frame, table="pay", key=["id"], wb=wb)


def started(wb, trials):
    """The command at work on the study."""
    return mlworkbench(*WORDS, "--trials", str(trials), cwd=wb.root, wait=False)


def finished(wb):
    """What a study has finished, by number; {} before there is one."""
    try:
        study = optuna.load_study(study_name="shared", storage=studies.study_url(wb))
    except Exception:
        return {}
    return {
        t.number: (t.state.name, t.value, tuple(sorted(t.params.items())))
        for t in study.trials
        if t.state.is_finished() and t.state.name != "FAIL"
    }


def test_killed_and_resumed_keeps_every_finished_trial_once(wb, torture):
    """The shipped job, by its command, killed in the middle of a trial."""
    kills = 10 if torture else 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with_table(wb)
    kept = killed_again_and_again(lambda: started(wb, 10_000), lambda: finished(wb), kills)
    budget = len(kept) + 2
    last = started(wb, budget)
    out, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    found, now = json.loads(out), finished(wb)
    print(f"resumed to the end: {len(now)} finished, {found['trials']} said")
    assert kept.items() <= now.items() and len(now) == budget == found["trials"]
    assert get_run(found["run"], wb=wb).state == "finished"
    study = optuna.load_study(study_name="shared", storage=studies.study_url(wb))
    assert sum(t.user_attrs.get("untuned", False) for t in study.trials) == 1
    assert not study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    assert len({params for _, _, params in now.values()}) == budget  # nothing was tried twice


def test_two_processes_on_one_study_lose_no_trial(wb, torture):
    budget = 40 if torture else 12
    with_table(wb)
    both = [started(wb, budget) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    study = optuna.load_study(study_name="shared", storage=studies.study_url(wb))
    assert len(finished(wb)) == budget == len(study.trials)
    assert len({tuple(sorted(t.params.items())) for t in study.trials}) == budget


@pytest.mark.skipif(not EXE.exists(), reason="the command is not installed")
def test_the_command(wb, tmp_path):
    data = made(600)
    frame = data.features.assign(id=data.rows["row_key"], bad=data.rows["label"])
    frame.to_parquet(tmp_path / "pay.parquet")

    def ask(*words, code=0):
        done = subprocess.run(
            [EXE, *words, "--json", "--workbench", wb.root],
            capture_output=True,
            text=True,
            env=os.environ,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    ask("ingest", str(tmp_path / "pay.parquet"), "--table", "pay", "--key", "id")
    words = ("-p", "table=pay", "-p", "target=bad", "-p", "iterations=20", "-p", "depth=2:5")
    found = ask("tune", *words, "--trials", "4", "--metric", "average_precision")
    assert set(found) == {"study", "trials", "best", "run"} and found["trials"] == 4
    shown = ask("show", found["run"])
    assert shown["state"] == "finished" and "average_precision" in shown["metrics"]
    steps = [m for m in shown["all_metrics"] if m["name"] == "objective"]
    assert steps and all(m["split"] == "validation" for m in steps)
    figures = {f["path"] for f in shown["files"] if f["kind"] == "figure"}
    assert {"roc.plotly.json", "calibration.plotly.json", "learning.plotly.json"} <= figures
    text = (wb.root / "runs" / found["run"] / "notebook.ipynb").read_text()
    assert "application/vnd.plotly" in text and len(text) < 1_000_000
    assert "trials" in shown["facts"]["tuning"] and ask("runs", "--sort", "auc")
    again = ask("tune", *words, "--trials", "4", "--metric", "average_precision")
    assert again["study"] == found["study"] and again["best"] == found["best"]
    refused = ask("tune", *words, "--metric", "acu", code=2)
    assert "acu" in refused["error"] and len(ask("runs")) == 2


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_threads_change_no_model(task, torture):
    """CatBoost issue 2804 says that they may; in CatBoost 1.2.10 on the CPU they were never seen to."""
    from mlworkbench.modelling.training import fit_catboost, predict_scores

    data = made(60_000 if torture else 3_000, task=task)
    x, rows = data.part("train")
    scores = [
        predict_scores(
            fit_catboost(x, rows["label"].to_numpy(), data.problem, iterations=40, threads=t),
            x,
            task,
            1,
        )
        for t in (1, 2, 4, 8)
    ]
    gaps = [float(np.abs(s - scores[0]).max()) for s in scores[1:]]
    print(task, len(x), gaps)
    assert gaps == [0, 0, 0], "threads change a model: say so where runs are compared and rerun"
