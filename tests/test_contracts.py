"""Contracts: what they say holds, what breaks them is kept with its line, and nothing is lost or doubled."""

import contextlib
import datetime as dt
import gzip
import http.server
import json
import os
import random
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import psycopg_connect
from faults import kill, python, until

from mlworkbench.core.audit import list_events
from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.data.catalog import snapshots
from mlworkbench.data.checks import check_table
from mlworkbench.data.commits import verify_files
from mlworkbench.data.contracts import adopt, contract_file, contract_versions, declare, roles
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.mending import quarantined, replay, write_quarantine
from mlworkbench.data.queries import sql
from mlworkbench.desk.cli import cli
from mlworkbench.modelling.datasets import load_dataset
from mlworkbench.modelling.problems import describe_problem
from mlworkbench.modelling.training import fit_catboost, predict_scores

PAN = "4111111111111111"


@pytest.fixture
def write(tmp_path):
    def write(data, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


def counts(answer):
    told = tuple(answer[w] for w in ("added", "updated", "unchanged", "quarantined"))
    assert answer["rows"] == sum(told) == sum(f["rows"] for f in answer["files"])
    for f in answer["files"]:
        assert f["rows"] == f["added"] + f["updated"] + f["unchanged"] + f["quarantined"]
    return told


def held(wb, table="t"):
    """What a refusal must not change."""
    return (
        sorted(map(str, sql(f"FROM {table}", wb=wb).fetchall())),
        sorted(map(str, sql("FROM mlw_quarantine", wb=wb).fetchall())),
        len(snapshots(wb=wb)),
        sorted(p.name for p in (wb.root / "lake" / "tmp").rglob("*")),
    )


def edit(wb, old, new, table="t"):
    file = contract_file(table, wb)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


LINES = [f"{i},{i}.25,word {i}" for i in range(1000, 1200)]


@pytest.mark.parametrize("form", ["plain", "CRLF", "Latin-1", "gzip", "quoted lines"])
def test_every_broken_row_is_kept_with_its_line(wb, write, form):
    ingest(write("id,amount,note\n1,1.5,é\n2,2.5,b\n", "first.csv"), table="t", key="id", wb=wb)
    lines = list(LINES)
    lines[10:10] = ["9,9", "x1,5,bad id", ",5,no id", "1,1.5,other note"]  # after eleven lines
    lines += ["1000,1000.25,word 1000", "1001,0,twice", "7,12o,text", "8,8"]
    first = 12
    if form == "quoted lines":
        lines[0] = '1000,1000.25,"word\n\n1000"'
        lines[-4] = lines[0]
        first = 14
    text = "id,amount,note\n" + "\n".join(lines)
    data = text.encode()
    if form == "CRLF":
        data = text.replace("\n", "\r\n").encode()
    if form == "Latin-1":
        data = text.replace("bad id", "schlüssel").encode("latin-1")
    if form == "gzip":
        data = gzip.compress(data)
    answer = ingest(write(data), table="t", wb=wb)
    assert counts(answer) == (200, 0, 1, 7)  # the exact copy of row 1000 is known, not broken
    found = [(r["line"], r["column"], r["reason"]) for r in quarantined("t", wb)]
    end = first + 4 + 190 + (2 if form == "quoted lines" else 0)
    assert found == [
        (first, "", "2 columns where the header has 3"),
        (first + 1, "id", "id holds 'x1', which is no BIGINT"),
        (first + 2, "id", "id is empty"),
        (first + 3, "id", "the key id 1 stands in the table already, with other values"),
        (end + 1, "id", "the key id 1001 stands in the source twice, with other values"),
        (end + 2, "amount", "amount holds '12o', which is no DOUBLE"),
        (end + 3, "", "2 columns where the header has 3"),
    ]
    assert sql("SELECT count(*), sum(amount) FROM t", wb=wb).fetchone() == (202, 4 + 200 * 1099.75)
    before = held(wb)
    assert counts(ingest(write(data), table="t", wb=wb)) == (0, 0, answer["rows"], 0)
    assert held(wb) == before and verify_files(wb) == []


def test_too_many_broken_rows_stop_everything(wb, write):
    ingest(write("id,v\n1,1\n", "first.csv"), table="t", key="id", wb=wb)
    before = held(wb)
    rows = "".join(f"{i},{i}\n" for i in range(10, 104))
    with pytest.raises(UserError) as caught:
        ingest(write(f"id,v\n{rows}" + "x,1\n" * 6), table="t", wb=wb)
    assert "x.csv does not fit the table t: id is VARCHAR" in str(caught.value)
    with pytest.raises(
        UserError, match="line 96: id is empty.*6 of 100 rows are broken.*100 refused"
    ):
        ingest(write(f"id,v\n{rows}" + ",1\n" * 6), table="t", wb=wb)
    assert held(wb) == before
    assert counts(ingest(write(f"id,v\n{rows}9,9\n" + ",1\n" * 5), table="t", wb=wb))[3] == 5


def test_the_same_rows_in_another_form_are_known_by_key(wb, write, tmp_path):
    table = pa.table({"id": [1, 2, 3], "v": [0.1, None, 1e300], "s": ["a", "", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert counts(ingest(tmp_path / "a.parquet", table="t", key="id", wb=wb)) == (3, 0, 0, 0)
    lines = '{"id": 2, "v": null, "s": ""}\n{"id": 1, "v": 0.1, "s": "a"}\n'
    assert counts(ingest(write(lines, "a.jsonl"), table="t", wb=wb)) == (0, 0, 2, 0)
    assert counts(ingest(write("id,v,s\n4,4,d\n1,0.1,a\n"), table="t", wb=wb)) == (1, 0, 1, 0)


def test_upsert_brings_rows_up_to_date(wb, write):
    with pytest.raises(UserError, match="t has none.*Name it with --key"):
        ingest(write("id,v\n1,a\n"), table="t", mode="upsert", wb=wb)
    rows = "".join(f"{i},a\n" for i in range(100))
    assert (
        counts(ingest(write(f"id,v\n{rows}"), table="t", mode="upsert", key="id", wb=wb))[0] == 100
    )
    ids = dict(sql("SELECT id, rowid FROM t", wb=wb).fetchall())
    change = write(
        "id,v\n" + "".join(f"{i},{'b' if i < 7 else 'a'}\n" for i in range(5, 60)) + "777,c\n5,z\n"
    )
    assert counts(ingest(change, table="t", mode="upsert", wb=wb)) == (1, 2, 53, 1)
    assert sql("SELECT count(*), count(*) FILTER (v = 'b') FROM t", wb=wb).fetchone() == (101, 2)
    assert all(
        ids[i] == row for i, row in sql("SELECT id, rowid FROM t WHERE id < 100", wb=wb).fetchall()
    )
    before = held(wb)
    assert counts(ingest(change, table="t", mode="upsert", wb=wb)) == (0, 0, 56, 1)
    assert held(wb) == before


def test_a_table_gives_way_only_when_asked(wb, write):
    ingest(write("id,v\n1,1\n2,2\n"), table="t", key="id", wb=wb)
    wide = write("id,v,w\n3,1.5,x\n4,b,y\n", "wide.csv")
    before, then = held(wb), snapshots(wb=wb)[-1]["snapshot"]
    with pytest.raises(UserError, match="new: w; v is VARCHAR and in the table BIGINT.*--evolve"):
        ingest(wide, table="t", wb=wb)
    rehearsed = ingest(wide, table="t", evolve=True, dry_run=True, wb=wb)
    assert counts(rehearsed) == (2, 0, 0, 0) and held(wb) == before
    words = ("ingest", str(wide), "--table", "t", "--evolve", "--workbench", str(wb.root))
    told = CliRunner().invoke(cli, words).output
    assert f"contract {rehearsed.contract}" in told and rehearsed.contract.startswith("2.0.0: ")
    assert "v BIGINT → VARCHAR (breaking)" in told and "2 rows added" in told
    rows = sorted(sql("SELECT id, v, w FROM t", wb=wb).fetchall())
    assert rows == [(1, "1", None), (2, "2", None), (3, "1.5", "x"), (4, "b", "y")]
    assert sorted(sql("FROM t", at=then, wb=wb).fetchall()) == [(1, 1), (2, 2)]
    newest = contract_versions("t", wb)[-1]
    assert (
        newest.breaking
        and "v BIGINT → VARCHAR (breaking)" in newest.changes
        and "w is new" in newest.changes
    )
    assert counts(ingest(write("id,v\n5,e\n", "less.csv"), table="t", evolve=True, wb=wb))[0] == 1


def test_what_the_owner_writes_holds_to_the_letter(wb, write):
    rows = "".join(f"{i},{i},EUR,2026-01-0{1 + i % 9} 10:00:00\n" for i in range(100))
    ingest(write(f"id,amount,currency,at\n{rows}"), table="t", key="id", wb=wb)
    assert roles("t", wb).named() == {"key": ["id"], "time": ["at"]}  # certain without asking
    limits = "physicalType: VARCHAR\n    enum: [{value: EUR}, {value: USD}]\n    customProperties: [{property: role, value: forbidden}]"
    edit(wb, "physicalType: VARCHAR", limits)
    file = edit(
        wb,
        "- name: amount\n",
        "- name: amount  # in cents\n    logicalTypeOptions: {maximum: 500}\n",
    )
    mine = file.read_text()
    more = "".join(f"{i},{i},USD,2026-02-01 10:00:00\n" for i in range(300, 398))
    answer = ingest(
        write(
            f"id,amount,currency,at\n{more}998,501,EUR,2026-02-01 10:00:00\n999,1,GBP,2026-02-01 10:00:00\n"
        ),
        table="t",
        wb=wb,
    )
    assert counts(answer) == (98, 0, 0, 2) and file.read_text() == mine
    assert [r["reason"] for r in quarantined("t", wb)] == [
        "amount 501 is above 500",
        "currency GBP is not among the allowed values",
    ]
    kept = contract_versions("t", wb)[-1]
    assert kept.text == mine and kept.breaking and "amount: at most 500 (breaking)" in kept.changes
    assert roles("t", wb).forbidden == ("currency",) and check_table("t", wb=wb).holds
    edit(wb, "maximum: 500", "maximum: 50")
    found = check_table("t", wb=wb)
    assert (found.broken, found.findings[0]["promise"], found.findings[0]["rows"]) == (
        147,
        "at most 50",
        147,
    )
    edit(wb, "maximum: 50", "maximum: fifty")
    with pytest.raises(UserError, match="column amount: .*'fifty' to "):
        check_table("t", wb=wb)
    file.write_text("schema: [*a]")
    with pytest.raises(UserError, match="no plain YAML"):
        roles("t", wb)


def test_next_months_data_does_not_break_what_was_inferred(wb, write):
    ingest(write("id,amount,kind,at\n1,5,a,2026-01-01 10:00:00\n"), table="t", key="id", wb=wb)
    other = "".join(f"{i},{i * 1000},k{i},2027-01-01 10:00:00\n" for i in range(2, 40)) + "41,,,\n"
    assert counts(ingest(write(f"id,amount,kind,at\n{other}"), table="t", wb=wb)) == (39, 0, 0, 0)


TYPED = {  # texts where numbers belong, as each kind of source brings them
    "Parquet": lambda rows, path: pq.write_table(pa.Table.from_pylist(rows), path) or path,
    "JSON": lambda rows, path: (
        path.write_text("\n\n".join(json.dumps(r, allow_nan=False) for r in rows)) and path
    ),
    "pandas": lambda rows, path: pd.DataFrame(rows),
    "stream": lambda rows, path: pa.Table.from_pylist(rows).to_reader(),
}


@pytest.mark.parametrize("kind", TYPED)
def test_broken_rows_of_typed_sources_are_kept_too(wb, write, tmp_path, kind):
    first = write("id,amount,note,at\n1,1.5,a,2026-01-01\n", "first.csv")
    ingest(first, table="t", key="id", wb=wb)
    edit(wb, "DOUBLE", "DOUBLE\n    logicalTypeOptions: {maximum: 1000}")
    rows = [{"id": i, "amount": f"{i}.5", "note": "w", "at": "2026-02-01"} for i in range(100, 220)]
    rows[10]["amount"], rows[20]["id"], rows[30]["at"] = "12o", None, "tomorrow"
    rows[40]["amount"], rows[50]["id"] = "5000", 100
    if kind == "JSON":  # numbers, but for the one that is none
        rows = [r | {"amount": float(r["amount"]) if r["amount"] != "12o" else "12o"} for r in rows]

    def source():
        return TYPED[kind](rows, tmp_path / {"JSON": "x.jsonl"}.get(kind, "x.parquet"))

    assert counts(ingest(source(), table="t", wb=wb)) == (115, 0, 0, 5)
    lines = 2 if kind == "JSON" else 1
    assert [(r["line"], r["column"], r["reason"]) for r in quarantined("t", wb)] == [
        (10 * lines + 1, "amount", "amount holds '12o', which is no DOUBLE"),
        (20 * lines + 1, "id", "id is empty"),
        (30 * lines + 1, "at", "at holds 'tomorrow', which is no DATE"),
        (40 * lines + 1, "amount", f"amount {5000.0} is above 1000"),
        (50 * lines + 1, "id", "the key id 100 stands in the source twice, with other values"),
    ]
    assert sql("SELECT count(*), sum(amount) FROM t WHERE id > 1", wb=wb).fetchone() == (
        115,
        sum(float(r["amount"]) for i, r in enumerate(rows) if i not in (10, 20, 30, 40, 50)),
    )
    before = held(wb)
    assert counts(ingest(source(), table="t", wb=wb)) == (0, 0, 120, 0) and held(wb) == before
    with pytest.raises(
        UserError, match="amount is VARCHAR and in the table DOUBLE.*rows are broken"
    ):
        ingest(
            pa.table({"id": [7], "amount": ["x"], "note": ["w"], "at": ["2026-01-01"]}),
            table="t",
            wb=wb,
        )
    dates = pa.table(
        {"id": [7], "amount": [dt.date(2026, 1, 1)], "note": ["w"], "at": ["2026-01-01"]}
    )
    with pytest.raises(UserError, match="amount is DATE and in the table DOUBLE.*--evolve"):
        ingest(dates, table="t", wb=wb)
    assert held(wb) == before


PROTECTED = (
    "apiVersion: v3.2.0\nkind: DataContract\nid: t\nversion: 1.0.0\nstatus: active\nschema:\n- name: t\n  properties:\n"
    "  - {name: pan, customProperties: [{property: role, value: card}]}\n"
    "  - {name: mail, customProperties: [{property: role, value: personal}]}\n"
    "  - {name: amount, physicalType: DOUBLE, logicalTypeOptions: {minimum: 0}}\n"
)
TAKE_IN = """
import pyarrow as pa
from mlworkbench.data.ingestion import ingest
kind, source, contract = sys.argv[2:]
if kind == "stream":
    lines = [line.split(",") for line in open(source).read().split()[1:]]
    columns = [pa.array(c) for c in zip(*lines)]
    source = pa.table([*columns[:2], columns[2].cast("double")], ["pan", "mail", "amount"]).to_reader()
print(ingest(source, table="t", contract=contract, wb=wb)["added"])
"""


def on_disk(wb, process=None) -> bytes:
    """All bytes below a workbench, and those of files there without a name that a process has open."""
    found = [p.read_bytes() for p in wb.root.rglob("*") if p.is_file() and not p.is_symlink()]
    for handle in Path(f"/proc/{process.pid}/fd").iterdir() if process else []:
        with contextlib.suppress(OSError):
            if os.readlink(handle).startswith(str(wb.root)) and "deleted" in os.readlink(handle):
                found.append(handle.read_bytes())
    return b"".join(found)


@pytest.mark.parametrize("kind", ["Latin-1", "stream", "address"])
def test_a_kill_leaves_nothing_of_protected_columns(wb, write, kind):
    rows = "".join(f"{PAN},me{i}@secret.org,{i}\n" for i in range(98))
    text = f"pan,mail,amount\n{rows}" + f"{PAN},ü@secret.org,1\n" * (kind == "Latin-1")
    source, contract = write(text.encode("latin-1")), write(PROTECTED, "t.yaml")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Plain.text, where = text.encode(), f"http://127.0.0.1:{server.server_port}/x.csv"
    words = (kind, where if kind == "address" else str(source), str(contract))
    more = {"MLWORKBENCH_HASH_KEY": "a key of more than sixteen"}
    stop = {"MLWORKBENCH_CRASH": "before_fsync:1:pause"}
    process = python(wb.root, TAKE_IN, *words, wait=False, **more, **stop)
    try:
        stopped = until(lambda: ") T " in Path(f"/proc/{process.pid}/stat").read_text())
        assert stopped and b"411111" in on_disk(wb)  # masked ones are written already
        for seen in (on_disk(wb, process), kill(process) or on_disk(wb)):
            assert PAN.encode() not in seen and b"@secret" not in seen
        code, out, err = python(wb.root, TAKE_IN, *words, **more)
        assert (code, int(out)) == (0, text.count("\n") - 1), err
    finally:
        kill(process)
        server.shutdown()
        server.server_close()
    assert not list((wb.root / "lake" / "tmp").iterdir())  # the next one swept


def test_protected_columns_never_reach_the_disk(wb, write, tmp_path, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_HASH_KEY", "a key of more than sixteen")
    contract = write(PROTECTED, "t.yaml")
    rows = "".join(f"4111 1111 1111 1111,me{i % 3}@secret.org,{i}\n" for i in range(98))
    source = write(f"pan,mail,amount\n{rows}{PAN},you@secret.org,-5\n{PAN},torn@secret.org\n")
    assert counts(ingest(source, table="t", contract=contract, wb=wb)) == (98, 0, 0, 2)
    seen = sql("SELECT DISTINCT pan, mail FROM t", wb=wb).fetchall()
    assert (
        {p for p, _ in seen} == {"411111******1111"}
        and {len(m) for _, m in seen} == {64}
        and len(seen) == 3
    )
    import duckdb

    found = [duckdb.sql(f"FROM '{f}'").fetchall() for f in wb.root.rglob("*.parquet")]
    text = str(found) + "".join(
        f.read_bytes().decode("latin-1") for f in wb.root.rglob("*") if f.is_file()
    )
    assert PAN not in text and "secret.org" not in text and "4111 1111" not in text
    assert roles("t", wb).card == ("pan",) and roles("t", wb).personal == ("mail",)
    again = pa.table({"pan": [4111111111111111], "mail": ["me0@secret.org"], "amount": [1000.0]})
    assert counts(ingest(again, table="t", wb=wb))[0] == 1
    assert (
        len(sql("SELECT DISTINCT pan, mail FROM t", wb=wb).fetchall()) == 3
    )  # the same hash again


def test_a_mended_personal_value_is_judged_in_clear_and_kept_hashed(wb, write, tmp_path):
    contract = (
        "apiVersion: v3.2.0\nkind: DataContract\nid: t\nversion: 1.0.0\nstatus: active\nschema:\n"
        "- name: t\n  properties:\n  - {name: id, physicalType: bigint, primaryKey: true}\n"
        "  - name: mail\n    required: true\n    logicalTypeOptions: {pattern: '.+@.+'}\n"
        "    customProperties: [{property: role, value: personal}]\n"
    )
    contract_file("t", wb).parent.mkdir(exist_ok=True)
    contract_file("t", wb).write_text(contract)
    rows = "".join(f"{i},u{i}@secret.org\n" for i in range(60))
    assert counts(ingest(write(f"id,mail\n{rows}60,\n"), table="t", wb=wb)) == (60, 0, 0, 1)
    assert check_table("t", wb=wb).holds  # a hash is not held against the pattern
    out = tmp_path / "out.csv"
    write_quarantine("t", out, wb)
    text = out.read_text()
    out.write_text(text.replace("60,\n", "60,nobody\n"))
    with pytest.raises(UserError, match="mail .*is not like"):
        replay("t", out, wb)
    out.write_text(text.replace("60,\n", "60,u60@secret.org\n"))
    assert replay("t", out, wb)["added"] == 1
    found = sql("SELECT DISTINCT length(mail) FROM t", wb=wb).fetchall()
    assert found == [(64,)]
    for path in (p for p in wb.root.rglob("*") if p.is_file()):
        assert b"secret.org" not in path.read_bytes(), path


def test_words_of_the_standard_are_kept_refused_or_named(wb, write):
    ingest(write("id,amount\n" + "".join(f"{i},{i}\n" for i in range(50))), table="t", wb=wb)
    edit(wb, "- name: amount\n", "- name: amount\n    logicalTypeOptions: {exclusiveMinimum: 0}\n")
    found = check_table("t", wb=wb)
    assert [(f["promise"], f["rows"]) for f in found.findings] == [("above 0", 1)]
    edit(wb, "{exclusiveMinimum: 0}", "{multipleOf: 2}")
    assert check_table("t", wb=wb).unchecked == ("multipleOf of amount",)
    rule = "{multipleOf: 2}\n    quality: [{type: library, metric: nullValues, mustBe: 0}]"
    edit(wb, "{multipleOf: 2}", rule)
    named = ("multipleOf of amount", "quality rule nullValues of amount")
    assert check_table("t", wb=wb).unchecked == named
    edit(wb, "multipleOf", "multipelOf")
    with pytest.raises(UserError, match="no 'multipelOf', as amount has.*multipleOf"):
        check_table("t", wb=wb)


def test_a_card_number_among_words_is_kept_masked(wb, write):
    notes = "".join(f"{i},order {i} arrived\n" for i in range(100))
    source = write(
        f"id,note\n{notes}100,paid with 4111-1111-1111-1111 ok\n101,{PAN}\n102,iban DE02 1203 0000 0000 2020 51\n"
    )
    assert counts(ingest(source, table="t", key="id", wb=wb)) == (101, 0, 0, 2)
    assert [r["row"]["note"][-18:] for r in quarantined("t", wb)] == [
        "with ************1111 ok"[-18:],
        "************1111",
    ]
    back = replay("t", wb=wb)
    assert (back["added"], back["quarantined"]) == (2, 0)  # masked, it may come in
    words = random.Random(0)
    texts = pa.table({"ref": [f"{words.randrange(10**16):016d}" for _ in range(10_000)]})
    assert counts(ingest(texts, table="refs", wb=wb)) == (10_000, 0, 0, 0)


def test_rows_come_back_once_mended(wb, write, tmp_path):
    rows = "".join(f"{i},{i}.5,w\n" for i in range(100))
    ingest(write(f"id,amount,note\n{rows}"), table="t", key="id", wb=wb)
    edit(
        wb, "physicalType: DOUBLE", "physicalType: DOUBLE\n    logicalTypeOptions: {maximum: 1000}"
    )
    more = "".join(f"{i},{i}.5,w\n" for i in range(200, 300))
    ingest(
        write(f"id,amount,note\n{more}900,5000,=cmd()\n901,1.x,-5\n902,1\n", "y.csv"),
        table="t",
        wb=wb,
    )
    assert replay("t", wb=wb) | {"snapshot": 0} == {
        "table": "t", "snapshot": 0, "rows": 3, "added": 0, "updated": 0, "unchanged": 0, "quarantined": 3,
    }  # fmt: skip
    edit(wb, "maximum: 1000", "maximum: 9000")
    assert replay("t", wb=wb)["added"] == 1
    file = tmp_path / "broken.csv"
    assert write_quarantine("t", file, wb) == 2 and ",'-5" in file.read_text()
    with pytest.raises(UserError, match="is there already"):
        write_quarantine("t", file, wb)
    lines = file.read_text().splitlines()
    mended = [line.replace("1.x", "1.5") for line in lines[:-1]] + [
        lines[-1][: -len(",,")].rstrip(",") + ",902,2.5,z"
    ]
    file.write_text("\n".join(mended) + "\n")
    assert replay("t", file, wb)["quarantined"] == 0
    assert sql("SELECT * FROM t WHERE id >= 900 ORDER BY id", wb=wb).fetchall() == [
        (900, 5000.0, "=cmd()"), (901, 1.5, "-5"), (902, 2.5, "z"),
    ]  # fmt: skip
    assert counts(ingest(write(f"id,amount,note\n{rows}"), table="t", wb=wb))[2] == 100
    assert counts(ingest(tmp_path / "y.csv", table="t", wb=wb))[2] == 103


def test_a_correction_comes_back_as_one_unless_it_is_overtaken(wb, write, tmp_path):
    rows = "".join(f"{i},{i}.5\n" for i in range(100))
    ingest(write(f"id,n\n{rows}"), table="u", key="id", wb=wb)
    more = "".join(f"{i},{i}.75\n" for i in range(50, 150) if i not in (60, 61, 140))
    broken = write(f"id,n\n{more}60,bad\n61,bad\n140,bad\n", "up.csv")
    assert counts(ingest(broken, table="u", mode="upsert", wb=wb)) == (49, 48, 0, 3)
    ingest(write("id,n\n61,6.1\n", "later.csv"), table="u", mode="upsert", wb=wb)
    file = tmp_path / "broken.csv"
    write_quarantine("u", file, wb)
    file.write_text(file.read_text().replace(",bad", ",7.5"))
    back = replay("u", file, wb)
    assert (back["added"], back["updated"], back["quarantined"]) == (1, 1, 1)
    assert sql("SELECT * FROM u WHERE id IN (60, 61, 140) ORDER BY id", wb=wb).fetchall() == [
        (60, 7.5), (61, 6.1), (140, 7.5),
    ]  # fmt: skip
    (left,) = quarantined("u", wb)
    assert "id 61 stands in the table already" in left["reason"] and "since" in left["reason"]
    # the same values again as an append: no correction, so it may not change the row
    more = "".join(f"{i},3\n" for i in range(200, 230))
    assert counts(ingest(write(f"id,n\n1,5\n{more}", "app.csv"), table="u", wb=wb))[3] == 1
    assert replay("u", wb=wb)["quarantined"] == 2

    def call(*words):
        words = ("contract", "replay", "u", *words, "--workbench", str(wb.root), "--json")
        return CliRunner().invoke(cli, words)

    assert "for a reason" in str(call("--dismiss", "all").exception)
    assert "no row nil" in str(call("--dismiss", "nil", "--reason", "x").exception)
    gone = json.loads(call("--dismiss", left["id"], "--reason", "overtaken").stdout)
    assert (gone["dismissed"], gone["quarantined"]) == (1, 1)
    event = list_events("u", wb)[-1]
    assert (event["action"], event["reason"]) == ("dismiss rows", "overtaken")


def test_file_by_file(wb, write, tmp_path, monkeypatch):
    from mlworkbench.data import loading

    for i in range(4):
        write(f"id\n{i}\n", f"p{i}.csv")
    real, seen = loading.load, []

    def load(*given, **more):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(loading, "load", load)
    with pytest.raises(KeyboardInterrupt):
        ingest(str(tmp_path / "p*.csv"), table="t", each=True, wb=wb)
    assert sorted(sql("FROM t", wb=wb).fetchall()) == [(0,), (1,)]
    assert counts(ingest(str(tmp_path / "p*.csv"), table="t", each=True, wb=wb)) == (2, 0, 2, 0)


def test_roles_are_read_where_they_were_said(wb, write):
    ingest(write("id,at,fraud,amount\n1,2026-01-01 10:00:00,0,5\n"), table="t", key="id", wb=wb)
    declare("t", wb, label={"fraud": "7 days"}, amount="amount", monotone={"amount": "increasing"})
    said = roles("T", wb)
    assert (said.label, said.delay.days, said.monotone) == ("fraud", 7, {"amount": 1})
    edit(wb, "value: 7 days", "value: 9 days")
    assert roles("t", wb).delay.days == 9  # at once
    declare("t", wb, entity="id")  # what waits in the file is kept, not lost
    assert roles("t", wb).delay.days == 9 and roles("t", wb).entity == ("id",)
    assert [v.version for v in contract_versions("t", wb)] == [1, 2, 3, 4] and adopt(
        "t", wb
    ) is None
    assert roles("none", wb).named() == {}


def test_the_commands(wb, write):
    def call(*words):
        done = CliRunner().invoke(cli, [*words, "--workbench", str(wb.root), "--json"])
        return json.loads(done.stdout) if done.exit_code == 0 else done.exception

    rows = "".join(f"{i},{i}\n" for i in range(60))
    path = write(f"id,v\n{rows}")
    rehearsed = call("ingest", str(path), "--table", "t", "--key", "id", "--dry-run")
    assert rehearsed["added"] == 60 and call("tables") == [] and not contract_file("t", wb).exists()
    answer = call("ingest", str(path), "--table", "t", "--key", "id")
    keys = ["table", "snapshot", "rows", "added", "updated", "unchanged", "quarantined", "files"]
    assert list(answer) == keys and answer["added"] == 60
    shown = call("contract", "show", "t")
    assert shown["roles"] == {"key": ["id"]} and not shown["edited"] and len(shown["versions"]) == 1
    edit(wb, "- name: v\n", "- name: v\n    logicalTypeOptions: {maximum: 50}\n")
    refused = call("contract", "check", "t")
    assert isinstance(refused, WorkbenchError) and "v is not at most 50 in 9 rows" in str(refused)
    edit(wb, "maximum: 50", "maximum: 60")
    assert call("contract", "check", "t")["holds"] and call("contract", "replay", "t")["rows"] == 0
    with pytest.raises(UserError, match="no table 'none'"):
        raise call("contract", "show", "none")


class Plain(http.server.BaseHTTPRequestHandler):
    text = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.text)))
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *given):
        pass


class Served(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("Location", "file:///etc/passwd")
        self.send_header("Content-Length", "999" if self.path == "/cut.csv" else "12")
        self.end_headers()
        if self.path != "/away":
            self.wfile.write(b"a,b\n1,2\n3,4\n")

    def log_message(self, *given):
        pass


def test_a_file_behind_an_address(wb):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        at = f"http://127.0.0.1:{server.server_port}"
        assert counts(ingest(f"{at}/a.csv?token=secret", table="t", key="a", wb=wb)) == (2, 0, 0, 0)
        assert counts(ingest([f"{at}/b.csv"], table="t", wb=wb)) == (0, 0, 2, 0)
        assert sql("SELECT name FROM mlw_sources", wb=wb).fetchall() == [(f"{at}/a.csv",)]
        before = held(wb)
        for where, said in {
            f"{at}/away": "not allowed",
            f"{at}/cut.csv": "broke off: 12 of 999",
            "ftp://127.0.0.1/a.csv": "cannot be fetched",
            "file:///etc/passwd": "cannot be fetched",
            at.replace("http://", "http://me:secret@") + "/a.csv": "with a name and password",
            "http://127.0.0.1:9/a.csv": "cannot be fetched",
            "postgresql://me:secret@127.0.0.1:9/db": "no query was given",
        }.items():
            with pytest.raises(WorkbenchError, match=said) as caught:
                ingest(where, table="t", wb=wb)
            assert "secret" not in str(caught.value) and held(wb) == before
        with pytest.raises(WorkbenchError, match="does not answer") as caught:
            ingest("postgresql://me:secret@127.0.0.1:9/db", query="SELECT 1", table="t", wb=wb)
        assert "secret" not in str(caught.value) and held(wb) == before
    finally:
        server.shutdown()
        server.server_close()


class Torn(http.server.BaseHTTPRequestHandler):
    """Closes after 4,000 bytes, and goes on where it is asked to."""

    rows = ("id,v\n" + "".join(f"{i},{i}\n" for i in range(1200))).encode()
    asked: ClassVar = []

    def do_GET(self):
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.asked.append((self.path, start, self.headers["If-Range"]))
        if self.path == "/login":
            start, body = 0, b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"
        else:
            changed = self.path == "/moved.csv" and start
            start, body = (0 if changed else start), self.rows
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        if self.path != "/nameless.csv":
            self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(body[start : start + 4_000])

    def log_message(self, *given):
        pass


def test_a_download_that_breaks_off_goes_on(wb):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Torn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        at, whole = f"http://127.0.0.1:{server.server_port}", len(Torn.rows)
        assert 8_000 < whole < 12_000
        assert counts(ingest(f"{at}/a.csv", table="t", wb=wb)) == (1200, 0, 0, 0)
        assert Torn.asked == [
            ("/a.csv", 0, None), ("/a.csv", 4_000, '"one"'), ("/a.csv", 8_000, '"one"'),
        ]  # fmt: skip
        with pytest.raises(WorkbenchError, match=f"broke off: 4,000 of {whole:,} bytes"):
            ingest(
                f"{at}/nameless.csv", table="t", wb=wb
            )  # no mark: nobody knows if it is the same
        with pytest.raises(WorkbenchError, match=f"broke off: 4,000 of {whole:,} bytes"):
            ingest(f"{at}/moved.csv", table="t", wb=wb)  # each time another: never two joined
        assert [n for path, n, _ in Torn.asked if path == "/moved.csv"] == [0, 4_000, 4_000, 4_000]
        with pytest.raises(UserError, match="a page in HTML"):
            ingest(f"{at}/login", table="t", wb=wb)
    finally:
        server.shutdown()
        server.server_close()


def test_a_query_to_postgresql(wb, postgres):
    postgres.run("CREATE DATABASE source_of_payments")
    url = postgres.url("source_of_payments")
    with psycopg_connect(url) as db:
        db.execute(
            "CREATE TABLE payments (id bigint, at timestamptz, amount numeric(12,2), note text)"
        )
        db.execute(
            "INSERT INTO payments SELECT i, '2026-03-29 01:30:00+01'::timestamptz + i * interval '1 hour', i / 4.0, "
            "CASE WHEN i % 2 = 0 THEN 'a;b' END FROM generate_series(1, 1000) i"
        )
    asked = {"query": "SELECT * FROM payments WHERE id <= 900", "table": "t", "key": "id", "wb": wb}
    assert counts(ingest(url, **asked)) == (900, 0, 0, 0)
    assert counts(ingest(url, **asked)) == (0, 0, 900, 0)
    assert counts(ingest(url, **asked | {"query": "SELECT * FROM payments"})) == (100, 0, 900, 0)
    assert sql('SELECT count(*), sum(amount), min("at")::VARCHAR FROM t', wb=wb).fetchone() == (
        1000, 125125.0, "2026-03-29 01:30:00",
    )  # fmt: skip
    words = ["ingest", url, "--query", "SELECT id FROM payments", "--table", "ids"]
    done = CliRunner().invoke(cli, [*words, "--workbench", str(wb.root), "--json"])
    assert json.loads(done.stdout)["added"] == 1000
    before = held(wb)
    for query in ("DELETE FROM payments", "SELECT * FROM nothing", "SELECT 1; DROP TABLE payments"):
        with pytest.raises(WorkbenchError):
            ingest(url, **asked | {"query": query})
    with psycopg_connect(url) as db:
        assert db.execute("SELECT count(*) FROM payments").fetchone() == (1000,)
    assert held(wb) == before


def test_a_profile_in_every_form(wb, tmp_path):
    from mlworkbench.data.profiles import profile
    from mlworkbench.desk.cli import cli

    rng = random.Random(0)
    rows = 30_000
    table = pa.table(
        {
            "id": range(rows),
            "<img src=x onerror=alert(1)>": ["</table><script>"] * rows,
            "amount": [rng.lognormvariate(0, 1) if i % 4 else None for i in range(rows)],
            "none": pa.array([None] * rows, pa.float64()),
            "label": [int(rng.random() < 0.1) for i in range(rows)],
            "who": [rng.randrange(4_000) for i in range(rows)],
        }
    )
    first = ingest(table, table="t", key="id", wb=wb)["snapshot"]
    declare("t", wb, label="label")
    moved = table.set_column(2, "amount", pa.compute.multiply(table["amount"], 3)).set_column(
        0, "id", pa.array(range(rows, 2 * rows))
    )
    ingest(moved, table="t", wb=wb)
    found = profile("t", against=first, wb=wb)
    by = {c.name: c for c in found.columns}
    assert (found.rows, by["amount"].missing, by["none"].missing) == (60_000, 15_000, 60_000)
    assert 10_000 < found.sample <= 30_000 and by["amount"].mean == pytest.approx(
        sql("SELECT avg(amount) FROM t", wb=wb).fetchone()[0]
    )
    assert (
        by["amount"].psi > 0.1 > 0.01 > by["label"].psi
        and by["none"].distinct == 0
        and by["label"].distinct == 2
    )
    assert by["id"].distinct == 60_000 and by["who"].distinct <= 4_000
    assert abs(by["amount"].distinct / 45_000 - 1) < 0.5 and by["amount"].label < 0.05
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        cli,
        [
            "profile",
            "t",
            "--against",
            str(first),
            "--output",
            str(page),
            "--workbench",
            str(wb.root),
            "--json",
        ],
    )
    assert json.loads(done.stdout)["columns"][2]["name"] == "amount", done.output
    words = CliRunner().invoke(cli, ["profile", "t", "--workbench", str(wb.root)]).stdout
    assert "label: how strongly a column goes with" in words and "psi" not in words
    for text in (page.read_text(), found._repr_html_()):
        assert (
            "<script" not in text
            and "<img" not in text
            and "&lt;script&gt;" in text
            and "<svg" in text
        )
    assert profile("t", at=first, wb=wb).rows == 30_000


def test_training_keeps_what_a_contract_says_of_columns(wb):
    """Forbidden, personal and blocked columns are no features; a direction holds in the model."""
    rng = np.random.default_rng(0)
    n = 600
    frame = pd.DataFrame({"amount": rng.uniform(0, 100, n), "noise": rng.normal(size=n)})
    frame["email"], frame["postcode"] = (
        [f"u{i % 50}@x.org" for i in range(n)],
        rng.integers(0, 9, n),
    )
    frame["stopped"] = rng.random(n) < 0.05
    frame["fraud"] = (rng.random(n) < frame["amount"] / 150).astype(int)
    ingest(frame, table="t", wb=wb)
    declare("t", wb, label="fraud", personal="email", forbidden="postcode", blocked="stopped")
    declare("t", wb, monotone={"amount": "increasing"})
    problem = describe_problem({"table": "t", "target": "fraud"}, wb)
    assert set(problem.features) == {"amount", "noise"} and problem.monotone == {"amount": 1}
    said = " ".join(problem.notes)
    assert all(f"left out {name}" in said for name in ("email", "postcode", "stopped"))
    data = load_dataset(problem, wb=wb)
    features, rows = data.part("train", "validation")
    model = fit_catboost(features, rows["label"], problem, iterations=60, threads=1)
    grid = pd.DataFrame({"amount": np.linspace(0, 100, 200), "noise": 0.0})[list(problem.features)]
    rising = np.diff(predict_scores(model, grid, "binary", 1))
    assert (rising >= -1e-12).all() and rising.max() > 0
