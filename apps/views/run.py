"""What did this run do, with what, and what came of it?"""

import streamlit as st
from run_parts import (
    chooser,
    evaluation,
    figures,
    files,
    notebook,
    onward,
    overview,
    register_form,
    standing,
    tables,
)
from state import (
    alias_holders,
    all_runs,
    as_markdown,
    choices,
    choose,
    head,
    muted,
    one_run,
    same_in,
    workbench,
)

from mlworkbench.desk.views import (
    ago,
    akin,
    champions_for,
    lasting,
    state_words,
)
from mlworkbench.registry.versions import list_versions

known = all_runs()
if not known or not choices().run:
    head("Run", "What did a run do, with what, and what came of it?")
    if not known:
        st.info("There is no run yet. Train a first one:")
        st.code("mlworkbench run train -p table=TABLE -p target=COLUMN", language="bash")
        st.stop()
    if not chooser(known):
        muted("The newest:")
        for r in known[:10]:
            st.button(
                as_markdown(
                    f"{r.name}  ·  {r.experiment}  ·  {state_words(r)}  ·  {ago(r.started)}"
                ),
                key=f"newest-{r.run}",
                type="tertiary",
                on_click=choose,
                kwargs={"run": r.run},
            )
        st.stop()
    st.rerun()
by_run = {r.run: r for r in known}
run, details = one_run(choices().run)
mine = [v for v in list_versions(wb=workbench()) if v.run == run.run]
said = [
    f"{run.kind} run in {run.experiment}",
    f"by {run.actor}",
    ago(run.started),
    lasting(details["seconds"]),
]
left, right = st.columns([3, 1], vertical_alignment="top")
with right:
    chooser(known)
with left:
    head(run.name, "  ·  ".join([state_words(run), *said, run.run]))
if mine:
    held = ", ".join(v.name + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in mine)
    muted(f"Registered as {held}")
if run.error:
    onwards = "Mend it, and run it again."
    if run.state == "parked":
        onwards = f"Its kernel waits: `mlworkbench enter {run.run}` opens its state, `mlworkbench resume {run.run}` goes on with the mended notebook."
    st.error(f"**{as_markdown(run.error)}**  \nThe notebook below stops at that cell. {onwards}")
if run.kind == "interactive":
    st.info(
        "Interactive: cells may have run in any order. Repeat it from the top with run.as_job(); that run can be registered."
    )
overview(run)
for fact in ("tuning", "later"):
    if said := details["facts"].get(fact):
        st.markdown(as_markdown(said))
verdict = st.container()  # filled last: comparing takes longer than everything else here
held = champions_for([run] if run.metrics else [], alias_holders())
with st.container(horizontal=True):
    models = {
        v.model
        for v in list_versions(wb=workbench())
        if v.run in by_run and akin(by_run[v.run], run)
    }
    register_form(run, models.pop() if len(models) == 1 else "")
    for h in held:
        if st.button(as_markdown(f"Compare with the champion of {h.model}"), key=f"to-{h.model}"):
            choose(runs=(h.run.run, run.run))
            st.switch_page("views/compare.py")
    if (
        choices().runs
        and run.run not in choices().runs
        and st.button("Add to the comparison", key="add")
    ):
        choose(runs=(*choices().runs, run.run)[-10:])
        st.switch_page("views/compare.py")
figures(run, details)
if run.metrics:
    evaluation(run, details)
tables(run, details)
notebook(run)
onward(run)
files(run, details)
same_in(f'run = mw.get("{run.run}")\nrun.metrics, run.params', f"mlworkbench show {run.run}")
with verdict:
    standing(run, held)
