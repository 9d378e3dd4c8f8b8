"""A run that fails keeps its kernel: entered, resumed, refused, ended; and what the record says of it."""

import contextlib
import json
import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
from faults import kill, mlworkbench, until
from jupyter_client import BlockingKernelClient

import mlworkbench as mw
from mlworkbench.core.audit import list_events
from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.settings import open_workbench
from mlworkbench.desk.cli import cli
from mlworkbench.desk.commands import run_command
from mlworkbench.desk.examining import doctor, mend
from mlworkbench.execution import resuming
from mlworkbench.execution.again import cancel_run, rerun, run_source
from mlworkbench.execution.listing import list_runs, run_details
from mlworkbench.execution.parked import read_parked
from mlworkbench.execution.resuming import parked_kernel

COUNTED = "with open('count', 'a') as f:\n    print('executed', file=f)\n"
LOG = """
import catboost, mlworkbench as mw
model = catboost.CatBoostRegressor(iterations=1, verbose=False, allow_writing_files=False)
about = {"task": "regression", "classes": [], "table": "t", "target": "y", "features": {"a": "number"}}
mw.log_model(model.fit([[1.0], [2.0]], [0, 1]), about)
mw.log_metric('result', result)
"""


@pytest.fixture(autouse=True)
def nothing_stays(wb):
    """A kernel that a failed test has left waiting ends with it."""
    yield
    for run in list_runs(wb=wb):
        if run.state == "parked":
            cancel_run(run, seconds=60, wb=wb)


def notebook(wb, *cells: str) -> None:
    made = [nbformat.v4.new_code_cell(c) for c in cells]
    if "depth: int" in cells[0]:
        made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made), wb.root / "long.ipynb")


def park(wb, *cells: str, minutes: float = 30, **params):
    """Run a notebook that fails; the run."""
    notebook(wb, *cells)
    with pytest.raises(WorkbenchError, match="failed in cell"):
        mw.run("long.ipynb", park=minutes, wb=wb, **params)
    return list_runs(wb=wb)[-1]


def settings(wb, **values: str):
    """The workbench with other settings of jobs."""
    text = (wb.root / "settings.ini").read_text()
    for name, value in values.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    (wb.root / "settings.ini").write_text(text)
    return open_workbench(wb.root)


def command(wb, capsys, *words: str) -> tuple[int, str, str]:
    """The command line in this process: its code, and what it says."""
    capsys.readouterr()
    code = run_command(cli, [*words, "--workbench", str(wb.root)])
    return code, *capsys.readouterr()


@contextlib.contextmanager
def entered(run):
    """A client of a parked run's kernel, as a console is one."""
    client = BlockingKernelClient()
    client.load_connection_file(read_parked(run).connection)
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()


def value(client, expression: str) -> str:
    said = client.execute(
        "", silent=True, user_expressions={"x": expression}, reply=True, timeout=60
    )
    return said["content"]["user_expressions"]["x"]["data"]["text/plain"]


def gone(*pids: int) -> bool:
    """Whether processes have ended, in time."""
    alive = lambda p: psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"  # noqa: E731
    return bool(until(lambda: not any(map(alive, pids)), 30))


def test_a_run_goes_on_from_the_failed_cell_with_what_was_typed(wb):
    first, second = "depth: int = 0\napi_token: str = ''", COUNTED + "loaded = depth + 2"
    log, last = LOG, "print('the token is', api_token)"
    token = "open-sesame-1234"
    run = park(wb, first, second, "result = loaded / 0", log, depth=40, api_token=token)
    assert run.state == "parked" and "ZeroDivisionError" in run.error
    assert Path(read_parked(run).connection).stat().st_mode & 0o077 == 0
    with entered(run) as client:
        assert value(client, "loaded") == "42"
        client.execute("loaded = 84", reply=True, timeout=60)
        client.execute("exit", reply=True, timeout=60)  # the console, not the kernel
    with entered(run) as client:
        assert value(client, "loaded") == "84"
    notebook(wb, first, second, "result = loaded / 2", "raise ValueError('again')", last)
    with pytest.raises(WorkbenchError, match="ValueError: again.* is parked until"):
        mw.resume(run, wb=wb)
    notebook(wb, first, second, "result = loaded / 2", log, last)
    done = mw.resume(run, wb=wb)
    assert (done.run, done.state, done.name) == (run.run, "finished", run.name)
    assert done.metrics["result"]["value"] == 42.0
    assert (wb.root / "count").read_text() == "executed\n"
    known = run_details(run, wb)
    assert "ZeroDivisionError" in known["facts"]["attempt_1"]
    assert "ValueError: again" in known["facts"]["attempt_2"]
    assert known["facts"]["resumed"].startswith("from cell 4")  # as its author counts
    assert known["facts"]["entered"].startswith("before attempt 2: 2 inputs typed")
    assert {"attempt-1.ipynb", "attempt-2.ipynb"} <= {f["path"] for f in known["files"]}
    assert run_source(run, wb)["cells"][-1] == last
    assert [e["action"] for e in list_events(run.run, wb)] == ["resume", "resume"]
    executed = (run.folder / "notebook.ipynb").read_text()
    assert token not in executed and "the token is [secret]" in executed
    assert not (run.folder / "parked.json").exists() and doctor(wb)["well"]


@pytest.mark.parametrize("touched", [False, True])
def test_a_resumed_run_is_registered_once_a_whole_one_came_out_the_same(wb, touched):
    first, second = COUNTED + "loaded = 42", "import mlworkbench as mw"
    run = park(wb, first, second, "result = loaded / 0", LOG)
    if touched:
        with entered(run) as client:
            client.execute("loaded = 84", reply=True, timeout=60)
    notebook(wb, first, second, "result = loaded / 2", LOG)
    mw.resume(run, wb=wb)
    with pytest.raises(UserError) as refused:
        mw.register(run, "m", wb=wb)
    assert "no whole run" in refused.value.message and "mlworkbench rerun" in refused.value.hint
    whole = rerun(run, wb=wb)
    assert (wb.root / "count").read_text() == "executed\n" * 2
    if touched:
        with pytest.raises(UserError, match=f"rerun is different, run {whole.run}: result on test"):
            mw.register(run, "m", wb=wb)
        return
    assert run_details(run, wb)["facts"]["whole_rerun"] == f"identical, run {whole.run}"
    assert mw.register(run, "m", wb=wb).run == run.run


def test_a_changed_cell_before_the_failed_one_is_refused_and_cancel_ends_the_kernel(wb, capsys):
    child = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])"
    run = park(wb, "loaded = 1", child, "1 / 0")
    notebook(wb, "loaded = 1", child + "  # mended", "1 / 1")
    code, out, err = command(wb, capsys, "resume", run.run, "--json")
    assert code == 2 and "cell 2 (import subprocess) has changed" in json.loads(out)["error"]
    assert "rerun" in err
    with entered(run) as client:
        pids = [int(value(client, e)) for e in ("__import__('os').getpid()", "child.pid")]
    [finding] = doctor(wb)["findings"]
    assert "is parked until" in finding["what"] and run.run in finding["mend"]
    parked = read_parked(run)
    assert cancel_run(run, seconds=60, wb=wb).state == "cancelled"
    assert gone(*pids) and not Path(parked.connection).exists() and not Path(parked.door).exists()
    assert doctor(wb)["well"]
    with pytest.raises(UserError, match="is cancelled, not parked"):
        parked_kernel(run, wb)


def test_a_kernel_past_its_time_ends_with_its_children(wb):
    wb = settings(wb, kernel="python3")  # forked ones have a server that sweeps after them
    child = (
        "import os, subprocess\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True)"
    )
    keep = "open('pids', 'w').write(f'{os.getpid()} {child.pid}')"
    run = park(wb, child, keep, "1 / 0", minutes=0.02)
    assert until(lambda: mw.get(run, wb=wb).state == "failed", 60)
    assert gone(*map(int, (wb.root / "pids").read_text().split()))
    found = mw.get(run, wb=wb)
    assert found.name == run.name == "long-1" and "ZeroDivisionError" in found.error
    assert doctor(wb)["well"]


def test_a_killed_holder_takes_the_kernel_along_and_the_run_starts_over(wb, capsys):
    wb = settings(wb, kernel="python3")
    run = park(wb, COUNTED + "import os", "loaded = 1", "1 / 0", minutes=7)
    with entered(run) as client:
        kernel = int(value(client, "os.getpid()"))
    [holder] = (
        p.pid
        for p in psutil.process_iter(["open_files"])
        if any(f.path == str(run.folder / "kernel.log") for f in p.info["open_files"] or [])
        and "be_holder" in " ".join(p.cmdline())
    )
    os.kill(holder, signal.SIGKILL)
    assert gone(holder, kernel)
    assert mw.get(run, wb=wb).state == "failed" and "ZeroDivisionError" in mw.get(run, wb=wb).error
    assert any("parked kernels that are gone" in f["what"] for f in doctor(wb)["findings"])
    assert mend(wb)["well"]
    notebook(wb, COUNTED + "import os  # and more", "loaded = 2", "1 / loaded")
    done = mw.resume("long-1", wb=wb)  # as its user was told
    known = run_details(done, wb)["facts"]
    assert (done.name, done.state) == ("long-2", "finished") and done.run != run.run
    assert f"run {run.run} failed in cell 3" in known["attempt_1"] and known["park_minutes"] == "7"
    assert (wb.root / "count").read_text() == "executed\n" * 2 and "resumed" not in known
    shown = {name: command(wb, capsys, "show", name)[1] for name in ("long-1", "long-2")}
    assert f"resumed as: long-2 ({done.run}) finished" in shown["long-1"]
    assert f"resumed from the start of: long-1 ({run.run}) failed" in shown["long-2"]
    code, _, err = command(wb, capsys, "resume", "long-1")
    assert code == 2 and f"was resumed as long-2 ({done.run}), which is finished" in err
    assert len(list_runs(wb=wb)) == 2


def test_a_run_that_is_being_resumed_says_so(wb, capsys):
    run = park(wb, "loaded = 1", "1 / 0")
    wait = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)"
    notebook(wb, "loaded = 1", wait)
    with ThreadPoolExecutor(1) as pool:
        resumed = pool.submit(mw.resume, run, wb=wb)
        try:
            assert until(lambda: mw.get(run, wb=wb).state == "running")
            for verb in ("resume", "enter"):
                code, _, err = command(wb, capsys, verb, run.run)
                assert code == 2 and re.search(r"is being resumed since \d\d:\d\d\. Wait", err), err
                assert f"mlworkbench cancel {run.run}" in err
        finally:
            (wb.root / "go").touch()
        assert resumed.result().state == "finished"


def test_limits_hold_in_what_is_resumed_but_not_while_it_waits(wb):
    wb = settings(wb, cell_timeout="3")
    run = park(wb, "loaded = 1", "1 / 0")
    with entered(run) as client:
        client.execute("import time; time.sleep(4)", reply=True, timeout=60)
    assert mw.get(run, wb=wb).state == "parked"
    notebook(wb, "loaded = 1", "while True: pass")
    with pytest.raises(WorkbenchError, match="cell 2 took longer than 3 s"):
        mw.resume(run, wb=wb)
    assert mw.get(run, wb=wb).state == "failed"
    assert not json.loads((run.folder / "notebook.ipynb").read_text())["cells"][1]["outputs"]


def test_the_command_returns_at_once_and_takes_the_run_along_when_it_is_killed(wb, capsys):
    said = "import os, time\nwith open('pid', 'w') as f:\n    print(os.getpid(), file=f)\n"
    notebook(wb, "loaded = 1", said + "time.sleep(600)")
    process = mlworkbench("run", "long.ipynb", "--park", "30", cwd=wb.root, wait=False)
    try:
        pid = wb.root / "pid"
        assert until(lambda: pid.exists() and pid.read_text().endswith("\n"), 90)
        kill(process)
        assert until(lambda: list_runs(wb=wb)[-1].state == "interrupted", 60)
        assert gone(int(pid.read_text()))
    finally:
        kill(process)
    notebook(wb, "loaded = 1", "1 / 0")
    code, _, err = command(wb, capsys, "run", str(wb.root / "long.ipynb"), "--park", "30")
    run = list_runs(wb=wb)[-1]
    assert code == 1 and f"mlworkbench resume {run.run}" in err
    _, out, _ = command(wb, capsys, "enter", run.run, "--json")
    assert json.loads(out)["connection"] == read_parked(run).connection
    assert "parked until" in command(wb, capsys, "runs")[1]
    assert f"mlworkbench enter {run.run}" in command(wb, capsys, "show", run.run)[1]


def test_of_two_who_resume_in_the_same_instant_one_is_refused(wb, monkeypatch):
    """Both have seen that nobody resumes it; the record has one next attempt all the same."""
    notebook(wb, "import pathlib\nassert pathlib.Path('mended').exists()")
    with pytest.raises(WorkbenchError, match="failed in cell"):
        mw.run("long.ipynb", wb=wb)
    (failed,) = list_runs(wb=wb)
    (wb.root / "mended").touch()
    both, looks = threading.Barrier(2), resuming._newest_attempt

    def look(run, wb):
        found = looks(run, wb)
        both.wait(60)
        return found

    monkeypatch.setattr(resuming, "_newest_attempt", look)

    def resume(_):
        try:
            return resuming.resume_run(failed, wb).state
        except UserError as error:
            return error.message

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(resume, range(2)))
    later = [r for r in list_runs(wb=wb) if r.run != failed.run]
    assert [r.state for r in later] == ["finished"]
    assert said == ["finished", f"run {failed.run} was resumed already, as {later[0].name} ({later[0].run})"]  # fmt: skip
