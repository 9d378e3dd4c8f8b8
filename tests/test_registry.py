"""Models, gates, promotion and the audit trail against damage, races, and people who should not."""

import datetime as dt
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from faults import CODE, everything, python

from mlworkbench.core.audit import list_events, verify_events
from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.settings import open_workbench
from mlworkbench.core.store import aliases, events, reading, reigns, requests, versions, writing
from mlworkbench.production.scoring import score
from mlworkbench.registry import gates
from mlworkbench.registry.promotion import (
    approve,
    list_requests,
    promote,
    reject,
    rollback,
    verify_audit,
)
from mlworkbench.registry.versions import get_version, list_versions, load_model, register


def trained(wb, name: str, noise: float) -> str:
    """A finished run with a model, its signature and predictions, made without a kernel; its id."""
    from catboost import CatBoostClassifier

    from mlworkbench.data.queries import sql
    from mlworkbench.execution.journal import log_metric, log_model
    from mlworkbench.execution.opening import close_run, open_run
    from mlworkbench.execution.predictions import log_predictions

    frame = sql("SELECT * FROM payments ORDER BY id", wb=wb).df()
    run = open_run(name, wb=wb)
    model = CatBoostClassifier(
        iterations=5, depth=2, verbose=False, allow_writing_files=False, random_seed=len(name)
    )
    model.fit(frame[["a", "b"]], frame["y"])
    signature = {
        "task": "binary",
        "classes": ["0", "1"],
        "table": "payments",
        "target": "y",
        "view": "",
        "key": ["id"],
    }
    log_model(model, signature | {"features": {"a": "number", "b": "number"}}, run=run.run, wb=wb)
    dice = np.random.default_rng(1)
    value = np.clip(frame["y"] * 0.4 + 0.3 + noise * dice.normal(size=len(frame)), 0, 1)
    log_predictions(frame["y"], value, key=frame["id"], run=run.run, wb=wb)
    log_metric("auc", 0.8, run=run.run, wb=wb)
    close_run(run.run, "finished", wb=wb)
    return run.run


@pytest.fixture(scope="module")
def models_made(empty_workbench, tmp_path_factory):
    from mlworkbench.data.ingestion import ingest
    from mlworkbench.execution.opening import close_run, open_run

    root = tmp_path_factory.mktemp("registry") / "wb"
    shutil.copytree(empty_workbench, root)
    wb = open_workbench(root)
    dice = np.random.default_rng(0)
    frame = pd.DataFrame({"id": range(600), "a": dice.normal(size=600), "b": dice.normal(size=600)})
    frame["y"] = (frame["a"] + dice.normal(size=600) > 0.5).astype(int)
    ingest(frame, table="payments", key="id", wb=wb)
    set_setting(wb, "compare", "resamples", "200")
    close_run(open_run("spare", wb=wb).run, "finished", wb=wb)
    for name, noise in {"bad": 0.5, "middle": 0.3, "good": 0.15, "best": 0.05}.items():
        register(trained(wb, name, noise), "fraud", wb)
    return root


@pytest.fixture
def wb(models_made, tmp_path):
    """A workbench with fraud@1 (bad) to fraud@4 (best), and nobody champion."""
    shutil.copytree(models_made, tmp_path / "wb")
    return open_workbench(tmp_path / "wb")


def crown(wb, number: int) -> str:
    asked = promote(f"fraud@{number}", "champion", "it is better", wb)
    assert asked.state == "waiting", asked
    return approve(asked.request, "evidence read", wb).request


def set_setting(wb, section: str, name: str, value: str):
    text = (wb.root / "settings.ini").read_text().splitlines()
    place = next(
        i
        for i, line in enumerate(text)
        if line.startswith(f"{name} =")
        and f"[{section}]" in [t for t in text[:i] if t.startswith("[")][-1:]
    )
    text[place] = f"{name} = {value}"
    (wb.root / "settings.ini").write_text("\n".join(text) + "\n")
    return open_workbench(wb.root)


def test_any_changed_byte_of_a_model_is_refused(wb, torture):
    crown(wb, 1)
    asked = promote("fraud@2", "champion", "it is better", wb)
    file = get_version("fraud@2", wb).file
    good, seed = file.read_bytes(), random.randrange(10**6)
    print("seed", seed)
    dice = random.Random(seed)
    spoilt = [
        b"",
        good[:-1],
        good + b"\0",
        good[: len(good) // 2],
        pickle.dumps({"a": 1}),
        get_version("fraud@1", wb).file.read_bytes(),
    ]
    for _ in range(600 if torture else 20):
        bad = bytearray(good)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        spoilt.append(bytes(bad))
    for bad in spoilt:
        file.write_bytes(bad)
        with pytest.raises(WorkbenchError, match="fraud@2 was changed after it was registered"):
            load_model("fraud@2", wb)
    before = everything(wb)
    with pytest.raises(WorkbenchError, match="changed"):
        approve(asked.request, "evidence read", wb)
    with pytest.raises(WorkbenchError, match="changed"):
        score("payments", "fraud@2", "scores", wb)
    file.unlink()
    with pytest.raises(WorkbenchError, match="cannot be read"):
        score("payments", "fraud@2", "scores", wb)
    assert everything(wb) == before, "something was written all the same"
    file.write_bytes(good)
    approve(asked.request, "evidence read", wb)
    get_version("fraud@1", wb).file.write_bytes(b"")
    with pytest.raises(WorkbenchError, match="changed"):
        rollback("fraud@champion", "back please", wb)
    assert get_version("fraud@champion", wb).version == 2


def test_changed_run_cannot_be_registered(wb):
    from mlworkbench.execution.record import get_run

    run = get_run("bad", wb=wb)
    file = run.folder / "model.cbm"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(WorkbenchError, match="changed"):
        register("bad", "other", wb)
    file.write_bytes(good)
    signature = run.folder / "signature.json"
    signature.write_text(signature.read_text().replace('"y"', '"a"'))
    with pytest.raises(WorkbenchError, match="changed"):
        register("bad", "other", wb)
    signature.unlink()
    with pytest.raises(WorkbenchError):
        register("bad", "other", wb)


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_a_pickle_is_never_loaded(wb, tmp_path, monkeypatch):
    """Not even when its hash is the registered one."""
    import hashlib

    trap = tmp_path / "sprung"
    monkeypatch.setenv("TRAP", str(trap))
    data = pickle.dumps(Trap())
    get_version("fraud@1", wb).file.write_bytes(data)
    with writing(wb) as db:
        db.execute(
            versions.update()
            .where(versions.c.version == 1)
            .values(sha256=hashlib.sha256(data).hexdigest())
        )
    for attempt in (
        lambda: load_model("fraud@1", wb),
        lambda: score("payments", "fraud@1", "scores", wb),
    ):
        with pytest.raises(WorkbenchError):
            attempt()
    assert not trap.exists()
    from mlworkbench.execution.journal import log_model

    with pytest.raises(UserError, match="pickle"):
        log_model(Trap(), run="bad", wb=wb)


def test_one_run_is_one_version(wb):
    assert register("bad", "fraud", wb).version == 1
    code = "from mlworkbench.registry.versions import register\nprint('done', register('middle', 'twin', wb).version)"
    started = [python(wb.root, code, wait=False) for _ in range(4)]
    said = [p.communicate(timeout=90) for p in started]
    assert [out for out, _ in said] == ["done 1\n"] * 4, said
    assert len(list_versions("twin", wb)) == 1 and verify_audit(wb=wb)["valid"]


@pytest.mark.parametrize(
    "name", ["", "a b", "../x", "fraud@1", "1x", "x" * 64, "frаud\n", "a/b", "<b>"]
)
def test_names_of_models(wb, name):
    with pytest.raises(UserError):
        register("bad", name, wb)


def test_a_misspelt_alias_is_no_new_one(wb):
    with pytest.raises(UserError, match="Did you mean 'champion'"):
        promote("fraud@1", "chmpion", "it is better", wb)
    assert list_requests(wb) == []
    assert promote("fraud@1", "shadow", "to watch it", wb).state == "waiting"


def test_a_version_names_its_only_waiting_request(wb):
    promote("fraud@1", "shadow", "to watch it", wb)
    assert approve("fraud@1", "evidence read", wb).state == "approved"
    with pytest.raises(UserError, match="no request 'fraud@1'"):
        approve("fraud@1", "once more", wb)
    for alias in ("champion", "beside"):
        promote("fraud@2", alias, "to watch it", wb)
    with pytest.raises(UserError, match="2 requests match"):
        approve("fraud@2", "which one?", wb)


RACER = """
from mlworkbench.core.errors import WorkbenchError
from mlworkbench.registry.promotion import approve, promote
me, times = int(sys.argv[2]), int(sys.argv[3])
for i in range(times):
    try:
        asked = promote(f"fraud@{1 + (me + i) % 4}", "champion", f"racer {me}", wb)
        approve(asked.request, f"racer {me}", wb)
        print("done", asked.version, flush=True)
    except WorkbenchError as err:
        print("refused", err, flush=True)
"""


def test_racing_promotions_end_with_one_champion(wb, torture):
    wb = set_setting(wb, "gates", "required", "schema")
    racers, times = (4, 5) if torture else (3, 3)
    started = [python(wb.root, RACER, str(me), str(times), wait=False) for me in range(racers)]
    said = [p.communicate(timeout=300) for p in started]
    assert not any(err for _, err in said), said
    won = sum(out.count("done ") for out, _ in said)
    with reading(wb) as db:
        held = db.execute(sa.select(aliases)).all()
        sitting = db.execute(sa.select(reigns).where(reigns.c.until.is_(None))).all()
        ruled = db.scalar(sa.select(sa.func.count()).select_from(reigns))
    assert len(held) == len(sitting) == 1 and held[0].version == sitting[0].version
    assert ruled == won == sum(r.state == "approved" for r in list_requests(wb)) >= 1
    assert len([e for e in list_events(wb=wb) if e["action"] == "approve"]) == won
    assert verify_audit(wb=wb)["valid"]


def test_racing_approvals_of_one_request(wb):
    asked = promote("fraud@1", "champion", "the first", wb)
    code = "from mlworkbench.core.errors import WorkbenchError\nfrom mlworkbench.registry.promotion import approve\n"
    code += "try: print('done', approve(sys.argv[2], 'read it', wb).version)\nexcept WorkbenchError as err: print('refused', err)"
    started = [python(wb.root, code, asked.request, wait=False) for _ in range(4)]
    said = [p.communicate(timeout=90) for p in started]
    assert sorted(out.split()[0] for out, _ in said) == ["done"] + ["refused"] * 3, said
    assert verify_audit(wb=wb)["valid"]


def test_killed_in_the_middle_of_a_registration(wb):
    """The folder has its number and the store has no row: the next one takes the number."""
    run, before = trained(wb, "another", 0.2), everything(wb)
    code = "from mlworkbench.registry.versions import register\nregister(sys.argv[2], 'other', wb)"
    killed = python(wb.root, code, run, MLWORKBENCH_CRASH="registration:1")
    assert killed[0] == -signal.SIGKILL and everything(wb) == before
    (wb.files / "models" / "other" / "1" / "model.cbm").write_bytes(b"half")
    assert register(run, "other", wb).version == 1 and register(run, "other", wb).version == 1
    assert load_model("other@1", wb).tree_count_ == 5 and verify_audit(wb=wb)["valid"]
    files = sorted(f.name for f in (wb.files / "models" / "other").rglob("*"))
    assert files == ["1", "model.cbm", "signature.json"]


def test_killed_in_the_middle_of_a_promotion(wb):
    crown(wb, 1)
    asked = promote("fraud@2", "champion", "it is better", wb)
    before = everything(wb)
    code = "from mlworkbench.registry.promotion import approve\napprove(sys.argv[2], 'read it', wb)"
    assert (
        python(wb.root, code, asked.request, MLWORKBENCH_CRASH="promotion:1")[0] == -signal.SIGKILL
    )
    assert everything(wb) == before and verify_audit(wb=wb)["valid"]
    assert python(wb.root, code, asked.request)[0] == 0
    assert get_version("fraud@champion", wb).version == 2


def test_nobody_approves_their_own_request(wb, monkeypatch):
    wb = set_setting(wb, "promotion", "approval", "second-person")
    asked = promote("fraud@1", "champion", "mine is the best", wb)
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "somebody")
    with pytest.raises(WorkbenchError, match="cannot approve it too"):
        approve(asked.request, "looks good to me", wb)
    assert list_requests(wb)[0].state == "waiting" and not get_version("fraud@1", wb).aliases
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("a second user needs root and setpriv")
    # the temporary folders of pytest are closed to others: the second person gets a copy of their own
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        shutil.copytree(wb.root, f"{folder}/wb")
        subprocess.run(["chmod", "-R", "a+rwX", folder], check=True)
        code = "from mlworkbench.registry.promotion import approve\nfound = approve(sys.argv[2], 'read it', wb)\nprint(found.decided_by, found.self_approved)"
        words = [
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            sys.executable,
            "-c",
            CODE + code,
            f"{folder}/wb",
            asked.request,
        ]
        done = subprocess.run(
            words, capture_output=True, text=True, env=os.environ | {"HOME": folder}
        )
        if "Permission" in done.stderr and sys.prefix in done.stderr:
            pytest.skip("the second user cannot read this Python")
        assert done.stdout == "nobody False\n", done.stderr
        there = open_workbench(f"{folder}/wb")
        assert get_version("fraud@champion", there).version == 1 and verify_audit(wb=there)["valid"]


@pytest.mark.parametrize("value", ["Self", "SELF", "none", "", "second person"])
def test_an_unknown_way_of_approval_is_no_way_round(wb, value):
    asked = promote("fraud@1", "champion", "mine is the best", wb)
    with pytest.raises(WorkbenchError, match="is not self or second-person"):
        set_setting(wb, "promotion", "approval", value)
    with pytest.raises(WorkbenchError, match="is not self or second-person"):
        approve(asked.request, "looks good to me", wb.root)


def test_self_approved_stands_for_ever(wb):
    asked = promote("fraud@1", "champion", "the first", wb)
    assert approve(asked.request, "read it", wb).self_approved is True
    assert [e["body"]["self_approved"] for e in list_events(wb=wb) if e["action"] == "approve"] == [
        True
    ]


def test_evidence_that_changed_since_is_judged_again(wb):
    crown(wb, 1)
    asked = promote("fraud@2", "champion", "it is better", wb)
    from mlworkbench.data.commits import write_lake

    with write_lake("worse predictions", wb=wb) as write:
        write.con.execute(
            "UPDATE predictions SET score = 1 - score WHERE run = ?",
            [get_version("fraud@2", wb).run],
        )
    with pytest.raises(WorkbenchError, match="no longer passes|changed"):
        approve(asked.request, "read it", wb)
    assert (
        list_requests(wb)[0].state == "refused" and get_version("fraud@champion", wb).version == 1
    )
    assert verify_audit(wb=wb)["valid"]


def test_gates_that_changed_since_are_judged_again(wb):
    asked = promote("fraud@1", "champion", "the first", wb)
    wb = set_setting(wb, "gates", "required", "schema finite no_leak")
    with pytest.raises(WorkbenchError, match="no_leak"):
        approve(asked.request, "read it", wb)
    assert get_version("fraud@1", wb).aliases == ()


def test_a_champion_that_changed_since_overtakes(wb):
    crown(wb, 1)
    first, second = (promote(f"fraud@{n}", "champion", "it is better", wb) for n in (2, 4))
    approve(second.request, "read it", wb)
    with pytest.raises(WorkbenchError):
        approve(first.request, "read it", wb)
    states = {r.request: r.state for r in list_requests(wb)}
    assert (
        states[first.request] in ("overtaken", "refused")
        and get_version("fraud@champion", wb).version == 4
    )
    wb = set_setting(wb, "gates", "required", "schema")
    first, second = (promote(f"fraud@{n}", "champion", "it is better", wb) for n in (2, 3))
    approve(second.request, "read it", wb)
    with pytest.raises(WorkbenchError, match="has changed since"):
        approve(first.request, "read it", wb)
    assert {r.request: r.state for r in list_requests(wb)}[first.request] == "overtaken"
    with pytest.raises(WorkbenchError, match="overtaken"):
        approve(first.request, "once more", wb)
    assert verify_audit(wb=wb)["valid"]


def test_a_decided_request_stays_decided(wb):
    asked = promote("fraud@1", "champion", "the first", wb)
    reject(asked.request, "not enough weeks", wb)
    for again in (approve, reject):
        with pytest.raises(WorkbenchError, match="rejected"):
            again(asked.request, "read it", wb)
    for reason in ("", "  ", "\n\t", "ab"):
        with pytest.raises(UserError):
            promote("fraud@1", "champion", reason, wb)


def test_a_rollback_to_nobody_opens_no_way_round_the_gate(wb):
    crown(wb, 4)
    rollback("fraud@champion", "make room", wb)
    asked = promote("fraud@1", "champion", "the worse one", wb)
    gate = next(g for g in asked.gates if g.gate == "beats_champion")
    assert asked.state == "refused" and gate.result == "fail"
    assert "nobody is champion now; against the last one, fraud@4" in gate.evidence
    assert verify_audit(wb=wb)["valid"]
    crown(wb, 4)  # the very one that was rolled back may come again
    rollback("fraud@champion", "and away once more", wb)
    assert verify_audit(wb=wb)["valid"], verify_audit(wb=wb)
    last = [e for e in list_events(wb=wb) if e["action"] == "rollback"][-1]
    assert (last["subject"], last["body"]["was"], last["body"]["version"]) == (
        "fraud@champion",
        4,
        None,
    )


@pytest.mark.parametrize(
    "kind, type_, fits",
    [
        ("number", "INTEGER", True),
        ("number", "DECIMAL(9,2)", True),
        ("number", "INTERVAL", False),
        ("number", "INTEGER[]", False),
        ("number", "VARCHAR", False),
        ("category", "VARCHAR", True),
        ("category", "INTEGER[]", False),
        ("days before at", "DATE", True),
        ("days since 1970", "DOUBLE", False),
    ],
)
def test_the_schema_gate_looks_at_whole_types(kind, type_, fits):
    assert gates._suits(kind, type_) is fits


def test_the_hint_of_a_rollback_names_no_other_model(wb):
    crown(wb, 4)
    with pytest.raises(UserError) as err:
        rollback("frauds@champion", "away with it", wb)
    assert "Did you mean" not in str(err.value) and "There is: fraud@champion" in str(err.value)


def test_rollback_twice_is_two_steps(wb):
    for number in (1, 2, 4):
        crown(wb, number)
    assert rollback("fraud@champion", "alerts doubled", wb)["version"] == 2
    assert rollback("fraud@champion", "alerts doubled", wb)["version"] == 1
    assert rollback("fraud@champion", "alerts doubled", wb) == {
        "model": "fraud",
        "alias": "champion",
        "version": None,
        "was": 1,
    }
    with pytest.raises(UserError, match="nobody holds"):
        rollback("fraud@champion", "alerts doubled", wb)
    assert all(not v.aliases for v in list_versions(wb=wb)) and verify_audit(wb=wb)["valid"]
    crown(wb, 2)
    assert rollback("fraud@champion", "alerts doubled", wb)["version"] is None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        WorkbenchError("x"),
        ZeroDivisionError(),
        RecursionError(),
        MemoryError(),
        KeyError("x"),
    ],
)
def test_a_gate_that_raises_is_not_a_pass(wb, monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setitem(gates.GATES, "finite", broken)
    asked = promote("fraud@1", "champion", "the first", wb)
    assert asked.state == "refused"
    assert {g.gate: g.result for g in asked.gates}["finite"] == "cannot tell"


@pytest.mark.parametrize(
    "answer",
    [("yes", "x"), (True, "x"), (None, "x"), ("PASS", "x"), (float("nan"), "x"), None, "pass"],
)
def test_a_gate_that_says_something_else_is_not_a_pass(wb, monkeypatch, answer):
    monkeypatch.setitem(gates.GATES, "finite", lambda *_: answer)
    assert promote("fraud@1", "champion", "the first", wb).state == "refused"


def test_settings_cannot_require_a_gate_that_is_not(wb):
    wb = set_setting(wb, "gates", "required", "schema finnite")
    with pytest.raises(UserError, match="finnite"):
        promote("fraud@1", "champion", "the first", wb)


TAMPERING = {
    "event reason": lambda db: db.execute(
        events.update().where(events.c.seq == 5).values(reason="nobody asked")
    ),
    "event actor": lambda db: db.execute(
        events.update().where(events.c.seq == 5).values(actor="x")
    ),
    "event body": lambda db: db.execute(events.update().where(events.c.seq == 6).values(body="{}")),
    "event time": lambda db: db.execute(
        sa.text("UPDATE events SET at = '2020-01-01 00:00:00.000000' WHERE seq = 6")
    ),
    "event gone": lambda db: db.execute(events.delete().where(events.c.seq == 4)),
    "first event gone": lambda db: db.execute(events.delete().where(events.c.seq == 1)),
    "alias moved": lambda db: db.execute(aliases.update().values(version=3)),
    "alias gone": lambda db: db.execute(aliases.delete()),
    "alias added": lambda db: db.execute(
        aliases.insert(),
        {"model": "fraud", "alias": "shadow", "version": 3, "since": dt.datetime(2026, 1, 1)},
    ),
    "self-approved hidden": lambda db: db.execute(aliases.update().values(self_approved=False)),
    "reign moved": lambda db: db.execute(
        reigns.update().where(reigns.c.until.is_(None)).values(version=3)
    ),
    "reign gone": lambda db: db.execute(reigns.delete().where(reigns.c.until.is_not(None))),
    "model hash": lambda db: db.execute(
        versions.update().where(versions.c.version == 2).values(sha256="0" * 64)
    ),
    "model signature": lambda db: db.execute(
        versions.update().where(versions.c.version == 2).values(signature="{}")
    ),
    "model run": lambda db: db.execute(
        sa.text(
            "UPDATE versions SET run = (SELECT run FROM runs WHERE name = 'spare') WHERE version = 2"
        )
    ),
    "version gone": lambda db: db.execute(versions.delete().where(versions.c.version == 3)),
    "request gates": lambda db: db.execute(
        requests.update().values(gates=sa.func.replace(requests.c.gates, "pass", "fail"))
    ),
    "request approver": lambda db: db.execute(
        requests.update().where(requests.c.state == "approved").values(decided_by="the-boss")
    ),
    "request reason": lambda db: db.execute(requests.update().values(reason="changed")),
    "request self-approved": lambda db: db.execute(requests.update().values(self_approved=False)),
    "request approved by hand": lambda db: db.execute(
        requests.update()
        .where(requests.c.state == "waiting")
        .values(state="approved", self_approved=False)
    ),
    "request gone": lambda db: db.execute(requests.delete().where(requests.c.state == "approved")),
}


@pytest.fixture(scope="module")
def history(models_made, tmp_path_factory):
    root = tmp_path_factory.mktemp("history") / "wb"
    shutil.copytree(models_made, root)
    wb = open_workbench(root)
    crown(wb, 1)
    crown(wb, 2)
    promote("fraud@4", "champion", "it is better", wb)
    assert verify_audit(wb=wb)["valid"]
    return root


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found(history, tmp_path, what):
    shutil.copytree(history, tmp_path / "wb")
    wb = open_workbench(tmp_path / "wb")
    with writing(wb) as db:
        TAMPERING[what](db)
    found = verify_audit(wb=wb)
    assert not found["valid"] and found["fault"], found


def test_what_only_a_head_kept_elsewhere_shows(history, tmp_path):
    shutil.copytree(history, tmp_path / "wb")
    wb = open_workbench(tmp_path / "wb")
    head = verify_audit(wb=wb)["head"]
    assert verify_audit(head, wb)["valid"]
    with writing(wb) as db:  # the last request and its event, as if nobody had asked
        db.execute(requests.delete().where(requests.c.state == "waiting"))
        db.execute(
            events.delete().where(
                events.c.seq == sa.select(sa.func.max(events.c.seq)).scalar_subquery()
            )
        )
    assert (
        verify_events(wb=wb)["valid"] and "head kept elsewhere" in verify_audit(wb=wb)["strength"]
    )
    assert "tail was cut" in verify_audit(head, wb)["fault"]


def test_reasons_keep_their_bytes(wb):
    for reason in (
        "two\nlines",
        "é\u202e日本",
        '{"action":"approve"}',
        "'; DROP TABLE events; --",
        "x" * 20_000,
    ):
        promote("fraud@1", "champion", reason, wb)
    assert verify_audit(wb=wb)["valid"] and len(list_requests(wb)) == 5
    with reading(wb) as db:
        assert all(json.loads(r.body) is not None for r in db.execute(sa.select(events)))


def test_two_appenders_make_one_chain(wb):
    code = "from mlworkbench.core.audit import record_event\nfrom mlworkbench.core.store import writing\nfor i in range(25):\n    with writing(wb) as db: record_event(db, 'note', f'{sys.argv[2]} {i}')\n"
    started = [python(wb.root, code, str(w), wait=False) for w in range(3)]
    assert [p.communicate(timeout=90)[1] for p in started] == [""] * 3
    found = verify_events(wb=wb)
    assert found["valid"] and found["events"] == 4 + 75


def test_files_of_models_are_where_they_say(wb):
    assert all(Path(v.file).exists() for v in list_versions(wb=wb))
