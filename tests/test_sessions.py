"""Runs in the notebook that one already has: real kernels, cell by cell."""

import json
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from kernels import Kernel

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.data.connections import lake_cursor
from mlworkbench.data.lake import create_workbench
from mlworkbench.desk.cli import cli
from mlworkbench.execution import sessions
from mlworkbench.execution.jobs import run_job
from mlworkbench.execution.listing import list_runs, run_details
from mlworkbench.execution.record import get_run
from mlworkbench.execution.sessions import handle
from mlworkbench.modelling.comparison import compare_runs
from mlworkbench.registry.versions import register

HEAD = "import mlworkbench as mw"
DATA = """
import numpy as np
rng = np.random.default_rng(0)
y = (rng.random(400) < 0.3).astype(int)
score = np.clip(0.3 + 0.2 * y + rng.normal(0, 0.2, 400), 0.01, 0.99)
"""


@pytest.fixture
def wb(tmp_path):
    return create_workbench(tmp_path / "wb")


@pytest.fixture
def kernel(wb):
    kernel = Kernel(wb.root, wb)
    yield kernel
    kernel.end()


def cells_of(run) -> list:
    return nbformat.read(run.folder / "notebook.ipynb", 4).cells


def test_cells_are_recorded_in_the_order_of_execution(wb, kernel, tmp_path):
    kernel.cells(HEAD, "depth = 4", "run = mw.start_run('idea')", "depth = 6  # the cell again")
    assert kernel.cell("dpeth").status == "error"
    kernel.cells("mw.log_params(depth=depth); print('deep')", "depth * 2", "_ = mw.end_run()")
    kernel.cells("later = 1")
    cells = cells_of(get_run("idea", wb))
    assert [c.source for c in cells[1:4]] == [
        "depth = 4",
        "run = mw.start_run('idea')",
        "depth = 6  # the cell again",
    ]
    assert cells[-1].source == "_ = mw.end_run()"
    assert cells[5].outputs[0].text == "deep\n"
    assert cells[6].outputs[0].data["text/plain"] == "12"
    assert cells[4].outputs[0].ename == "NameError"
    run = get_run("idea", wb)
    assert (run.kind, run.state, run.params) == ("interactive", "finished", {"depth": 6})
    shown = CliRunner().invoke(cli, ["show", "idea", "--workbench", str(wb.root)]).stdout
    assert "code: the cells of a session" in shown and "None" not in shown
    assert "read: nothing recorded, and nothing is known of the cells before mw.start_run" in shown


def test_the_next_start_closes_the_run_and_a_chdir_does_not_matter(wb, kernel, tmp_path):
    other = create_workbench(tmp_path / "other")
    kernel.cells(HEAD, "mw.start_run('a')", f"mw.start_run('b', wb=mw.open({str(other.root)!r}))")
    assert get_run("a", wb).state == "finished"
    kernel.cells("import os; os.chdir('/')", "mw.end_run()")
    assert get_run("b", other).state == "finished" and list_runs(wb=wb)[-1].name == "a"


def test_an_error_inside_with_is_the_runs_end(wb, kernel):
    kernel.cells(HEAD)
    shown = kernel.cell("with mw.start_run('bad'):\n    x = 1\n    1 / 0")
    assert shown.status == "error" and "ZeroDivisionError" in shown.text
    run = get_run("bad", wb)
    assert (
        run.state == "failed" and run.error == "cell 2, line 3: ZeroDivisionError: division by zero"
    )
    kernel.cells("with mw.start_run('good'):\n    mw.log_metric('auc', 0.5)")
    assert get_run("good", wb).state == "finished"


@pytest.mark.parametrize("name", ["python3", "mlworkbench"])
def test_the_kernels_end_closes_the_run(wb, name, tmp_path, monkeypatch):
    if name != "python3":
        from mlworkbench.execution.forking import available
        from mlworkbench.execution.provisioner import install_kernelspec

        if available():
            pytest.skip(available())
        install_kernelspec(tmp_path)
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    kernel = Kernel(wb.root, wb, name)
    kernel.cells(HEAD, "run = mw.start_run('open')", "mw.log_metric('auc', 0.7)")
    kernel.end()
    run = get_run("open", wb)
    assert run.state == "finished" and len(cells_of(run)) == 3
    kernel = Kernel(wb.root, wb, name)
    kernel.cells(HEAD, "run = mw.start_run('killed')")
    assert get_run("killed", wb).state == "running"
    kernel.kill()
    deadline = time.monotonic() + 20
    while get_run("killed", wb).state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert get_run("killed", wb).state == "interrupted"


def test_as_job_says_whether_the_numbers_are_the_same(wb, kernel):
    kernel.cells(HEAD, DATA, "run = mw.start_run('steady')")
    shown = kernel.cells("mw.log_predictions(y, score)")
    assert "auc" in shown.text and "low" in shown.text
    kernel.cells("ended = mw.end_run()", "job = run.as_job()")
    job = list_runs(wb=wb)[-1]
    assert job.kind == "job" and job.name == "steady, from the top"
    assert run_details(job, wb)["facts"]["same_numbers"] == "yes"
    assert job.metrics["auc"] == get_run("steady", wb).metrics["auc"]
    assert job.metrics["auc"]["low"] < job.metrics["auc"]["value"] < job.metrics["auc"]["high"]
    assert "The same numbers from the top: yes" in kernel.cell("job").html[0]
    # state that is gone: the second time k is already 2
    kernel.cells(
        "k = 1", "run = mw.start_run('shaky')", "mw.log_metric('k', k)", "_ = mw.end_run()"
    )
    kernel.cells(
        "k = 7", "run = mw.start_run('shakier')", "import time", "mw.log_metric('now', time.time())"
    )
    kernel.cells("job = run.as_job()", "assert mw.end_run().run == run.run  # it has ended already")
    told = run_details(list_runs(wb=wb)[-1], wb)["facts"]["same_numbers"]
    assert told.startswith("no: now on test was ")
    assert "k" not in list_runs(wb=wb)[-1].metrics, "an earlier run's numbers are not this one's"


def test_as_job_passes_over_what_failed_and_finds_files_beside_it(wb, kernel):
    (wb.root / "data.txt").write_text("5")
    kernel.cells(HEAD)
    assert kernel.cell("n = int(open('data.txt').raed())").status == "error"
    kernel.cells("a = mw.start_run('a')", "mw.log_metric('n', 1)", "b = mw.start_run('b')")
    kernel.cells("_ = mw.end_run()", "c = mw.start_run('c')", "n = int(open('data.txt').read())")
    assert kernel.cell("mw.log_metric('n', N)").status == "error"
    kernel.cells("mw.log_metric('n', n)", "job = c.as_job()")
    job = list_runs(wb=wb)[-1]
    assert (job.state, job.metrics["n"]["value"]) == ("finished", 5)
    assert run_details(job, wb)["facts"]["same_numbers"] == "yes"


def test_as_job_fails_where_a_cell_needs_state_that_is_gone(wb, kernel):
    kernel.cells(
        HEAD,
        "run = mw.start_run('lost')",
        "import os",
        "flag = os.environ['NOT_THERE'] if 'NOT_THERE' in os.environ else None",
    )
    kernel.cells("os.environ['ONCE'] = '1'", "mw.log_metric('n', 1)")
    kernel.cells("from pathlib import Path; p = Path('once'); assert not p.exists(); p.touch()")
    shown = kernel.cell("run.as_job()")
    assert shown.status == "error" and "AssertionError" in shown.text


MODEL = """
from catboost import CatBoostClassifier
x = np.column_stack([y + rng.normal(0, 1, 400), rng.normal(0, 1, 400)])
model = CatBoostClassifier(iterations=20, depth=3, verbose=False, allow_writing_files=False, thread_count=1)
model.fit(x, y)
"""


def test_an_interactive_run_becomes_a_version_that_scores_its_table(wb, kernel):
    """The model's features are columns of the one table that was read: nothing else has to be said."""
    from mlworkbench.data.ingestion import ingest
    from mlworkbench.production.scoring import score

    dice = np.random.default_rng(0)
    frame = pd.DataFrame({"id": range(300), "a": dice.normal(size=300), "shop": list("xyz") * 100})
    ingest(frame.assign(y=(frame["a"] > 0).astype(int)), table="pay", key="id", wb=wb)
    kernel.cells(
        HEAD,
        MODEL.splitlines()[1],
        "run = mw.start_run('mine')",
        "data = mw.sql('from pay').df(); x, y = data[['a', 'shop']], data['y']",
        "model = CatBoostClassifier(iterations=9, verbose=False, cat_features=['shop'], allow_writing_files=False)",
        "_ = model.fit(x, y); _ = mw.log_model(model)",
        "mw.log_predictions(y, model.predict_proba(x), key=data['id'])",
        "_ = mw.end_run()",
        "job = run.as_job()",
    )
    with pytest.raises(UserError, match="interactive"):
        register("mine", "fraud", wb)
    job = list_runs(wb=wb)[-1]
    made = register(job, "fraud", wb)
    assert made.signature["features"] == {"a": "number", "shop": "category"}
    assert (made.signature["task"], made.signature["key"]) == ("binary", ["id"])
    assert score("pay", made, "scores", wb=wb)["rows"] == 300
    assert run_details(job, wb)["facts"]["same_numbers"] == "yes"
    twins = compare_runs(["mine", job], wb=wb)
    assert twins.verdict == "equivalent" and "the same however the rows are drawn" in twins.sentence
    kernel.cells("other = mw.start_run('other')")
    said = kernel.cell("mw.log_model(model, table='predictions')").text
    assert "not in the table predictions" in said


def test_autolog_in_a_kernel(wb, kernel):
    kernel.cells(
        HEAD,
        DATA,
        "mw.autolog()",
        MODEL.replace("model.fit(x, y)", "model.fit(x, y, eval_set=(x, y))"),
    )
    run = list_runs(wb=wb)[-1]
    assert run.name == "CatBoostClassifier-1" and run.params["depth"] == 3
    rows = run_details(run, wb)["all_metrics"]
    assert {(m["name"], m["split"]) for m in rows} == {
        ("log_loss", "train"),
        ("log_loss", "validation"),
    }
    assert (run.folder / "model.cbm").exists()
    kernel.cells(
        "run = mw.start_run('two fits')", "model.fit(x, y); model.fit(x, y)", "_ = mw.end_run()"
    )
    assert len(list_runs(wb=wb)) == 2 and get_run("two fits", wb).params["iterations"] == 20
    shown = kernel.cell(
        "CatBoostClassifier(iterations=-1, verbose=False, allow_writing_files=False).fit(x, y)"
    )
    assert shown.status == "error" and list_runs(wb=wb)[-1].state == "failed"


def tutorial(extra: str = "") -> nbformat.NotebookNode:
    """A notebook in the manner of CatBoost's own tutorials: no parameters, no import of ours."""
    cells = [
        "%matplotlib inline\nimport numpy as np\nimport pandas as pd\nfrom catboost import CatBoostClassifier, Pool, metrics, cv\nnp.set_printoptions(precision=4)",
        """rng = np.random.default_rng(7)
n = 891
train_df = pd.DataFrame({
    "PassengerId": np.arange(1, n + 1),
    "Pclass": rng.choice([1, 2, 3], n, p=[.24, .21, .55]),
    "Sex": rng.choice(["male", "female"], n, p=[.65, .35]),
    "Age": np.where(rng.random(n) < .2, np.nan, rng.normal(30, 14, n).clip(1, 80)),
    "Fare": rng.lognormal(3, 1, n),
    "Embarked": rng.choice(["S", "C", "Q", None], n, p=[.72, .18, .09, .01]),
})
logit = -1 + 2.4 * (train_df.Sex == "female") - .7 * (train_df.Pclass - 2) - .015 * (train_df.Age.fillna(30) - 30)
train_df["Survived"] = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
train_df.head()""",
        "null_value_stats = train_df.isnull().sum(axis=0)\nnull_value_stats[null_value_stats != 0]",
        "train_df = train_df.fillna({'Age': -999, 'Embarked': 'unknown'})\nX = train_df.drop('Survived', axis=1)\ny = train_df.Survived",
        "categorical_features_indices = np.where((X.dtypes != float) & (X.dtypes != np.int64))[0]",
        """from sklearn.model_selection import train_test_split
X_train, X_validation, y_train, y_validation = train_test_split(X, y, train_size=0.75, random_state=42)""",
        """model = CatBoostClassifier(custom_loss=[metrics.Accuracy()], random_seed=42, logging_level='Silent', iterations=60, allow_writing_files=False)
model.fit(X_train, y_train, cat_features=categorical_features_indices, eval_set=(X_validation, y_validation), plot=False);""",
        """scores = []
for fold in range(3):
    inside = np.arange(len(X)) % 3 != fold
    pool = Pool(X[inside], y[inside], cat_features=categorical_features_indices)
    fold_model = CatBoostClassifier(iterations=30, logging_level='Silent', allow_writing_files=False).fit(pool)
    scores.append(fold_model.score(X[~inside], y[~inside]))
print('Mean accuracy: {:.3f} +- {:.3f}'.format(np.mean(scores), np.std(scores)))""",
        "feature_importances = model.get_feature_importance(Pool(X_train, y_train, cat_features=categorical_features_indices))\nfor score, name in sorted(zip(feature_importances, X.columns), reverse=True):\n    print('{}: {}'.format(name, score))",
        f"predictions_probs = model.predict_proba(X_validation)\n{extra}\nprint(predictions_probs[:3])",
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=kernel
    )


def test_a_tutorial_nobody_prepared_runs_and_one_line_gives_an_interval(wb, tmp_path):
    plain = tmp_path / "titanic.ipynb"
    nbformat.write(tutorial(), plain)
    run = run_job(plain, wb=wb)
    assert run.state == "finished" and run.metrics == {} and len(cells_of(run)) == 10
    assert "Mean accuracy" in json.dumps(cells_of(run)[7].outputs)
    line = "import mlworkbench as mw; mw.log_predictions(y_validation, predictions_probs)"
    nbformat.write(tutorial(line), plain)
    run = run_job(plain, wb=wb)
    auc = run.metrics["auc"]
    assert 0.6 < auc["low"] < auc["value"] < auc["high"] < 1
    rows = lake_cursor(wb).execute(
        "SELECT count(*), min(split) FROM predictions WHERE run = ?", [run.run]
    )
    assert rows.fetchone() == (223, "test")
    assert handle(run).kind == "job"


def test_cells_are_kept_without_secrets_and_card_numbers(wb, monkeypatch):
    monkeypatch.setenv("BANK_API_KEY", "kk-98765-zz")
    cells = {1: "key = 'kk-98765-zz'", 2: "card = '4111111111111111'"}
    monkeypatch.setattr(sessions, "executed_cells", lambda: cells)
    run = sessions.start_run("idea", wb=wb)
    sessions.end_run()
    text = (run.folder / "notebook.ipynb").read_text()
    assert "[secret]" in text and "1111]" in text
    assert "kk-98765-zz" not in text and "4111111111111111" not in text


def test_cells_that_cannot_be_written_are_told_and_the_run_is_closed(wb, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sessions, "executed_cells", lambda: {1: "x = 1"})
    monkeypatch.setattr(sessions, "replace_file", full)
    sessions.start_run("idea", wb=wb)
    with pytest.raises(WorkbenchError, match="No space left"):
        sessions.end_run()
    assert get_run("idea", wb).state == "finished"
