"""Tuning one's own notebook: trials are runs, kills, processes, studies of others, the dashboard."""

import json
import sqlite3
import threading
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

import nbformat
import numpy as np
import optuna
import pytest
from faults import killed_again_and_again, mlworkbench

import mlworkbench as mw
from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.execution.listing import list_runs
from mlworkbench.execution.record import get_run
from mlworkbench.modelling import studies
from mlworkbench.modelling.notebook_studies import tune_notebook
from mlworkbench.modelling.picking import picking_optimism

PARAMETERS = """from typing import Annotated
depth: Annotated[int, (1, 12)] = 3
l2: float = 1.0
kind: str = "a"
broken: bool = False"""
WORK = """import mlworkbench as mw
assert not broken, "broken on purpose"
assert type(depth) is int and type(l2) is float
value = 1 - (depth - 6) ** 2 / 50 - abs(l2 - 20) / 100
for step in range(1, 4):
    mw.report(step, value * step / 3)
mw.log_metric("average_precision", value, split="validation")"""
SCORES = """import numpy as np
rng = np.random.default_rng(depth)
label = (np.random.default_rng(0).random(400) < 0.3).astype(int)
mw.log_predictions(label, np.clip(0.3 * label + 0.7 * rng.random(400), 0, 1), split="validation")"""


def notebook(wb, *more, name="mine", work=WORK):
    """The notebook that a user already has."""
    cells = [nbformat.v4.new_code_cell(s) for s in (PARAMETERS, work, *more)]
    cells[0]["metadata"]["tags"] = ["parameters"]
    path = wb.root / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def trials_of(wb, name, storage=""):
    return studies.load_study(name, wb, storage).get_trials(deepcopy=False)


def test_each_trial_is_a_run_with_the_types_of_the_cell(wb):
    path, told = notebook(wb, SCORES), []
    given = {"depth": "2:10", "l2": "1:100"}
    found = tune_notebook(
        path, given, metric="average_precision", trials=9, wb=wb,
        progress=lambda done, text: told.append((done, text)),
    )  # fmt: skip
    assert found.trials == 9 and told[-1][0] == 1 and "best average_precision" in told[-1][1]
    done = trials_of(wb, found.study)
    runs = {r.run: r for r in list_runs(wb=wb)}
    assert len(runs) == 9 == len({t.user_attrs["run"] for t in done})
    for t in done:
        run = runs[t.user_attrs["run"]]
        assert run.params["depth"] == t.params["depth"] and type(t.params["l2"]) is float
        pruned = t.state == optuna.trial.TrialState.PRUNED
        assert run.state == ("cancelled" if pruned else "finished")
        assert not pruned or "given up at step" in run.error
    assert found.given_up == sum(r.state == "cancelled" for r in runs.values()) >= 1
    assert found.value == max(
        t.value for t in done if t.value is not None and not np.isnan(t.value)
    )
    assert get_run(found.run, wb=wb).params["depth"] == found.best["depth"]
    assert found.optimism > 0 and "so expect" in found.sentence
    again = tune_notebook(path, given, metric="average_precision", trials=9, wb=wb)
    assert again.trials == 9 and len(list_runs(wb=wb)) == 9  # nothing is repeated
    # edited code is another study, which begins with what was best before
    notebook(wb, SCORES, "1 + 1")
    other = tune_notebook(path, given, metric="average_precision", trials=1, wb=wb)
    assert other.study != found.study and other.best == found.best


def test_mistakes_are_named_before_a_kernel_starts(wb):
    path = notebook(wb)
    for given, options, words in (
        ({"dept": "2:8"}, {}, "no parameter 'dept'. Did you mean 'depth'"),
        ({"depth": "2:8"}, {"metric": "averge_precision"}, "Did you mean 'average_precision'"),
        ({"depth": "2:40"}, {}, "out of range"),
        ({"depth": "8:2"}, {}, "empty range"),
        ({"l2": "0:9:log"}, {}, "above 0. Write l2=0.009:9.0:log, or leave :log out"),
        ({"depth": "2:8"}, {"metric": "gain"}, "is better"),
        ({"depth": "2:8"}, {"metric": ""}, "which metric"),
        ({"depth": "2:8"}, {"trials": 0}, "no budget"),
    ):
        with pytest.raises(UserError, match=words):
            tune_notebook(path, given, **{"metric": "auc", "trials": 2} | options, wb=wb)
    with pytest.raises(UserError, match="mw.evaluate"):  # as `mlworkbench report RUN` would have it
        mw.report("mine-1", wb=wb)
    assert list_runs(wb=wb) == []
    with pytest.raises(UserError, match="logged no 'auc'"):  # and one that only the run can show
        quiet = notebook(wb, name="quiet")
        book = nbformat.read(quiet, 4)
        book.cells[1].source = "1"
        nbformat.write(book, quiet)
        tune_notebook(quiet, {"depth": "2:8"}, metric="auc", trials=2, wb=wb)


@pytest.mark.parametrize("option", [{"storage": "sqlite:///mine.db"}, {"direction": "minimize"}])
def test_the_shipped_job_refuses_what_it_would_ignore(wb, option):
    (name,) = option
    with pytest.raises(UserError, match=f"has no {name}: it is for a notebook of your own"):
        mw.tune(table="cards", target="is_fraud", wb=wb, **option)
    assert list_runs(wb=wb) == []


def test_a_notebook_that_always_fails_ends_the_study(wb):
    path = notebook(wb)
    with pytest.raises(Exception, match="broken on purpose"):
        tune_notebook(
            path, {"depth": "2:8", "broken": True}, metric="average_precision", trials=20, wb=wb
        )
    assert len(list_runs(wb=wb)) == 3


def test_test_rows_are_said_to_be_used_up(wb):
    path = notebook(wb, name="peeks")
    book = nbformat.read(path, 4)
    book.cells[1].source = "import mlworkbench as mw\nmw.log_metric('auc', 0.5 + depth / 50)"
    nbformat.write(book, path)
    found = tune_notebook(path, {"depth": "2:9"}, metric="auc", trials=2, wb=wb)
    assert "no longer unseen" in found.sentence and "how much is not known" in found.sentence


WORDS = ("-p", "depth=2:10", "-p", "l2=1:100", "--metric", "average_precision", "--json")


def started(wb, path, trials):
    """The command at work on the study."""
    words = (*WORDS, "--study", "shared", "--trials", str(trials))
    return mlworkbench("tune", str(path), *words, cwd=wb.root, wait=False)


def finished(wb):
    try:
        found = trials_of(wb, "shared")
    except Exception:
        return {}
    return {
        t.number: (t.state.name, t.value, tuple(sorted(t.params.items())))
        for t in found
        if t.state.is_finished() and t.state.name != "FAIL"
    }


def test_killed_and_resumed_keeps_every_finished_trial_once(wb, torture):
    path = notebook(wb)
    kills = 10 if torture else 2
    kept = killed_again_and_again(lambda: started(wb, path, 10_000), lambda: finished(wb), kills)
    budget = len(kept) + 2
    last = started(wb, path, budget)
    out, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    found, now = json.loads(out), finished(wb)
    print(f"resumed to the end: {len(now)} finished, {found['trials']} said")
    assert set(found) == {"study", "trials", "best", "run"}
    assert kept.items() <= now.items() and len(now) == budget == found["trials"]
    for words, rows in ((("studies",), 1), (("studies", "shared"), budget)):
        code, out, err = mlworkbench(*words, "--json", cwd=wb.root)
        assert code == 0 and len(json.loads(out)) >= rows, err
    assert not [t for t in trials_of(wb, "shared") if t.state == optuna.trial.TrialState.RUNNING]


def test_two_processes_on_one_study_lose_no_trial(wb, torture):
    path, budget = notebook(wb), 20 if torture else 4
    both = [started(wb, path, budget) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    assert len(finished(wb)) == budget == len(trials_of(wb, "shared"))


def test_parallel_workers(wb):
    found = tune_notebook(
        notebook(wb), {"depth": "2:10", "l2": "1:100"}, metric="average_precision", trials=4,
        jobs=2, wb=wb,
    )  # fmt: skip
    assert found.trials == 4 and len({t.user_attrs["run"] for t in trials_of(wb, found.study)}) == 4


def test_a_study_of_plain_optuna_is_shown_and_continued(wb, tmp_path):
    storage = f"sqlite:///{tmp_path / 'theirs.db'}"
    theirs = optuna.create_study(study_name="theirs", storage=storage, direction="maximize")
    theirs.optimize(lambda t: 9 - abs(t.suggest_int("depth", 2, 10) - 6) / 10, n_trials=3)
    table = studies.study_trials("theirs", wb, storage)
    assert len(table) == 3 and "depth" in table
    drawn = set(studies.study_figures("theirs", wb, storage))
    assert {"history", "slices"} <= drawn and "curves" not in drawn  # nothing was reported
    found = tune_notebook(
        notebook(wb), {"depth": "2:10"}, metric="average_precision", trials=5, study="theirs",
        storage=storage, wb=wb,
    )  # fmt: skip
    assert found.trials == 5 and len(list_runs(wb=wb)) <= 2
    assert found.run is None and " rows" not in found.sentence.partition(";")[0]
    states = [t.state.name for t in optuna.load_study(study_name="theirs", storage=storage).trials]
    assert states[:3] == ["COMPLETE"] * 3 and len(states) == 5
    with pytest.raises(UserError, match="Did you mean 'theirs'"):
        studies.study_trials("their", wb, storage)
    with pytest.raises(UserError, match="directions maximize"):
        studies.open_study("theirs", False, wb, storage)


def test_a_trial_knows_its_storage_and_takes_no_value_from_another(wb, tmp_path):
    """Two storages, each with a study of one name; in the second a worker died over its first trial."""
    first, second = (f"sqlite:///{tmp_path / name}.db" for name in ("first", "second"))
    told = {"metric": "average_precision", "trials": 1, "study": "s", "wb": wb}
    tune_notebook(notebook(wb), {"depth": "2:10"}, storage=first, **told)
    dead = studies.open_study("s", True, wb, second)
    dead.ask({"depth": optuna.distributions.IntDistribution(2, 10)})
    tune_notebook(notebook(wb), {"depth": "2:10"}, storage=second, **told)
    states = [t.state.name for t in trials_of(wb, "s", second)]
    assert states == ["FAIL", "COMPLETE"] and len(list_runs(wb=wb)) == 2
    for storage in (first, second):
        assert len(trials_of(wb, "s", storage)[-1].intermediate_values) == 3  # mw.report found it


def test_studies_that_cannot_be_written_are_told_in_the_words_of_their_database(wb, tmp_path):
    """Optuna calls a locked file invalid data."""
    storage = f"sqlite:///{tmp_path / 'theirs.db'}?timeout=0.1"
    studies.open_study("theirs", True, wb, storage)
    with sqlite3.connect(tmp_path / "theirs.db") as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(WorkbenchError, match="database is locked.*the same command goes on"):
            tune_notebook(notebook(wb), {"depth": "2:10"}, metric="auc", trials=2,
                          study="theirs", storage=storage, wb=wb)  # fmt: skip
    assert list_runs(wb=wb) == []


class _Quiet(WSGIRequestHandler):
    def log_message(self, *words):
        pass


def test_the_dashboard_opens_the_storage(wb):
    from optuna_dashboard import wsgi

    study = studies.open_study("shared", wb=wb)
    space = {"depth": optuna.distributions.IntDistribution(2, 10)}
    for value in (0.5, 0.6):
        trial = studies.next_trial(study, space, 0, 0, wb)
        trial.set_user_attr("run", "a run")
        study.tell(trial, value)
    server = make_server("127.0.0.1", 0, wsgi(studies.study_url(wb)), handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/api/studies"
        shown = json.load(urllib.request.urlopen(url, timeout=60))["study_summaries"]
        assert [s["study_name"] for s in shown] == ["shared"]
        one = json.load(urllib.request.urlopen(f"{url}/{shown[0]['study_id']}?after=0", timeout=60))
        assert len(one["trials"]) == 2 and one["trials"][0]["state"] == "Complete"
    finally:
        server.shutdown()
        server.server_close()


def test_optimism_grows_with_the_number_of_equal_runs(wb):
    from mlworkbench.execution.opening import close_run, open_run
    from mlworkbench.modelling.evaluation import log_predictions

    rng, runs = np.random.default_rng(0), []
    label = (rng.random(500) < 0.2).astype(int)
    for _ in range(8):
        run = open_run(wb=wb)
        log_predictions(
            label,
            label + rng.normal(0, 1, 500),
            split="validation",
            run=run.run,
            wb=wb,
            metrics=False,
        )
        runs.append(close_run(run.run, "finished", wb=wb))
    few, many = (picking_optimism(r, "auc", True, "validation", wb) for r in (runs[:2], runs))
    assert 0 < few < many < 0.1
    assert picking_optimism(runs[:1], "auc", True, "validation", wb) is None


def test_a_study_stops_when_its_notebook_is_edited_under_it(wb):
    path, given = notebook(wb), {"depth": "2:10"}
    (wb.root / "helper.py").write_text("x = 1")

    def edit(done, text):
        if text.startswith("2 of"):
            notebook(wb, "1 + 1")

    options = {"metric": "average_precision", "study": "mine", "wb": wb}
    with pytest.raises(UserError, match="edited while study 'mine' was at work"):
        tune_notebook(path, given, trials=4, progress=edit, **options)
    assert len(trials_of(wb, "mine")) == 2
    notebook(wb)
    assert tune_notebook(path, given, trials=3, **options).trials == 3
    (wb.root / "helper.py").write_text("x = 2")
    for other in ({"depth": "2:9"}, given):
        with pytest.raises(UserError, match="other code, fixed parameters or ranges"):
            tune_notebook(path, other, trials=4, **options)
    assert len(trials_of(wb, "mine")) == 3


@pytest.mark.parametrize("name", ["  ", "a\nb", "x" * 201, "\x00"])
def test_a_study_has_a_name_that_can_be_shown(wb, name):
    with pytest.raises(UserError, match="is no name for a study. Give one line"):
        studies.open_study(name, wb=wb)
    assert studies.open_study('it\'s <b>"../x" 😀', wb=wb).study_name in set(
        studies.list_studies(wb)["study"]
    )


def test_a_trial_whose_metric_is_no_number_fails_alone(wb):
    """A loss that ran away costs its own trial; the value on test rows does not stand in for it."""
    gone = """value = float("nan") if depth > 6 else value
mw.log_metric("average_precision", 0.99, split="test")"""
    work = WORK.replace("mw.report(step, value * step / 3)", "pass")
    path = notebook(wb, work=work.replace("mw.log", f"{gone}\nmw.log"))
    found = tune_notebook(
        path, {"depth": "2:8", "l2": "1:9"}, metric="average_precision", trials=6, wb=wb
    )  # fmt: skip
    said = [(t.params["depth"] > 6, t.state.name) for t in trials_of(wb, found.study)]
    assert {state for deep, state in said if deep} == {"FAIL"}
    assert "FAIL" not in {state for deep, state in said if not deep}
    assert found.value < 0.99 and "on validation rows" in found.sentence
    with pytest.raises(WorkbenchError, match="'average_precision' of run .* is no finite number"):
        tune_notebook(path, {"l2": "1:9", "depth": 9}, metric="average_precision", trials=4, wb=wb)


@pytest.mark.parametrize(
    "kind",
    [
        optuna.distributions.IntDistribution(1, 50),
        optuna.distributions.FloatDistribution(0.1, 50, log=True),
        optuna.distributions.CategoricalDistribution([1.0, 2.0]),
    ],
)
def test_a_study_with_ranges_of_another_kind_is_refused(wb, tmp_path, kind):
    storage = f"sqlite:///{tmp_path}/theirs.db"
    theirs = optuna.create_study(storage=storage, study_name="theirs", direction="maximize")
    theirs.tell(theirs.ask({"l2": kind}), 0.5)
    with pytest.raises(UserError, match="study 'theirs' searches l2 in .* cannot become 1:20"):
        tune_notebook(
            notebook(wb), {"l2": "1:20"}, metric="average_precision", trials=3, study="theirs",
            storage=storage, wb=wb,
        )  # fmt: skip
    assert len(trials_of(wb, "theirs", storage)) == 1 and list_runs(wb=wb) == []


def test_a_warm_start_takes_the_newest_few(wb):
    for number in range(5):
        theirs = optuna.create_study(
            storage=studies.study_url(wb), study_name=f"s{number}", direction="maximize"
        )
        theirs.set_user_attr("experiment", "mine")
        theirs.enqueue_trial({"l2": 1.0 + number})
        theirs.tell(theirs.ask({"l2": optuna.distributions.FloatDistribution(1, 20)}), 0.5)
    found = tune_notebook(notebook(wb), {"l2": "1:20"}, metric="average_precision", trials=1, wb=wb)
    warm = [t.user_attrs["warm_from"] for t in trials_of(wb, found.study)]
    assert warm == ["s2", "s3", "s4"]
