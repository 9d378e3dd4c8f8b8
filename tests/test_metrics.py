import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.modelling.metrics import (
    card_precision_at,
    checked,
    cost,
    measure,
    metric_table,
    precision_at,
    recall_at,
)

CLOSE = {"rel": 1e-12, "abs": 1e-12}


@st.composite
def binary_rows(draw):
    n = draw(st.integers(2, 60))
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    label[:2] = 0, 1
    levels = draw(st.sampled_from([2, 5, 10**6]))
    score = rng.integers(0, levels + 1, n) / levels
    kind = draw(st.sampled_from(["none", "float", "zeros"]))
    weight = {"none": None, "float": rng.uniform(0.01, 9, n), "zeros": rng.integers(0, 3, n) * 1.0}[
        kind
    ]
    if weight is not None:
        weight[:2] = 1
    return label, score, weight


@settings(max_examples=200, deadline=None)
@given(binary_rows())
def test_binary_equals_scikit_learn(rows):
    label, score, weight = rows
    got = measure("binary", label, score, weight=weight)
    want = {
        "auc": sk.roc_auc_score(label, score, sample_weight=weight),
        "average_precision": sk.average_precision_score(label, score, sample_weight=weight),
        "log_loss": sk.log_loss(label, score, sample_weight=weight, labels=[0, 1]),
        "brier": sk.brier_score_loss(label, score, sample_weight=weight),
        "accuracy": sk.accuracy_score(label, score >= 0.5, sample_weight=weight),
    }
    assert got == pytest.approx(want, **CLOSE)
    assert recall_at(label, score, 0.3, weight) == pytest.approx(
        sk.recall_score(label, score >= 0.3, sample_weight=weight), **CLOSE
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.booleans(), st.booleans())
def test_multiclass_equals_scikit_learn(seed, k, weighted, text):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2 * k, 80))
    score = rng.dirichlet(np.ones(k), n)
    if seed % 2:
        score = np.round(score, 1)
        score[:, 0] += 1 - score.sum(axis=1)
        score = np.abs(score) / np.abs(score).sum(axis=1, keepdims=True)
    label = np.r_[np.arange(k), rng.integers(0, k, n - k)]
    weight = rng.uniform(0.1, 3, n) if weighted else None
    names = np.array([f"class {i}" for i in range(k)])
    given_label = names[label] if text else label
    got = measure(
        "multiclass", given_label, score, weight=weight, classes=names if text else range(k)
    )
    guess = score.argmax(axis=1)
    each = [sk.roc_auc_score(label == c, score[:, c], sample_weight=weight) for c in range(k)]
    assert got == pytest.approx(
        {
            "accuracy": sk.accuracy_score(label, guess, sample_weight=weight),
            "f1_macro": sk.f1_score(label, guess, average="macro", sample_weight=weight),
            "log_loss": sk.log_loss(label, score, sample_weight=weight, labels=range(k)),
            "auc": np.mean(each),
        },
        **CLOSE,
    )
    if k > 2:
        assert got["auc"] == pytest.approx(
            sk.roc_auc_score(label, score, multi_class="ovr", sample_weight=weight), **CLOSE
        )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_regression_equals_scikit_learn(seed, weighted):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    label, score = rng.normal(5, 3, n), rng.normal(5, 3, n)
    weight = rng.uniform(0.1, 3, n) if weighted else None
    assert measure("regression", label, score, weight=weight) == pytest.approx(
        {
            "rmse": sk.root_mean_squared_error(label, score, sample_weight=weight),
            "mae": sk.mean_absolute_error(label, score, sample_weight=weight),
            "r2": sk.r2_score(label, score, sample_weight=weight),
        },
        rel=1e-12,
        abs=1e-12,
    )


@pytest.mark.parametrize(
    ("task", "label", "score", "more", "said"),
    [
        ("binary", [], [], {}, "no rows"),
        ("binary", [1, 1], [0.2, 0.3], {}, "label 1"),
        ("binary", [0, 0], [0.2, 0.3], {}, "label 0"),
        ("binary", [0, 1], [0.2, 0.3], {"weight": [1, 0]}, "label 0"),
        ("binary", [0, 1], [0.2, np.nan], {}, "1 of 2 scores are missing"),
        ("binary", [0, np.nan], [0.2, 0.3], {}, "labels are missing"),
        ("binary", [0, 1], [0.2, np.inf], {}, "infinite"),
        ("binary", [0, 3], [0.2, 0.3], {}, "neither 0 nor 1"),
        ("binary", ["a", "b"], [0.2, 0.3], {}, "not numbers"),
        ("binary", [0, 1, 1], [0.2, 0.3], {}, "3 labels, 2 scores"),
        ("binary", [0, 1], [0.2, 0.3], {"weight": [-1, 1]}, "negative"),
        ("binary", [0, 1], [0.2, 0.3], {"weight": [0, 0]}, "all zero"),
        ("binary", [0, 1], [[0.2, 0.3], [0.1, 0.1]], {}, "shape"),
        ("binary", [0, 1], [-3.0, 4.0], {"only": ["log_loss"]}, "needs probabilities"),
        ("binary", [0, 1], [0.2, 0.3], {"only": ["acu"]}, "Did you mean 'auc'"),
        (
            "multiclass",
            ["a", "z"],
            [[0.2, 0.8], [0.1, 0.9]],
            {"classes": ["a", "b"]},
            "'z' is not one",
        ),
        (
            "multiclass",
            ["a", "a"],
            [[0.2, 0.8], [0.1, 0.9]],
            {"classes": ["a", "b"], "only": ["auc"]},
            "class 'a'",
        ),
        ("regression", [2, 2], [1, 3], {"only": ["r2"]}, "same in every row"),
        ("regresion", [2, 2], [1, 3], {}, "Did you mean 'regression'"),
    ],
)
def test_what_has_no_answer_is_refused_in_one_line(task, label, score, more, said):
    with pytest.raises(WorkbenchError) as err:
        measure(task, label, score, **more)
    assert said in str(err.value) and "\n" not in str(err.value)


def test_metrics_without_a_value_are_left_out_unless_asked_for():
    assert set(measure("binary", [0, 1], [-3.0, 4.0])) == {"auc", "average_precision"}
    assert set(measure("regression", [2, 2], [1, 3])) == {"rmse", "mae"}
    absent = measure("multiclass", ["a", "a"], [[0.2, 0.8], [0.7, 0.3]], classes=["a", "b"])
    assert "auc" not in absent and absent["accuracy"] == 0.5


def test_the_table_knows_direction_and_range():
    for task in ("binary", "multiclass", "regression"):
        for name, metric in metric_table(task).items():
            assert metric.name == name and metric.words and metric.low < metric.high
    assert not metric_table("regression")["rmse"].higher and metric_table("regression")["r2"].higher


def test_precision_at_averages_over_ties_at_the_border():
    rng = np.random.default_rng(1)
    label, score = rng.integers(0, 2, 40), rng.integers(0, 5, 40) / 5
    lucky = []
    for _ in range(4000):
        order = np.lexsort((rng.random(40), -score))
        lucky.append(label[order[:13]].mean())
    assert precision_at(label, score, 13) == pytest.approx(np.mean(lucky), abs=0.01)
    assert precision_at(label, score, 13, np.full(40, 2.5)) == pytest.approx(
        precision_at(label, score, 13)
    )
    assert precision_at(label, score, 40) == pytest.approx(label.mean())


def test_cost_adds_up_row_by_row():
    rng = np.random.default_rng(2)
    label, score, amount = rng.integers(0, 2, 50), rng.random(50), rng.uniform(1, 100, 50)
    weight = rng.integers(0, 3, 50)
    total = 0.0
    for y, s, a, w in zip(label, score, amount, weight, strict=True):
        total += w * (a if y and s < 0.4 else 7 if not y and s >= 0.4 else 0)
    got = cost(label, score, threshold=0.4, missed=amount, false_alarm=7, weight=weight)
    assert got == pytest.approx(total, **CLOSE)


def _cards_by_hand(day, customer, score, label, k):
    found, shares = set(), []
    for d in sorted(set(day)):
        cards = {}
        for dd, c, s, y in zip(day, customer, score, label, strict=True):
            if dd == d and c not in found:
                high, bad = cards.get(c, (-1.0, 0))
                cards[c] = max(high, s), max(bad, y)
        top = sorted(cards, key=lambda c: (-cards[c][0], c))[:k]
        hit = {c for c in top if cards[c][1]}
        found |= hit
        shares.append(len(hit) / k)
    return sum(shares) / len(shares)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_card_precision_follows_the_desk_and_not_the_order_of_rows(seed, k):
    rng = np.random.default_rng(seed)
    n = 80
    day, customer = rng.integers(0, 4, n), rng.integers(0, 12, n)
    score, label = rng.integers(0, 9, n) / 9, rng.integers(0, 2, n) * rng.integers(0, 2, n)
    want = _cards_by_hand(day.tolist(), customer.tolist(), score.tolist(), label.tolist(), k)
    assert card_precision_at(day, customer, score, label, k) == pytest.approx(want, **CLOSE)
    mixed = rng.permutation(n)
    assert card_precision_at(
        day[mixed], customer[mixed], score[mixed], label[mixed], k
    ) == pytest.approx(want)


def test_checked_keeps_what_it_was_given():
    rows = checked("multiclass", ["b", "a"], [[0.3, 0.7], [0.6, 0.4]], classes=["a", "b"])
    assert rows.label.tolist() == [1, 0] and rows.weight.tolist() == [1, 1]


def test_every_floor_has_the_same_metrics_and_directions():
    """Floor 3 sorts and shows metrics by name; it must not disagree with what floor 4 knows of them."""
    from mlworkbench.execution.record import METRICS

    known = {
        n: m.higher
        for task in ("binary", "multiclass", "regression")
        for n, m in metric_table(task).items()
    }
    assert known == METRICS
