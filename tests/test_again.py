"""What ran before: cancelled from elsewhere, reproduced to the last bit, its code given back."""

import json
import os
import shutil
import subprocess

import nbformat
import pytest
from click.testing import CliRunner
from faults import kill, mlworkbench, until

import mlworkbench as mw
from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.data.commits import write_lake
from mlworkbench.data.connections import data_path
from mlworkbench.data.queries import sql
from mlworkbench.desk.cli import cli
from mlworkbench.execution.again import cancel_run, given_values, reproduce, rerun, run_source
from mlworkbench.execution.jobs import run_job
from mlworkbench.execution.listing import list_runs
from mlworkbench.modelling.report_page import evaluate


def notebook(wb, *cells: str, name: str = "mine"):
    made = [nbformat.v4.new_code_cell(c) for c in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made), wb.root / f"{name}.ipynb")
    return wb.root / f"{name}.ipynb"


@pytest.mark.parametrize("grid", [False, True], ids=["run", "grid"])
def test_a_run_is_cancelled_from_another_process(wb, grid):
    job = notebook(wb, "n: int = 0", "import time\nif n < 2: time.sleep(300)")
    words = ["grid", str(job), "-p", "n=1,2", "--jobs", "2"] if grid else ["run", str(job)]
    process = mlworkbench(*words, cwd=wb.root, wait=False)
    try:
        started = lambda: [r for r in list_runs(wb=wb) if (r.folder / "progress.json").exists()]  # noqa: E731
        running = until(lambda: [r for r in started() if r.params.get("n", 0) < 2], 90)
        found = cancel_run(running[0], seconds=60, wb=wb)
        out, err = process.communicate(timeout=90)
    finally:
        kill(process)
    assert found.state == "cancelled" and not (found.folder / "cancel").exists()
    assert process.returncode == 1, err  # a grid too: one of its runs did not finish
    assert sorted(r.state for r in list_runs(wb=wb)) == ["cancelled"] + ["finished"] * grid
    with pytest.raises(UserError, match="is cancelled"):
        cancel_run(found, wb=wb)


def test_a_training_is_reproduced_on_data_that_has_changed_since(wb):
    with write_lake("rows", wb=wb) as write:
        write.con.execute(
            "CREATE TABLE t AS SELECT i AS id, (i * 37 % 101) / 101.0 AS a, (i * 53 % 89) / 89.0 AS b, "
            "CAST((i * 37 % 101) + (i * 31 % 47) > 80 AS INTEGER) AS y FROM range(600) r(i)"
        )
    about = {"table": "t", "target": "y", "key": "id", "iterations": 20, "depth": 2}
    run = run_job("train", about, wb=wb)
    with write_lake("more", wb=wb) as write:
        write.con.execute("INSERT INTO t SELECT id + 1000, b, a, 1 - y FROM t")
    found = reproduce(run, wb=wb)
    assert found.identical, found.sentence
    assert found.run.metrics == run.metrics and len(found.run.metrics) > 3
    assert found.run.name == f"{run.name}-reproduced"
    today = rerun(run, wb=wb)
    assert today.metrics != run.metrics
    shown = CliRunner().invoke(cli, ["show", today.run, "--workbench", str(wb.root)]).stdout
    tested = sql(
        "SELECT count(*) FROM predictions WHERE run = $run", params={"run": today.run}, wb=wb
    )
    assert f"on {tested.fetchone()[0]} test rows\nsplit at random" in shown


def test_what_a_run_read_and_is_gone_since(wb):
    """A table that was dropped is still in its snapshot; one that expired, and a folder that is gone, are named."""
    with write_lake("rows", wb=wb) as write:
        write.con.execute("CREATE TABLE t AS SELECT range AS x FROM range(10)")
    code = (
        "import mlworkbench as mw\nmw.log_metric('s', mw.sql('SELECT sum(x) FROM t').fetchone()[0])"
    )
    run = run_job(notebook(wb, "n: int = 0", code), wb=wb)
    with write_lake("gone", wb=wb) as write:
        write.con.execute("DROP TABLE t")
    before = dict(os.environ)
    assert reproduce(run, wb=wb).identical and dict(os.environ) == before
    with write_lake("expire, past the door that keeps what a run refers to", wb=wb) as write:
        write.con.execute("CALL ducklake_expire_snapshots('lake', older_than => now())")
    runs = len(list_runs(wb=wb))
    with pytest.raises(UserError, match="has expired"):
        reproduce(run, wb=wb)
    shutil.rmtree(run.folder)
    with pytest.raises(UserError, match="has no notebook any more.*Bring it back"):
        reproduce(run, wb=wb)
    assert len(list_runs(wb=wb)) == runs


def test_what_came_out_differently_is_told(wb):
    job = notebook(
        wb, "n: int = 0", "import mlworkbench as mw, time\nmw.log_metric('at', time.time())"
    )
    run = run_job(job, wb=wb)
    code, out, err = mlworkbench("reproduce", run.run, "--json", cwd=wb.root)
    assert code == 1 and f"{run.name} came out differently: at on test was" in err, err
    assert "came out differently" in json.loads(out)["error"]


def test_the_exact_code_of_a_run_is_given_back(wb):
    git = ["git", "-C", str(wb.root), "-c", "user.name=x", "-c", "user.email=x@x"]
    job = notebook(wb, "n: int = 0", "from helper import twice\nprint(twice(n))")
    (wb.root / "helper.py").write_text("def twice(x): return 2 * x\n")
    subprocess.run(["git", "init", "-q", str(wb.root)], check=True)
    subprocess.run([*git, "add", "helper.py", "mine.ipynb"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    (wb.root / "helper.py").write_text("def twice(x): return x + x  # changed\n")
    run = mw.run("mine.ipynb", n=3, wb=wb)
    job.write_text("{}")
    (wb.root / "helper.py").unlink()
    found = run_source(run, wb)
    assert found["cells"] == ["n: int = 0", "from helper import twice\nprint(twice(n))"]
    assert found["dirty"] and "+def twice(x): return x + x  # changed" in found["patch"]
    code, out, err = mlworkbench("show", run.run, "--code", cwd=wb.root)
    assert code == 0 and "# %% cell 2" in out and "# changed" in out, err


def test_a_secret_parameter_is_not_made_up(wb):
    job = notebook(wb, "db_password: str = ''", "assert db_password == 'open sesame'")
    run = run_job(job, {"db_password": "open sesame"}, wb=wb)
    with pytest.raises(UserError, match="db_password .* is secret"):
        given_values(run)


def test_a_lost_data_file_is_named_in_our_words(wb):
    work = (
        "import mlworkbench as mw\nmw.log_predictions([0, 1] * 20, [0.2, 0.7] * 20, metrics=False)"
    )
    run = run_job(notebook(wb, "n: int = 1", work), {}, wb=wb)
    for file in (data_path(wb) / "main" / "predictions").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(WorkbenchError, match="cannot be read.*mlworkbench verify"):
        reproduce(run, wb=wb)
    with pytest.raises(WorkbenchError, match="cannot be read.*mlworkbench verify"):
        evaluate(run, wb=wb)


def test_a_notebook_of_the_jobs_folder_that_is_given_by_its_file_is_named(wb):
    (wb.root / "nbs").mkdir(exist_ok=True)
    notebook(wb, "n: int = 1", name="nbs/mine")
    with pytest.raises(UserError, match="no notebook mine.ipynb. Did you mean 'mine'"):
        run_job("mine.ipynb", {}, wb=wb)
