"""What is chosen, kept in the session and in the address; nothing else touches either."""

import contextlib
import datetime as dt
import html
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from mlworkbench.core import waiting
from mlworkbench.core.errors import WorkbenchError
from mlworkbench.core.settings import Workbench, open_workbench
from mlworkbench.core.store import check_schema, now
from mlworkbench.data import turns
from mlworkbench.data.catalog import newest_snapshot
from mlworkbench.desk.rendering import as_markdown
from mlworkbench.desk.views import (
    Holder,
    holders,
    on_the_same_rows,
    run_table,
    state_words,
    work_stamp,
)
from mlworkbench.execution.listing import list_runs, run_details
from mlworkbench.execution.pipelines import MARKS
from mlworkbench.execution.record import Run, find_run, get_run
from mlworkbench.modelling.comparison import Comparison, compare_runs
from mlworkbench.modelling.sides import against_first, by_week
from mlworkbench.modelling.style import CONFIG, DARK, LIGHT


@dataclass(frozen=True)
class Choices:
    """All that a visitor has chosen; an empty field is the default and is left out of the address."""

    experiment: str = ""
    where: str = ""
    sort: str = ""
    only: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    same: str = ""
    shown: int = 0
    runs: tuple[str, ...] = ()
    run: str = ""
    model: str = ""
    alarms: int = 0
    group: str = ""
    grid: str = ""
    study: str = ""


# ---------------------------------------------------------------- session and address
def choices() -> Choices:
    """What is chosen now."""
    return st.session_state.setdefault("choices", Choices())


def choose(**changes: Any) -> None:
    """Choose something else; use it as a callback, or before ``st.rerun``."""
    st.session_state.choices = replace(choices(), **changes)
    st.session_state.pop("notice", None)


def read_address() -> None:
    """Take the choices of an address that was opened, pasted, or gone back to."""
    here = {k: st.query_params.get_all(k) for k in st.query_params}
    if not here or here == st.session_state.get("written"):
        return
    values: dict[str, Any] = {}
    for field in fields(Choices):
        given = here.get(field.name, [])
        if given and isinstance(field.default, tuple):
            parts = given[0].split(",") if field.name == "runs" else given
            values[field.name] = tuple(p for p in parts if p)
        elif given and isinstance(field.default, int):
            values[field.name] = int(given[0]) if re.fullmatch("[0-9]{1,9}", given[0]) else 0
        elif given:
            values[field.name] = given[0]
    st.session_state.pop("notice", None)
    for name in ("runs", "run"):
        if name in values:
            given = values[name] if name == "runs" else (values[name],)
            found = tuple(dict.fromkeys(r for text in given if (r := _asked_for(text))))
            values[name] = found if name == "runs" else "".join(found)
    st.session_state.choices = Choices(**values)


def _asked_for(text: str) -> str:
    """The id of a run that an address names as any other door takes it; an unknown one is said."""
    try:
        return find_run(text, workbench())
    except WorkbenchError as err:
        st.session_state.notice = ("refused", err.message, err.hint)
        return ""


def write_address() -> None:
    """Put the choices into the address; a change of page has emptied it."""
    found: dict[str, Any] = {}
    for field in fields(Choices):
        value = getattr(choices(), field.name)
        if value != field.default:
            found[field.name] = ",".join(value) if field.name == "runs" else value
    found = {k: list(v) if isinstance(v, tuple) else str(v) for k, v in found.items()}
    written = {k: v if isinstance(v, list) else [v] for k, v in found.items()}
    if written != {k: st.query_params.get_all(k) for k in st.query_params}:
        st.query_params.from_dict(found)
    st.session_state.written = written


# ---------------------------------------------------------------- actions and what came of them
def attempt(action: Any, said: Any, **then: Any) -> None:
    """Do something that may be refused, and keep what came of it for the next drawing."""
    try:
        result = action()
    except WorkbenchError as err:
        st.session_state.notice = ("refused", err.message, err.hint)
        return
    if then:
        choose(**then)
    st.session_state.notice = ("done", said(result), "")


def show_notice() -> None:
    """What the last action came to, until something else is chosen."""
    kind, message, hint = st.session_state.get("notice", ("", "", ""))
    if kind == "done":
        st.success(as_markdown(message))
    elif kind:
        st.error(f"**{as_markdown(message)}**  \n{as_markdown(hint)}")


# ---------------------------------------------------------------- the library, asked once
def workbench() -> Workbench:
    """The workbench that this process was started for, by its settings of now."""
    wb = open_workbench()
    check_schema(wb)
    return wb


@st.cache_resource(max_entries=12, show_spinner="Reading the runs …")
def _runs(stamp: str, where: str, sort: str) -> list[Run]:
    found = list_runs(where, sort, workbench())
    return found if sort and sort != "started" else found[::-1]


def all_runs(where: str = "", sort: str = "") -> list[Run]:
    """Runs, the newest first or the best first."""
    return _runs(work_stamp(workbench()), where, sort)


@st.cache_resource(max_entries=4)
def _holders(stamp: str) -> list[Holder]:
    return holders(workbench())


def alias_holders() -> list[Holder]:
    """Who holds which alias."""
    return _holders(work_stamp(workbench()))


@st.cache_resource(max_entries=20, show_spinner="Comparing row by row …")
def _compared(stamp: str, ids: tuple[str, ...]) -> tuple[Comparison, dict, dict]:
    found = compare_runs(list(ids), wb=workbench())
    return found, against_first(found, workbench()), by_week(found, workbench())


def compared(ids: tuple[str, ...]) -> tuple[Comparison, dict, dict]:
    """A comparison, every run against the first, and the second week by week; as all of it is now."""
    wb = workbench()
    stamp = (work_stamp(wb), newest_snapshot(wb), sorted(wb.values.items()))
    return _compared(repr(stamp), ids)


def one_run(run: str) -> tuple[Run, dict]:
    """A run and everything recorded of it."""
    return get_run(run, workbench()), run_details(run, workbench())


# ---------------------------------------------------------------- drawing
STYLE = """
.stMainBlockContainer {padding: 2.6rem 2rem 4rem}
.stMainBlockContainer h1 {padding: 0}
[data-testid="stSidebarHeader"] {height: 2.6rem}
[data-stale="true"]:has([data-testid="stDataFrame"]) {opacity: 1 !important}
[data-testid="stHtml"] {font-variant-numeric: tabular-nums}
[data-testid="stCaptionContainer"] {opacity: 0.72}"""


def page_style() -> str:
    """Spaces, and second text and the chosen tab at a contrast of 4.5 to 1 or more on both grounds."""
    tab = "#7aa5ff" if dark() else "#245cd4"
    chosen = f'[role="tab"][aria-selected="true"] p {{color: {tab}}}'
    return f"<style>{STYLE}\n{chosen}\n</style>"


def dark() -> bool:
    """Whether the visitor's page is dark."""
    return st.context.theme.type == "dark"


def draw(figure: Any, key: str) -> None:
    """A figure of the library, in its own look."""
    st.plotly_chart(figure, theme=None, config=CONFIG, key=key)


def muted(text: str) -> None:
    """Second text; everything in it is shown as it is."""
    st.caption(as_markdown(text))


def run_mark(place: int) -> str:
    """The colour of a run by its place in the selection."""
    return (DARK if dark() else LIGHT).palette[place % 8]


def head(title: str, answers: str) -> None:
    """A page's name and the one line that says what it answers."""
    st.title(as_markdown(title), anchor=False)
    muted(answers)
    show_notice()


def same_in(python: str, command: str = "") -> None:
    """The calls that give what the page shows."""
    with st.expander("The same in Python and on the command line"):
        st.code(f"import mlworkbench as mw\n{python}", language="python")
        if command:
            st.code(command, language="bash")


def words(template: str, width: Any = "stretch", **values: Any) -> None:
    """A piece of page with values put in as text; ``{muted}`` and the like are the theme's colours."""
    theme = DARK if dark() else LIGHT
    colours = {"muted": theme.muted, "ink": theme.ink, "unsure": theme.unsure}
    colours |= {f"run{i}": c for i, c in enumerate(theme.palette)}
    safe = {k: html.escape(str(v)) for k, v in values.items()}
    st.html(template.format(**colours | safe), width=width)


def legend(names: list[str]) -> None:
    """The runs in the order of the selection, each with its mark."""
    marks = [
        f"<span style='color:{{run{i % 8}}}'>●</span>&ensp;{{n{i}}}" for i in range(len(names))
    ]
    line = "<span style='font-size:15px'>" + "&emsp;".join(marks) + "</span>"
    words(
        line,
        width="content" if len(names) < 4 else "stretch",
        **{f"n{i}": n for i, n in enumerate(names)},
    )


def figure_words(label: str, value: str, span: str = "", note: str = "") -> None:
    """A number in large type, its interval beside it in muted type, and what it is above."""
    words(
        "<div style='line-height:1.3;font-variant-numeric:tabular-nums'>"
        "<div style='color:{muted};font-size:13px'>{label}</div>"
        "<span style='font-size:26px;font-weight:600'>{value}</span> "
        "<span style='color:{muted};font-size:14px;white-space:nowrap'>{span}</span>"
        "<div style='color:{muted};font-size:13px'>{note}</div></div>",
        label=label,
        value=value,
        span=span,
        note=note,
    )


@st.cache_resource(max_entries=12)
def _frame(stamp: str, where: str, sort: str) -> pd.DataFrame:
    found, held = _runs(stamp, where, sort), _holders(stamp)
    newest = sorted((h for h in held if h.alias == "champion"), key=lambda h: h.since)
    champions = {h.run.experiment: h.run for h in newest}
    names: dict[str, str] = {}
    for h in held:
        said = f"{h.alias} of {h.model}"
        names[h.run.run] = f"{names[h.run.run]}, {said}" if h.run.run in names else said
    alike = {h.run.run: on_the_same_rows(h.run.run, workbench()) for h in newest}
    frame = run_table(found, champions, names, alike).assign(moment=[r.started for r in found])
    if len(newest) > 1 and "to champion" in frame:
        models = {h.run.experiment: h.model for h in newest}
        told = [models.get(r.experiment, "") for r in found]
        told = [m if pd.notna(d) else "" for m, d in zip(told, frame["to champion"], strict=True)]
        frame.insert(list(frame).index("to champion") + 1, "champion of", told)
    return frame


def run_frame(where: str, sort: str) -> pd.DataFrame:
    """Runs as a frame, with how far the running ones are just now."""
    stamp = work_stamp(workbench())
    frame = _frame(stamp, where, sort)
    live = {
        r.run: state_words(r) for r in _runs(stamp, where, sort) if r.state in ("running", "parked")
    }
    if live:
        frame = frame.copy()
        frame.loc[list(live), "state"] = list(live.values())
    return frame


def run_colours(frame: pd.DataFrame, runs: tuple[str, ...]) -> Any:
    """A table with each chosen run's mark in its colour, and intervals in muted type."""
    theme, shown = DARK if dark() else LIGHT, frame.copy()
    shown.insert(0, "●", ["●" if r in runs else "" for r in frame.index])
    colours = [f"color: {run_mark(runs.index(r))}" if r in runs else "" for r in frame.index]
    if "state" in shown:
        shown["state"] = [f"{MARKS.get(v.partition(':')[0], '…')} {v}" for v in shown["state"]]
    numbers = [c for c in shown.select_dtypes("number") if c in shown.columns]
    styled = shown.style.format("{:g}", na_rep="", subset=numbers)
    styled = styled.apply(lambda _: colours, subset=["●"])
    styled = styled.map(
        lambda _: f"color: {theme.ink}", subset=[c for c in ("name", "run") if c in shown]
    )
    quiet = [c for c in ("interval", "kind", "by", "started", "took") if c in shown]
    styled = styled.map(lambda _: f"color: {theme.muted}", subset=quiet)
    return reddened(styled) if "state" in shown else styled


def reddened(styled: Any) -> Any:
    """A table in which a state that is *failed* stands in red."""
    red = "color: #f2887f" if dark() else "color: #b3261e"
    return styled.map(lambda v: red if str(v).endswith("failed") else "", subset=["state"])


class _OnThePage(logging.Handler):
    """Shows on a visitor's page what is said of a wait by its script, or by a thread that watches one.

    What another visitor's script says belongs on that one's page.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place, self.visitor, self.script = (
            st.empty(),
            get_script_run_ctx(),
            threading.get_ident(),
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line, in the place of the one before."""
        if record.threadName.startswith("ScriptRunner") and record.thread != self.script:
            return
        add_script_run_ctx(threading.current_thread(), self.visitor)
        said = record.getMessage()
        self.place.info(as_markdown(said[:1].upper() + said[1:]))


@contextlib.contextmanager
def waiting_shown() -> Iterator[None]:
    """Say on the page whom the block waits for, as the command line says it."""
    shown = _OnThePage()
    for log in (waiting.log, turns.log):
        log.addHandler(shown)
    try:
        yield
    finally:
        for log in (waiting.log, turns.log):
            log.removeHandler(shown)
        shown.place.empty()


def work_moment() -> dt.datetime:
    """This moment, as the store tells time."""
    return now()
