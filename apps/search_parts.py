"""What the pages Grids and Studies are put together from."""

import pandas as pd
import streamlit as st
from state import (
    as_markdown,
    attempt,
    choices,
    choose,
    dark,
    draw,
    muted,
    reddened,
    workbench,
)

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.desk.grid_views import get_grid, grid_progress, grid_table, grid_words
from mlworkbench.desk.views import ago, span_words
from mlworkbench.execution.again import cancel_run
from mlworkbench.execution.pipelines import MARKS
from mlworkbench.modelling.repeats import group_repeats
from mlworkbench.modelling.run_figures import repeats_figure
from mlworkbench.modelling.sides import metric_words
from mlworkbench.modelling.studies import study_figures

NUMBER = st.column_config.NumberColumn
TRIAL_WORDS = {"pruned": "given up early", "fail": "failed or stopped"}
GROUPS = {"name": "first of them", "mean": NUMBER(format="%.4f")}


def grid_chooser(grids: dict) -> str:
    """Which grid is looked at; the newest where none is chosen."""
    now = choices().grid if choices().grid in grids else next(iter(grids))
    st.session_state["x-grid"] = now
    names = {
        g: f"{r[0].experiment}  ·  begun {ago(min(x.started for x in r))}  ·  {g}"
        for g, r in grids.items()
    }
    st.selectbox(
        "Grid",
        list(grids),
        key="x-grid",
        format_func=names.get,
        on_change=lambda: choose(grid=st.session_state["x-grid"] or ""),
    )
    return now


def how_far_grid(runs: list) -> None:
    """What has ended of a grid as a bar, the rest in words, and how one goes on where it stopped."""
    ended, whole, _ = grid_progress(runs, workbench())
    if ended < whole:
        st.progress(ended / whole, f"{ended:,} of {whole:,} runs have ended")
    muted(grid_words(runs, workbench()))
    if ended == len(runs) < whole:
        muted("None is at work: the command that began the grid goes on with what is missing.")


def runs_at_work(runs: list) -> list:
    """Those of a grid's runs that have not ended."""
    return [r for r in runs if r.state == "running"]


def grid_rows(grid: str, runs: list) -> list:
    """The table of a grid; the runs that are ticked."""
    frame = grid_table(runs, workbench())
    lead = list(frame)[list(frame).index("took") - 1]
    frame["state"] = [f"{MARKS.get(v.partition(':')[0], '…')} {v}" for v in frame["state"]]
    frame = frame.drop(columns="what happened")
    numbers = list(frame.select_dtypes("number"))
    styled = reddened(frame.style.format("{:g}", na_rep="", subset=numbers))
    at_work = bool(runs_at_work(runs))
    picked = st.dataframe(
        styled,
        hide_index=True,
        height="content" if len(frame) <= 20 else 737,
        placeholder="",
        column_config={
            "name": "run",
            "state": st.column_config.TextColumn(width=190 if at_work else None),
            lead: NUMBER(f"{metric_words(lead)}{', so far' * at_work}", format="%.3f"),
        },
        selection_mode="multi-row",
        on_select="rerun",
        key=f"grid-{grid}",
        alt="Runs of the grid",
    )["selection"]["rows"]
    return [runs[i] for i in picked if i < len(runs)][:10]


def what_failed(runs: list) -> None:
    """Why runs failed, in full: a table's cell would cut it off; the same reason is said once."""
    why: dict[str, list[str]] = {}
    for run in runs:
        if run.error and run.state != "cancelled":
            why.setdefault(run.error, []).append(run.name)
    for error, names in list(why.items())[:5]:
        many = f" and {len(names) - 3} more" if len(names) > 3 else ""
        st.error(f"**{as_markdown(', '.join(names[:3]) + many)}**  \n{as_markdown(error)}")
    if len(why) > 5:
        muted(f"{len(why) - 5} other reasons: open the run.")


def cancel_chosen(runs: list) -> None:
    """Ask before runs that are at work are ended."""
    names = ", ".join(r.name for r in runs)
    with st.popover("Cancel"):
        muted(
            f"Ends {names} with everything started by it; what was logged stays. "
            "The grid goes on with the others: Ctrl-C where it was begun ends all of it."
        )
        if st.button(f"Cancel {len(runs)} at work", type="primary", key="grid-cancel"):
            attempt(
                lambda: [cancel_run(r, wb=workbench()) for r in runs],
                lambda done: f"Cancelled: {', '.join(r.name for r in done)}.",
            )
            st.rerun()


@st.fragment(run_every="3s")
def live(grid: str) -> None:
    """The runs of a grid as they are just now; the page is drawn anew when one ends."""
    runs = get_grid(grid, workbench())
    how_far_grid(runs)
    ticked = grid_rows(grid, runs)
    if not ticked:
        cancelled = "; one at work can be cancelled" if runs_at_work(runs) else ""
        muted(f"Tick one to open it, two to compare them{cancelled}.")
    with st.container(horizontal=True):
        if len(ticked) > 1 and st.button("Compare", type="primary", key="grid-compare"):
            choose(runs=tuple(r.run for r in ticked))
            st.switch_page("views/compare.py")
        if len(ticked) == 1 and st.button("Open", type="primary", key="grid-open"):
            choose(run=ticked[0].run)
            st.switch_page("views/run.py")
        if at_work := runs_at_work(ticked):
            cancel_chosen(at_work)
    what_failed(runs)
    done = sum(r.state != "running" for r in runs)
    if st.session_state.get("grid-done", (grid, done)) != (grid, done):
        st.session_state["grid-done"] = (grid, done)
        st.rerun()
    st.session_state["grid-done"] = (grid, done)


def groups_table(groups: pd.DataFrame) -> pd.DataFrame:
    """Recipes for people: what differs, mean, interval, n."""
    spans = [span_words(a, b) for a, b in zip(groups["low"], groups["high"], strict=True)]
    shown = groups.drop(columns=["low", "high", "runs", "sd"])
    shown.insert(list(shown).index("mean") + 1, "interval of the mean", spans)
    return shown


def recipes(ids: list[str]) -> None:
    """A line for each recipe: mean, interval and n over what was only repeated."""
    try:
        groups = group_repeats(ids, wb=workbench())
    except WorkbenchError as err:
        st.info(f"Nothing to group yet: {err.message}.")
        return
    st.dataframe(
        groups_table(groups), hide_index=True, height="content", column_config=GROUPS, alt="Recipes"
    )
    draw(repeats_figure(groups, dark=dark()), "recipes")


def study_chooser(names: list[str]) -> str:
    """Which study is looked at; the newest where none is chosen."""
    now = choices().study if choices().study in names else names[-1]
    st.session_state["x-study"] = now
    st.selectbox(
        "Study",
        names[::-1],
        key="x-study",
        on_change=lambda: choose(study=st.session_state["x-study"] or ""),
    )
    return now


@st.cache_resource(max_entries=8, show_spinner="Drawing what the trials show …")
def plots_of(study: str, stamp: str, night: bool) -> dict:
    """Optuna's plots, drawn once for each state of the trials and each ground."""
    return study_figures(study, workbench(), dark=night)


def plots(study: str, stamp: str) -> None:
    """Optuna's plots in the page's look, two in a line; the wide ones alone."""
    drawn = plots_of(study, stamp, dark())
    if not {"history", "front"} & set(drawn):
        muted(
            "Too few whole trials to plot parameters: one that was given up early has no value. "
            "More trials, or a wider space, will show more."
        )
    columns, place = st.columns(2, gap="medium"), 0
    for name, figure in drawn.items():
        with st.container() if name in ("parallel", "slices") else columns[place % 2]:
            place += name not in ("parallel", "slices")
            draw(figure, f"study-{name}")


def trials(table: pd.DataFrame) -> None:
    """A study's trials; columns in which every value is missing are left out."""
    shown = table.dropna(axis=1, how="all")
    looks = {"value": NUMBER(format="%.4f"), "seconds": NUMBER(format="%.1f")}
    st.dataframe(
        shown,
        hide_index=True,
        height="content" if len(shown) <= 10 else 387,
        column_config=looks,
        alt="Trials",
    )
