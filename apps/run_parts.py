"""What the page of one run is put together from."""

import json

import pandas as pd
import streamlit as st
from state import (
    as_markdown,
    attempt,
    choices,
    choose,
    dark,
    draw,
    figure_words,
    muted,
    workbench,
)

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.desk.rendering import notebook_page, sandboxed
from mlworkbench.desk.views import (
    leading_metric,
    span_words,
)
from mlworkbench.modelling.report_page import evaluate, read_report
from mlworkbench.modelling.sides import metric_words
from mlworkbench.modelling.style import repainted as in_colours_of
from mlworkbench.registry.versions import register


def chooser(known: list) -> str:
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


def overview(run, details: dict) -> None:
    lead = leading_metric([run])
    names = [n for n in dict.fromkeys([lead, *run.metrics]) if n in run.metrics][:5]
    if names:
        for column, n in zip(st.columns(len(names)), names, strict=True):
            m = run.metrics[n]
            with column:
                value = "none" if m["value"] is None else f"{m['value']:.3f}"
                figure_words(metric_words(n), value, span_words(m["low"], m["high"]))
        muted("On the test rows, with 95% intervals.")
    else:
        muted(
            "No metric was recorded. Log one with mw.log_metric, or every score with mw.log_predictions."
        )


def memory(facts: dict) -> str:
    return f"{int(facts['peak_memory']) / 1e6:,.0f} MB" if "peak_memory" in facts else ""


def tables(run, details: dict) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Parameters", anchor=False)
        rows = [
            {"parameter": k, "value": json.dumps(v) if isinstance(v, list | dict) else str(v)}
            for k, v in run.params.items()
            if v not in ("", None)
        ]
        st.dataframe(
            pd.DataFrame(rows, columns=["parameter", "value"]), hide_index=True, height="content"
        )
    with right:
        st.subheader("Data, code, machine", anchor=False)
        code, facts = details["code"], details["facts"]
        rows = [("read", f"{t} at snapshot {s}") for t, s in details["snapshots"].items()]
        rows += [("notebook", code["notebook"]), ("notebook's SHA-256", code["notebook_sha256"])]
        rows += [
            ("commit", (code["commit_id"] or "none") + (", with changes" if code["dirty"] else ""))
        ]
        facts = {k: v for k, v in facts.items() if v not in ("{}", "[]", "yes")} | {
            "peak_memory": memory(facts)
        }
        rows += [(k.replace("_", " "), v) for k, v in facts.items()]
        rows += [("packages", f"{len(details['packages'])} recorded")]
        rows = [{"what": k, "value": str(v)} for k, v in rows if v]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content")


def evaluation(run, details: dict) -> None:
    st.subheader("Evaluation", anchor=False)
    try:
        found = kept_report(run.run, report_stamp(details))
    except WorkbenchError:
        muted("Money, weeks, slices, fairness, drift, explanations, leaks: not asked yet.")
        st.button("Evaluate this run", key="evaluate", on_click=lambda: evaluate_now(run))
        return
    for words in found.findings:
        (st.warning if words in found.alarms else st.markdown)(as_markdown(words))
    muted(found.about)
    for place, (tab, section) in enumerate(
        zip(st.tabs([s.title for s in found.sections]), found.sections, strict=True)
    ):
        with tab:
            report_section(section, place)
    for words in found.unsaid:
        muted(words)
    page = run.folder / "report.html"
    if page.exists():
        name = f"{run.run}-report.html"
        st.download_button(
            "The page to send", page.read_bytes(), name, "text/html", key="report-page"
        )


def report_section(section, place: int) -> None:
    for words in section.words:
        muted(words)
    for i, figure in enumerate(section.figures.values()):
        draw(repainted(figure), key=f"report-{place}-{i}")
    for name, table in section.tables.items():
        with st.expander(as_markdown(f"{name}, {len(table):,} lines"), expanded=len(table) <= 8):
            st.dataframe(table, height="content" if len(table) <= 12 else "auto")


def report_stamp(details: dict) -> str:
    return next((f["sha256"] for f in details["files"] if f["path"] == "report.json"), "")


@st.cache_data(show_spinner=False, max_entries=8)
def kept_report(run: str, stamp: str):
    return read_report(run, workbench())


def evaluate_now(run) -> None:
    with st.spinner("Asking what a reviewer asks"):
        attempt(lambda: evaluate(run.run, wb=workbench()), lambda r: f"{r.name}: {r.findings[0]}")


def figures_and_files(run, details: dict) -> None:
    import plotly.io

    for i, f in enumerate([f for f in details["files"] if f["kind"] == "figure"][:12]):
        path = run.folder / f["path"]
        if path.name.endswith(".plotly.json") and path.exists():
            draw(
                repainted(plotly.io.from_json(path.read_text(), skip_invalid=True)),
                key=f"figure-{i}",
            )
        elif path.exists():
            st.image(path.read_text(), caption=as_markdown(path.name))
    if details["files"]:
        st.subheader("Files", anchor=False)
        frame = pd.DataFrame(details["files"])[["path", "kind", "bytes", "sha256"]]
        looks = {"bytes": st.column_config.NumberColumn(format="localized")}
        st.dataframe(frame, hide_index=True, height="content", column_config=looks)
        st.caption("In the folder")
        st.code(str(run.folder), language=None)


def repainted(figure):
    return in_colours_of(figure) if dark() else figure  # it was kept for a light ground


def notebook(run) -> None:
    st.subheader("Executed notebook", anchor=False)
    try:
        st.iframe(sandboxed(notebook_page(run.folder / "notebook.ipynb", dark()), 900), height=900)
    except WorkbenchError as err:
        muted(f"{err} An interactive run keeps the cells that IPython saw, when it ends.")
