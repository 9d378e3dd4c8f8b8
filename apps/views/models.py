"""Which version is the champion, who decided that, and what is waiting?"""

import pandas as pd
import streamlit as st
from models_parts import ask, champion, history, waiting
from state import (
    choices,
    choose,
    head,
    same_in,
    workbench,
)

from mlworkbench.desk.views import leading_metric, span_words
from mlworkbench.execution.record import get_run
from mlworkbench.modelling.sides import metric_words
from mlworkbench.registry.promotion import (
    list_requests,
)
from mlworkbench.registry.versions import list_versions

head("Models", "Which version is the champion, who decided that, and what is waiting?")
every = list_versions(wb=workbench())
if not every:
    st.info("No model is registered yet. Open a finished run and register it.")
    st.code("mlworkbench register RUN --name fraud", language="bash")
    st.stop()
names = sorted({v.model for v in every})
if len(names) > 1:
    st.session_state["x-model"] = choices().model if choices().model in names else names[0]
    st.segmented_control(
        "Model",
        names,
        key="x-model",
        on_change=lambda: choose(model=st.session_state["x-model"] or ""),
    )
model = choices().model if choices().model in names else names[0]
versions, requests = (
    [v for v in every if v.model == model],
    [r for r in list_requests(workbench()) if r.model == model],
)
champion(model)
open_requests = [r for r in requests if r.state == "waiting"]
if open_requests:
    st.subheader("Waiting for a decision", anchor=False)
for request in open_requests:
    waiting(request)
st.subheader("Ask for a promotion", anchor=False)
ask(model, versions)
st.subheader("Versions", anchor=False)
runs = {v.version: get_run(v.run, workbench()) for v in versions}
lead = leading_metric(list(runs.values()))
rows = [
    {
        "version": v.version,
        "held as": ", ".join(v.aliases),
        "run": runs[v.version].name,
        "value": runs[v.version].metrics.get(lead, {}).get("value"),
        "interval": span_words(
            *(runs[v.version].metrics.get(lead, {}).get(k) for k in ("low", "high"))
        ),
        "table": v.signature.get("table", ""),
        "SHA-256 of its bytes": v.sha256[:16],
    }
    for v in reversed(versions)
]
looks = {
    "value": st.column_config.NumberColumn(metric_words(lead or "metric"), format="%.3f"),
    "interval": "95% interval",
}
st.dataframe(
    pd.DataFrame(rows), hide_index=True, height="content", column_config=looks, alt="Versions"
)
st.subheader("History", anchor=False)
history(model, requests)
same_in(
    f'mw.models()\nmw.promote("{model}@{versions[-1].version}", to="champion", reason="…")',
    f"mlworkbench models\nmlworkbench promote {model}@{versions[-1].version} --to champion --reason TEXT",
)
