"""What the page of one run is put together from."""

import contextlib
import json
from pathlib import Path

import pandas as pd
import plotly.io
import streamlit as st
from state import (
    as_markdown,
    attempt,
    choices,
    choose,
    compared,
    dark,
    draw,
    figure_words,
    muted,
    words,
    workbench,
)

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.desk.rendering import notebook_page, sandboxed
from mlworkbench.desk.run_words import made_from, onward_words, repeat_words
from mlworkbench.desk.views import metric_order, span_words
from mlworkbench.modelling.page_html import readable
from mlworkbench.modelling.report_page import evaluate, read_report
from mlworkbench.modelling.run_figures import usage_figure
from mlworkbench.modelling.sides import metric_words
from mlworkbench.modelling.style import of_run, template
from mlworkbench.modelling.style import repainted as in_colours_of
from mlworkbench.registry.versions import register


def chooser(known: list) -> str:
    """Let the reader choose one of the known runs; return its id, or ``""`` where none is chosen."""
    ids = [r.run for r in known]
    names = {r.run: f"{r.name}   ·   {r.experiment}   ·   {r.state}   ·   {r.run}" for r in known}
    st.session_state["x-run"] = choices().run if choices().run in ids else None
    st.selectbox(
        "Run",
        ids,
        key="x-run",
        format_func=names.get,
        placeholder="Search by name, experiment or id",
        on_change=lambda: choose(run=st.session_state["x-run"] or ""),
    )
    return st.session_state["x-run"] or ""


def register_form(run, model: str) -> None:
    """The form that registers a finished run; ``model`` is the name proposed."""
    with st.popover("Register as a model", disabled=run.state != "finished"):
        muted("A registered version can be judged by the gates and promoted.")
        with st.form("register", border=False):
            st.text_input("Model", key="model-name", placeholder="fraud", value=model)
            st.form_submit_button(
                "Register",
                type="primary",
                on_click=lambda: attempt(
                    lambda: register(run.run, st.session_state["model-name"].strip(), workbench()),
                    lambda v: (
                        f"{run.name} is {v.name}. Next: ask for its promotion on the page Models."
                    ),
                ),
            )


def overview(run) -> None:
    """The run's first five metrics, each with its 95% interval."""
    names = metric_order([run])[:5]
    if not names:
        muted(
            "No metric was recorded. Log one with mw.log_metric, or every score with mw.log_predictions."
        )
        return
    for column, n in zip(st.columns(len(names)), names, strict=True):
        m = run.metrics[n]
        with column:
            value = "none" if m["value"] is None else f"{m['value']:.3f}"
            figure_words(metric_words(n), value, span_words(m["low"], m["high"]))
    muted("On the test rows, with 95% intervals.")


def standing(run, held: list) -> None:
    """What holds of a run beside the champion of its question, in a sentence."""
    for h in held:
        try:
            found = compared((h.run.run, run.run))[0]
        except WorkbenchError as err:
            muted(f"Beside the champion of {h.model}: {err.message}.")
            continue
        said = found.sentence.partition(" It rests on ")[0]
        words(
            "<p style='font-size:20px;line-height:1.35;font-weight:600;margin:0'>{said}</p>"
            "<p style='color:{muted};font-size:13px;margin:4px 0 0'>{who} is the champion of {model}, version {version}.</p>",
            said=said,
            who=h.run.name,
            model=h.model,
            version=h.version,
        )


def pairs(rows: list, names: tuple[str, str]) -> None:
    """Two columns of text as a table."""
    st.dataframe(
        pd.DataFrame([(k, str(v)) for k, v in rows], columns=names),
        hide_index=True,
        height="content",
        column_config={names[0]: st.column_config.TextColumn(width=150)},
        alt=names[0],
    )


def tables(run, details: dict) -> None:
    """Two tables: the parameters that were set, and what the run was made from."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Parameters", anchor=False)
        given = [
            (k, json.dumps(v) if isinstance(v, list | dict) else v) for k, v in run.params.items()
        ]
        pairs([(k, v) for k, v in given if v not in ("", None, "{}", "[]")], ("parameter", "value"))
    with right:
        st.subheader("Data, code, machine", anchor=False)
        made = [
            (k, v) for k, v in made_from(run, details) if k not in ("tuning", "later")
        ]  # they stand above
        pairs(made, ("what", "value"))


def onward(run) -> None:
    """The commands that go on from a run, ready to be copied."""
    command, call = repeat_words(run)
    with st.expander("Open, rerun, reproduce"):
        for said, line in onward_words(run).items():
            st.caption(said)
            st.code(line, language="bash", wrap_lines=True)
        for said, line, language in (
            ("The run written out", command, "bash"),
            ("From the top, in a clean kernel" if not command else "In Python", call, "python"),
        ):
            if line:
                st.caption(said)
                st.code(line, language=language, wrap_lines=True)
        if not command and not call:
            muted("It was logged from outside a notebook, so there is nothing to execute again.")


def evaluation(run, details: dict) -> None:
    """The kept evaluation, its alarms first; where there is none, a button that makes it."""
    try:
        found = kept_report(run.run, report_stamp(details))
    except WorkbenchError:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("Evaluate this run", key="evaluate", on_click=lambda: evaluate_now(run))
            muted("Money, weeks, slices, fairness, drift, explanations, leaks: not asked yet.")
        return
    st.subheader("Evaluation", anchor=False)
    if found.alarms:
        st.warning("\n".join(f"- {as_markdown(said)}" for said in found.alarms))
    for said in found.findings:
        if said not in found.alarms:
            st.markdown(as_markdown(said))
    muted(found.about)
    for place, (tab, section) in enumerate(
        zip(st.tabs([s.title for s in found.sections]), found.sections, strict=True)
    ):
        with tab:
            report_section(run, section, place)
    for said in found.unsaid:
        muted(said)
    page = run.folder / "report.html"
    if page.exists():
        name = f"{run.run}-report.html"
        st.download_button(
            "The page to send", page.read_bytes(), name, "text/html", key="report-page"
        )


def report_section(run, section, place: int) -> None:
    """One section of an evaluation; ``place`` is its number on the page and keeps keys apart."""
    for said in section.words:
        muted(said)
    many = len(section.figures) > 1
    columns = st.columns(2, gap="medium") if many else [st.container()]
    for i, (name, figure) in enumerate(section.figures.items()):
        with columns[i % len(columns)]:
            draw(repainted(figure, run, name), key=f"report-{place}-{i}")
    for name, table in section.tables.items():
        title = f"{name.replace('_', ' ')}, {len(table):,} lines"
        with st.expander(as_markdown(title), expanded=len(table) <= 8):
            shown = readable(table)
            numbers = [c for c in shown if c not in shown.attrs["words"]]
            right = {c: st.column_config.TextColumn(alignment="right") for c in numbers}
            tall = "content" if len(table) <= 12 else "auto"
            plain = isinstance(table.index, pd.RangeIndex)
            st.dataframe(shown, height=tall, column_config=right, hide_index=plain, alt=name)


def report_stamp(details: dict) -> str:
    """The checksum of a run's kept report, ``""`` where there is none."""
    return next((f["sha256"] for f in details["files"] if f["path"] == "report.json"), "")


@st.cache_data(show_spinner=False, max_entries=8)
def kept_report(run: str, stamp: str):
    """Read a run's report, once for each ``stamp``: a report made anew has another."""
    return read_report(run, workbench())


def evaluate_now(run) -> None:
    """Evaluate a run and say its first finding, or what kept it from being evaluated."""
    with st.spinner("Asking what a reviewer asks"):
        attempt(lambda: evaluate(run.run, wb=workbench()), lambda r: f"{r.name}: {r.findings[0]}")


ORDER = ("learning", "roc", "precision_recall", "calibration", "scores")  # others after them


def figure_name(path: Path) -> str:
    """What a kept figure was called when it was logged; an image's name keeps its ending."""
    return path.name.removesuffix(".plotly.json")


def read_figure(path: Path, run):
    """A kept figure in the look of now; an image as its text. A damaged file is a ValueError."""
    text, name = path.read_text(), figure_name(path)
    if name == path.name:
        return text
    return repainted(plotly.io.from_json(text, skip_invalid=True), run, name)


def kept_figures(run, details: dict) -> tuple[dict, list[str]]:
    """The figures that a run kept by file name, as one reads them, and what it cost; and the damaged."""
    paths = [run.folder / f["path"] for f in details["files"] if f["kind"] == "figure"]
    rank = {name: place for place, name in enumerate(ORDER)}
    paths.sort(key=lambda p: rank.get(figure_name(p), len(ORDER)))
    drawn, damaged = {}, []
    for path in [p for p in paths if p.exists()][:12]:
        try:
            drawn[path.name] = read_figure(path, run)
        except (ValueError, TypeError):
            damaged.append(path.name)
    if (run.folder / "usage.json").exists():
        with contextlib.suppress(WorkbenchError, ValueError, KeyError):
            usage = json.loads((run.folder / "usage.json").read_text())
            usage = usage_figure(usage, cores=int(details["facts"].get("cores", 0)))
            drawn["usage"] = repainted(usage, run, "usage")
    return drawn, damaged


def figures(run, details: dict) -> None:
    """The figures, two in a line."""
    drawn, damaged = kept_figures(run, details)
    if damaged:
        names = ", ".join(map(as_markdown, damaged))
        st.warning(f"Damaged since the run, and not shown: {names}. A rerun draws them again.")
    columns = st.columns(2, gap="medium")
    for i, (name, figure) in enumerate(drawn.items()):
        with columns[i % 2]:
            if isinstance(figure, str):
                st.image(figure, caption=as_markdown(name))
            else:
                draw(figure, key=f"figure-{i}")


def files(run, details: dict) -> None:
    """The files of a run with sizes in bytes and checksums, and its folder."""
    if not details["files"]:
        return
    size = sum(f["bytes"] or 0 for f in details["files"]) / 1e6
    with st.expander(f"Files: {len(details['files'])}, {size:,.1f} MB"):
        frame = pd.DataFrame(details["files"])[["path", "kind", "bytes", "sha256"]]
        looks = {"bytes": st.column_config.NumberColumn(format="localized")}
        st.dataframe(frame, hide_index=True, height="content", column_config=looks, alt="Files")
        st.code(str(run.folder), language=None)


OF_A_RUN = ("roc", "precision_recall", "gain", "calibration", "weeks", "cost", "reviews")


def repainted(figure, run, name: str):
    """A figure that was kept for a light ground, perhaps by an older release, in the look of now.

    Where its first line is the run, that has the colour of its place among the chosen ones, as on
    the page Compare.
    """
    shown = in_colours_of(figure) if dark() else figure
    if name in OF_A_RUN:
        place = choices().runs.index(run.run) if run.run in choices().runs else 0
        shown = of_run(shown, run.name, place, dark=dark())
    return shown.update_layout(template=template(dark()))


def notebook(run) -> None:
    """The executed notebook in a sandboxed frame; an interactive run may have none."""
    st.subheader("Executed notebook", anchor=False)
    try:
        st.iframe(sandboxed(notebook_page(run.folder / "notebook.ipynb", dark()), 900), height=900)
    except WorkbenchError as err:
        muted(f"{err} An interactive run keeps the cells that IPython saw, when it ends.")
