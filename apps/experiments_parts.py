"""What the page Experiments is put together from."""

import hashlib

import pandas as pd
import streamlit as st
from search_parts import recipes
from state import (
    alias_holders,
    all_runs,
    as_markdown,
    choices,
    choose,
    figure_words,
    legend,
    muted,
    run_colours,
    run_frame,
    write_address,
)

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.desk.views import (
    champions_for,
    chosen,
    leading_metric,
    same_everywhere,
    span_words,
    value_words,
)
from mlworkbench.modelling.sides import metric_words

ALWAYS = ["●", "name", "known as", "state"]


def champion_strip() -> None:
    """A box for each model's champion: version, run, two metrics, a way to its page."""
    for h in [h for h in alias_holders() if h.alias == "champion"]:
        with st.container(border=True, horizontal=True, vertical_alignment="center", gap="large"):
            note = f"version {h.version}, run {h.run.name}"
            figure_words(
                "champion", h.model, note=note + (", self-approved" if h.self_approved else "")
            )
            for n in [
                n for n in ("auc", "average_precision", "accuracy", "rmse") if n in h.run.metrics
            ][:2]:
                m = h.run.metrics[n]
                figure_words(metric_words(n), f"{m['value']:.3f}", span_words(m["low"], m["high"]))
            if st.button("Open", key=f"open-{h.model}"):
                choose(run=h.run.run)
                st.switch_page("views/run.py")


def take(name: str) -> None:
    """Write a widget's value, kept as ``x-NAME``, into the choice of that name."""
    choose(**{name: st.session_state[f"x-{name}"] or ""})


def filters(known: list) -> None:
    """The widgets that narrow, order and arrange the table: experiment, condition, order, columns."""
    now = choices()
    one, two, three, four = st.columns([2, 4, 2, 1.5], vertical_alignment="bottom")
    experiments = ["", *sorted({r.experiment for r in known})]
    st.session_state["x-experiment"] = now.experiment if now.experiment in experiments else ""
    one.selectbox(
        "Experiment",
        experiments,
        key="x-experiment",
        on_change=take,
        args=("experiment",),
        format_func=lambda e: e or "all experiments",
    )
    st.session_state["x-where"] = now.where
    two.text_input(
        "Condition, in SQL",
        key="x-where",
        on_change=take,
        args=("where",),
        placeholder="depth > 4 and auc > 0.8 and state = 'finished'",
    )
    names = sorted({n for r in known for n in r.metrics}) + sorted(
        {n for r in known for n in r.params}
    )
    sorts = ["", *dict.fromkeys(names), "name", "state"]
    st.session_state["x-sort"] = now.sort if now.sort in sorts else ""
    three.selectbox(
        "Order",
        sorts,
        key="x-sort",
        on_change=take,
        args=("sort",),
        format_func=lambda s: f"{s}, best first" if s else "newest first",
    )
    with four.popover("View", width="stretch"):
        frame = run_frame("", "")
        options = [c for c in frame.columns if c not in ALWAYS]
        st.session_state["x-columns"] = [c for c in now.columns if c in options]
        st.multiselect(
            "Just these columns; none chosen: those that differ",
            options,
            key="x-columns",
            on_change=lambda: choose(columns=tuple(st.session_state["x-columns"])),
        )
        st.session_state["x-group"] = bool(now.group)
        st.checkbox(
            "Group what was only repeated: mean, interval, n",
            key="x-group",
            on_change=lambda: choose(group="yes" if st.session_state["x-group"] else ""),
        )
        st.session_state["x-same"] = bool(now.same)
        st.checkbox(
            "Also those that are the same in every run",
            key="x-same",
            on_change=lambda: (
                take("same") or choose(same="yes" if st.session_state["x-same"] else "")
            ),
        )


def chips() -> None:
    """The conditions in force, each a button that takes it away."""
    now = choices()
    active = [(f"{t}", {"only": tuple(x for x in now.only if x != t)}) for t in now.only]
    active += [(now.where, {"where": ""})] if now.where else []
    if active:
        with st.container(horizontal=True, key="chips"):
            for i, (text, change) in enumerate(active):
                st.button(
                    f"{as_markdown(text)}  ×",
                    key=f"chip-{i}",
                    on_click=choose,
                    kwargs=change,
                    help="Take this condition away",
                )


def picked(key: str, ids: list[str], columns: list[str], values: dict) -> None:
    """Write what was ticked and clicked in the table into the choices; ids not shown stay chosen."""
    found = st.session_state[key]["selection"]
    now, rows = choices().runs, [ids[i] for i in found["rows"] if i < len(ids)]
    kept = [r for r in now if r in rows or r not in ids]
    choose(runs=tuple([*kept, *(r for r in rows if r not in kept)][:10]))
    cells = [(i, c) for i, c in found.get("cells", []) if i < len(ids) and c in columns]
    st.session_state.cell = [(c, value_words(values[c][i])) for i, c in cells][:1]


def fresh(**changes: object) -> None:
    """Change choices and forget the table's own selection, which would otherwise undo the change."""
    st.session_state.turn = st.session_state.get("turn", 0) + 1
    st.session_state.cell = []
    choose(**changes)


def bar(names: dict[str, str], total: int, news: int) -> None:
    """What can be done with what is chosen, and how much of how much is shown: one line."""
    runs, showing = choices().runs, f"Showing {len(names):,} of {total:,} runs"
    with st.container(horizontal=True, vertical_alignment="center", key="bar"):
        if st.session_state.get("cell"):
            column, value = st.session_state.cell[0]
            for sign, said in (("=", "Only"), ("!=", "Not")):
                label = f"{said} {as_markdown(column)} = {as_markdown(str(value)[:40])}"
                st.button(
                    label,
                    key=f"cell{sign}",
                    on_click=fresh,
                    kwargs={"only": (*choices().only, f"{column}{sign}{value}")},
                )
        if not runs:
            muted(f"{showing}. Tick one to open it, two to compare; click a value to filter.")
            more(total, news)
            return
        if st.button("Compare", type="primary", disabled=len(runs) < 2, key="compare"):
            st.switch_page("views/compare.py")
        if st.button("Open", disabled=len(runs) != 1, key="open"):
            choose(run=runs[0])
            st.switch_page("views/run.py")
        st.button("Clear", on_click=fresh, kwargs={"runs": ()}, key="clear")
        picked_runs = [r for r in all_runs() if r.run in runs]
        for h in champions_for(picked_runs, alias_holders()):
            if st.button(
                as_markdown(f"Compare with the champion of {h.model}"), key=f"to-{h.model}"
            ):
                choose(runs=(h.run.run, *runs)[:10])
                st.switch_page("views/compare.py")
        legend([names.get(r, r) for r in runs])
        muted(showing)
        more(total, news)


def more(total: int, news: int) -> None:
    """Buttons for runs that came since the page was drawn, and for 200 further lines."""
    most = choices().shown or 200
    if news and st.button(f"{news} new: show", key="news"):
        st.rerun()
    if total > most:
        st.button("Show 200 more", on_click=choose, kwargs={"shown": most + 200}, key="more")


@st.fragment(run_every="5s")
def table() -> None:
    """The runs that pass the conditions, as they are just now; a refused condition says how to mend it."""
    now = choices()
    try:
        frame = run_frame(now.where, now.sort)
    except WorkbenchError as err:
        st.error(f"**{as_markdown(err.message)}**  \n{as_markdown(err.hint)}")
        st.button("Take the condition away", on_click=choose, kwargs={"where": "", "sort": ""})
        return
    if now.experiment:
        frame = frame[frame["experiment"] == now.experiment]
    frame = chosen(frame, now.only)
    late = frame["moment"] > st.session_state.horizon
    news, frame = int(late.sum()), frame[~late]
    total, most = len(frame), now.shown or 200
    frame = frame.head(most)
    names = dict(zip(frame.index, frame["name"], strict=True))
    bar(names, total, news)
    if now.group:
        recipes(list(frame.index))
        return
    if frame.empty:
        st.info("No run passes these conditions. Take one away, or run something:")
        return
    columns = list(now.columns) or [
        c for c in frame.columns if now.same or c not in same_everywhere(frame)
    ]
    always = [c for c in ALWAYS if c in frame and (c != "known as" or frame[c].any())]
    columns = [*always, *(c for c in columns if c not in ALWAYS and c != "moment")]
    shape = hashlib.sha256(repr((list(frame.index), columns)).encode()).hexdigest()[:8]
    key = f"table-{shape}-{st.session_state.get('turn', 0)}"
    places = [i for i, r in enumerate(frame.index) if r in now.runs]
    values = {c: frame[c].tolist() for c in columns}
    st.dataframe(
        run_colours(frame[columns], now.runs),
        hide_index=True,
        key=key,
        height="content" if len(frame) <= 20 else 737,
        placeholder="",
        on_select=lambda: picked(key, list(frame.index), columns, values),
        selection_mode=["multi-row", "single-cell"],
        selection_default={"selection": {"rows": places}},
        column_config=column_looks(columns, leading_metric(all_runs())),
        alt="Runs",
    )
    on_other_rows(frame)
    write_address()


def on_other_rows(frame: pd.DataFrame) -> None:
    """Which runs are not held against their champion, since the two were measured on other rows."""
    lead = leading_metric(all_runs())
    hidden = choices().columns and "to champion" not in choices().columns
    if hidden or "to champion" not in frame or lead not in frame:
        return
    held = {h.run.run: h.run.experiment for h in alias_holders() if h.alias == "champion"}
    alone = frame["experiment"].isin(held.values()) & frame[lead].notna()
    alone &= frame["to champion"].isna() & ~frame.index.isin(list(held))
    names = frame.loc[alone, "name"].tolist()
    if names:
        many = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        muted(
            f"Not known to be measured on the champion's test rows, so no difference is shown: "
            f"{', '.join(names[:3])}{many}. Tick one: Compare takes the rows that both scored."
        )


def column_looks(columns: list[str], lead: str | None) -> dict:
    """How Streamlit shows each column; ``lead`` is the metric whose interval stands in the table."""
    number = st.column_config.NumberColumn
    looks: dict = {"●": st.column_config.TextColumn("", width=24)}
    looks["name"] = "run"
    looks["known as"] = st.column_config.TextColumn(width=150)  # champion of …, not "champion o"
    looks["interval"] = st.column_config.TextColumn("95% interval", width=110, help=f"of {lead}")
    said = "Only where both were measured on the same test rows; the page Compare takes the rows that both scored."
    looks["to champion"] = number("to champion", format="%+.3f", width=92, help=said)
    for c in {n for r in all_runs() for n in r.metrics}.intersection(columns):
        looks[c] = number(metric_words(c), format="%.3f")
    return looks
