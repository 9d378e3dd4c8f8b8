"""What the page Models is put together from."""

import pandas as pd
import streamlit as st
from state import (
    alias_holders,
    as_markdown,
    attempt,
    choose,
    figure_words,
    muted,
    words,
    workbench,
)

from mlworkbench.core.audit import list_events
from mlworkbench.desk.views import ago, leading_metric, span_words
from mlworkbench.modelling.sides import metric_words
from mlworkbench.registry.promotion import (
    approve,
    previous_holder,
    promote,
    reject,
    rollback,
    verify_audit,
)

SHAPES = {"pass": "✓", "fail": "✕", "cannot tell": "?"}


def champion(model: str) -> None:
    """Each holder of an alias of this model, since when and by whom, and the form that rolls it back."""
    held = [h for h in alias_holders() if h.model == model]
    if not held:
        st.info("Nobody is champion now. Ask for a version's promotion below.")
    for h in held:
        with st.container(border=True, horizontal=True, vertical_alignment="center", gap="large"):
            how = (
                "self-approved"
                if h.self_approved
                else "by rollback"
                if h.self_approved is None
                else "approved by a second person"
            )
            figure_words(
                f"{h.alias} of {model}", f"version {h.version}", note=f"{how}, since {ago(h.since)}"
            )
            lead = leading_metric([h.run])
            if lead:
                m = h.run.metrics[lead]
                figure_words(
                    metric_words(lead),
                    f"{m['value']:.3f}",
                    span_words(m["low"], m["high"]),
                    f"run {h.run.name}",
                )
            if st.button("Open its run", key=f"open-{h.alias}"):
                choose(run=h.run.run)
                st.switch_page("views/run.py")
            with st.popover("Roll back"):
                before = previous_holder(h.name, workbench())
                change(
                    h.alias,
                    f"version {h.version}",
                    f"version {before}" if before else "nobody: no version held it before",
                )
                with st.form(f"rollback-{h.alias}", border=False):
                    st.text_input(
                        "Reason",
                        key=f"why-rollback-{h.alias}",
                        placeholder="alerts doubled since Monday",
                    )
                    st.form_submit_button(
                        "Roll back",
                        type="primary",
                        on_click=lambda h=h: attempt(
                            lambda: rollback(
                                h.name, st.session_state[f"why-rollback-{h.alias}"], workbench()
                            ),
                            lambda r: (
                                f"{h.name} is {'version ' + str(r['version']) if r['version'] else 'nobody'} again; it was version {r['was']}."
                            ),
                        ),
                    )


def change(alias: str, now: str, then: str) -> None:
    """One line: what an alias is now and what it would become."""
    words(
        "<div style='font-size:15px'><span style='color:{muted}'>{alias}</span>&ensp;{now}"
        "<span style='color:{muted}'>&ensp;becomes&ensp;</span><b>{then}</b></div>",
        alias=alias,
        now=now,
        then=then,
    )


def gates(request) -> None:
    """A request's gates with result and evidence: not passed before passed, required before others."""
    for g in sorted(request.gates, key=lambda g: (g.result == "pass", not g.required)):
        colour = "{ink}" if g.result == "pass" else "#d0392b" if g.required else "{unsure}"
        words(
            f"<div style='display:grid;grid-template-columns:130px 170px 1fr;gap:12px;font-size:14px;padding:3px 0'>"
            f"<span style='color:{colour};font-weight:600'>{{shape}}&ensp;{{result}}</span>"
            "<span>{gate}<br><span style='color:{muted};font-size:12px'>{need}</span></span><span style='color:{muted}'>{evidence}</span></div>",
            shape=SHAPES[g.result],
            result=g.result,
            gate=g.gate.replace("_", " "),
            need="required" if g.required else "for the approver to weigh",
            evidence=g.evidence,
        )


def waiting(request) -> None:
    """A request that waits: what it would change, its gates, and the form that decides it."""
    with st.container(border=True):
        now = f"version {request.against}" if request.against else "nobody"
        change(request.alias, now, f"version {request.version}")
        muted(f"Asked by {request.actor}, {ago(request.at)}: {request.reason}")
        gates(request)
        with st.form(f"decide-{request.request}", border=False):
            key = f"why-{request.request}"
            st.text_input(
                "Reason for the decision; it stands in the record for ever",
                key=key,
                placeholder="evidence read, costs checked",
            )
            with st.container(horizontal=True):
                st.form_submit_button(
                    "Approve",
                    type="primary",
                    key=f"yes-{request.request}",
                    on_click=lambda: attempt(
                        lambda: approve(request.request, st.session_state[key], workbench()),
                        lambda r: (
                            f"{r.model}@{r.version} is {r.alias}{', self-approved' if r.self_approved else ''}."
                        ),
                    ),
                )
                st.form_submit_button(
                    "Reject",
                    key=f"no-{request.request}",
                    on_click=lambda: attempt(
                        lambda: reject(request.request, st.session_state[key], workbench()),
                        lambda r: "The request is rejected.",
                    ),
                )


def ask(model: str, versions: list) -> None:
    """The form that asks for the promotion of a version."""
    with st.form("promote"):
        one, two, three, four = st.columns([1.2, 1.2, 4, 1], vertical_alignment="bottom")
        one.selectbox("Version", [v.version for v in reversed(versions)], key="ask-version")
        two.text_input("Alias", "champion", key="ask-alias")
        three.text_input(
            "Reason", key="ask-why", placeholder="fewer missed frauds at the same number of alarms"
        )
        four.form_submit_button(
            "Ask",
            type="primary",
            key="ask",
            width="stretch",
            on_click=lambda: attempt(
                lambda: promote(
                    f"{model}@{st.session_state['ask-version']}",
                    st.session_state["ask-alias"].strip(),
                    st.session_state["ask-why"],
                    workbench(),
                ),
                lambda r: (
                    f"The request is recorded and {r.state}."
                    + (
                        " Read the evidence below."
                        if r.state == "waiting"
                        else f" The gate {r.gates[0].gate} says {r.gates[0].result}."
                    )
                ),
            ),
        )


def history(model: str, requests: list) -> None:
    """The last eight decided requests, every event of the model, and whether the audit trail holds."""
    closed = [r for r in requests if r.state != "waiting"]
    for r in closed[:8]:
        title = f"{ago(r.at)}: version {r.version} to {r.alias} was {r.state}" + (
            ", self-approved" if r.self_approved else ""
        )
        with st.expander(as_markdown(title)):
            muted(
                f"Asked by {r.actor}: {r.reason}"
                + (
                    f"  ·  Decided by {r.decided_by}, {ago(r.decided)}: {r.decision}"
                    if r.decided_by
                    else ""
                )
            )
            gates(r)
    rows = [
        {
            "when": ago(e["at"]),
            "who": e["actor"],
            "what": e["action"],
            "subject": e["subject"],
            "reason": e["reason"] or "",
        }
        for e in reversed(list_events(wb=workbench()))
        if e["subject"].partition("@")[0] == model
    ]
    tall = "content" if len(rows) <= 12 else 457
    st.dataframe(pd.DataFrame(rows), hide_index=True, height=tall, alt="Events")
    found = verify_audit(wb=workbench())
    muted(
        f"{found['events']:,} events hold; {found['strength']}"
        if found["valid"]
        else f"The audit trail does not hold: {found['fault']}"
    )
