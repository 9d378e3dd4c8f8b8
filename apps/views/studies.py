"""What has a study found, what moved the value, and is it worth going on?"""

import streamlit as st
from search_parts import TRIAL_WORDS, plots, study_chooser, trials
from state import figure_words, head, same_in, workbench

from mlworkbench.modelling.sides import metric_words
from mlworkbench.modelling.studies import list_studies, study_trials

head("Studies", "What has a study found, what moved the value, and is it worth going on?")
studies = list_studies(workbench())
if studies.empty:
    st.info("No study was begun yet. Look for better parameters:")
    st.code("mlworkbench tune -p table=TABLE -p target=COLUMN --trials 50", language="bash")
    st.stop()
study = study_chooser(studies["study"].tolist())
about, table = studies.set_index("study").loc[study], study_trials(study, workbench())
if table.empty:
    st.info("No trial has begun yet.")
    st.stop()
counts = table["state"].value_counts()
best = table[table["state"] == "complete"].head(1)
with st.container(border=True, horizontal=True, vertical_alignment="center", gap="large"):
    if len(best):
        value = f"{best['value'].iloc[0]:.4f}"
        figure_words(
            "best so far", value, note=f"trial {best['trial'].iloc[0]}, on the rows of trials"
        )
    said = ", ".join(f"{n} {TRIAL_WORDS.get(s, s)}" for s, n in counts.items())
    figure_words("trials", f"{len(table):,}", note=said)
    tuned = (
        ", ".join(map(metric_words, about["metric"].split(",")))
        if about["metric"]
        else "its own value"
    )
    figure_words(
        "tuned for", tuned, note=f"experiment {about['experiment']}" if about["experiment"] else ""
    )
st.caption(
    "The best of many is flattered by having been picked: what holds is the run made of it, on rows that no trial saw."
)
plots(study, repr(sorted(counts.items())))
st.subheader("Trials, best first", anchor=False)
trials(table)
same_in(f'mw.study_trials("{study}")\nmw.study_figures("{study}")', f"mlworkbench studies {study}")
