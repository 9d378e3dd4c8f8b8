"""The app: one workbench, six pages.

The pages are not in a folder called `pages`: Streamlit would run such a file alone when a link
leads to it first.
"""

import streamlit as st
from state import page_style, read_address, waiting_shown, workbench, write_address

from mlworkbench.core.errors import WorkbenchError

st.set_page_config(page_title="mlworkbench", layout="wide", initial_sidebar_state=220)
st.html(page_style())
try:
    name = workbench().name
except WorkbenchError as err:
    st.title("No workbench can be opened here")
    st.text(str(err))
    st.stop()
read_address()
pages = [
    st.Page("views/experiments.py", title="Experiments", default=True),
    st.Page("views/run.py", title="Run"),
    st.Page("views/compare.py", title="Compare"),
    st.Page("views/grids.py", title="Grids"),
    st.Page("views/studies.py", title="Studies"),
    st.Page("views/models.py", title="Models"),
]
page = st.navigation({name: pages})
write_address()
try:
    with waiting_shown():
        page.run()
except WorkbenchError as err:
    st.error("This could not be shown.")
    st.text(str(err))
