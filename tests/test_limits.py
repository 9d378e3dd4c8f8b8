"""Notebooks that misbehave: each ends as it should, with one line that says why, and leaves nothing running."""

import datetime as dt
import json
import os
import time
from types import SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest
from faults import mlworkbench, until

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.settings import open_workbench
from mlworkbench.execution.forking import available
from mlworkbench.execution.jobs import prepare_job, run_job, run_prepared
from mlworkbench.execution.journal import log_metric, log_params, log_text
from mlworkbench.execution.limits import Watch, run_limits
from mlworkbench.execution.listing import list_runs, run_details
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.execution.record import get_run, read_run

ROADS = [True] if available() else [True, False]
MARK = "MLW_TEST_MARK"  # in the environment of whatever a test starts


@pytest.fixture(params=ROADS, ids=lambda wire: "papermill" if wire else "forked")
def wire(request) -> bool:
    return request.param


def with_settings(wb, **settings):
    """The workbench with settings of [jobs]."""
    path = wb.root / "settings.ini"
    lines = path.read_text().splitlines()
    for name, value in settings.items():
        lines = [f"{name} = {value}" if x.startswith(f"{name} =") else x for x in lines]
        assert f"{name} = {value}" in lines
    path.write_text("\n".join(lines) + "\n")
    return open_workbench(wb.root)


def book(wb, *cells: str, name: str = "bad"):
    made = [nbformat.v4.new_code_cell(c) for c in cells]
    if "# parameters" in cells[0]:
        made[0].metadata["tags"] = ["parameters"]
    path = wb.root / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def execute(wb, wire, *cells, **given):
    path, values = prepare_job(book(wb, *cells), given, wb)
    return read_run(run_prepared(path, values, wire=wire, wb=wb), wb)


def marked() -> list[int]:
    """The processes that carry this test's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.pid != os.getpid() and MARK in process.environ()
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


FAULTS = {
    "loops": ({"cell_timeout": "2"}, ["x = 1", "while True: pass"], "cell 2 took longer than 2 s"),
    "deaf": (
        {"timeout": "12"},  # a kernel may take some seconds to start
        ["import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)", "time.sleep(300)"],
        "it took longer than 12 s",
    ),
    "forks": (
        {},
        [
            "import subprocess, sys, os\nfor _ in range(3): subprocess.Popen(['sleep', '300'], start_new_session=True)",
            "if not os.fork():\n    import time; time.sleep(300)",
            "1 / 0",
        ],
        "cell 3, line 1: ZeroDivisionError",
    ),
    "eats": (
        {"memory": "600MB"},
        ["held = []\nwhile True: held.append(bytearray(20_000_000))"],
        "more than 600 MB of memory",
    ),
    "kills": ({}, ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"], "the kernel died"),
    "leaves": ({}, ["import os\nos._exit(0)"], "the kernel died"),
    "syntax": ({}, ["x = 1", "def f(:\n  pass"], "cell 2, line 1: SyntaxError"),
    "asks": ({}, ["name = input('who? ')"], "cell 1, line 1: StdinNotImplementedError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_notebook_that_misbehaves_ends_with_one_line(wb, wire, fault, monkeypatch):
    settings, cells, said = FAULTS[fault]
    wb = with_settings(wb, **settings)
    monkeypatch.setenv(MARK, str(time.time_ns()))
    with pytest.raises(WorkbenchError) as error:
        execute(wb, wire, *cells)
    assert said in str(error.value) and "\n" not in str(error.value)
    (run,) = list_runs(wb=wb)
    assert run.state == "failed" and said in run.error and run.name == "bad-1-failed"
    assert not (run.folder / "progress.json").exists()
    nbformat.read(run.folder / "notebook.ipynb", 4)
    assert until(lambda: not marked(), 30), [psutil.Process(p) for p in marked()]


def test_a_limit_that_is_reached_while_the_kernel_starts_is_the_reason(wb):
    wb = with_settings(wb, timeout="0.01", kernel="python3")
    with pytest.raises(WorkbenchError, match="took longer than 0.01 s") as error:
        execute(wb, True, "x = 1")
    assert "died" not in str(error.value)
    assert [r.state for r in list_runs(wb=wb)] == ["failed"]


def test_an_error_without_a_word_has_no_colon_and_a_place_stands_once(wb, wire, monkeypatch):
    with pytest.raises(WorkbenchError, match=r"cell 2, line 1: KeyError\. See "):
        execute(wb, wire, "x = 1", "raise KeyError")
    assert list_runs(wb=wb)[0].error.endswith("cell 2, line 1: KeyError")
    monkeypatch.chdir(wb.root)
    with pytest.raises(UserError) as error:
        prepare_job("nowhere.ipynb", {}, wb)
    assert str(error.value).count(str(wb.root)) == 1


def test_a_cell_has_the_number_that_its_author_counts(wb, wire):
    """The cell with the parameters of a run is in nobody's notebook but the executed one."""
    cells = ["# parameters\nn: int = 0", "x = 1", "# the third\n1 / n"]
    path = book(wb, *cells)
    nb = nbformat.read(path, 4)
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("# What it is"))
    nbformat.write(nb, path)
    path, values = prepare_job(path, {"n": 0}, wb)
    said = []
    with pytest.raises(WorkbenchError, match="failed in cell 3, line 2: ZeroDivisionError"):
        tell = lambda done, text: said.append(text)  # noqa: E731
        run_prepared(path, values, wire=wire, wb=wb, progress=tell)
    assert all("of 3" in text for text in said) and (not wire or "cell 3 of 3: 1 / n" in said)
    (run,) = list_runs(wb=wb)
    code, out, err = mlworkbench("show", run.run, "--code", cwd=wb.root)
    assert code == 0 and "# %% cell 3\n# the third" in out, err


def test_what_a_cell_tells_of_itself_is_heard_while_it_works(wb, wire):
    code = """import time
from mlworkbench.execution.journal import show_progress
show_progress(0.5, "6 of 12 trials done, best auc 0.9274")
time.sleep(2)"""
    path, values = prepare_job(book(wb, "x = 1", code), {}, wb)
    said = []
    run_prepared(
        path, values, wire=wire, wb=wb, progress=lambda done, text: said.append((done, text))
    )
    assert (0.75, "cell 2 of 2: 6 of 12 trials done, best auc 0.9274") in said


def test_two_hundred_megabytes_of_output_are_counted_not_kept(wb, wire):
    wb = with_settings(wb, output="100KB")
    lines = 200 if wire else 2000  # messages are slower than text
    run = execute(wb, wire, f"for _ in range({lines}): print('x' * 100_000)", "print('end')")
    cells = nbformat.read(run.folder / "notebook.ipynb", 4).cells
    assert (run.folder / "notebook.ipynb").stat().st_size < 1_000_000
    assert "more characters were not kept" in cells[0].outputs[-1].text
    assert cells[1].outputs[0].text == "end\n"


def test_what_is_printed_does_not_gather_in_the_kernel(wb, wire):
    peak = (
        "import resource; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000"
    )
    run = execute(
        wb,
        wire,
        f"{peak}\nbefore = peak()",
        "for _ in range(2000): print('x' * 100_000)",
        "print(peak() - before)",
    )
    shown = nbformat.read(run.folder / "notebook.ipynb", 4).cells[-1].outputs
    assert int(shown[0].text) < 150, "of 200 MB that were printed"


def test_a_notebook_may_change_its_folder_its_environment_and_its_streams(wb, wire, tmp_path):
    before = (os.getcwd(), dict(os.environ))
    run = execute(
        wb,
        wire,
        f"import os, sys, logging; os.chdir({str(tmp_path)!r}); os.environ['CHANGED'] = 'yes'",
        "open('here', 'w').close(); os.environ.pop('MLWORKBENCH_RUN'); del os.environ['HOME']",
        "os.system('echo past python'); print('still'); sys.stderr.write('told')",
    )
    assert (os.getcwd(), dict(os.environ)) == before and (tmp_path / "here").exists()
    shown = nbformat.read(run.folder / "notebook.ipynb", 4).cells[2].outputs
    text = "".join(o.get("text", "") for o in shown)
    # in a kernel what bypasses Python may come after its cell has ended: a race of ipykernel's
    words = ("still", "told") if wire else ("past python", "still", "told")
    assert run.state == "finished" and all(word in text for word in words), text


def test_widgets_figures_and_displays_are_kept(wb, wire):
    run = execute(
        wb,
        wire,
        "import ipywidgets; ipywidgets.IntSlider(3)",
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
        "from IPython.display import display, clear_output\nd = display('old', display_id=True)\nd.update('new')",
        "print('gone'); clear_output(); print('kept')",
        "import asyncio; await asyncio.sleep(0)\n%time 1",
        "import pandas as pd; pd.DataFrame({'a': [1]})",
    )
    cells = nbformat.read(run.folder / "notebook.ipynb", 4).cells
    assert "application/vnd.jupyter.widget-view+json" in cells[0].outputs[0].data
    assert "image/png" in cells[1].outputs[-1].data
    assert [o.data["text/plain"] for o in cells[2].outputs] == ["'new'"]
    assert [o.text for o in cells[3].outputs] == ["kept\n"]
    assert "text/html" in cells[5].outputs[0].data and cells[5].outputs[0].execution_count == 6


@pytest.mark.parametrize("name", ["text.ipynb", "list.ipynb", "old.ipynb"])
def test_what_is_no_notebook_is_refused_before_anything_starts(wb, name):
    what = {"text.ipynb": "hello", "list.ipynb": "[1]", "old.ipynb": '{"worksheets": []}'}
    (wb.root / name).write_text(what[name])
    with pytest.raises(UserError, match="not a notebook"):
        prepare_job(name, {}, wb)
    assert list_runs(wb=wb) == []


INJECTIONS = [
    "'; raise SystemExit #",
    '"""\nraise SystemExit\n"""',
    "\\'; raise SystemExit #",
    "{{raise}}",
    "\u2028raise SystemExit",
    "line\nraise SystemExit",
    "nul\0",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
]


def test_a_parameter_is_a_value_and_never_code(wb, wire):
    cells = ["# parameters\nvalue: list = []", "import json; print(json.dumps(value))"]
    run = execute(wb, wire, *cells, value=INJECTIONS)
    shown = nbformat.read(run.folder / "notebook.ipynb", 4).cells[2].outputs[0].text
    assert json.loads(shown) == INJECTIONS and run.params["value"] == INJECTIONS


def files_with(folder, *words: str) -> list[str]:
    """The files below a folder in which one of the words stands."""
    return [
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and any(w.encode() in p.read_bytes() for w in words)
    ]


def test_secrets_and_card_numbers_reach_no_file(wb, wire, monkeypatch):
    monkeypatch.setenv("SHOP_API_KEY", "swordfish-<7>")
    card, other = "4111111111111111", "5555 5555 5555 4444"
    path = book(
        wb,
        "# parameters\ndb_password: str = ''\nowner: str = ''",
        "import os, sys, matplotlib.pyplot as plt, plotly.graph_objects as go, mlworkbench as mw\n"
        "from IPython.display import HTML, SVG, display",
        "print(db_password, end=''); print(owner); print(os.environ['SHOP_API_KEY'], file=sys.stderr)",
        "card = '-'.join(['5555', '5555', '5555', '4444'])\ndisplay(HTML(f'<b>{db_password}</b> {card}'))",
        "figure = go.Figure(go.Scatter(x=[int(owner), 1], y=[0.5, 2], text=[db_password, 'b'])); figure",
        "mw.log_figure('plotly', figure)\nfig, ax = plt.subplots(); ax.set_title(owner)\n"
        "mw.log_figure('drawn', fig); mw.log_params(key=os.environ['SHOP_API_KEY'])",
        "os.system('echo $SHOP_API_KEY'); os.write(2, owner.encode())",
        "assert len(owner) == 16 and owner.startswith('4111'), 'the parameter came cleaned'",
        "raise ValueError(f'cannot log in with {db_password} for {owner}')",
    )
    path, values = prepare_job(path, {"db_password": "hunter two", "owner": card}, wb)
    with pytest.raises(WorkbenchError, match=r"\[secret\] for \[card …1111\]"):
        run_prepared(path, values, wire=wire, wb=wb)
    words = ("hunter two", "swordfish", card, other, other.replace(" ", "-"))
    assert files_with(wb.root, *words) == []
    (run,) = list_runs(wb=wb)
    assert run.params["db_password"] == "[secret]" and run.params["owner"] == "[card …1111]"
    assert {"plotly.plotly.json", "drawn.svg"} <= {f["path"] for f in run_details(run, wb)["files"]}
    assert "[card …1111]" in (run.folder / "drawn.svg").read_text()
    assert "cell 9" in run.error


def test_a_card_number_in_pieces_or_beside_a_letter_reaches_no_file(wb, wire):
    """It may come in two flushes, with markup in its middle, or right after a word; what is hashed stays."""
    hashed = "ab" * 12 + "4111111111111111" + "cd" * 12
    path = book(
        wb,
        "import sys, time\ndef say(*parts):\n    for part in parts: print(part, end='', flush=True); time.sleep(0.3)",
        "say('4111 1111 ', '1111 1111', '\\n')",
        "say('first\\n5555', '5555', '55554444\\nlast')",
        "print('c' + 'ard' + '4012888888881881' + 'EUR')",
        "from IPython.display import HTML; HTML('<b>3782</b>822<i style=\"color:red\">46310005</i>')",
        f"print({hashed[:30]!r} + {hashed[30:]!r})",
    )
    run = run_prepared(path, {}, wire=wire, wb=wb)
    nb = nbformat.read(get_run(run, wb=wb).folder / "notebook.ipynb", 4)
    said = ["".join(o.get("text", o.get("data", {}).get("text/html", ""))
            for o in c.outputs) for c in nb.cells]  # fmt: skip
    assert said[1:5] == [
        "[card …1111]\n", "first\n[card …4444]\nlast", "card[card …1881]EUR\n",
        '<b>[card …0005]</b><i style="color:red"></i>',
    ]  # fmt: skip
    assert said[5] == hashed + "\n"


def test_a_full_disk_ends_no_watch_and_is_named(wb, tmp_path, monkeypatch):
    watch = Watch(os.getpid(), tmp_path / "a folder that cannot be written", run_limits(wb))
    watch.every = 0
    assert watch.look() == "" and len(watch.samples) == 1  # and no error in its thread
    for name in ("work.sqlite-wal", "work.sqlite-shm"):
        (wb.root / name).unlink(missing_ok=True)
    (wb.root / "work.sqlite").write_text("no database" * 1000)
    with pytest.raises(WorkbenchError, match="Try `mlworkbench doctor`"):
        list_runs(wb=wb)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=4096))
    with pytest.raises(WorkbenchError, match="The disk is full: make room"):
        list_runs(wb=wb)


def test_a_run_declared_dead_takes_nothing_more(wb):
    run = open_run("one", wb=wb)
    log_metric("auc", 0.5, run=run.run, wb=wb)
    close_run(run.run, "interrupted", wb=wb)
    for write in (
        lambda: log_metric("auc", 0.9, run=run.run, wb=wb),
        lambda: log_params(run.run, wb, depth=3),
        lambda: log_text("late.txt", "late", "note", run=run.run, wb=wb),
    ):
        with pytest.raises(WorkbenchError, match="declared interrupted"):
            write()
    assert get_run(run.run, wb=wb).metrics["auc"]["value"] == 0.5


def test_a_failed_run_gives_its_number_back(wb):
    opened = lambda: open_run(notebook=book(wb, "x = 1", name="train"), wb=wb)  # noqa: E731
    first = opened()
    assert first.name == "train-1"
    assert close_run(first.run, "failed", wb=wb).name == "train-1-failed"
    again, other = opened(), opened()
    assert (again.name, other.name) == ("train-1", "train-2")
    assert close_run(again.run, "cancelled", wb=wb).name == "train-1-failed-2"
    assert close_run(other.run, "finished", wb=wb).name == "train-2"
    assert opened().name == "train-3"
    named = open_run("mine-1", wb=wb)
    assert close_run(named.run, "failed", wb=wb).name == "mine-1"


def test_usage_is_sampled(wb, wire):
    run = execute(wb, wire, "import time\nend = time.time() + 3\nwhile time.time() < end: pass")
    seen = json.loads((run.folder / "usage.json").read_text())
    assert len(seen["seconds"]) >= 1 and max(seen["cpu"]) > 0.3 and max(seen["memory"]) > 10_000_000
    assert int(run_details(run, wb)["facts"]["peak_memory"]) > 10_000_000


@pytest.mark.parametrize(
    "text",
    [
        '{"nbformat": 4, "nbformat_minor": 5, "cells": []}',
        '{"nbformat": 9, "nbformat_minor": 5, "metadata": {}, "cells": []}',
        '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "source": ""}]}',
    ],
)
def test_half_a_notebook_is_refused_before_anything_runs(wb, text):
    path = wb.root / "half.ipynb"
    path.write_text(text)
    with pytest.raises(UserError, match="not a whole notebook"):
        run_job(path, {}, wb=wb)
    assert list_runs(wb=wb) == []


@pytest.mark.parametrize(
    "value", [{1}, b"x", object(), [{1}], {"a": b"x"}, "half \ud800", ["\ud800"], 1j]
)
def test_a_value_that_no_record_can_hold_is_refused_before_anything_starts(wb, value):
    with pytest.raises(UserError, match="n is .* that no record of a run can hold"):
        prepare_job(book(wb, "# parameters\nn = None"), {"n": value}, wb)


@pytest.mark.parametrize(
    ("cell", "given", "taken"),
    [
        ("n = None", np.int64(3), 3),
        ("n: float = 1", np.float32(0.5), 0.5),
        ("n = False", np.bool_(True), True),
        ("n = []", [np.int64(3), np.float64(0.5)], [3, 0.5]),
        ("n = ''", dt.date(2018, 9, 1), "2018-09-01"),
        ("n = None", dt.datetime(2018, 9, 1, 12), "2018-09-01 12:00:00"),
        ("n = 0", "9007199254740993", 2**53 + 1),
        ("n = 0", "1e3", 1000),
        ("%matplotlib inline\nn = 0", "4", 4),
        ("n: Literal[KINDS] = 'a'", "b", "b"),
        ("n: Annotated[int, Field(ge=LOW, le=9)] = 3", "-4", -4),
        ("n: Annotated[str, (1, 5)] = 'a'", "b", "b"),
        ("n: Literal[1, 1.5] = 1", "1.5", 1.5),
        ("x = {[]: 1}\ns = {1}\nb = b'x'\nn = 1", "2", 2),
    ],
)
def test_a_value_arrives_as_it_was_meant(wb, cell, given, taken):
    values = prepare_job(book(wb, f"# parameters\n{cell}"), {"n": given}, wb)[1]
    assert values == {"n": taken} and type(values["n"]) is type(taken)
    json.dumps(values)
