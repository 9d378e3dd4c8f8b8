"""What the page Compare is put together from."""

import pandas as pd
import streamlit as st
from state import (
    alias_holders,
    all_runs,
    as_markdown,
    choices,
    choose,
    dark,
    draw,
    muted,
    one_run,
    words,
    workbench,
)

from mlworkbench.core.errors import WorkbenchError
from mlworkbench.desk.views import champions_for, span_words
from mlworkbench.modelling.curves import gain, precision_recall, roc
from mlworkbench.modelling.difference_figures import difference_plot, forest
from mlworkbench.modelling.differing import shown_value
from mlworkbench.modelling.probability_figures import calibration
from mlworkbench.modelling.sides import (
    changed_sides,
    metric_figure,
    metric_words,
    run_names,
    scored_runs,
)
from mlworkbench.modelling.verdicts import higher_is_better, interval_digits


def chooser() -> tuple[str, ...]:
    """Let the reader choose up to ten runs; return their ids, the reference first."""
    known = {r.run: r for r in all_runs()}
    now = tuple(r for r in choices().runs if r in known)
    names = {k: f"{r.name}   ·   {r.experiment}   ·   {k}" for k, r in known.items()}
    st.session_state["x-runs"] = list(now)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.multiselect(
            "Runs; the first is the reference, the verdict is about the second",
            list(known),
            key="x-runs",
            format_func=names.get,
            max_selections=10,
            placeholder="Search by name, experiment or id",
            on_change=lambda: choose(runs=tuple(st.session_state["x-runs"])),
        )
        if len(now) > 1:
            st.button(
                "Swap the first two",
                key="swap",
                on_click=choose,
                kwargs={"runs": (now[1], now[0], *now[2:])},
            )
    return now


def likely() -> None:
    """The comparison that most come for: the newest run and the champion that it is akin to."""
    done = [r for r in all_runs() if r.state == "finished"]
    held = alias_holders()
    newest = next((r for r in done if champions_for([r], held)), None)
    for h in champions_for([newest], held) if newest else []:
        st.button(
            as_markdown(f"Compare {newest.name}, the newest run, with the champion of {h.model}"),
            key=f"newest-{h.model}",
            on_click=choose,
            kwargs={"runs": (h.run.run, newest.run)},
        )


def verdict(found, against: dict) -> None:
    """The verdict's sentence beside the drawn difference; below, every further run against the reference."""
    sentence, _, rest = found.sentence.partition(" It rests on ")
    names = run_names(found.runs)
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    with left:
        words(
            "<p style='font-size:27px;line-height:1.3;font-weight:600;margin:0'>{said}</p>"
            "<p style='color:{muted};font-size:14px;margin:10px 0 0'>{why}</p>",
            said=sentence,
            why=f"It rests on {rest}" if rest else "",
        )
    with right:
        worth, higher = found.worth.value, higher_is_better(found.difference.metric)
        more = {"worth": worth, "higher": higher, "dark": dark()}
        figure = difference_plot(found.difference, names=(names[0], names[1]), **more)
        left_, right_ = ("worse", "better") if higher else ("better", "worse")
        said = {-1: f"← {left_}", 1: f"{right_} →"}  # the title names the runs; here is little room
        figure.for_each_annotation(lambda a: a.update(text=said[1 if a.x > 0 else -1]))
        draw(figure, "difference")
    if len(names) > 2:
        title = f"Every run less {names[0]}"
        more |= {"higher": higher_is_better(found.leading)}
        more |= {"worth": None} if found.worth.money else {}
        draw(forest(against, title=title, sort=False, **more), "against")


def differing(found) -> None:
    """What was recorded otherwise: parameters, data, commit, packages, cells of the notebooks."""
    st.subheader("What differs", anchor=False)
    details = [one_run(r.run)[1] for r in found.runs]
    commits = [(d["code"]["commit_id"] or "")[:12] for d in details]
    rows = dict(found.differs.parameters)
    rows |= {f"data {t}": v for t, v in found.differs.data.items()}
    rows |= {"commit": commits} if len(set(commits)) > 1 else {}
    rows |= {f"package {p}": v for p, v in found.differs.packages.items()}
    if not rows and not found.differs.code:
        muted("Nothing that was recorded: parameters, data, code and packages are the same.")
        return
    names = run_names(found.runs)
    table = [
        {"what": k} | {n: shown_value(x) for n, x in zip(names, v, strict=True)}
        for k, v in rows.items()
    ]
    if rows:
        st.dataframe(pd.DataFrame(table), hide_index=True, height="content", alt="What differs")
    for run in found.runs:
        for cell in found.differs.code.get(run.run, [])[:20]:
            number = cell["second"] or cell["first"]
            with st.expander(f"Cell {number} {cell['change']}, in {as_markdown(run.name)}"):
                st.code(cell["diff"], language="diff")
    muted("Everything else that was recorded is the same.")


def less(found) -> str:
    """``deep less shallow``: what a difference is."""
    first, second = run_names(found.runs)[:2]
    return f"{second} less {first}"


def metrics(found) -> None:
    """Every metric on the shared rows with its 95% interval, drawn and as a table."""
    st.subheader("Metrics on the shared rows", anchor=False)
    draw(metric_figure(found, dark()), "metrics")
    rows = []
    for m in found.metrics:
        row = {"metric": metric_words(m["metric"])}
        for n, r in zip(run_names(found.runs), found.runs, strict=True):
            v = m["values"][r.run]
            row |= {n: _value_words(v), f"interval of {n}": span_words(v["low"], v["high"])}
        d = m["difference"]
        row |= {
            "difference": _difference_words(d, "value"),
            "interval": _difference_words(d),
        }
        rows.append(row)
    right = {n: st.column_config.TextColumn(alignment="right") for n in run_names(found.runs)}
    looks = right | {f"interval of {n}": "95% interval" for n in run_names(found.runs)}
    looks |= {"difference": st.column_config.TextColumn(less(found), alignment="right")}
    looks |= {"interval": st.column_config.TextColumn("its 95% interval", alignment="right")}
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, height="content", column_config=looks, alt="Metrics"
    )


def _value_words(v: dict) -> str:
    """A metric with the decimals that its interval needs."""
    if v["value"] is None:
        return "none"
    narrow = v["low"] is not None and 0 < v["high"] - v["low"] < 0.01
    return f"{v['value']:.{4 if narrow else 3}f}"


def _difference_words(d: dict, *ends: str) -> str:
    """A difference or the ends of its interval, with the decimals that the interval needs."""
    if d["low"] is None:
        return f"{d['value']:+.3f}" if ends and d["value"] is not None else "none"
    k = interval_digits(d["low"], d["high"])
    return " to ".join(f"{d[end]:+.{k}f}" for end in ends or ("low", "high"))


def curves(found, weeks: dict) -> None:
    """Four curves of binary scores on the shared rows, and the difference in each week."""
    if found.task == "binary":
        st.subheader("Curves", anchor=False)
        scored, figures = scored_runs(found), (roc, precision_recall, calibration, gain)
        units = "rows taken as independent" if scored[0].entity is None else "by entity"
        muted(
            f"{len(found.rows):,} shared rows, {int(scored[0].label.sum()):,} positives. Bands and whiskers are 95%, {units}."
        )
        for column, figure in zip(
            [*st.columns(2, gap="medium"), *st.columns(2, gap="medium")], figures, strict=True
        ):
            with column:
                try:
                    draw(
                        figure(scored, dark=dark()).update_layout(
                            title_subtitle_text="", margin_t=48
                        ),
                        figure.__name__,
                    )
                except WorkbenchError as err:
                    muted(str(err))
    if weeks:
        st.subheader("Week by week", anchor=False)
        higher = higher_is_better(found.leading)
        draw(
            forest(
                weeks,
                title=f"{less(found)}, in each week",
                sort=False,
                higher=higher,
                dark=dark(),
            ),
            "weeks",
        )


def sides(found) -> None:
    """The rows that one run would flag and the other not, at as many alarms as the reader sets."""
    if found.task != "binary":
        return
    st.subheader("Rows that changed sides", anchor=False)
    left, right = st.columns([1, 3], gap="large", vertical_alignment="center")
    positives = int((found.rows["label"] == "1").sum())
    st.session_state["x-alarms"] = min(choices().alarms or positives, len(found.rows))
    left.number_input(
        "Alarms that each run may raise",
        1,
        len(found.rows),
        key="x-alarms",
        on_change=lambda: choose(alarms=st.session_state["x-alarms"]),
    )
    got, (one, two) = (
        changed_sides(found, choices().alarms, wb=workbench()),
        run_names(found.runs)[:2],
    )
    fields = got.fields.rename(
        columns={"both": "flagged by both", "first": f"only by {one}", "second": f"only by {two}"}
    )
    with right:
        if got.money is not None:
            side = two if got.money >= 0 else one
            words(
                "<p style='font-size:18px;font-weight:600;margin:0'>{said}</p><p style='color:{muted};font-size:13px;margin:4px 0 0'>{how}</p>",
                said=f"At {got.alarms:,} alarms each, {side} saves {abs(got.money):,.0f} {got.currency} more on these rows.",
                how="A caught positive saves its amount, a false alarm costs what settings.ini says; rows that both flag cancel. No interval: it is a sum over rows, not a forecast.",
            )
        counted = fields.rename_axis("rows").reset_index()
        looks = {c: st.column_config.NumberColumn(format="localized") for c in fields}
        st.dataframe(
            counted, hide_index=True, height="content", column_config=looks, alt="Agreement"
        )
    rows = got.rows.assign(flagged_by=got.rows["flagged_by"].map({"first": one, "second": two}))
    rows = rows.dropna(axis=1, how="all").head(500)
    rows = rows.rename(
        columns={
            "row_key": "row",
            "first": f"score of {one}",
            "second": f"score of {two}",
            "flagged_by": "flagged by",
        }
    )
    looks = {
        c: st.column_config.NumberColumn(format="%.3f") for c in rows if c.startswith("score of")
    }
    looks |= {
        c: st.column_config.NumberColumn(
            f"{c}, {got.currency}", format="%,.2f" if c == "amount" else "%+,.2f"
        )
        for c in ("amount", "money")
    }
    looks |= {"at": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm")}
    first = "most money" if got.money is not None else "where the scores differ most"
    muted(f"Showing {len(rows):,} of {len(got.rows):,} rows, {first} first")
    tall = "content" if len(rows) <= 12 else 457
    st.dataframe(
        rows, hide_index=True, height=tall, column_config=looks, alt="Rows that changed sides"
    )
