"""Runs that are killed, paused, interrupted, forged, or full of hostile values."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from faults import kill, mlworkbench, python, until

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.data.queries import sql
from mlworkbench.execution import liveness, surroundings
from mlworkbench.execution.journal import log_fact, log_file, log_metric, log_params, log_text
from mlworkbench.execution.listing import list_runs, run_details
from mlworkbench.execution.liveness import sweep
from mlworkbench.execution.opening import close_run, open_run, settle_run
from mlworkbench.execution.record import find_run, get_run

SLEEPER = """\
import os, pathlib, time
pathlib.Path("{folder}/kernel").write_text(str(os.getpid()))
print("asleep", flush=True)
time.sleep({seconds})
"""


def notebook(folder: Path, name: str, *cells: str) -> Path:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def sleeping(wb, tmp_path, seconds: int = 120):
    """A run that sleeps: its process, its kernel's id."""
    book = notebook(
        tmp_path, "sleeper", "before = 1", SLEEPER.format(folder=tmp_path, seconds=seconds)
    )
    process = mlworkbench("run", str(book), "--workbench", str(wb.root), cwd=tmp_path, wait=False)
    kernel = until(lambda: (tmp_path / "kernel").exists() and (tmp_path / "kernel").read_text())
    assert kernel, process.communicate(timeout=5)
    return process, int(kernel)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("who", ["kernel", "engine", "both"])
def test_killed_run_shows_as_such_and_leaves_nothing(wb, tmp_path, who):
    process, kernel = sleeping(wb, tmp_path)
    assert [r.state for r in list_runs(wb=wb)] == ["running"]
    if who in ("kernel", "both"):
        os.kill(kernel, signal.SIGKILL)
    if who in ("engine", "both"):
        os.kill(process.pid, signal.SIGKILL)
    code, said = process.wait(60), process.stderr.read()
    (run,) = list_runs(wb=wb)
    if who == "kernel":
        assert code == 1 and run.state == "failed" and "kernel died" in run.error, (said, run)
        assert said.count("\n") == 1 and said.startswith("error: ")
    else:
        assert code == -signal.SIGKILL and run.state == "interrupted" and run.ended and run.error
    cells = nbformat.read(run.folder / "notebook.ipynb", 4).cells
    assert cells[0].execution_count == 1  # what had run is kept
    assert until(lambda: gone(kernel), 30), "the kernel outlived its run"


def test_paused_run_stays_running(wb, tmp_path):
    process, kernel = sleeping(wb, tmp_path, 3)
    for pid in (process.pid, kernel):
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(1)
        assert sweep(wb) == [] and [r.state for r in list_runs(wb=wb)] == ["running"]
    finally:
        for pid in (kernel, process.pid):
            os.kill(pid, signal.SIGCONT)
    assert process.wait(60) == 0
    assert [r.state for r in list_runs(wb=wb)] == ["finished"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run(wb, tmp_path, sent):
    process, kernel = sleeping(wb, tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    if sent is signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does
    else:
        os.kill(process.pid, sent)
    out, err = process.communicate(timeout=60)
    (run,) = list_runs(wb=wb)
    assert run.state == "interrupted"
    if sent is signal.SIGINT:
        assert process.returncode == 130 and err.strip().splitlines()[-1] == "interrupted", err
        assert "Traceback" not in err
    assert until(lambda: all(gone(c.pid) for c in children) and gone(kernel), 30), [
        c for c in children if not gone(c.pid)
    ]


def test_declared_dead_cannot_finish(wb):
    code = "from mlworkbench.execution.opening import open_run, close_run\nimport os, fcntl\n"
    code += "run = open_run('one', wb=wb)\n"
    code += "from mlworkbench.execution import liveness; liveness.release(run.folder)  # as if it had been taken for dead\nprint(run.run, flush=True)\n"
    code += "input()\nclose_run(run.run, 'finished', wb=wb)\n"
    process = python(
        wb.root,
        "import sys, io\n"
        + code.replace(
            "input()",
            "import time, pathlib\nwhile not pathlib.Path(sys.argv[2]).exists(): time.sleep(.02)",
        ),
        str(wb.root / "go"),
        wait=False,
    )
    try:
        run = process.stdout.readline().strip()
        assert get_run(run, wb=wb).state == "interrupted"
        (wb.root / "go").touch()
        _, err = process.communicate(timeout=30)
    finally:
        kill(process)
    assert process.returncode == 1 and f"run {run} is already interrupted" in err
    assert get_run(run, wb=wb).state == "interrupted"


def test_a_dead_run_takes_nothing_more(wb):
    """What a zombie writes after it was declared dead is refused too."""
    run = open_run("one", wb=wb)
    close_run(run.run, "interrupted", wb=wb)
    for state in ("finished", "failed", "interrupted"):
        with pytest.raises(WorkbenchError, match="already interrupted"):
            close_run(run.run, state, wb=wb)


def test_a_forked_child_does_not_keep_its_parents_run_alive(wb):
    code = "import os, time\nfrom mlworkbench.execution.opening import open_run\nrun = open_run('one', wb=wb)\n"
    code += "child = os.fork()\nif child: print(run.run, child, flush=True); os._exit(0)\ntime.sleep(60)"
    process = python(wb.root, code, wait=False)
    run, child = process.stdout.readline().split()
    try:
        process.wait(30)
        assert until(lambda: get_run(run, wb=wb).state == "interrupted", 10)
    finally:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        "%2e%2e",
        "/etc",
        "a/b",
        "",
        " ",
        "*",
        "%",
        "_",
        "'; DROP TABLE runs; --",
        "x\0y",
        "@",
        "a@b",
        "x@1",
        "é" * 3000,
    ],
)
def test_run_ids_are_not_paths(wb, name):
    open_run("one", wb=wb)
    for ask in (find_run, get_run, run_details):
        with pytest.raises(UserError) as found:
            ask(name, wb=wb)
        assert len(str(found.value)) < 400, "an error that repeats what it was given"


def test_files_stay_in_the_runs_folder(wb, tmp_path):
    run = open_run("one", wb=wb)
    for name in ("../x", "/tmp/x", "a/b", ".hidden", "", "x" * 300, "a\nb", "..", "\u202ex"):
        with pytest.raises(UserError):
            log_text(name, "text", "note", run=run.run, wb=wb)
    (tmp_path / "outside").write_text("secret")
    (run.folder / "link").symlink_to(tmp_path / "outside")
    for path in (tmp_path / "outside", run.folder / "link"):
        with pytest.raises(UserError):
            log_file(path, "note", run=run.run, wb=wb)


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "'; DROP TABLE runs; --",
    "line\nbreak",
    "\u202egnp.exe",
    "\x1b[31mred",
    "=cmd|' /C calc'!A0",
    "x" * 5000,
    "é日本",
    "{{7*7}}",
    "\0nul",
]


def one_line(name):
    """What can be printed of a name, in one line, and of 5,000 letters the first 199."""
    plain = " ".join(re.sub(r"[\n\x00\x1b\u202e]", " ", name).split())
    return plain if len(plain) < 200 else plain[:199] + "…"


def test_hostile_names_and_values_come_back_as_they_were(wb):
    for name in HOSTILE:
        run = open_run(name, experiment=name, values={name: name, "n": 1}, wb=wb)
        again = get_run(run.run, wb=wb)
        said = one_line(name)  # what is logged comes back to the letter; a name is one line of it
        assert (again.name, again.experiment, again.params) == (said, said, {name: name, "n": 1})
    code, out, err = mlworkbench("runs", "--json", cwd=wb.root)
    assert code == 0 and [r["name"] for r in json.loads(out)] == [one_line(n) for n in HOSTILE], err
    code, out, err = mlworkbench("runs", cwd=wb.root)
    assert code == 0 and len(out.splitlines()) == 1 + len(HOSTILE), err
    assert "\x1b" not in out and "\0" not in out and "\u202e" not in out
    assert all(c.isprintable() for c in out.replace("\n", ""))
    code, out, err = mlworkbench("show", run.run, cwd=wb.root)
    assert code == 0 and "\0" not in out
    assert (
        list_runs("name = '{}'".format(HOSTILE[1].replace("'", "''")), wb=wb)[0].name == HOSTILE[1]
    )


def test_big_values_and_metrics_that_are_no_numbers(wb):
    run = open_run(
        "big",
        values={
            "text": "x" * 1_000_000,
            "nan": float("nan"),
            "inf": float("-inf"),
            "list": list(range(1000)),
        },
        wb=wb,
    )
    for name, value in {
        "auc": float("nan"),
        "rmse": float("inf"),
        "mae": -0.0,
        "r2": 5e-324,
    }.items():
        log_metric(name, value, float("nan"), float("inf"), run=run.run, wb=wb)
    close_run(run.run, "finished", wb=wb)
    assert get_run(run.run, wb=wb).metrics["auc"] == {"value": None, "low": None, "high": None}
    assert get_run(run.run, wb=wb).metrics["r2"]["value"] == 5e-324
    code, out, err = mlworkbench("runs", "--json", "--sort", "auc", cwd=wb.root)
    assert code == 0 and len(json.loads(out)[0]["params"]["text"]) == 1_000_000, err
    json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    code, out, _ = mlworkbench("show", "big", cwd=wb.root)
    assert code == 0 and len(out) < 200_000
    assert list_runs("auc > 0.5", wb=wb) == []


def test_where_cannot_do_more_than_ask(wb):
    run = open_run("one", values={"depth": 6, "a b": "x", "select": 1}, wb=wb)
    log_metric("auc", 0.9, run=run.run, wb=wb)
    assert len(list_runs("depth = 6 AND auc > .5", wb=wb)) == 1
    for where in (
        "1 = 1) UNION SELECT run FROM work.runs; --",
        "true; DELETE FROM work.runs",
        "run IN (SELECT content FROM read_text('/etc/passwd'))",
        "EXISTS (FROM sqlite_scan('work.sqlite', 'runs'))",
        "no_such = 1",
        "depth = ",
        "'",
        "--",
        "true) --",
        "1 = 1 LIMIT 1) x; DROP TABLE runs --",
        "(SELECT count(*) FROM query('FROM work.runs')) > 0",
    ):
        with pytest.raises(UserError):
            list_runs(where, wb=wb)
    assert [r.name for r in list_runs(wb=wb)] == ["one"]


def test_parameters_replace_one_another(wb):
    run = open_run("one", values={"depth": 6}, wb=wb)
    for value in (1, 1.0, "1", True, None, [1], "a\nb'\""):
        log_params(run.run, wb, depth=value)
        again = get_run(run.run, wb=wb).params["depth"]
        assert (again, type(again)) == (value, type(value))


def test_many_runs(wb, torture):
    many = 1000 if torture else 200
    start = time.perf_counter()
    for i in range(5):
        close_run(open_run(f"first-{i}", values={"depth": i}, wb=wb).run, "finished", wb=wb)
    from mlworkbench.core.store import metrics, params, runs, writing

    (model,) = sql("FROM work.runs LIMIT 1", wb=wb).fetchdf().to_dict("records")
    with writing(wb) as db:
        for i in range(many):
            row = {k: v for k, v in model.items()} | {
                "run": f"m{i:08}",
                "name": f"many-{i}",
                "dirty": False,
                "error": None,
                "parent": None,
                "notebook": None,
                "notebook_sha256": None,
                "commit_id": None,
            }
            db.execute(
                runs.insert(), row | {k: row[k].to_pydatetime() for k in ("started", "ended")}
            )
            db.execute(
                params.insert(),
                {"run": row["run"], "name": "depth", "value": str(i % 10), "type": "int"},
            )
            db.execute(
                metrics.insert(),
                {"run": row["run"], "name": "auc", "split": "test", "step": 0, "value": i / many},
            )
    took = time.perf_counter() - start
    start = time.perf_counter()
    found = list_runs(sort="auc", wb=wb)
    print(f"{len(found)} runs made in {took:.1f} s, listed in {time.perf_counter() - start:.2f} s")
    assert len(found) == many + 5 and found[0].name == f"many-{many - 1}"
    assert len(list_runs("depth = 3", wb=wb)) == many // 10 + 1


def test_two_openers_get_two_runs(wb):
    code = "from mlworkbench.execution.opening import open_run, close_run\nfor i in range(10): close_run(open_run('r', wb=wb).run, 'finished', wb=wb)\nprint('done all')"
    started = [python(wb.root, code, wait=False) for _ in range(3)]
    assert [p.communicate(timeout=120)[1] for p in started] == ["", "", ""]
    assert len({r.run for r in list_runs(wb=wb)}) == 30


def test_what_a_query_with_bound_values_reads_is_recorded(wb):
    """Within a run every table of a query is noted, joins, subqueries and parameters included."""
    from mlworkbench.core.current import open_runs
    from mlworkbench.data.commits import write_lake
    from mlworkbench.data.queries import sql
    from mlworkbench.execution.listing import run_details
    from mlworkbench.execution.opening import close_run, open_run

    with write_lake("two tables", wb=wb) as write:
        write.con.execute(
            "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 1 AS x; CREATE TABLE c AS SELECT 1 AS x"
        )
    run = open_run("reads", kind="interactive", wb=wb)
    open_runs.append(run.run)
    try:
        asked = "WITH d AS (FROM lake.b) SELECT * FROM a JOIN d USING (x) WHERE a.x = $x"
        assert sql(asked, params={"x": 1}, wb=wb).fetchall() == [(1,)]
    finally:
        open_runs.clear()
    close_run(run.run, "finished", wb=wb)
    assert set(run_details(run.run, wb)["snapshots"]) == {"a", "b"}


def test_a_run_that_finishes_while_the_dead_are_counted_keeps_its_name(wb, monkeypatch):
    run = open_run(wb=wb)

    def ends(folder):
        close_run(run.run, "finished", wb=wb)
        return False

    monkeypatch.setattr("mlworkbench.execution.liveness.lives", ends)
    assert sweep(wb) == []
    monkeypatch.undo()
    found = get_run(run.run, wb)
    assert (found.name, found.state) == ("job-1", "finished")


def test_a_run_that_logged_a_fact_of_ours_finishes(wb):
    run = open_run("mine", wb=wb)
    log_fact("peak_memory", "a lot", run=run.run, wb=wb)
    settle_run(run.run, "finished", wb=wb, marks={"peak_memory": "1"})
    assert get_run(run.run, wb=wb).state == "finished"
    assert run_details(run.run, wb)["facts"]["peak_memory"] == "1"


def test_a_colleagues_lock_that_cannot_be_opened_counts_as_alive(wb, monkeypatch):
    run, forbidden = open_run("theirs", wb=wb), os.open
    handles = dict(liveness._alive)
    liveness._alive.clear()

    def refuse(path, *how, **more):
        if str(path).endswith(".alive"):
            raise PermissionError(13, "Permission denied")
        return forbidden(path, *how, **more)

    monkeypatch.setattr("mlworkbench.execution.liveness.os.open", refuse)
    assert sweep(wb) == [] and get_run(run.run, wb).state == "running"
    monkeypatch.undo()
    liveness._alive.update(handles)
    close_run(run.run, "finished", wb=wb)


def test_the_code_of_a_run_is_the_whole_repository(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=me", "-c", "user.email=me@example.com")
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    def state():
        surroundings._code_state.cache_clear()
        return surroundings.code_state(tmp_path / "nbs")

    (tmp_path / "nbs").mkdir()
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "latin.txt").write_text("plain\n")
    git("init"), git("add", "-A"), git("commit", "-m", "first")
    assert not state()["dirty"]
    (tmp_path / "helper.py").write_text("x = 2\n")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    found = state()
    assert found["dirty"] and "+x = 2" in found["patch"] and "latin.txt" in found["patch"]
    git("commit", "-am", "second")
    assert not state()["dirty"]
    (tmp_path / "nbs" / "new.py").write_text("y = 1\n")
    found = state()
    assert found["dirty"] and "untracked: nbs/" in found["patch"] and not found["unknown"]
    real = surroundings._git
    monkeypatch.setattr(
        surroundings, "_git", lambda f, e, *w: real(f, e, *w) if "rev-parse" in w else None
    )
    assert state()["dirty"] and "in time" in state()["unknown"]


# what a notebook says, and how


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"value": "abc"}, "value of metric 'auc' is 'abc', which is no number"),
        ({"value": None}, "no number"),
        ({"value": 10**400}, "no number"),
        ({"value": [0.8, 0.9]}, "no number"),
        ({"value": 0.8, "low": "a"}, "low of metric 'auc' is 'a'"),
        ({"value": 0.8, "step": "last"}, "step of metric 'auc' is 'last'"),
        ({"value": 0.8, "step": 1.5}, "step of metric 'auc' is 1.5, which is no whole number"),
        ({"value": 0.8, "step": 10**30}, "no whole number"),
        ({"value": 0.8, "n": "many"}, "n of metric 'auc' is 'many'"),
    ],
)
def test_a_metric_that_is_none_is_refused_and_spoils_no_list(wb, given, said):
    run = open_run("one", wb=wb)
    with pytest.raises(UserError, match=said):
        log_metric("auc", **given, run=run.run, wb=wb)
    log_metric("auc", "0.75", step=2.0, run=run.run, wb=wb)
    close_run(run.run, "finished", wb=wb)
    (found,) = list_runs("auc > 0.5", wb=wb)
    assert found.metrics["auc"]["value"] == 0.75
    assert sql("SELECT step FROM work.metrics", wb=wb).fetchall() == [(2,)]


def test_half_a_character_spoils_no_list(wb):
    run = open_run("caf\udce9", experiment="\ud800", values={"file": "na\udcefve.csv"}, wb=wb)
    log_params(run=run.run, wb=wb, other=["\ud800"], **{"k\ud800": 1})
    log_metric("auc\ud800", 0.5, note="\ud800", run=run.run, wb=wb)
    close_run(run.run, "failed", "cannot open na\udcefve.csv", wb=wb)
    (found,) = list_runs(wb=wb)
    json.dumps(found.as_json(), ensure_ascii=False).encode()
    assert found.params["file"] == "na\\udcefve.csv" and "na\\udcefve.csv" in found.error


def test_secrets_and_card_numbers_hide_in_no_name_number_or_note(wb, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "271828182")
    card, secret = "4111111111111111", 271828182
    about = {"name": f"for {card}", "experiment": card, "values": {"db_password": secret}}
    run = open_run(**about, wb=wb)
    log_params(
        run=run.run, wb=wb, a={card: 1}, b=secret, c=[{"deep": secret}], d=card.encode(),
        e={card}, **{card: 2},
    )  # fmt: skip
    log_metric(card, 1, note=f"of {card}, {secret}", run=run.run, wb=wb)
    for written in (
        "4111.1111.1111.1111",
        "4111\u20111111\u20111111\u20111111",
        "4111\t1111\t1111\t1111",
    ):
        log_text("card.txt", written, "text", run=run.run, wb=wb)
        assert (run.folder / "card.txt").read_text() == "[card …1111]"
    with pytest.raises(UserError, match=r"'\[card …1111\].txt' is not a file's name"):
        log_text(f"{card}.txt", "x", "text", run=run.run, wb=wb)
    close_run(run.run, "finished", wb=wb)
    tables = ("runs", "params", "metrics", "facts", "artifacts")
    held = " ".join(str(sql(f"FROM work.{t}", wb=wb).fetchall()) for t in tables)
    assert card not in held and str(secret) not in held
    assert get_run(run.run, wb=wb).params["c"] == [{"deep": "[secret]"}]


def test_a_parameter_that_is_not_given_is_no_secret(wb):
    run = open_run("one", values={"db_password": None, "api_token": False}, wb=wb)
    close_run(run.run, "failed", "None is False", wb=wb)
    assert get_run(run.run, wb=wb).error == "None is False"


def test_an_unknown_name_in_a_condition_gets_our_candidates_and_sorting_takes_what_some_run_has(wb):
    for name, values, score in (("one", {"depth": 4}, {"auc": 0.8}), ("two", {"depth": 8}, {})):
        run = open_run(name, experiment="e", values=values, wb=wb)
        for metric, value in score.items():
            log_metric(metric, value, run=run.run, wb=wb)
        close_run(run.run, "finished", wb=wb)
    code, _, err = mlworkbench("runs", "--where", "dept = 8", cwd=wb.root)
    assert (code, err) == (2, "error: no run has 'dept'. Did you mean 'depth'?\n")
    with pytest.raises(UserError, match=r"no run has 'AUK'. Did you mean 'auc'"):
        list_runs("AUK > .5", wb=wb)
    code, out, err = mlworkbench("runs", "--where", "depth = 8", "--sort", "auc", cwd=wb.root)
    assert code == 0 and "two" in out and "one" not in out, err


def test_a_blank_experiment_is_none(wb):
    run = open_run("a", experiment=" \n ", wb=wb)
    close_run(run.run, "finished", wb=wb)
    assert [r.experiment for r in list_runs(wb=wb)] == ["default"]
