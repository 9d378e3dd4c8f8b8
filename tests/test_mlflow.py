"""Notebooks written for MLflow's client run unchanged, with the real client."""

import nbformat
import pytest
from faults import mlworkbench

import mlworkbench as mw
from mlworkbench.core.errors import WorkbenchError
from mlworkbench.core.store import reading, runs
from mlworkbench.execution.listing import run_details

pytest.importorskip("mlflow", reason="MLflow's client is not installed")
TUTORIAL = """import mlflow
mlflow.set_experiment("theirs")
with mlflow.start_run(run_name="quick start"):
    mlflow.log_param("depth", 6)
    mlflow.log_params({"loss/name": "Logloss", "rate": 0.1})
    for step in range(3):
        mlflow.log_metric("val/auc", 0.9 + step / 100, step=step)
    mlflow.set_tag("team", "fraud")
    mlflow.log_text("hello", "notes/x.txt")"""
LOOP = """import mlflow
for depth in (2, 4):
    with mlflow.start_run(run_name=f"depth {depth}"):
        mlflow.log_param("depth", depth)
        mlflow.log_metric("auc", depth / 10)"""


def book(wb, name, *cells):
    cells = [nbformat.v4.new_code_cell(c) for c in cells]
    path = wb.root / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return str(path)


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_what_a_tutorial_logs_stands_in_the_record(wb):
    run = mw.run(book(wb, "theirs", TUTORIAL), wb=wb)
    kept = run_details(run, wb)
    assert kept["params"] == {"depth": 6, "loss/name": "Logloss", "rate": 0.1}
    curve = [(m["step"], m["value"]) for m in kept["all_metrics"] if m["name"] == "val/auc"]
    assert curve == [(0, 0.9), (1, 0.91), (2, 0.92)] and run.metrics["val/auc"]["value"] == 0.92
    assert kept["facts"]["tag team"] == "fraud"
    (artifact,) = [f for f in kept["files"] if f["kind"] == "artifact"]
    assert (run.folder / artifact["path"]).read_text() == "hello"
    assert [r.run for r in mw.runs('"val/auc" > 0.91', wb=wb)] == [run.run]


def test_a_loop_of_mlflow_runs_becomes_runs_of_their_own(wb):
    run = mw.run(book(wb, "loop", LOOP), wb=wb)
    with reading(wb) as db:
        rows = db.execute(runs.select().where(runs.c.parent == run.run)).all()
    assert sorted(r.name for r in rows) == ["depth 2", "depth 4"]
    best = mw.runs("parent = '" + run.run + "'", sort="auc", wb=wb)[0]
    assert (best.name, best.params["depth"], best.state) == ("depth 4", 4, "finished")


def test_an_address_that_somebody_chose_is_kept(wb, tmp_path, monkeypatch):
    chosen = (tmp_path / "theirs").as_uri()
    own = LOOP.replace("import mlflow", f"import mlflow\nmlflow.set_tracking_uri({chosen!r})")
    run = mw.run(book(wb, "own", own), wb=wb)
    assert (
        not (run.folder / "mlflow").exists()
        and len(list((tmp_path / "theirs" / "0").iterdir())) == 3
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    told = book(wb, "told", "import os\nassert os.environ['MLFLOW_TRACKING_URI'].endswith(':9')")
    assert mw.run(told, wb=wb).state == "finished"


def test_what_is_secret_does_not_stay_in_mlflows_files(wb, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "swordfish-4711")
    code = "import mlflow, os\nmlflow.log_param('login', os.environ['DB_PASSWORD'])\n1 / 0"
    done, _, err = mlworkbench("run", book(wb, "leaks", code), cwd=wb.root)
    assert done == 1 and "ZeroDivisionError" in err  # what was logged before the failure is kept
    (run,) = mw.runs(wb=wb)
    assert run.params["login"] and "swordfish" not in str(run.params)
    files = [p for p in run.folder.rglob("*") if p.is_file()]
    assert files and not [p for p in files if b"swordfish-4711" in p.read_bytes()]


AUTOLOG = """import mlflow
mlflow.autolog()
from sklearn.linear_model import LogisticRegression
LogisticRegression(C=0.5, max_iter=50).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])"""


def test_what_autolog_logs_stands_in_the_record_and_its_pickled_model_is_a_file(wb):
    run = mw.run(book(wb, "auto", AUTOLOG), wb=wb)
    kept = run_details(run, wb)
    assert (kept["params"]["C"], kept["params"]["max_iter"]) == (0.5, 50)
    assert run.metrics["training_accuracy_score"]["value"] == 1.0
    files = {f["path"].rsplit("/", 1)[-1]: f for f in kept["files"]}
    assert files["MLmodel"]["kind"] == "artifact" and len(files["MLmodel"]["sha256"]) == 64
    with pytest.raises(WorkbenchError):  # never loaded, so never a version
        mw.register(run, "auto", wb=wb)
