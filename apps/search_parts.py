"""What the pages Grids and Studies are put together from."""

import pandas as pd
import streamlit as st
from state import choices, choose, dark, draw, muted, workbench

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.desk.grid_views import get_grid, grid_table, grid_words
from mlworkbench.desk.views import ago, span_words
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
        g: f"{len(r)} runs of {r[0].experiment}  ·  {ago(min(x.started for x in r))}  ·  {g}"
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


@st.fragment(run_every="3s")
def live(grid: str) -> None:
    """The runs of a grid as they are just now; the page is drawn anew when the last one ends."""
    runs = get_grid(grid, workbench())
    muted(grid_words(runs, workbench()))
    frame = grid_table(runs, workbench())
    lead = list(frame)[list(frame).index("took") - 1]
    frame["state"] = [f"{MARKS.get(v.partition(':')[0], '…')} {v}" for v in frame["state"]]
    frame = frame.drop(columns=[c for c in ("what happened",) if not frame[c].any()])
    picked = st.dataframe(
        frame,
        hide_index=True,
        height="content" if len(frame) <= 20 else 737,
        column_config={
            "name": "run",
            "state": st.column_config.TextColumn(width=190),
            lead: NUMBER(metric_words(lead), format="%.3f"),
        },
        selection_mode="multi-row",
        on_select="rerun",
        key=f"grid-{grid}",
        alt="Runs of the grid",
    )["selection"]["rows"]
    ids = tuple(frame.index[i] for i in picked if i < len(frame))[:10]
    if not ids:
        muted("Tick one to open it, two to compare them.")
    with st.container(horizontal=True):
        if len(ids) > 1 and st.button("Compare", type="primary", key="grid-compare"):
            choose(runs=ids)
            st.switch_page("views/compare.py")
        if len(ids) == 1 and st.button("Open", type="primary", key="grid-open"):
            choose(run=ids[0])
            st.switch_page("views/run.py")
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
