"""The report on a run: values equal to the libraries' own, what is planted is named, and nothing is on clean data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.looks import list_looks
from mlworkbench.data.catalog import declare_roles
from mlworkbench.data.commits import write_lake
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.kept import keep_split
from mlworkbench.data.queries import sql
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.modelling.drift import drift_table, stability
from mlworkbench.modelling.evaluation import log_predictions
from mlworkbench.modelling.fairness import group_fairness
from mlworkbench.modelling.ledger import count_looks, rows_sketch
from mlworkbench.modelling.metrics import checked
from mlworkbench.modelling.money import (
    Costs,
    best_threshold,
    clustered_sum,
    cost_curve,
    review_curve,
)
from mlworkbench.modelling.recalibration import (
    calibration_error,
    fit_recalibrator,
    own_chances,
)
from mlworkbench.modelling.report_page import evaluate, page_of, read_report
from mlworkbench.modelling.slices import contributions, holm, slice_masks, slice_table

CLOSE = {"rel": 1e-12, "abs": 1e-12}
EVIL = "</script><img src=x onerror=alert(1)>"


# values, held against the libraries


@st.composite
def grouped_rows(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n = draw(st.integers(4, 80))
    group = rng.choice(list("abcd")[: draw(st.integers(2, 4))], n)
    group[:2] = "a", "b"
    weight = rng.uniform(0.1, 5, n) if draw(st.booleans()) else None
    label = rng.integers(0, 2, n) if draw(st.integers(0, 4)) else np.zeros(n, dtype=int)
    return group, label, rng.integers(0, 2, n), weight


@settings(max_examples=25, deadline=None)
@given(grouped_rows())
def test_fairness_equals_fairlearn(rows):
    fl = pytest.importorskip("fairlearn.metrics")
    group, label, stopped, weight = rows
    found = group_fairness("g", group, label, stopped, weight=weight, resamples=10)
    about = {"sensitive_features": group, "sample_weight": weight}
    for name, value in found.disparities["value"].items():
        with np.errstate(all="ignore"):
            theirs = getattr(fl, name)(label, stopped, **about)
        assert value == pytest.approx(theirs, nan_ok=True, **CLOSE), name
    frame = found.groups.pivot(index="group", columns="rate", values="value")
    w = np.ones(len(label)) if weight is None else weight
    for g in frame.index:
        m = group == g
        assert frame.loc[g, "selection_rate"] == pytest.approx(
            fl.selection_rate(label[m], stopped[m], sample_weight=w[m]), **CLOSE
        )
        assert frame.loc[g, "accuracy"] == pytest.approx(
            sk.accuracy_score(label[m], stopped[m], sample_weight=w[m]), **CLOSE
        )
        if label[m].any():
            assert frame.loc[g, "true_positive_rate"] == pytest.approx(
                sk.recall_score(label[m], stopped[m], sample_weight=w[m]), **CLOSE
            )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.sampled_from([2, 7, 10**6]))
def test_contributions_are_the_metric_and_its_variance(seed, weighted, levels):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 90))
    label, score = rng.integers(0, 2, n), rng.integers(0, levels + 1, n) / levels
    label[:2] = 0, 1
    weight = rng.uniform(0.1, 4, n) if weighted else None
    value, moved = contributions(checked("binary", label, score, weight), "auc")
    assert value == pytest.approx(sk.roc_auc_score(label, score, sample_weight=weight), **CLOSE)
    assert abs(moved.sum()) < 1e-9
    mean, moved = contributions(checked("binary", label, score, weight), "brier")
    assert mean == pytest.approx(sk.brier_score_loss(label, score, sample_weight=weight), **CLOSE)
    if not weighted:
        one = contributions(checked("binary", label, score), "brier")[1]
        losses = (label - score) ** 2
        assert (one**2).sum() == pytest.approx(losses.var() / n, rel=1e-9, abs=1e-15)


def test_holm_is_holms():
    p = np.random.default_rng(0).random(20) ** 3
    order = np.argsort(p)
    want, high = np.empty(20), 0.0
    for place, i in enumerate(order):
        high = max(high, min(1.0, p[i] * (20 - place)))
        want[i] = high
    assert holm(p) == pytest.approx(want, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_money_equals_the_plain_sum(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    label, score, amount = rng.integers(0, 2, n), rng.integers(0, 5, n) / 4, rng.exponential(50, n)
    costs = Costs("EUR", 5, 0.5, 100, 10)
    curve = cost_curve(label, score, costs, amount=amount)
    for line in curve.itertuples():
        stop = score >= line.threshold
        plain = 0.5 * amount[(label == 1) & ~stop].sum() + 5 * ((label == 0) & stop).sum()
        assert line.cost == pytest.approx(plain, rel=1e-12, abs=1e-9)
    best = best_threshold(label, score, costs, amount=amount)
    assert best.looked == pytest.approx(curve.cost.min(), rel=1e-9, abs=1e-9)


def test_recalibration_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    score = rng.uniform(0.01, 0.99, 3000)
    label = (rng.random(3000) < score**2) * 1
    fit = fit_recalibrator(label, score)
    x = np.log(score / (1 - score))[:, None]
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(x, label)
    assert fit.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-5)
    assert fit.intercept == pytest.approx(theirs.intercept_[0], rel=1e-5)


def test_stability_and_what_is_refused():
    a, b = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.6, 0.3])
    assert stability(a, b) == pytest.approx(stats.entropy(a, b) + stats.entropy(b, a), **CLOSE)
    with pytest.raises(WorkbenchError, match="group"):
        group_fairness("g", ["a", "a"], [0, 1], [0, 1])
    with pytest.raises(WorkbenchError, match="0 nor 1"):
        group_fairness("g", ["a", "b"], [0, 1], [0.5, 1])
    with pytest.raises(WorkbenchError, match="have the label 1"):
        contributions(checked("binary", [1, 1], [0.1, 0.2]), "auc")
    with pytest.raises(WorkbenchError, match="no probabilities"):
        calibration_error([0, 1], [-3, 5])
    with pytest.raises(WorkbenchError, match="no rows"):
        drift_table(pd.DataFrame({"a": []}), pd.DataFrame({"a": [1.0]}))
    with pytest.raises(WorkbenchError, match="no rows"):
        cost_curve([], [], Costs("EUR", 5, 1, 1, 1))


# planted and clean: two sizes of one code


def world(seed, n=4000, cards=400):
    rng = np.random.default_rng(seed)
    card = rng.integers(0, cards, n)
    taste = rng.normal(0, 0.5, cards)
    logit = rng.normal(-2, 1.2, n) + taste[card]
    label = (rng.random(n) < 1 / (1 + np.exp(-logit))) * 1
    frame = pd.DataFrame(
        {
            "channel": rng.choice(["web", "branch", "phone"], n),
            "amount": rng.exponential(50, n),
            "hour": rng.integers(0, 24, n).astype(float),
        }
    )
    return rng, label, 1 / (1 + np.exp(-logit)), frame, card


def false_alarms(claims, allowed):
    """Fewer than the 99.9% quantile of the binomial at the declared rate."""
    return sum(claims) <= stats.binom.ppf(0.999, len(claims), allowed)


def searched(label, score, masks, card):
    """Slices as the report searches them."""
    own = own_chances("binary", label, score)
    return slice_table("binary", label, score, masks, entity=card, chances=own)


def test_a_planted_slice_is_named_and_clean_data_has_none(torture):
    claims, found = [], []
    for seed in range(2000 if torture else 40):
        rng, label, score, frame, card = world(seed)
        masks = slice_masks(frame, pairs=True)
        claims.append(searched(label, score, masks, card).worse.any())
        if seed < (200 if torture else 6):
            where = (frame.channel == "branch").to_numpy()
            score[where] = rng.permutation(score[where])
            table = searched(label, score, masks, card)
            found.append(
                table.index[0].startswith("channel = branch") and bool(table.worse.iloc[0])
            )
    print(
        f"slices: {sum(claims)} of {len(claims)} clean worlds alarmed, {sum(found)} of {len(found)} planted found"
    )
    assert false_alarms(claims, 0.05) and np.mean(found) >= 0.9


def test_a_right_model_is_not_accused_along_its_own_feature_and_a_wrong_one_is(torture):
    """Each slice of the best feature leaves less to rank; the right model says so, the other not."""
    claims, naive, found = [], [], []
    for seed in range(2000 if torture else 40):
        rng, _, _, frame, card = world(seed)
        frame["a"], b = rng.normal(size=len(card)), rng.normal(size=len(card))
        low, own = (
            (frame.a < np.quantile(frame.a, 0.25)).to_numpy(),
            -1.5 + 1.2 * frame.a.to_numpy(),
        )
        label = (rng.random(len(card)) < 1 / (1 + np.exp(-(own + b)))) * 1
        masks = slice_masks(frame)
        sure = 1 / (1 + np.exp(-(1 + 1.7 * (own + b))))  # in the right order; too sure everywhere
        claims.append(searched(label, sure, masks, card).worse.any())
        if seed < (200 if torture else 6):
            naive.append(slice_table("binary", label, sure, masks, entity=card).worse.any())
            blind = 1 / (1 + np.exp(-(own + np.where(low, rng.permutation(b), b))))
            table = searched(label, blind, masks, card)
            found.append(table.index[0].startswith("a ≤ ") and bool(table.worse.iloc[0]))
    print(
        f"own feature: {sum(claims)} of {len(claims)} right models accused, {sum(naive)} of {len(naive)} by AUC alone, {sum(found)} of {len(found)} blind ones found"
    )
    assert false_alarms(claims, 0.05) and np.mean(found) >= 0.9 and all(naive)


def test_a_right_model_of_three_classes_is_not_accused_along_its_own_feature(torture):
    claims, naive, found = [], [], []
    for seed in range(2000 if torture else 20):
        rng, _, _, frame, card = world(seed)
        frame["a"] = rng.normal(size=len(card))
        odds = np.column_stack([np.zeros(len(card)), 1.5 * frame.a, rng.normal(size=len(card))])
        said = special.softmax(odds, axis=1)
        label = (rng.random((len(card), 1)) > said.cumsum(axis=1)).sum(axis=1).clip(0, 2)
        masks, where = slice_masks(frame), (frame.channel == "branch").to_numpy()
        for score, claimed in ((said, claims), (np.where(where[:, None], said[::-1], said), found)):
            own = own_chances("multiclass", label, score)
            args = "multiclass", label, score, masks
            table = slice_table(*args, entity=card, chances=own)
            claimed.append(bool(table.worse.any()))
            if claimed is found:
                found[-1] &= table.index[0] == "channel = branch"
            else:
                naive.append(slice_table(*args, entity=card).worse.any())
    print(f"{sum(claims)} of {len(claims)} accused, {sum(naive)} by accuracy, {sum(found)} found")
    assert false_alarms(claims, 0.05) and np.mean(found) >= 0.9 and np.mean(naive) > 0.9


def test_planted_unfairness_is_named_and_clean_data_has_none(torture):
    claims, found = [], []
    for seed in range(2000 if torture else 80):
        rng, label, score, frame, card = world(seed)
        stopped = (score > 0.25) * 1
        claims.append(
            group_fairness(
                "channel", frame.channel, label, stopped, entity=card, resamples=10
            ).groups.unfair.any()
        )
        if seed < (200 if torture else 6):
            let_go = (frame.channel == "phone").to_numpy() & (rng.random(len(label)) < 0.5)
            said = group_fairness(
                "channel", frame.channel, label, stopped * ~let_go, entity=card, resamples=10
            ).sentence
            found.append("channel = phone: fewer" in said)
    print(
        f"fairness: {sum(claims)} of {len(claims)} clean worlds alarmed, {sum(found)} of {len(found)} planted found"
    )
    assert false_alarms(claims, 0.05) and np.mean(found) >= 0.9


def test_a_planted_change_is_named_and_clean_data_has_none(torture):
    claims, found = [], []
    for seed in range(1000 if torture else 50):
        _, _, score, frame, card = world(seed)
        frame, half = frame.assign(score=score), len(frame) * 3 // 4
        ids = {"reference_entity": card[:half], "current_entity": card[half:]}
        claims.append(drift_table(frame[:half], frame[half:], **ids, matters=0).moved.any())
        moved = frame[half:].assign(amount=frame.amount[half:] * 1.7)
        table = drift_table(frame[:half], moved, **ids)
        found.append(list(table.index[table.moved]) == ["amount"])
    print(
        f"drift: {sum(claims)} of {len(claims)} clean worlds alarmed, {sum(found)} of {len(found)} planted found"
    )
    assert false_alarms(claims, 0.01) and np.mean(found) >= 0.9


def test_a_sum_over_cards_is_covered(torture):
    held = []
    for seed in range(2000 if torture else 300):
        rng = np.random.default_rng(seed)
        card = np.repeat(np.arange(150), 6)
        value = (rng.gamma(1, 1, 150)[card] * rng.exponential(1, 900)) * (rng.random(900) < 0.5)
        _, low, high = clustered_sum(value, card)
        held.append(low <= 450 <= high)
    print(f"money: {np.mean(held):.3f} of {len(held)} intervals hold the truth")
    assert stats.binom.ppf(0.001, len(held), 0.935) <= sum(held)


# the ledger


def scored(wb, seed=0, n=600, name=None, **about):
    rng = np.random.default_rng(seed)
    label = (np.random.default_rng(9).random(n) < 0.2) * 1
    run = open_run(name, wb=wb)
    log_predictions(label, rng.random(n), key=np.arange(n), run=run.run, wb=wb, **about)
    return close_run(run.run, "finished", wb=wb)


def test_looks_are_counted_and_the_claim_is_corrected(wb):
    first = scored(wb, 0)
    alone = evaluate(first.run, wb=wb, keep=False)
    assert "corrected_low" not in alone.table("metrics") and "1 run measured" in alone.findings[-2]
    for seed in range(1, 4):
        scored(wb, seed)
    late = evaluate(first.run, wb=wb, keep=False).table("metrics").loc["auc"]
    assert late.corrected_low < late.low < late.high < late.corrected_high
    assert len(count_looks("default", "", rows_sketch(range(600)), wb=wb).runs) == 4


@pytest.mark.parametrize(
    "query, looked",
    [
        ("SELECT label FROM lake.predictions", True),
        ("SELECT * FROM predictions WHERE split = 'test'", True),
        ("WITH p AS (FROM lake.predictions) SELECT avg(label::INT) FROM p", True),
        ("SELECT label FROM predictions WHERE split = 'train'", False),
        ("SELECT run, count(*) FROM predictions GROUP BY run", False),
        ("SELECT score FROM predictions", False),
        ("SELECT label FROM predictions WHERE split <> 'train'", True),
        ("SELECT label, 'train' FROM predictions", True),
        ("SELECT label FROM predictions WHERE split = 'train' OR score > 0", True),
        ("SELECT a.label FROM predictions a, predictions b WHERE b.split = 'train'", True),
        ("SELECT p FROM predictions p", True),
        ("SELECT to_json(predictions) FROM predictions", True),
        ("SELECT #3 FROM predictions", True),
        ("SELECT max(d) FROM predictions p(a, b, c, d)", True),
        ("SELECT max(e) FROM predictions p(a, split, c, d, e) WHERE split = 'train'", True),
        ("SELECT score FROM predictions NATURAL JOIN (SELECT '1' AS label)", True),
        ("EXPLAIN ANALYZE SELECT 1 FROM predictions WHERE label = '1'", True),
        ("SELECT p.label FROM predictions p WHERE p.split IN ('train', 'validation')", False),
        ("SELECT label FROM predictions WHERE score > 0 AND split = 'validation'", False),
        ("SELECT name FROM work.runs WHERE name <> 'predictions'", False),
    ],
)
def test_a_query_past_the_doors_is_a_look(wb, query, looked):
    sql(query, wb=wb)
    assert [r["kind"] for r in list_looks(wb=wb)] == ["query"] * looked


@pytest.mark.parametrize(
    "statement, looked",
    [
        ("CREATE TABLE copy AS FROM sealed", True),
        ("INSERT INTO other SELECT id, y FROM lake.sealed", True),
        ("CREATE TABLE copy AS SELECT 1 AS unsealed", False),
        ("INSERT INTO sealed VALUES (900, 1)", False),
        ("INSERT INTO sealed SELECT * FROM other", False),
        ("UPDATE other SET y = s.b FROM sealed s(a, b) WHERE s.a = other.id", True),
        ("ALTER TABLE sealed RENAME TO open", True),
        ("DELETE FROM sealed WHERE id = 3", False),
    ],
)
def test_a_copy_of_sealed_labels_is_a_look(wb, statement, looked):
    sql("CREATE TABLE other (id INT, y INT)", write=True, wb=wb)
    sql(
        "CREATE TABLE sealed AS SELECT i AS id, i % 3 = 0 AS y FROM range(90) r(i)",
        write=True,
        wb=wb,
    )
    about = {"recipe": "random", "label": "y", "key": ("id",), "sealed": True}
    keep_split("s", "sealed", **about, wb=wb)
    sql(statement, write=True, wb=wb)
    assert [r["kind"] for r in list_looks(wb=wb)] == ["query"] * looked


@pytest.fixture
def sealed(wb):
    """Two tables; the test labels of one are sealed."""
    sql("CREATE TABLE other (id INT, y INT)", write=True, wb=wb)
    rows = "SELECT i AS id, (i % 3 = 0)::INT AS y FROM range(90) r(i)"
    sql(f"CREATE TABLE sealed AS {rows}", write=True, wb=wb)
    snapshot = sql("SELECT max(id) FROM lake.snapshots() s(id)", wb=wb).fetchone()[0]
    keep_split("s", "sealed", "random", label="y", key=("id",), sealed=True, wb=wb)
    return wb, snapshot


@pytest.mark.parametrize(
    "query, more",
    [
        ("SELECT ('v' || y)::INT FROM sealed WHERE id < $most", {"params": {"most": 9}}),
        ("INSERT INTO other SELECT id, ('v' || y)::INT FROM sealed", {"write": True}),
        ("UPDATE other SET y = (SELECT error(list(y)::TEXT) FROM sealed)", {"write": True}),
    ],
)
def test_a_query_that_fails_at_a_label_is_a_look(sealed, query, more):
    """The error shows the value; one that names what is not there has seen none."""
    with pytest.raises(UserError, match="fails"):
        sql(query, wb=sealed[0], **more)
    assert [look["table_name"] for look in list_looks(wb=sealed[0])] == ["sealed"]
    with pytest.raises(UserError, match="fails"):
        sql(query.replace("y)", "nothing)"), wb=sealed[0], **more)
    assert len(list_looks(wb=sealed[0])) == 1


@pytest.mark.parametrize("name", ["'sealed'", "'sea' || 'led'", "$name"])
@pytest.mark.parametrize(
    "by", ["lake.table_insertions(", "ducklake_table_insertions('lake', 'main', "]
)
def test_rows_that_a_function_gives_are_a_look(sealed, name, by):
    wb, top = sealed
    more = {"params": {"name": "sealed"}} if "$" in name else {}
    found = sql(f"FROM {by}{name}, 0, {top})", wb=wb, **more)
    assert found.columns == ["id", "y"] and len(found.fetchall()) == 90
    assert "sealed" in [look["table_name"] for look in list_looks(wb=wb)]
    sql(f"FROM {by}'other', 0, {top})", wb=wb)
    assert [look["table_name"] for look in list_looks(wb=wb)].count("sealed") == 1


def test_a_frame_beside_watched_labels_is_no_look(sealed):
    wb, mine = sealed[0], pd.DataFrame({"id": [1, 2, 3]})
    joined = sql("SELECT sealed.id FROM sealed JOIN mine USING (id)", mine=mine, wb=wb)
    assert sorted(joined.fetchall()) == [(1,), (2,), (3,)]
    query = "SELECT count(*) FROM predictions JOIN mine ON row_key = id::TEXT"
    assert sql(query, mine=mine, wb=wb).fetchone() == (0,)
    assert list_looks(wb=wb) == []
    sql("SELECT y FROM sealed JOIN mine USING (id)", mine=mine, wb=wb)
    assert len(list_looks(wb=wb)) == 1


# the report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from mlworkbench.data.lake import create_workbench

    wb = create_workbench(tmp_path_factory.mktemp("report") / "wb")
    n, rng = 4000, np.random.default_rng(0)
    label = (rng.random(n) < 0.1) * 1
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + 2 * label - 3)))
    run = open_run(EVIL, wb=wb)
    about = {
        "at": pd.date_range("2024-01-01", periods=n, freq="10min"),
        "entity": [f"{EVIL}{i % 300}" for i in range(n)],
    }
    log_predictions(label, score, amount=rng.exponential(40, n), run=run.run, wb=wb, **about)
    close_run(run.run, "finished", wb=wb)
    return wb, evaluate(run.run, wb=wb)


def test_the_page_runs_nothing_of_a_users(report):
    page = page_of(report[1])
    assert page.count("<script>") == 2 and "<img" not in page.split("<script>")[0]
    assert "default-src 'none'" in page and "unsafe-eval" not in page and page.count("sha256-") == 2
    assert "http" not in page.split("<script>")[0].replace("http-equiv", "")


def test_what_was_kept_is_what_was_found(report):
    wb, found = report
    again = read_report(found.run, wb)
    assert again.findings == found.findings and again.unsaid == found.unsaid
    for s, t in zip(found.sections, again.sections, strict=True):
        assert list(s.figures) == list(t.figures) and s.words == t.words
        for name, table in s.tables.items():
            numbers = table.select_dtypes("float")
            pd.testing.assert_frame_equal(
                numbers,
                again.table(name)[list(numbers)],
                check_index_type=False,
                check_names=False,
                check_freq=False,
            )
    assert {"roc", "cost", "reviews", "weeks", "calibration"} <= {
        k for s in found.sections for k in s.figures
    }


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_have_their_report(wb, task):
    rng, n = np.random.default_rng(0), 500
    run = open_run(wb=wb)
    if task == "multiclass":
        label = rng.choice(["a", "b", "c"], n)
        score = rng.dirichlet([1, 1, 1], n)
        log_predictions(label, score, classes=["a", "b", "c"], run=run.run, wb=wb)
    else:
        truth = rng.normal(size=n)
        log_predictions(truth, truth + rng.normal(size=n), task="regression", run=run.run, wb=wb)
    close_run(run.run, "finished", wb=wb)
    found = evaluate(run.run, wb=wb)
    first = "accuracy" if task == "multiclass" else "rmse"
    assert found.table("metrics").index[0] == first and found.findings[0].lower().startswith(first)
    assert (run.folder / "report.html").exists()


def test_the_command(report, tmp_path):
    wb, found = report
    exe = Path(sys.executable).parent / "mlworkbench"
    words = [
        exe,
        "report",
        found.run,
        "--output",
        tmp_path / "page.html",
        "--json",
        "--workbench",
        wb.root,
    ]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300)
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and answer["run"] == found.run and answer["findings"]
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    none = subprocess.run(
        [str(exe), "report", "nothing", "--workbench", str(wb.root)], capture_output=True, text=True
    )
    assert none.returncode == 2 and "no run" in none.stderr


# the same model, later


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of ten weeks, then six more come in: the labels of the last have not matured."""
    from mlworkbench.core.settings import open_workbench
    from mlworkbench.data.catalog import declare_roles
    from mlworkbench.data.commits import write_lake
    from mlworkbench.data.ingestion import ingest
    from mlworkbench.data.lake import create_workbench
    from mlworkbench.desk.verbs import run

    wb = create_workbench(tmp_path_factory.mktemp("later") / "wb")
    text = (wb.root / "settings.ini").read_text().replace("sensitive =", "sensitive = region")
    (wb.root / "settings.ini").write_text(text)
    wb = open_workbench(wb.root)
    rng, n = np.random.default_rng(3), 9000
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(rng.uniform(0, 7 * 16, n)), unit="D")
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "at": at,
            "card": rng.integers(0, 600, n),
            "amount": rng.exponential(60, n),
            "age": rng.normal(40, 9, n),
            "region": rng.choice(["north", "south"], n),
        }
    )
    odds = -3 + 0.02 * frame.amount + 0.05 * (frame.age - 40)
    frame["bad"] = (rng.random(n) < 1 / (1 + np.exp(-odds))) * 1
    frame["settled"] = np.where(frame.bad == 1, rng.random(n) + 1, rng.random(n) * 1.005)
    late = at >= pd.Timestamp("2024-03-11")
    frame.loc[late, "age"] += 15  # the planted change
    table = {"table": "pay", "key": "id", "wb": wb}
    ingest(frame[~late], **table)
    with write_lake("roles", wb=wb) as write:
        declare_roles(
            write.con, "pay", time="at", entity="card", amount="amount", label={"bad": "7 days"}
        )
    about = {"table": "pay", "target": "bad", "iterations": 40, "wb": wb}
    fine, leaky = (
        run("train", drop="settled", name="fine", **about),
        run("train", name="leaky", **about),
    )
    ingest(frame[late], mode="append", **table)
    return wb, fine, leaky, frame


def test_a_planted_leak_is_named_and_the_honest_run_has_none(trained):
    wb, fine, leaky, _ = trained
    assert any("settled alone" in a for a in evaluate(leaky.run, wb=wb, keep=False).alarms)
    found = evaluate(fine.run, wb=wb)
    assert not [a for a in found.alarms if "Leak" in a]
    assert {"shap", "slices", "drift", "fairness region"} <= {
        k for s in found.sections for k in s.figures
    }
    assert not [u for u in found.unsaid if "fairness" in u]


def test_later_weeks_are_claimed_when_their_labels_have_matured(trained):
    from mlworkbench.modelling import later

    wb, fine, _, frame = trained
    rows = later.later_rows(fine.run, since="2024-03-11", wb=wb)
    assert len(rows.evidence.rows) == (frame["at"] >= "2024-03-11").sum() and rows.delay.days == 7
    same = later.later_rows(fine.run, since="2024-03-11T02:00+02:00", wb=wb)
    assert len(same.evidence.rows) == len(rows.evidence.rows)
    table = later.later_table(rows, "week", 0.3, wb)
    ends = table.index + pd.Timedelta(days=14)
    assert (table.matured.to_numpy() == np.asarray(ends <= frame["at"].max())).all()
    assert table.value[table.matured].notna().all() and table.value[~table.matured].isna().all()
    assert table.cost[~table.matured].isna().all() and 1 <= (~table.matured).sum() <= 2
    one = table.index[1]
    week = (
        rows.evidence.rows["at"]
        .between(one, one + pd.Timedelta(days=7), inclusive="left")
        .to_numpy()
    )
    mine = rows.evidence.rows[week]
    assert table.value[one] == pytest.approx(
        sk.roc_auc_score(mine["label"], mine["score"]), **CLOSE
    )
    stop = mine["score"] >= 0.3
    plain = (
        mine["amount"][(mine["label"] == 1) & ~stop].sum() + 5 * ((mine["label"] == 0) & stop).sum()
    )
    assert table.cost[one] == pytest.approx(plain, rel=1e-9)
    words = " ".join(later.later_words(rows, table))
    assert "no row has a label" not in words and "No rows at all" not in words
    known = int(table.matured.sum())
    words = " ".join(later.later_words(rows, table.assign(labelled=0, value=np.nan)))
    assert (
        f"{known} weeks are old enough, but no row has a label: nothing is claimed there" in words
    )
    words = " ".join(later.later_words(rows, table.drop(one)))
    assert f"No rows at all in 1 week: {one:%d %b %Y}." in words
    drift = later.feature_drift(rows)
    assert drift.index[0] == "age" and drift.moved["age"] and not drift.moved["amount"]


def test_rows_that_the_model_learned_from_are_left_out(trained):
    from mlworkbench.modelling import later

    wb, fine, _, frame = trained
    rows = later.later_rows(fine.run, wb=wb)
    assert rows.left_out > 2000 and len(rows.evidence.rows) + rows.left_out == len(frame)


def test_the_job_evaluate(trained):
    from mlworkbench.core.errors import UserError
    from mlworkbench.desk.verbs import run
    from mlworkbench.execution.listing import run_details

    wb, fine, _, frame = trained
    found = run("evaluate", model=fine.run, since="2024-03-11", by="week", wb=wb)
    assert (
        found.state == "finished"
        and 0.5 < found.metrics["auc"]["low"] < found.metrics["auc"]["value"]
    )
    details = run_details(found.run, wb=wb)
    assert list(details["snapshots"]) == ["pay"]  # what it was judged on
    curve = [m for m in details["all_metrics"] if m["split"] == "later"]
    weekly = [m for m in curve if m["name"] == "auc by week"]
    assert weekly and all(m["low"] < m["value"] < m["high"] for m in weekly)
    assert {m["name"] for m in curve} >= {"auc by week", "cost by week", "score_psi by week"}
    for wrong in (
        {"model": ""},
        {"model": fine.run, "by": "year"},
        {"model": fine.run, "since": "soon"},
        {"model": fine.run, "since": "2030-01-01"},
    ):
        with pytest.raises((UserError, WorkbenchError)):
            run("evaluate", wb=wb, **wrong)


def test_costs_without_an_interval_and_groups_of_numbers_are_told_in_words(wb):
    n, rng = 4000, np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "sex": rng.choice([1.0, 2.0], n),
            "age": rng.integers(20, 80, n),
            "amount": 10.0,
        }
    )
    frame["y"] = (rng.random(n) < 0.3) * 1
    score = np.where(frame["y"] == 1, 0.5, 0.4) + rng.random(n) / 2
    lost = int(frame.index[frame["y"] == 1][0])  # one loss, and next to nothing beside it
    frame.loc[lost, "amount"], score[lost] = 1e6, 0.01
    frame.loc[lost, ["sex", "age"]] = np.nan, 20
    ingest(frame, table="odd", key="id", wb=wb)
    with write_lake("roles", wb=wb) as write:
        declare_roles(write.con, "odd", amount="amount", sensitive=["sex", "age"])
    run = open_run(values={"table": "odd", "target": "y", "key": "id"}, wb=wb)
    log_predictions(frame["y"], score, key=frame["id"], amount=frame["amount"], run=run.run, wb=wb)
    found = evaluate(run.run, wb=wb)
    money = next(f for f in found.findings if f.startswith("Stopping"))
    assert "no interval" in money and "saves nothing over stopping all" in money
    groups = {name: set(found.table(f"groups of {name}")["group"]) for name in ("sex", "age")}
    assert groups["sex"] == {"1", "2", "(missing)"}
    assert all(" to " in g and g.replace(" to ", "").isdigit() for g in groups["age"])
    rates = next(s.figures["fairness sex"] for s in found.sections if "fairness sex" in s.figures)
    assert rates.layout.xaxis.tickformat == "~%"  # 99.85% and 99.9% are not both 100%


def test_groups_of_a_task_without_yes_or_no_and_blocked_rows_are_told(wb):
    n, rng = 3000, np.random.default_rng(0)
    frame = pd.DataFrame(
        {"id": np.arange(n), "a": rng.normal(size=n), "sex": rng.choice(["f", "m"], n)}
    )
    frame["y"] = frame["a"] + rng.normal(size=n) * np.where(frame["sex"] == "f", 3, 1)
    frame["blocked"], frame["weight"] = np.arange(n) % 5 == 0, rng.choice([1.0, 5.0], n)
    ingest(frame, table="cens", key="id", wb=wb)
    with write_lake("roles", wb=wb) as write:
        declare_roles(write.con, "cens", blocked="blocked", sensitive="sex")
    found = []
    for weight in (None, frame["weight"]):
        about = {"table": "cens", "target": "y", "key": "id", "task": "regression"}
        run = open_run(values=about, wb=wb)
        log_predictions(
            frame["y"], frame["a"], key=frame["id"], weight=weight, task="regression",
            run=run.run, wb=wb,
        )  # fmt: skip
        found.append(evaluate(run.run, wb=wb))
    plain, weighted = found
    assert plain.alarms[0].startswith("Censored: 600 of 3,000 rows of cens were blocked")
    assert not [a for a in weighted.alarms if a.startswith("Censored")]
    size = frame["weight"].sum() ** 2 / (frame["weight"] ** 2).sum()
    assert f"worth {size:,.0f} equal ones" in weighted.about
    assert [a for a in plain.alarms if a.startswith("Unfair: sex = f has ")]
    assert [u for u in plain.unsaid if "this task is regression" in u]


@pytest.mark.parametrize("kind", ["BOOLEAN", "DOUBLE", "VARCHAR"])
def test_a_label_counts_whatever_its_type_in_the_later_table(trained, kind):
    """Trained on 0 and 1; the later table has true and false, or 0.0 and 1.0, or texts."""
    from mlworkbench.modelling import later

    wb, fine, _, frame = trained
    name, label = f"later_{kind}", frame["bad"].where(frame["id"] % 5 > 0)
    with write_lake("later", wb=wb) as write:
        write.con.register("rows_", frame.assign(bad=label))
        write.con.execute(
            f"CREATE TABLE {name} AS SELECT * REPLACE (bad::INT::{kind} AS bad) FROM rows_"
        )
        declare_roles(write.con, name, key="id", time="at", entity="card", amount="amount")
    rows = later.later_rows(fine.run, name, since="2024-03-11", wb=wb).evidence.rows
    truth = label[rows["row_key"].astype(int)]
    assert rows["label"].isna().any() and rows["label"].astype(float).equals(
        truth.reset_index(drop=True).rename("label")
    )


def test_labels_of_another_kind_are_refused_and_not_taken_for_good_ones(trained):
    from mlworkbench.modelling import later

    wb, fine, _, frame = trained
    with write_lake("words", wb=wb) as write:
        write.con.register("rows_", frame)
        write.con.execute(
            "CREATE TABLE words AS SELECT * REPLACE (if(bad = 1, 'yes', 'no') AS bad) FROM rows_"
        )
        declare_roles(write.con, "words", key="id", time="at", entity="card", amount="amount")
    with pytest.raises(UserError, match="bad is no in some rows, and fine tells 0 from 1"):
        later.later_rows(fine.run, "words", since="2024-03-11", wb=wb)


def test_one_payment_without_amount_or_card_changes_no_others(wb):
    n, rng = 800, np.random.default_rng(2)
    label = (rng.random(n) < 0.2) * 1
    about = {
        "amount": rng.exponential(900, n),
        "entity": rng.integers(0, 90, n).astype(object),
        "at": pd.date_range("2024-01-01", periods=n, freq="10min"),
    }
    about["amount"][7], about["entity"][9] = np.nan, None
    score = np.clip(0.3 * label + 0.6 * rng.random(n), 0, 1)
    run = open_run("a", wb=wb)
    log_predictions(label, score, run=run.run, wb=wb, **about)
    close_run(run.run, "finished", wb=wb)
    found = evaluate(run.run, wb=wb, keep=False)
    lost = np.where(np.isnan(about["amount"]), 100, about["amount"]) @ label
    assert found.table("money").loc["stop nothing", "cost"] == pytest.approx(lost, rel=1e-12)
    words = " ".join(w for s in found.sections for w in s.words)
    assert "a flat 100 EUR missed where there is none, in 1 of 800 rows" in words
    assert "reviewed a day" in words and "91 values of the entity" in found.about


def test_later_labels_that_were_blocked_are_weighted_or_refused(trained):
    """The rows that the champion blocked are the frauds it knew; the rest alone are another week."""
    from mlworkbench.core.settings import Workbench
    from mlworkbench.modelling import later

    wb, fine, _, frame = trained
    dice = np.random.default_rng(8)
    risky = frame["amount"] > 80
    passed = np.where(risky, dice.random(len(frame)) < 0.4, True)
    new = frame.assign(blocked=~passed, chance=np.where(risky, 0.4, 1.0))
    new["bad"] = new["bad"].where(passed)
    with write_lake("blocked", wb=wb) as write:
        write.con.register("rows_", new)
        write.con.execute("CREATE TABLE blocked AS FROM rows_")
        about = {"key": "id", "time": "at", "entity": "card", "amount": "amount"}
        declare_roles(write.con, "blocked", blocked="blocked", label={"bad": "7 days"}, **about)
    known = Workbench(wb.root, wb.values | {("compare", "propensity"): "chance"})
    before = {"value": 0.9, "low": 0.89, "high": 0.91}
    found = {}
    for how, where in (("alone", wb), ("weighted", known)):
        rows = later.later_rows(fine.run, "blocked", since="2024-03-11", wb=where)
        table = later.later_table(rows, "week", 0.3, where)
        found[how] = later.later_words(rows, table, before), table.iloc[1]
    words, line = found["alone"]
    assert words[0].startswith(f"Censored: {(~passed).sum():,} of 9,000 rows of blocked were")
    assert "let pass" in words[0] and "when judged" not in " ".join(words)
    words, line = found["weighted"]
    assert "equal ones" in words[0] and "when judged" in " ".join(words)
    end = line.name + pd.Timedelta(days=7)
    mine = rows.evidence.rows.set_index("row_key")
    mine = mine[(mine["at"] >= line.name) & (mine["at"] < end) & mine["label"].notna()]
    weight = 1 / new["chance"].set_axis(new["id"].astype(str))[mine.index].to_numpy()
    truth = new["bad"].set_axis(new["id"].astype(str))[mine.index].to_numpy()
    assert line.value == pytest.approx(
        sk.roc_auc_score(truth, mine["score"], sample_weight=weight), **CLOSE
    )
    stop = (mine["score"] >= 0.3).to_numpy()
    each = np.where(truth == 1, ~stop * mine["amount"], 5 * stop)
    assert line.cost == pytest.approx(weight @ each, rel=1e-9)
    assert line.nothing == pytest.approx(weight @ (truth * mine["amount"]), rel=1e-9)


def test_rows_without_a_card_are_units_of_their_own():
    rng = np.random.default_rng(6)
    before, now = (pd.DataFrame({"x": rng.normal(m, 1, 300)}) for m in (0, 0.2))
    alone, none = drift_table(before, now), [None] * 300
    assert drift_table(before, now, reference_entity=none, current_entity=none).equals(alone)
    day, score = np.zeros(4), [0.9, 0.8, 0.7, 0.6]
    costs = Costs("EUR", 5, 1, 100, 2)
    found = review_curve(day, ["a", None, None, "b"], [1, 1, 0, 1], score, costs, sizes=(2,))
    assert found["precision"].iloc[0] == 1 and found["found"].iloc[0] == 2
