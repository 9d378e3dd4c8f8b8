"""Pipelines through the command line: what is up to date is skipped, what broke goes on."""

import json

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
from faults import kill, mlworkbench, until

import mlworkbench as mw
from mlworkbench.data.simulation import simulate_cards
from mlworkbench.execution.pipelines import as_graph

DAILY = """
score: {run: score, after: train, table: cards, model: fraud@champion, to: scores}
train: {run: train, after: views, table: cards, target: is_fraud, view: handbook, iterations: 10}
views: {run: build, after: cards, view: handbook}
cards: {run: ingest, source: "new/*.parquet", table: cards, key: transaction_id}
"""


def pipeline(wb, text, name="daily"):
    (wb.root / "pipelines").mkdir(exist_ok=True)
    (wb.root / "pipelines" / f"{name}.yaml").write_text(text)


def book(wb, name, *cells):
    cells = [nbformat.v4.new_code_cell(c) for c in cells]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), wb.root / f"{name}.ipynb")


def run(wb, *words):
    code, out, err = mlworkbench("pipeline", "run", *words, "--json", cwd=wb.root)
    return code, json.loads(out), err


def states(found):
    return {s["step"]: s["state"] for s in found["steps"]}


def test_from_files_to_a_model_and_only_what_changed_again(wb):
    world = simulate_cards(80, 100, 50, 3).drop_columns(["scenario"])
    (wb.root / "new").mkdir()
    pq.write_table(world.slice(0, world.num_rows - 50), wb.root / "new" / "may.parquet")
    pipeline(wb, "\n".join(DAILY.strip().splitlines()[1:]))
    code, found, err = run(wb, "daily")
    assert code == 0, err
    assert states(found) == dict.fromkeys(("cards", "views", "train"), "finished")
    assert states(run(wb, "daily")[1]) == dict.fromkeys(("cards", "views", "train"), "reused")
    pq.write_table(world.slice(world.num_rows - 50), wb.root / "new" / "june.parquet")
    changed = run(wb, "daily")[1]
    assert states(changed) == dict.fromkeys(("cards", "views", "train"), "finished")
    assert mw.sql("select count(*) from handbook", wb=wb).fetchone()[0] == world.num_rows
    # a step that rests on the champion goes on when there is one
    pipeline(wb, DAILY)
    assert run(wb, "daily")[0] == 1
    trained = next(s["run"] for s in changed["steps"] if s["step"] == "train")
    mw.register(trained, "fraud", wb=wb)
    asked = mw.promote("fraud@1", to="champion", reason="a test", wb=wb)
    mw.approve(asked.request, reason="a test", wb=wb)
    now = dict.fromkeys(("cards", "views", "train"), "reused")
    assert states(run(wb, "daily")[1]) == now | {"score": "finished"}
    assert states(run(wb, "daily")[1]) == now | {"score": "reused"}
    text = mlworkbench("pipeline", "show", "daily", "--graph", cwd=wb.root)[1]
    assert text.startswith("graph LR") and "= score" in text


def test_what_failed_goes_on_in_the_middle(wb):
    book(wb, "one", "x: int = 1", "import mlworkbench as mw\nmw.log_metric('x', x)")
    book(wb, "two", "of: str = ''", "assert open('there').read() == 'yes'")
    pipeline(wb, "two: {run: two.ipynb, of: '{one}'}\none: {run: one.ipynb, x: 3}")
    code, found, err = run(wb, "daily")
    assert code == 1 and "step two" in found["error"] and "cell 2" in found["error"], found
    shown = json.loads(mlworkbench("pipeline", "show", "daily", "--json", cwd=wb.root)[1])
    assert (states(shown), shown["state"]) == ({"one": "finished", "two": "failed"}, "failed")
    (wb.root / "there").write_text("yes")
    code, found, _ = run(wb, "daily")
    assert code == 0 and states(found) == {"one": "reused", "two": "finished"}
    assert states(run(wb, "daily", "--force")[1]) == {"one": "finished", "two": "finished"}


def test_a_pipeline_killed_in_the_middle_is_interrupted_and_goes_on(wb):
    book(wb, "one", "x: int = 1", "x")
    book(
        wb, "two", "of: str = ''", "import os, time\nwhile not os.path.exists('go'): time.sleep(.1)"
    )
    pipeline(wb, "two: {run: two.ipynb, of: '{one}'}\none: {run: one.ipynb, x: 3}")
    process = mlworkbench("pipeline", "run", "daily", cwd=wb.root, wait=False)
    busy = "notebook like '%two.ipynb' and state = 'running'"
    assert until(lambda: mw.runs(busy, wb=wb), 120)
    kill(process)
    shown = json.loads(mlworkbench("pipeline", "show", "daily", "--json", cwd=wb.root)[1])
    assert shown["state"] == "interrupted" and states(shown)["one"] == "finished"
    (wb.root / "go").touch()
    code, found, err = run(wb, "daily")
    assert code == 0 and states(found) == {"one": "reused", "two": "finished"}, err
    finished = mw.runs("state = 'finished' and kind = 'job'", wb=wb)
    assert len(finished) == 2  # none doubled, none lost


def test_mistakes_are_seen_before_anything_begins(wb):
    book(wb, "one", "x: int = 1", "x")
    pipeline(wb, "one: {run: one.ipynb, y: 3}")
    for name, said in (
        ("daily", "step 'one': there is no parameter 'y'"),
        ("dayly", "Did you mean"),
    ):
        code, found, err = run(wb, name)
        assert code == 2 and said in err and len(err.strip().splitlines()) == 1
    for text in (
        "one: 3",
        "one: {run: one.ipynb, after: two}",
        "one: [",
        "one: {run: nothing}",
        "one: {run: one.ipynb, after: 3}",
    ):
        pipeline(wb, text)
        assert run(wb, "daily")[0] == 2
    pipeline(wb, "one: {run: one.ipynb}\none: {run: one.ipynb, x: 2}")  # the first would never run
    code, found, err = run(wb, "daily")
    assert code == 2 and "'one' stands there twice" in err and len(err.strip().splitlines()) == 1
    assert run(wb, "../daily")[0] == 2
    assert mw.runs(wb=wb) == []


def test_a_run_that_read_files_is_used_again_only_while_they_are_the_same(wb):
    pq.write_table(pa.table({"x": [1]}), wb.root / "a.parquet")
    code = "import mlworkbench as mw\nmw.log_source('*.parquet')"
    book(wb, "reads", "x: int = 1", code)
    grid = lambda: mw.grid("reads.ipynb", x=[1], wb=wb)  # noqa: E731
    assert len(grid().runs) == 1 and len(grid().reused) == 1
    pq.write_table(pa.table({"x": [2]}), wb.root / "b.parquet")
    assert len(grid().runs) == 1


def test_two_pipelines_at_once_execute_each_step_once_and_each_shows_its_own(wb):
    waits = "import os, time\nopen('began', 'w').close()\nwhile not os.path.exists('go'): time.sleep(.1)"
    book(wb, "one", "x: int = 1", waits)
    book(wb, "two", "of: str = ''", "of")
    pipeline(wb, "two: {run: two.ipynb, of: '{one}'}\none: {run: one.ipynb, x: 3}")
    words = ("pipeline", "run", "daily", "--json")
    first = mlworkbench(*words, cwd=wb.root, wait=False)
    try:
        assert until((wb.root / "began").exists, 120)
        second = mlworkbench(*words, cwd=wb.root, wait=False)
        pipelines = "kind = 'pipeline' and state = 'running'"
        assert until(lambda: len(mw.runs(pipelines, wb=wb)) == 2, 120)
    finally:
        (wb.root / "go").touch()
    both = [json.loads(process.communicate(timeout=300)[0]) for process in (first, second)]
    assert [found["state"] for found in both] == ["finished"] * 2
    assert states(both[0])["one"] == "finished" and states(both[1])["one"] == "reused"
    assert len(mw.runs("kind = 'job'", wb=wb)) == 2


def test_the_name_of_a_step_draws_nothing_of_its_own():
    name = 'a"]<script>alert(1)</script> & {x}'
    (_, line) = as_graph([{"step": name, "state": "finished", "after": []}]).splitlines()
    assert "script" in line and line.count('"') == 2 and line.count("<") == 1  # its own <br/>
