import shlex
from dataclasses import replace

import optuna
import pandas as pd
import plotly.graph_objects as go
import pytest

pytest.importorskip("streamlit")
from app_workbench import EVIL, World  # noqa: E402
from faults import mlworkbench  # noqa: E402
from streamlit.testing.v1 import AppTest  # noqa: E402

from mlworkbench.core.looks import record_look  # noqa: E402
from mlworkbench.core.settings import shipped_folder  # noqa: E402
from mlworkbench.data.lake import create_workbench  # noqa: E402
from mlworkbench.desk.views import chosen, run_table  # noqa: E402
from mlworkbench.execution.journal import log_fact, log_figure
from mlworkbench.execution.listing import list_runs  # noqa: E402
from mlworkbench.execution.opening import open_run
from mlworkbench.execution.predictions import log_predictions
from mlworkbench.modelling.studies import open_study  # noqa: E402
from mlworkbench.registry.promotion import approve, list_requests, promote  # noqa: E402
from mlworkbench.registry.versions import list_versions, register  # noqa: E402

PAGES = ("experiments", "run", "compare", "grids", "studies", "models")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("app") / "wb")
    runs = {
        "shallow": world.run("shallow", 2.0, depth=3),
        "deep": world.run("deep", 0.3, depth=8, note="a"),
        "evil": world.run(EVIL, 1.0, depth=6),
        "failed": world.run("broken", state="failed", depth=6),
        "hand": world.run("by hand", 1.0, kind="interactive"),
    }
    return world, runs


@pytest.fixture
def visit(monkeypatch):
    import streamlit as st

    def go(wb, page="experiments", **address):
        st.cache_resource.clear()
        monkeypatch.setenv("MLWORKBENCH", str(wb.root))
        monkeypatch.syspath_prepend(str(shipped_folder("apps")))
        at = AppTest.from_file(str(shipped_folder("apps") / "app.py"), default_timeout=60)
        for name, value in address.items():
            at.query_params[name] = value
        at.run()
        if page != "experiments":
            at.switch_page(f"views/{page}.py")
            at.run()
        assert not at.exception, [e.message for e in at.exception]
        return at

    return go


def said(at) -> str:
    """Everything on the page, as text."""
    parts = [
        e.value
        for kind in ("title", "subheader", "caption", "text", "info", "error", "success", "code")
        for e in at.get(kind)
    ]
    parts += [e.proto.body for e in at.get("html")]
    return "\n".join(map(str, parts)).replace("\\", "")


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_workbench_says_what_to_do_next(visit, tmp_path, page):
    at = visit(create_workbench(tmp_path / "new"), page)
    assert at.title[0].value.lower() == page
    assert at.info and ("mlworkbench" in said(at) or "Experiments" in said(at))


def test_runs_are_listed_newest_first_with_figures_as_numbers(visit, made):
    world, runs = made
    at = visit(world.wb)
    frame = at.dataframe[0].value
    numbers = [c for c in frame if c in ("auc", "depth", "average_precision", "brier", "accuracy")]
    assert numbers == ["auc", "depth", "average_precision", "brier", "accuracy"]
    assert list(frame["name"])[-2:] == ["deep", "shallow"] and frame["auc"].dtype == float
    assert frame["depth"].tolist()[-2:] == [8, 3] and "table" not in frame
    assert "Showing 5 of 5 runs" in said(at) and "mw.runs()" in said(at)


def test_condition_order_and_clicked_values_come_from_the_address(visit, made):
    world, runs = made
    at = visit(world.wb, where="depth > 3", sort="auc", only="name!=deep")
    assert at.dataframe[0].value["name"].tolist() == [EVIL, "broken"]
    at = visit(world.wb, only="depth=3")
    assert at.dataframe[0].value["name"].tolist() == ["shallow"]
    at.button(key="chip-0").click().run()
    assert len(at.dataframe[0].value) == 5 and "only" not in at.query_params


def test_the_shown_call_gives_what_the_page_shows(visit, made):
    world, runs = made
    at = visit(
        world.wb,
        where="name != 'it''s'",
        experiment="pay",
        only=["depth=6", "name!=a!=b"],
        shown="²",
    )
    shown = at.dataframe[0].value["name"].tolist()
    line = shlex.split([c.value for c in at.code if c.value.startswith("mlworkbench runs")][0])
    assert [r.name for r in list_runs(line[line.index("--where") + 1], wb=world.wb)][::-1] == shown
    assert shown == ["broken", EVIL] or shown == [EVIL, "broken"]
    at = visit(world.wb, only="name!=a!=b")
    assert len(at.dataframe[0].value) == 5
    frame = run_table([replace(runs["deep"], metrics={"state": {"value": 0.5}})])
    assert frame["state"].tolist() == ["finished"] and frame["state (metric)"].tolist() == [0.5]
    assert chosen(pd.DataFrame({"name": ["a!=b", "c"]}), ["name=a!=b"])["name"].tolist() == ["a!=b"]
    at = visit(world.wb, "run")
    at.button(key=f"newest-{runs['deep'].run}").click().run()
    assert at.title[0].value == "deep"


def test_a_wrong_condition_is_explained_and_can_be_taken_away(visit, made):
    at = visit(made[0].wb, where="dpth > 3")
    assert "dpth" in at.error[0].value and not at.dataframe
    [b for b in at.button if b.label == "Take the condition away"][0].click().run()
    assert len(at.dataframe[0].value) == 5


def test_the_selection_is_kept_by_run_over_sort_filter_and_pages(visit, made):
    world, runs = made
    ids = [runs["deep"].run, runs["shallow"].run]
    at = visit(world.wb, runs=",".join(ids))
    assert at.session_state["choices"].runs == tuple(ids)
    at.selectbox(key="x-sort").select("auc").run()
    at.text_input(key="x-where").input("depth = 3").run()
    assert at.session_state["choices"].runs == tuple(ids) and at.dataframe[0].value[
        "●"
    ].tolist() == ["●"]
    at.switch_page("views/models.py").run()
    assert at.query_params["runs"] in (",".join(ids), [",".join(ids)])
    at.switch_page("views/experiments.py").run()
    assert at.session_state["choices"].runs == tuple(ids)


def test_a_run_shows_what_it_did_and_how_to_repeat_it(visit, made):
    world, runs = made
    at = visit(world.wb, "run", run=runs["deep"].run)
    text = said(at)
    assert (
        at.title[0].value == "deep"
        and "AUC" in text
        and "On the test rows, with 95% intervals" in text
    )
    assert {"parameter", "value"} <= set(
        at.dataframe[0].value
    ) and "pay at snapshot 2" in at.dataframe[1].value["value"].tolist()
    assert f'mw.get("{runs["deep"].run}")' in text


def test_an_address_takes_a_run_by_any_of_its_names(visit, made):
    world, runs = made
    deep, shallow = runs["deep"].run, runs["shallow"].run
    at = visit(world.wb, "compare", runs=f"deep,{shallow[:-1]}")
    assert at.session_state["choices"].runs == (deep, shallow) and not at.error
    assert "shallow is worse than deep" in said(at)
    at = visit(world.wb, "compare", runs="deep,shalow")
    assert "no run 'shalow'" in said(at) and "shallow" in at.error[0].value
    assert at.session_state["choices"].runs == (deep,)
    at = visit(world.wb, "run", run="depe")
    assert "no run 'depe'" in said(at) and at.title[0].value == "Run"


def test_a_grid_is_shown_as_it_goes_and_grouped_by_its_seeds(visit, tmp_path):
    world = World(tmp_path / "wb", rows=400)
    for place, (depth, seed, state) in enumerate(
        [(3, 1, "finished"), (3, 2, "finished"), (6, 1, "finished"), (6, 2, "failed")]
    ):
        run = world.run(f"run {place}", 0.5, state=state, depth=depth, seed=seed)
        log_fact("place", f"one:{place}", run=run.run, wb=world.wb)
        log_fact("grid", "9 runs, 5 reused", run=run.run, wb=world.wb)
    at = visit(world.wb, "grids")
    assert "1 failed, 3 finished, 5 more reused from before; begun" in said(at)
    live, recipes = (d.value for d in at.dataframe)
    assert live["state"].tolist() == ["✓ finished"] * 3 + ["✕ failed"]
    assert live[["depth", "seed"]].to_numpy().tolist() == [[3, 1], [3, 2], [6, 1], [6, 2]]
    assert [e.value.partition("**  ")[0] for e in at.error] == ["**run 3"]
    assert "ZeroDivisionError" in at.error[0].value, "in full, under the table"
    assert not at.get("progress"), "all four have ended: there is nothing to wait for"
    assert sorted(zip(recipes["depth"], recipes["n"], strict=True)) == [(3, 2), (6, 1)]
    at_work = open_run("run 4", experiment="pay", values={"depth": 9, "seed": 1}, wb=world.wb)
    log_fact("place", "one:4", run=at_work.run, wb=world.wb)
    for run in list_runs(wb=world.wb):
        log_fact("grid", "11 runs, 5 reused", run=run.run, wb=world.wb)
    at = visit(world.wb, "grids")
    assert "4 of 6 runs have ended" in said(at) or at.get("progress")[0].proto.value == 66
    assert "1 failed, 3 finished, 1 running, 1 not begun" in said(at) and " left" in said(at)
    at = visit(world.wb, group="yes")
    assert sorted(at.dataframe[0].value["n"]) == [1, 2] and len(at.get("plotly_chart")) == 1


def test_a_study_shows_its_best_its_trials_and_optunas_plots(visit, tmp_path):
    wb = create_workbench(tmp_path / "wb")
    study = open_study("mine", wb=wb)
    for place in range(6):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        study.tell(trial, 1 - abs(trial.params["x"] - 0.5) + place / 100)
    at = visit(wb, "studies")
    assert f"{study.best_value:.4f}" in said(at) and "6 complete" in said(at)
    assert at.dataframe[0].value["trial"].tolist()[0] == study.best_trial.number
    assert len(at.get("plotly_chart")) >= 4 and 'mw.study_figures("mine")' in said(at)


def test_what_is_decided_follows_the_settings_and_rows_of_now(visit, tmp_path):
    world = World(tmp_path / "wb", rows=400)
    first, second = world.run("first", 2.0), world.run("second", 0.2)
    at = visit(world.wb, "compare", runs=f"{first.run},{second.run}")
    assert "second is better than first" in at.get("html")[0].proto.body
    log_predictions(world.label, 1 - world.label, run=second.run, wb=world.wb, **world.columns)
    at.run()
    assert "second is worse than first" in at.get("html")[0].proto.body

    register(first.run, "fraud", world.wb)
    request = promote("fraud@1", reason="somebody has to be first", wb=world.wb).request
    at.switch_page("views/models.py").run()
    settings = world.wb.root / "settings.ini"
    text = settings.read_text().replace("approval = self", "approval = second-person")
    settings.write_text(text)
    at.text_input(key=f"why-{request}").input("evidence read, costs checked")
    at.button(key=f"yes-{request}").click().run()
    assert at.error and list_requests(world.wb)[0].state == "waiting"


def test_a_run_meets_the_champion_of_its_own_question(visit, tmp_path):
    world = World(tmp_path / "wb", rows=400)
    other, mine, new = world.run("other", experiment="a"), world.run("mine"), world.run("new", 0.5)
    for run, model in ((other, "attrition"), (mine, "fraud")):
        register(run.run, model, world.wb)
        approve(
            promote(f"{model}@1", reason="somebody has to be first", wb=world.wb).request,
            "evidence read, costs checked",
            world.wb,
        )
    at = visit(world.wb, "run", run=new.run)
    assert at.text_input(key="model-name").value == "fraud"
    assert [b.key for b in at.button if b.key.startswith("to-")] == ["to-fraud"]
    at.button(key="to-fraud").click().run()
    assert at.session_state["choices"].runs == (mine.run, new.run)
    at = visit(world.wb, runs=new.run)
    assert [b.key for b in at.button if b.key.startswith("to-")] == ["to-fraud"]
    table = at.dataframe[0].value
    assert table["champion of"].tolist() == ["fraud", "", ""] and table["to champion"].notna().any()
    assert "Not known to be measured" not in said(at)
    record_look("evaluation", "pay", "fraud", run=mine.run, rows=3, sketch=[1], wb=world.wb)
    at = visit(world.wb)
    assert (
        "to champion" not in at.dataframe[0].value
        or at.dataframe[0].value["to champion"].isna().all()
    )
    assert "no difference is shown: new" in said(at)
    at = visit(world.wb, "compare")
    assert [b.key for b in at.button if b.key.startswith("newest-")] == ["newest-fraud"]
    at.button(key="newest-fraud").click().run()
    assert at.session_state["choices"].runs == (mine.run, new.run) and not at.exception
    stranger = world.run("stranger", experiment="elsewhere")
    at = visit(world.wb, "run", run=stranger.run)
    assert at.text_input(key="model-name").value == ""
    assert not [b for b in at.button if b.key.startswith("to-")]


def test_a_failed_and_an_interactive_run_say_so(visit, made):
    world, runs = made
    at = visit(world.wb, "run", run=runs["failed"].run)
    assert "ZeroDivisionError" in at.error[0].value and "run it again" in at.error[0].value
    at = visit(world.wb, "run", run=runs["hand"].run)
    assert "as_job()" in at.info[0].value
    at.text_input(key="model-name").input("fraud")
    [b for b in at.button if b.label == "Register"][0].click().run()
    assert "interactive" in at.error[0].value and not list_versions(wb=world.wb)


def test_compare_gives_the_verdict_first(visit, made):
    world, runs = made
    at = visit(world.wb, "compare", runs=f"{runs['shallow'].run},{runs['deep'].run}")
    first = at.get("html")[0].proto.body
    assert "deep is better than shallow" in first and "It rests on resampling 200" in first
    assert at.dataframe[0].value["what"].tolist()[:2] == ["depth", "note"]
    assert at.dataframe[1].value["metric"].tolist()[0] == "AUC"
    assert (
        "Week by week" in said(at) and "Rows that changed sides" in said(at) and "EUR" in said(at)
    )
    at.button(key="swap").click().run()
    assert "shallow is worse than deep" in at.get("html")[0].proto.body


def test_compare_takes_three_and_refuses_what_shares_no_rows(visit, made):
    world, runs = made
    at = visit(world.wb, "compare", runs=",".join(runs[n].run for n in ("shallow", "deep", "evil")))
    assert len(at.get("plotly_chart")) == 8
    at = visit(world.wb, "compare", runs=f"{runs['deep'].run},{runs['failed'].run}")
    assert "cannot be compared" in at.error[0].value and "no predictions" in at.error[0].value


def raw(text) -> bool:
    """Whether Markdown would see the tag: it is there and not escaped."""
    return "<img" in str(text).replace("\\<", "")


@pytest.mark.parametrize("page", PAGES)
def test_a_name_is_text_everywhere(visit, made, page):
    world, runs = made
    ids = f"{runs['evil'].run},{runs['deep'].run}"
    at = visit(world.wb, page, runs=ids, run=runs["evil"].run)
    assert not any("<img" in e.proto.body for e in at.get("html"))
    for kind in ("title", "subheader", "caption", "markdown", "info", "error", "success"):
        assert not any(raw(e.value) for e in at.get(kind))
    assert not any(raw(b.label) for b in at.button)


def test_register_ask_approve_reject_and_roll_back(visit, tmp_path):
    world = World(tmp_path / "wb")
    first, lucky, better = (
        world.run("first", 2.0),
        world.run("lucky", 2.0),
        world.run("better", 0.2),
    )
    at = visit(world.wb, "run", run=first.run)
    at.text_input(key="model-name").input("no name!")
    [b for b in at.button if b.label == "Register"][0].click().run()
    assert "is not a model" in at.error[0].value.replace("\\", "")
    at.text_input(key="model-name").input("fraud")
    [b for b in at.button if b.label == "Register"][0].click().run()
    assert "fraud@1" in at.success[0].value.replace("\\", "") and "Registered as fraud@1" in said(
        at
    )

    at = visit(world.wb, "models")
    assert "Nobody is champion now" in said(at)
    at.button(key="ask").click().run()
    assert "a reason is needed" in at.error[0].value
    at.text_input(key="ask-why").input("somebody has to be first")
    at.button(key="ask").click().run()
    request = list_requests(world.wb)[0].request
    assert "becomes" in said(at) and "Waiting for a decision" in said(at)
    at.text_input(key=f"why-{request}").input("no")
    at.button(key=f"yes-{request}").click().run()
    assert "a reason is needed" in at.error[0].value
    at.text_input(key=f"why-{request}").input("evidence read, costs checked")
    at.button(key=f"yes-{request}").click().run()
    assert "fraud@1 is champion, self-approved" in said(at) and "self-approved, since" in said(at)

    register(lucky.run, "fraud", world.wb)
    refused = promote("fraud@2", reason="it looks better to me", wb=world.wb)
    register(better.run, "fraud", world.wb)
    waiting = promote("fraud@3", reason="it is better on every week", wb=world.wb)
    assert (refused.state, waiting.state) == ("refused", "waiting")
    at = visit(world.wb, "models")
    assert any("was refused" in e.label for e in at.expander)
    at.text_input(key=f"why-{waiting.request}").input("we wait another week")
    at.button(key=f"no-{waiting.request}").click().run()
    assert "rejected" in said(at) and list_requests(world.wb)[0].state == "rejected"

    again = promote("fraud@3", reason="the week is over now", wb=world.wb)
    at = visit(world.wb, "models")
    stale = at.text_input(key=f"why-{again.request}")
    approve(again.request, "somebody was quicker here", world.wb)
    stale.input("evidence read, costs checked")
    at.button(key=f"yes-{again.request}").click().run()
    assert "is approved" in at.error[0].value.replace("\\", "")
    at.text_input(key="why-rollback-champion").input("alerts doubled since Monday")
    [b for b in at.button if b.label == "Roll back"][-1].click().run()
    assert "version 1 again" in said(at) and "by rollback" in said(at)


@pytest.mark.parametrize(
    "line, said_",
    [
        ("approval = second-persons", "is not self or second-person"),
        ("resamples = nan", "is not a number from 20"),
        ("memory = lots", "is not a size"),
        ("[nothing", "is not a settings file"),
        ("\x00", "is not a settings file"),
    ],
)
def test_settings_with_nonsense_are_named_in_the_app_and_the_command_line(
    visit, tmp_path, line, said_
):
    wb = create_workbench(tmp_path / "wb")
    file, name = wb.root / "settings.ini", line.partition(" ")[0]
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line if x.partition(" ")[0] == name else x for x in lines))
    if "=" not in line:
        file.write_text("\n".join(lines) + f"\n{line}\n")
    at = visit(wb)
    assert said_ in at.text[0].value
    code, _, err = mlworkbench("tables", cwd=wb.root)
    assert code == 2 and said_ in err and err.count("\n") == 1


@pytest.mark.parametrize("damage", ["cut", "emptied", "garbled", "deleted"])
def test_a_damaged_record_is_shown_as_far_as_it_goes(visit, tmp_path, damage):
    world = World(tmp_path / "wb", rows=300)
    run, other = world.run("hurt"), world.run("whole", 0.5)
    log_figure("mine", go.Figure(go.Scatter(x=[1, 2], y=[3, 4])), run=run.run, wb=world.wb)
    (run.folder / "progress.json").write_text('{"cell": 1, "cells": 2}')
    files = [f for f in run.folder.rglob("*") if f.is_file() and f.name != ".alive"]
    assert len(files) >= 4, files
    for file in files:
        whole = file.read_bytes()
        if damage == "deleted":
            file.unlink()
        else:
            hurt = {"cut": whole[: len(whole) // 2], "emptied": b"", "garbled": b"\x00\xff[{"}
            file.write_bytes(hurt[damage])
    at = visit(world.wb, "run", run=run.run)
    assert at.title[0].value == "hurt"
    told = [w.value for w in at.warning if "mine" in w.value]
    assert bool(told) == (damage != "deleted")
    for page in ("experiments", "compare", "models"):
        visit(world.wb, page, runs=f"{run.run},{other.run}")
