"""How far is a grid, and which of its recipes is best once luck is counted?"""

import streamlit as st
from search_parts import grid_chooser, live, recipes
from state import head, same_in, workbench

from mlworkbench.desk.grid_views import grid_runs

head("Grids", "How far is a grid, and which of its recipes is best once luck is counted?")
grids = grid_runs(workbench())
if not grids:
    st.info("No grid was run yet. Run a notebook for every combination of some parameters:")
    st.code(
        "mlworkbench grid train -p table=TABLE -p target=COLUMN -p depth=4,6,8 -p seed=1:3",
        language="bash",
    )
    st.stop()
grid = grid_chooser(grids)
live(grid)
st.subheader("Grouped by what was only repeated", anchor=False)
ids = [r.run for r in grids[grid] if r.state == "finished"]
if ids:
    recipes(ids)
else:
    st.info("Nothing to group yet: no run has finished.")
given = ", ".join(f'"{r}"' for r in ids[:3]) + (", …" if len(ids) > 3 else "")
same_in(f"mw.group_repeats([{given}])")
