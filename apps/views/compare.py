"""Is the second run really better than the first?"""

import streamlit as st
from compare_parts import chooser, curves, differing, likely, metrics, sides, verdict
from state import (
    alias_holders,
    as_markdown,
    compared,
    head,
    legend,
    same_in,
)

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.modelling.sides import (
    run_names,
)

head("Compare", "Is the second run really better than the first, for whom, and worth how much?")
runs = chooser()
if len(runs) < 2:
    st.info("Choose two to ten runs above, or tick them on the page Experiments.")
    likely()
    st.stop()
try:
    found, against, weeks = compared(runs)
except WorkbenchError as err:
    st.error(
        f"**These runs cannot be compared: {as_markdown(err.message)}**  \n{as_markdown(err.hint)}"
    )
    st.stop()
verdict(found, against)
marked = {h.run.run: f" ({h.alias} of {h.model})" for h in alias_holders()}
legend([n + marked.get(r, "") for n, r in zip(run_names(found.runs), runs, strict=True)])
differing(found)
metrics(found)
curves(found, weeks)
sides(found)
ids = ", ".join(f'"{r}"' for r in runs)
same_in(f"mw.compare([{ids}])", f"mlworkbench compare {' '.join(runs)}")
