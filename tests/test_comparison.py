import dataclasses
import json

import nbformat
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from app_workbench import World
from scipy import stats

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.settings import Workbench
from mlworkbench.data.catalog import declare_roles
from mlworkbench.data.commits import write_lake
from mlworkbench.data.queries import sql
from mlworkbench.execution.journal import log_file, log_read
from mlworkbench.execution.listing import list_runs
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.execution.predictions import log_predictions
from mlworkbench.execution.record import get_run
from mlworkbench.modelling.comparison import compare_runs
from mlworkbench.modelling.evaluation import log_predictions as log_evaluated
from mlworkbench.modelling.evidence import measured, scored_rows
from mlworkbench.modelling.for_whom import by_slice
from mlworkbench.modelling.importing import import_predictions
from mlworkbench.modelling.repeats import compare_repeats, group_repeats
from mlworkbench.modelling.resampling import paired, standard_error
from mlworkbench.modelling.textbook import delong


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("comparison") / "wb", rows=900)
    world.wb = Workbench(world.wb.root, {("compare", "resamples"): "200"})
    world.one, world.two = world.run("one", 2.0), world.run("two", 0.3)
    return world


def noted(world, name, sources, **params):
    """A run with a notebook of these cells, that scored the world's rows."""
    run = open_run(name, experiment="cells", values=params, wb=world.wb)
    cells = [nbformat.v4.new_code_cell(s) for s in sources]
    cells[0]["metadata"]["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run.folder / "notebook.ipynb")
    log_file(run.folder / "notebook.ipynb", "notebook", run=run.run, wb=world.wb)
    score = np.random.default_rng(0).random(len(world.label))
    log_predictions(world.label, score, run=run.run, wb=world.wb)
    return run


def test_what_differs_is_named_cell_by_cell(world):
    one = noted(world, "a", ["depth = 1", "import numpy", "x = 1\ny = 2"], depth=1)
    two = noted(world, "b", ["depth = 2", "import numpy", "z = 0", "x = 1\ny = 3"], depth=2)
    log_read("pay", 2, run=one.run, wb=world.wb)
    log_read("pay", 5, run=two.run, wb=world.wb)
    for run in (one, two):
        close_run(run.run, "finished", wb=world.wb)
    found = compare_runs([one, two], wb=world.wb)
    assert found.differs.parameters == {"depth": [1, 2]} and found.differs.packages == {}
    assert found.differs.data == {"pay": [[2], [5]]}
    cells = found.differs.code[two.run]
    assert [c["change"] for c in cells] == ["changed", "added"]
    assert "+ y = 3" in "".join(c["diff"] for c in cells) and "depth" not in str(cells)
    assert json.dumps(found.as_json()) and "cell" in found._repr_html_()
    assert found.verdict == "equivalent" and found.difference.p == 1


def test_money_is_a_worth_of_its_own(world):
    sure = compare_runs([world.one, world.two], worth="1 EUR", wb=world.wb)
    assert sure.verdict == "better" and "EUR a month" in sure.sentence
    assert sure.difference.metric == "cost" and sure.difference.value < 0 and sure.leading == "auc"
    at = sure.rows["at"]
    months = ((at.max() - at.min()).days + 1) / 30.4375  # they are dates: the last day counts
    assert sure.difference.value == pytest.approx(sure.money.value / months)
    huge = compare_runs([world.one, world.two], worth="10000000 EUR a month", wb=world.wb)
    assert huge.verdict == "equivalent" and "No difference that matters" in huge.sentence
    for wrong in ("much", "0", "-1 EUR", "nan"):
        with pytest.raises(UserError, match="not a difference worth acting on"):
            compare_runs([world.one, world.two], worth=wrong, wb=world.wb)


@pytest.mark.parametrize("given", [{"level": 95}, {"level": 0.2}, {"resamples": 5}])
def test_a_level_that_is_none_is_refused_and_not_called_thin_evidence(world, given):
    with pytest.raises(UserError, match="is no confidence|give no interval"):
        compare_runs([world.one, world.two], wb=world.wb, **given)


def test_setting_declares_worth_and_metric_is_chosen(world):
    wb = Workbench(world.wb.root, {("compare", "worth"): "0.9"})
    found = compare_runs([world.one, world.two], metric="average_precision", wb=wb)
    assert found.verdict == "equivalent" and "average precision" in found.sentence
    assert set(found.tests) == {"delong", "mcnemar"} and found.tests["delong"]["p"] < 0.05
    with pytest.raises(UserError, match="Did you mean 'auc'"):
        compare_runs([world.one, world.two], metric="acu", wb=wb)


def test_not_worse_is_what_a_retrained_model_shows(world):
    asked = {"worth": 0.03, "wb": world.wb}
    plain = compare_runs([world.one, world.two], **asked)
    again = compare_runs([world.two, world.one], not_worse=True, **asked)
    assert plain.verdict == "better" and again.verdict in ("worse", "cannot tell")
    same = noted(world, "same", ["x = 1"])
    close_run(same.run, "finished", wb=world.wb)
    kept = compare_runs([world.one, world.two], not_worse=True, **asked)
    assert kept.verdict == "better"


def test_a_verdict_that_hangs_on_one_week_says_so(world):
    rng, n = np.random.default_rng(3), 1500
    label = (rng.random(n) < 0.3).astype(int)
    at = pd.Timestamp("2026-09-07") + pd.to_timedelta(np.arange(n) * 21 // n, "D")
    base = label + rng.normal(0, 1, n)
    first = np.arange(n) < n // 3
    rows = pd.DataFrame({"key": np.arange(n), "label": label, "at": at})
    one = import_predictions(rows.assign(score=base), name="w1", wb=world.wb)
    lucky = base + 1.2 * label * first
    two = import_predictions(rows.assign(score=lucky), name="w2", wb=world.wb)
    steady = import_predictions(rows.assign(score=base + 0.5 * label), name="w3", wb=world.wb)
    found = compare_runs([one, two], wb=world.wb)
    assert found.verdict == "better" and len(found.weeks) == 3
    assert "hangs on one week: without the week of 07 Sep 2026" in found.sentence
    other = compare_runs([one, steady], wb=world.wb)
    assert "hangs" not in other.sentence and "better in 3 of 3" in other.sentence


def test_several_runs_are_corrected(world):
    runs = [world.one, world.two, world.run("three", 1.9)]
    found = compare_runs(runs, wb=world.wb)
    assert "Corrected for 2 runs held against one (Holm)" in found.sentence
    for run, d in found.against.items():
        assert found.corrected[run] >= d.p
    assert found.as_json()["against"][runs[2].run]["p_holm"] is not None


def test_the_command_tells_of_each_run_the_tests_and_what_changed_sides(world):
    from click.testing import CliRunner

    from mlworkbench.desk.cli import cli

    runs = [world.one.run, world.two.run, world.run("four", 1.8).run]
    words = ["compare", *runs, "--workbench", str(world.wb.root)]
    text = CliRunner().invoke(cli, words).stdout
    told = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert {v["verdict"] for v in told["against"].values()} <= {"better", "worse", "cannot tell"}
    assert "against one" in text and "four" in text and "p_holm" in text
    assert "DeLong: AUC differs" in text and "McNemar: " in text and "week of " in text
    changed = told["changed"]
    assert changed["rows"] and f"{changed['rows']:,} rows changed sides" in text
    assert f"{changed['money']:+,.0f} {changed['currency']} to two" in text


def test_runs_on_other_rows_are_named_or_refused(world):
    rows = pd.DataFrame({"key": np.arange(900), "label": world.label, "score": world.x[:, 0]})
    some = import_predictions(rows[:600], name="some", wb=world.wb)
    other = import_predictions(rows[300:], name="other", wb=world.wb)
    assert "300 of 600" in compare_runs([some, other], wb=world.wb).sentence
    last = import_predictions(rows[600:], name="last", wb=world.wb)
    with pytest.raises(UserError, match="no row in common"):
        compare_runs([some, last], wb=world.wb)
    turned = import_predictions(rows.assign(label=1 - rows["label"]), name="turned", wb=world.wb)
    with pytest.raises(UserError, match="disagree on the label"):
        compare_runs([some, turned], wb=world.wb)


def test_runs_that_name_rows_by_other_keys_are_told_so(world):
    flip = 1 - world.label  # the lake's numbers begin elsewhere than the keys
    before = open_run("before", values={"table": "t", "key": ""}, wb=world.wb)
    after = open_run("after", values={"table": "t", "key": "id"}, wb=world.wb)
    for run, label in ((before, flip), (after, world.label)):
        log_predictions(label, world.x[:, 0], key=np.arange(900), run=run.run, wb=world.wb)
        close_run(run.run, "finished", wb=world.wb)
    with pytest.raises(UserError, match="before by the lake's row number, after by id") as told:
        compare_runs([before, after], wb=world.wb)
    assert "rerun before" in str(told.value)
    with pytest.raises(UserError, match="rerun before"):
        compare_runs([after, before], wb=world.wb)
    alike = open_run("alike", values={"table": "t", "key": ""}, wb=world.wb)
    log_predictions(world.label, world.x[:, 0], key=np.arange(900), run=alike.run, wb=world.wb)
    close_run(alike.run, "finished", wb=world.wb)
    with pytest.raises(UserError, match="rerun after"):  # no label tells them apart
        compare_runs([after, alike], wb=world.wb)
    namesake = open_run("after", values={"table": "t", "key": ""}, wb=world.wb)
    log_predictions(world.label, world.x[:, 0], key=np.arange(900), run=namesake.run, wb=world.wb)
    close_run(namesake.run, "finished", wb=world.wb)
    with pytest.raises(UserError, match="after by id, after by the lake's row number"):
        compare_runs([after, namesake], wb=world.wb)


def test_imported_scores_are_checked(world):
    rows = pd.DataFrame({"id": ["a", "b", "c"], "label": [0, 1, 0], "score": [0.1, 0.9, 0.3]})
    with pytest.raises(UserError, match="no column 'key'"):
        import_predictions(rows, wb=world.wb)
    with pytest.raises(UserError, match="Did you mean 'score'"):
        import_predictions(rows, key="id", score="scor", wb=world.wb)
    with pytest.raises(UserError, match="more than one row"):
        import_predictions(rows.assign(id="a"), key="id", wb=world.wb)
    with pytest.raises(UserError, match="is a test row of one"):
        import_predictions(rows, key="id", like=world.one, wb=world.wb)
    with pytest.raises(UserError, match="not finite"):
        import_predictions(rows.assign(score=[0.1, np.nan, 1]), key="id", wb=world.wb)
    before = len(list_runs(wb=world.wb))
    like = pd.DataFrame({"key": np.arange(900), "score": np.nan})
    for wrong, why, how in (
        (like, "900 of 900 scores are missing", {"like": world.one}),
        (rows.assign(label="x"), "labels are words, such as 'x'", {"key": "id"}),
        (rows.iloc[:0], "no rows", {"key": "id"}),
        (rows, "Did you mean 'test'", {"key": "id", "split": "tset"}),
    ):
        with pytest.raises(UserError, match=why):
            import_predictions(wrong, wb=world.wb, **how)
    assert len(list_runs(wb=world.wb)) == before  # a mistake leaves no run behind
    polars = pytest.importorskip("polars")
    got = import_predictions(polars.from_pandas(rows), key="id", name="polars", wb=world.wb)
    assert got.state == "finished" and got.metrics["auc"]["value"] == 1
    like = pd.DataFrame({"key": np.arange(900), "score": world.x[:, 0]})
    vendor = import_predictions(like, like=world.one, name="vendor", wb=world.wb)
    assert vendor.experiment == "pay" and compare_runs([world.one, vendor], wb=world.wb).money


def test_slices_find_the_worse_one_and_only_that(world):
    n, rng = 4000, np.random.default_rng(4)
    rows = pd.DataFrame({"key": np.arange(n), "label": (rng.random(n) < 0.2).astype(int)})
    rows["entity"] = rng.choice(["north", "south", "east", "west"], n)
    base = 1.5 * rows["label"] + rng.normal(0, 1, n)
    worse = base - 1.0 * rows["label"] * (rows["entity"] == "south")
    noise = base + rng.normal(0, 0.3, n)
    one = import_predictions(rows.assign(score=base), name="s1", wb=world.wb)
    two = import_predictions(rows.assign(score=worse), name="s2", wb=world.wb)
    same = import_predictions(rows.assign(score=noise), name="s3", wb=world.wb)
    # slices of an entity: rows are drawn within it as one; take rows as they are
    found = compare_runs([one, two], wb=world.wb)
    free = dataclasses.replace(found, shared=dataclasses.replace(found.shared, entity=None))
    table = by_slice(free, "entity", wb=world.wb).set_index("slice")
    assert table["verdict"].to_dict() | {} == dict.fromkeys(
        ["north", "east", "west"], "cannot tell"
    ) | {"south": "worse"}
    other = compare_runs([one, same], wb=world.wb)
    free = dataclasses.replace(other, shared=dataclasses.replace(other.shared, entity=None))
    assert (by_slice(free, "entity", wb=world.wb)["verdict"] != "better").all()
    with pytest.raises(UserError, match="names no table"):
        by_slice(found, "city", wb=world.wb)


def test_delong_equals_a_published_implementation():
    """Values of MLstatkit 0.1.91 (its Delong_test, after Sun and Xu's own code) on the same rows."""
    i = np.arange(200)
    label = (i * 7919 % 10 < 3).astype(int)
    a = np.round((i * 104729 % 997) / 997 + 0.4 * label, 2)
    b = np.round((i * 15485863 % 991) / 991 + 0.6 * label, 2)
    found = delong(label, a, b)
    assert (found.a, found.b) == pytest.approx((0.8267857142857143, 0.9149404761904761), rel=1e-12)
    assert found.se**2 == pytest.approx(0.0011965312055094767, rel=1e-12)
    assert found.p == pytest.approx(0.010818888106656998, rel=1e-9)


# ---------------------------------------------------------------- censored labels


def test_censored_labels_are_weighted_or_refused(wb):
    from mlworkbench.core.settings import Workbench
    from mlworkbench.data.ingestion import ingest
    from mlworkbench.data.queries import sql
    from mlworkbench.desk.verbs import run
    from mlworkbench.modelling.censoring import propensity_weights

    n, rng = 3000, np.random.default_rng(5)
    rows = pd.DataFrame({"id": np.arange(n), "bad": (rng.random(n) < 0.2).astype(int)})
    base = 1.5 * rows["bad"] + rng.normal(0, 1, n)
    suspect = base > 2
    rows["blocked"] = suspect & (rng.random(n) > 0.2)
    rows["chance"], rows["suspicion"] = np.where(suspect, 0.2, 1.0), base
    ingest(rows, table="pay", key="id", wb=wb)
    with write_lake("roles", wb=wb) as write:
        declare_roles(write.con, "pay", blocked="blocked")
    seen = rows[~rows["blocked"]]
    runs = []
    for name, noise in (("old", 1.5), ("new", 0.1)):
        one = open_run(name, values={"table": "pay", "key": "id"}, wb=wb)
        score = (base + rng.normal(0, noise, n))[seen.index]
        log_predictions(seen["bad"], score, key=seen["id"], run=one.run, wb=wb)
        runs.append(close_run(one.run, "finished", wb=wb))
    refused = compare_runs(runs, wb=wb)
    assert refused.verdict == "cannot tell" and refused.sentence.startswith("No verdict: ")
    assert f"{int(rows['blocked'].sum()):,} of 3,000 rows of pay were blocked" in refused.sentence
    weighed = Workbench(wb.root, {("compare", "propensity"): "chance"})
    found = compare_runs(runs, wb=weighed)
    assert found.verdict == "better" and "rows are weighted, and worth" in found.sentence
    assert found.difference.b > refused.difference.b  # what is left is the harder part
    np.testing.assert_array_equal(found.shared.weight, propensity_weights(seen["chance"]))
    with pytest.raises(UserError, match="is not a column of pay"):
        compare_runs(runs, wb=Workbench(wb.root, {("compare", "propensity"): "chanse"}))
    with pytest.raises(UserError, match="propensities are not above 0"):
        propensity_weights([0.0, 1.0])
    settings = wb.root / "settings.ini"
    settings.write_text(settings.read_text().replace("propensity =", "propensity = chance"))
    trained = run("train", table="pay", target="bad", drop="blocked, chance", iterations=20, wb=wb)
    assert trained.params["label_weights"] == "1 / propensity"
    assert (
        "rows weighted by 1 / propensity, worth" in (trained.folder / "notebook.ipynb").read_text()
    )
    kept = sql(
        "SELECT row_key, weight FROM lake.predictions WHERE run = $run",
        params={"run": trained.run},
        wb=wb,
    )
    scored = kept.df().set_index("row_key")["weight"]
    want = pd.Series(propensity_weights(rows["chance"]), rows["id"].astype(str))
    assert len(scored) and not rows["blocked"].to_numpy()[scored.index.astype(int)].any()
    np.testing.assert_array_equal(scored, want[scored.index])
    tuned = run("tune", table="pay", target="bad", drop="blocked, chance", trials=3, folds=2,
                iterations=20, wb=wb)  # fmt: skip
    kept = sql("SELECT row_key, weight FROM lake.predictions WHERE run = $run",
               params={"run": tuned.run}, wb=wb).df().set_index("row_key")["weight"]  # fmt: skip
    assert tuned.params["label_weights"] == "1 / propensity"
    np.testing.assert_array_equal(kept, want[kept.index])


def test_tuning_counts_rows_by_their_weight():
    """A row that counts three times is judged as three rows are, in the metric and on the curve."""
    from mlworkbench.modelling.candidates import Bench, try_candidate
    from mlworkbench.modelling.problems import Problem

    rng, n = np.random.default_rng(3), 600
    x = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    y, times = (x["a"] + rng.normal(size=n) > 0).to_numpy(int), np.where(x["b"] > 0.3, 3, 1)
    problem = Problem("t", "y", "", ("k",), None, None, None, dict.fromkeys("ab", "number"),
                      "binary", (0, 1), "", 0)  # fmt: skip
    fit, judge = np.arange(n) < 400, np.arange(n) >= 400
    many = np.repeat(np.flatnonzero(judge), times[judge])
    one = x[fit], y[fit], x[judge], y[judge]
    copies = x[fit], y[fit], x.iloc[many], y[many]
    for metric in ("auc", "average_precision", "brier"):
        # equal weights for the rows to fit: they tell CatBoost that weights are meant
        weights = np.full(fit.sum(), 2.0), times[judge]
        weighed = try_candidate(
            Bench(problem, (one,), weights=(weights,)), {}, metric, iterations=30
        )
        copied = try_candidate(
            Bench(problem, (copies,), weights=((weights[0], np.full(len(many), 2.0)),)),
            {}, metric, iterations=30,
        )  # fmt: skip
        assert weighed.value == pytest.approx(copied.value, rel=1e-9), metric
        assert weighed.curve == pytest.approx(copied.curve, rel=1e-6), metric
        plain = try_candidate(Bench(problem, (one,)), {}, metric, iterations=30)
        assert weighed.value != pytest.approx(plain.value, abs=1e-4), metric


# ---------------------------------------------------------------- seeds


def test_equal_recipes_over_seeds_are_told_apart_no_more_often_than_said(torture, tmp_path):
    """The seeds' luck is real: single runs would be called different far too often."""
    from mlworkbench.modelling import repeats

    reps = 2000 if torture else 150
    rng, called, alone = np.random.default_rng(0), 0, 0
    for rep in range(reps):
        label = (rng.random(600) < 0.2).astype(int)
        base = 1.5 * label + rng.normal(0, 1, 600)
        scores = [base + rng.normal(0, 0.4) * label + 0.2 * rng.normal(0, 1, 600) for _ in range(8)]
        values, drawn, many = repeats.replicas(
            "binary", label, scores, "auc", resamples=100, seed=rep
        )
        rows, free = standard_error(drawn[:, 4:].mean(1) - drawn[:, :4].mean(1), many - 1)
        seeds = repeats._seed_luck(list(values[:4]), list(values[4:]), False)
        value = values[4:].mean() - values[:4].mean()
        called += repeats._mixed(value, (rows, free), seeds, 0.95)[3] < 0.05
        alone += abs(value) > 1.96 * rows
    print(f"called {called / reps:.3f}; by the rows alone {alone / reps:.3f}")
    assert called <= stats.binom.ppf(0.9995, reps, 0.055) and alone > 2 * called


def test_groups_and_their_mistakes(world):
    runs = [world.run(f"r{d}{s}", 1.0, seed=s, depth=d) for d in (1, 2) for s in (1, 2)]
    found = compare_repeats([runs[:2], runs[2:]], wb=world.wb)
    assert "mean of 2 seeds" in found.sentence and json.dumps(found.as_json())
    table = group_repeats(runs, "auc", wb=world.wb)
    assert set(table["n"]) == {2} and set(table["depth"]) == {1, 2}
    for wrong in ([runs[:1], runs[2:]], [runs]):
        with pytest.raises(UserError, match="cannot be compared over seeds"):
            compare_repeats(wrong, wb=world.wb)
    with pytest.raises(UserError, match="no step"):
        group_repeats(runs, "auc", step="middle", wb=world.wb)
    with pytest.raises(UserError, match="no run has 'acu'"):
        group_repeats(runs, "acu", wb=world.wb)


@pytest.fixture
def plain(wb):
    """A workbench that draws few resamples, and 60 rows to import."""
    dice = np.random.default_rng(3)
    frame = pd.DataFrame({"key": range(60), "label": np.arange(60) % 2, "score": dice.random(60)})
    return Workbench(wb.root, {("compare", "resamples"): "100"}), frame


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"at": "yesterday"}, "not a moment, such as 'yesterday'"),
        ({"at": range(60)}, "at is a number"),
        ({"key": [None, *range(59)]}, "1 of 60 keys are missing"),
        ({"key": [float("nan")] + ["a"] * 59}, "1 of 60 keys are missing"),
        ({"amount": "ten"}, "amount is not a number, such as 'ten'"),
        ({"weight": -1}, "weights are negative"),
        ({"weight": [None] + [1] * 59}, "1 of 60 weights are missing"),
        ({"entity": [[1]] * 60}, "entity is no plain value"),
    ],
)
def test_predictions_that_cannot_be_kept_make_no_run(plain, wrong, said):
    wb, frame = plain
    with pytest.raises(WorkbenchError, match=said):
        import_predictions(frame.assign(**wrong), wb=wb)
    huge = frame.assign(label=1e300 * frame["score"], score=1e300)
    with pytest.raises(WorkbenchError, match=r"e\+\d+, and errors of that size cannot be squared"):
        import_predictions(huge, task="regression", wb=wb)
    twice = pd.concat([frame, frame[["score"]]], axis=1)
    with pytest.raises(UserError, match="several columns 'score'"):
        import_predictions(twice, wb=wb)
    assert list_runs(wb=wb) == []


def test_moments_of_a_time_zone_are_kept_as_utc(plain):
    wb, frame = plain
    there = pd.Timestamp("2026-07-01 12:00", tz="Europe/Berlin")
    run = import_predictions(frame.assign(at=there), wb=wb)
    query = 'SELECT DISTINCT "at" FROM predictions WHERE run = $run'
    assert str(sql(query, params={"run": run.run}, wb=wb).fetchall()[0][0]) == "2026-07-01 10:00:00"


def test_what_runs_say_differently_of_a_row_is_refused_or_said(plain):
    """Two weights make two populations; of all else the first run's word counts, whatever their order."""
    wb, frame = plain
    made = {}
    for name, beside in {
        "none": {}, "one": {"weight": 1.0}, "two": {"weight": 2.0},
        "pairs": {"entity": np.arange(60) // 2, "amount": 5.0},
        "tens": {"entity": np.arange(60) // 10, "amount": 7.0},
    }.items():  # fmt: skip
        score = frame["score"] + len(made) / 9 * frame["label"]
        made[name] = import_predictions(frame.assign(score=score, **beside), name=name, wb=wb)
    with pytest.raises(UserError, match="60 of 60 rows different weights"):
        compare_runs([made["one"], made["two"]], wb=wb)
    found = compare_runs([made["one"], made["none"]], wb=wb)
    assert found.sentence.endswith("none was logged without weights: the others' count.")
    for first, second, amount, units in (("pairs", "tens", 5, 30), ("tens", "pairs", 7, 6)):
        found = compare_runs([made[first], made[second]], wb=wb)
        assert set(found.rows["amount"]) == {amount} and found.difference.clusters == units
        assert f"the amount of 60 rows: what {first} says counts" in found.sentence


def test_one_row_of_a_class_is_told_from_nothing_and_no_error(plain):
    wb, frame = plain
    few = frame.head(2)
    one = import_predictions(few, name="a", wb=wb)
    two = import_predictions(few.assign(score=few["score"][::-1].to_numpy()), name="b", wb=wb)
    found = compare_runs([one, two], wb=wb)
    assert found.verdict == "cannot tell" and found.tests == {}
    assert "fewer than two rows" in found._repr_html_()


@pytest.mark.parametrize("alarms", [-5, 2.5, "x", True])
def test_alarms_that_cannot_be_are_refused(plain, alarms):
    wb, frame = plain
    one, two = (import_predictions(frame, name=n, wb=wb) for n in "ab")
    with pytest.raises(UserError, match=r"alarms=.* of 60 rows cannot be. Give .* 1 to 60"):
        compare_runs([one, two], alarms=alarms, wb=wb)


def test_a_name_is_one_line_wherever_it_stands(plain):
    """It may come from another tool, or a file's name: no second line, no colour, no page of letters."""
    wb, frame = plain
    one = import_predictions(frame, name="a\nb\x1b[31m\u202ec", experiment="x\r\ny", wb=wb)
    two = import_predictions(frame, name="L" * 10_000, wb=wb)
    assert (one.name, one.experiment) == ("a b [31m c", "x y")
    assert two.name == "L" * 199 + "…"
    none = import_predictions(frame, name="\n\t", wb=wb)
    assert none.name == "import-1"
    said = compare_runs([one, two], wb=wb).sentence
    assert said.isprintable() and len(said) < 1000


@pytest.mark.parametrize("missing", [False, True])
def test_the_figures_of_one_run_are_the_same_everywhere(plain, missing):
    wb, rng = plain[0], np.random.default_rng(4)
    label, who = rng.integers(0, 2, 400), rng.integers(0, 120, 400).astype(object)
    who[::9] = None if missing else who[::9]
    order = rng.permutation(400)
    found = []
    for name, strength in (("a", 0.4), ("b", 0.5)):
        run = open_run(name, experiment="e", wb=wb)
        score = np.clip(strength * label + 0.5 * rng.random(400), 0, 1)
        log_evaluated(label[order], score[order], key=order, entity=who[order], run=run.run, wb=wb)
        close_run(run.run, "finished", wb=wb)
        found.append(get_run(run.run, wb=wb))
    pages = {r.run: measured(scored_rows(r, "test", wb), wb) for r in found}
    for line in compare_runs(found, wb=wb).as_json()["metrics"]:
        for run in found:
            kept = {k: run.metrics[line["metric"]][k] for k in ("value", "low", "high")}
            assert line["values"][run.run] == kept, line["metric"]
            page = pages[run.run][line["metric"]]
            assert {k: getattr(page, k) for k in kept} == kept, line["metric"]


def test_a_unit_of_measurement_decides_nothing():
    rng = np.random.default_rng(1)
    label = rng.normal(size=300)
    one, two = label + rng.normal(size=300), label + 0.8 * rng.normal(size=300)
    told = [paired("regression", u * label, u * one, u * two)["rmse"] for u in (1.0, 1e-100, 1e-13)]
    assert told[0].p < 0.05
    for d in told[1:]:
        assert np.isclose(d.p, told[0].p) and np.isclose(d.evidence, told[0].evidence)
        assert np.isclose(d.high / d.low, told[0].high / told[0].low)


@pytest.mark.parametrize(
    "label, beside, said",
    [
        ([0, "1"] * 30, {}, "labels are of several kinds"),
        ([0, 1] * 30, {"at": pd.Timestamp("2026-01-01")}, "one at for 60 labels"),
        ([0, 1] * 30, {"entity": [1, 2]}, "2 entity for 60 labels"),
        ([0, 1] * 30, {"key": [f"\ud800{i}" for i in range(60)]}, "key or entity cannot be kept"),
    ],
)
def test_rows_that_cannot_be_kept_are_refused_in_one_line(wb, label, beside, said):
    run = open_run("a", experiment="e", wb=wb)
    score = np.linspace(0, 1, 60)
    with pytest.raises(UserError, match=said):
        log_evaluated(np.array(label, dtype=object), score, run=run.run, wb=wb, **beside)
    huge = [2**64 + i % 7 for i in range(60)]
    log_evaluated([0, 1] * 30, score, entity=huge, run=run.run, wb=wb)
    kept = sql("SELECT DISTINCT entity FROM predictions ORDER BY 1", wb=wb).fetchall()
    assert kept == [(str(2**64 + i),) for i in range(7)]


def logged(wb, name, label, score, **more):
    run = open_run(name, experiment="e", wb=wb)
    log_evaluated(label, score, run=run.run, wb=wb, **more)
    close_run(run.run, "finished", wb=wb)
    return get_run(run.run, wb=wb)


def test_a_number_is_the_same_label_however_it_is_written(plain):
    """A table's whole numbers, a file's 107.0, and a column of 32 bits; another number is another."""
    wb, frame = plain
    label = np.arange(60) * 7 + 107
    made = []
    for kind, labels in (("whole", label), ("tenths", label / 10), ("float32", label / 10)):
        run = open_run(kind, experiment="e", wb=wb)
        labels = labels.astype("float32") if kind == "float32" else labels
        log_predictions(labels, labels + frame["score"], run=run.run, wb=wb)
        made.append(close_run(run.run, "finished", wb=wb))
    about = {"task": "regression", "wb": wb}
    other = import_predictions(frame.assign(label=label, score=label + 1.0), **about)
    tenth = import_predictions(frame.assign(label=label / 10, score=label / 10 + 1), **about)
    found = compare_runs([made[0], other], wb=wb)
    assert found.metrics[0]["values"][other.run]["value"] == pytest.approx(1, rel=1e-12)
    for run in made[1:]:
        assert len(compare_runs([run, tenth], wb=wb).rows) == 60
    with pytest.raises(UserError, match="disagree on the label"):
        compare_runs([made[0], tenth], wb=wb)


def test_scores_of_classes_are_held_against_their_like(plain):
    wb, rng = plain[0], np.random.default_rng(5)
    label, three = rng.integers(0, 3, 60), rng.dirichlet([2, 2, 2], 60)
    one = logged(wb, "three", label, three, task="multiclass", classes=[0, 1, 2])
    four = np.column_stack([three[:, ::-1] * 0.9, np.full(60, 0.1)])
    two = logged(wb, "four", label, four, task="multiclass", classes=[0, 1, 2, 3])
    for pair in ([one, two], [two, one]):
        found = compare_runs(pair, metric="log_loss", wb=wb)
        assert "three does not know 3: its score there is 0." in found.sentence
        for run, score in ((one, np.column_stack([three, np.zeros(60)])), (two, four)):
            line = next(m for m in found.metrics if m["metric"] == "log_loss")
            plainly = sk.log_loss(label, score, labels=[0, 1, 2, 3])
            assert line["values"][run.run]["value"] == pytest.approx(plainly, rel=1e-12)
    yes = (label > 0) * 1
    both = logged(
        wb, "both", yes, np.column_stack([1 - three[:, 0], three[:, 0]]), task="multiclass"
    )
    plain_one = logged(wb, "plain", yes, three[:, 0])
    for pair in ([both, plain_one], [plain_one, both]):
        with pytest.raises(UserError, match="both gave each row a score for every class"):
            compare_runs(pair, wb=wb)


def test_money_a_month_of_dates_counts_the_last_day(plain):
    """Two dates are two days; a payment without an amount costs the flat sum, here as in the report."""
    wb, frame = plain
    frame = frame.assign(at=pd.to_datetime(["2026-11-28", "2026-11-29"] * 30), amount=50.0)
    frame.loc[1, "amount"] = None
    bad = import_predictions(frame.assign(score=1 - frame["label"] + frame["key"] / 99), wb=wb)
    good = import_predictions(frame.assign(score=frame["label"]), wb=wb)
    found = compare_runs([bad, good], worth="5 EUR", wb=wb)
    flagged = frame.assign(score=1 - frame["label"] + frame["key"] / 99).nlargest(30, "score")
    missed = frame[(frame["label"] == 1) & ~frame["key"].isin(flagged["key"])]
    lost = missed["amount"].fillna(100).sum() + 5 * (flagged["label"] == 0).sum()
    assert found.money.a == pytest.approx(lost, rel=1e-12) and 1 in set(missed["key"])
    assert found.difference.value == pytest.approx(-lost * 30.4375 / 2, rel=1e-12)


def test_blocked_may_be_said_in_words_and_is_refused_where_it_says_neither(plain):
    wb, frame = plain
    blocked = np.arange(60) % 3 == 0
    table = frame[["key"]].assign(
        word=np.where(blocked, "yes", "no"), number=blocked * 1, code=np.where(blocked, "D", "A"),
        chance=np.where(blocked, 0.2, 0.8), text="often",
    )  # fmt: skip
    with write_lake("pay", wb=wb) as write:
        write.con.register("rows_", table)
        write.con.execute("CREATE TABLE pay AS FROM rows_")
    made = []
    for name in "ab":
        run = open_run(name, values={"table": "pay", "key": "key"}, wb=wb)
        score = frame["score"] + frame["label"] * (name == "b")
        log_predictions(frame["label"], score, key=frame["key"], run=run.run, wb=wb)
        made.append(close_run(run.run, "finished", wb=wb))
    chance = Workbench(wb.root, wb.values | {("compare", "propensity"): "chance"})
    for column in ("word", "number"):
        with write_lake("roles", wb=wb) as write:
            declare_roles(write.con, "pay", blocked=column)
        assert "No verdict: 20 of 60 rows" in compare_runs(made, wb=wb).sentence
        assert "The 60 rows are weighted, and worth 40" in compare_runs(made, wb=chance).sentence
    often = Workbench(wb.root, wb.values | {("compare", "propensity"): "text"})
    with pytest.raises(UserError, match="40 propensities are not above 0"):
        compare_runs(made, wb=often)
    with write_lake("roles", wb=wb) as write:
        declare_roles(write.con, "pay", blocked="code")
    with pytest.raises(UserError, match="code of pay says .* and 'D' is neither yes nor no"):
        compare_runs(made, wb=wb)


def test_rows_of_one_card_alone_are_compared_without_an_interval(plain):
    wb, frame = plain
    frame = frame.assign(entity="one", amount=1.0 + frame["key"])
    one = import_predictions(frame, name="a", wb=wb)
    two = import_predictions(frame.assign(score=frame["score"][::-1].to_numpy()), name="b", wb=wb)
    found = compare_runs([one, two], wb=wb)
    assert found.verdict == "cannot tell" and np.isnan(found.money.low)
    assert found.money.note.startswith("no interval: 1 ")


def test_two_rows_are_little_evidence_however_alike(plain):
    """Both errors grow equally far: that is no sign of a difference known to a thousandth."""
    wb = plain[0]
    frame = pd.DataFrame({"key": [0, 1], "label": [1.0, 2.5]})
    about = {"task": "regression", "wb": wb}
    one = import_predictions(frame.assign(score=[1.0, 2.0]), **about)
    two = import_predictions(frame.assign(score=[2.0, 1.0]), **about)
    found = compare_runs([one, two], wb=wb)
    assert found.difference.p > 0.01 and "Take care: stands on about 2 rows" in found.sentence
