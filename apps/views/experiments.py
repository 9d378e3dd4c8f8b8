"""Which runs are there, and which is better than the champion?"""

import shlex

import streamlit as st
from experiments_parts import champion_strip, chips, filters, table
from state import (
    all_runs,
    choices,
    head,
    same_in,
    work_moment,
)

from mlworkbench.desk.views import condition_words

head("Experiments", "Which runs are there, and which is better than the champion?")
st.session_state.horizon = work_moment()
known = all_runs()
if not known:
    st.info(
        "There is no run yet. Train a first one, or open the starter notebook with `mlworkbench lab`:"
    )
    st.code("mlworkbench run train -p table=TABLE -p target=COLUMN", language="bash")
else:
    champion_strip()
    filters(known)
    chips()
    table()
    now = choices()
    where = condition_words(now.where, now.experiment, now.only, known)
    asked = [(k, v) for k, v in (("where", where), ("sort", now.sort)) if v]
    given = ", ".join(f"{k}={v!r}" for k, v in asked)
    line = "".join(f" --{k} {shlex.quote(v)}" for k, v in asked)
    same_in(f"mw.runs({given})", f"mlworkbench runs{line}")
