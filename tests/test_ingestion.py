"""Ingestion: wholly or not at all; the same content twice changes nothing; what is refused leaves no trace."""

import gzip
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import UserError
from mlworkbench.data.catalog import declared_roles, snapshots, tables
from mlworkbench.data.commits import lake_files, verify_files
from mlworkbench.data.connections import data_path
from mlworkbench.data.fitting import checked_table
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql
from mlworkbench.data.reading import peek

DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
KEYS = ["table", "snapshot", "rows", "added", "updated", "unchanged", "quarantined", "files"]


@pytest.fixture
def wb(tmp_path):
    return create_workbench(tmp_path / "wb")


@pytest.fixture
def write(tmp_path):
    def write(data, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


def state(wb):
    """Everything of a lake that a refusal must not change."""
    return (
        snapshots(wb=wb),
        {
            t["table"]: sorted(map(str, sql(f"FROM {t['table']}", wb=wb).fetchall()))
            for t in tables(wb=wb)
        },
        sorted(sql("FROM mlw_sources", wb=wb).fetchall()),
        sorted(str(p) for p in data_path(wb).rglob("*.parquet")),
        sorted(str(p) for p in (wb.root / "lake" / "tmp").rglob("*")),
    )


def counts(answer):
    assert list(answer) == KEYS
    assert (
        answer["rows"]
        == answer["added"] + answer["updated"] + answer["unchanged"] + answer["quarantined"]
    )
    assert answer["rows"] == sum(f["rows"] for f in answer["files"])
    return answer["rows"], answer["added"], answer["unchanged"]


def test_a_file_goes_in_once(wb, write):
    path = write("id,v\n1,a\n2,b\n")
    first = ingest(path, table="t", wb=wb)
    assert counts(first) == (2, 2, 0) and first["table"] == "t"
    before = state(wb)
    assert counts(ingest(path, table="t", wb=wb)) == (2, 0, 2)
    assert counts(ingest(path, table="T", wb=wb)) == (2, 0, 2)  # no second table in another case
    copy = write("id,v\n1,a\n2,b\n", "copy.csv")  # content counts, not names
    assert counts(ingest(copy, table="t", wb=wb)) == (2, 0, 2)
    assert state(wb) == before
    path.write_text("id,v\n3,c\n")
    assert counts(ingest(path, table="t", wb=wb)) == (1, 1, 0)
    assert sql("SELECT count(*) FROM t", wb=wb).fetchone() == (3,)
    assert [s["message"] for s in snapshots("t", wb=wb)] == ["ingest x.csv", "ingest x.csv"]
    assert verify_files(wb) == []


def test_many_files_are_one_commit(wb, write, tmp_path):
    for i in range(5):
        write(f"id,v\n{i},{i}.5\n", f"p{i}.csv")
    write("id,v\n4,4.5\n", "p5.csv")  # the same content as p4
    before = len(snapshots(wb=wb))
    answer = ingest(str(tmp_path / "p*.csv"), table="t", wb=wb)
    assert counts(answer) == (6, 5, 1) and len(snapshots(wb=wb)) == before + 1
    assert [f["added"] for f in answer["files"]] == [1, 1, 1, 1, 1, 0]
    write("id,v\n9,9\n", "p9.csv")
    assert counts(ingest(str(tmp_path / "p*.csv"), table="t", wb=wb)) == (7, 1, 6)
    assert snapshots("t", wb=wb)[-1]["message"] == "ingest p0.csv, p1.csv, p2.csv and 4 more"


def test_files_agree_on_types(wb, write):
    files = [
        write("id,v,e\n1,2,\n", "a.csv"),
        write("v,ID,e\n2.5,2,x\n", "b.csv"),
        write("id,v,e\nx3,1,\n", "c.csv"),
    ]
    ingest(files, table="t", wb=wb)
    assert sorted(sql("FROM t", wb=wb).fetchall()) == [
        ("1", 2.0, None),
        ("2", 2.5, "x"),
        ("x3", 1.0, None),
    ]
    with pytest.raises(UserError, match="has other columns than .*: missing: e; new: w"):
        ingest([files[0], write("id,v,w\n1,2,3\n", "d.csv")], table="u", wb=wb)


def test_whole_numbers_of_any_width_go_together(wb, write):
    ingest(
        pa.table({"id": pa.array([1], pa.int32()), "v": pa.array([1.5], pa.float64())}),
        table="t",
        wb=wb,
    )
    ingest(write("id,v\n2,3\n"), table="t", wb=wb)
    ingest(pd.DataFrame({"id": [3], "v": [4]}), table="t", wb=wb)
    assert sorted(sql("FROM t", wb=wb).fetchall()) == [(1, 1.5), (2, 3.0), (3, 4.0)]
    before = state(wb)
    for source in (
        write("id,v\n3000000000,3\n"),
        pd.DataFrame({"id": [3_000_000_000], "v": [4.0]}),
    ):
        with pytest.raises(UserError, match="3000000000.*out of range"):
            ingest(source, table="t", wb=wb)
    stream = pa.table({"id": [9], "v": ["x"]}).to_reader()
    with pytest.raises(UserError, match="v is VARCHAR and in the table DOUBLE"):
        ingest(stream, table="t", wb=wb)
    assert state(wb) == before


def test_one_bad_file_stops_all(wb, write, tmp_path):
    write("id,v\n1,2\n", "a.csv")
    write("id,v\n1\n", "b.csv")
    before = state(wb)
    with pytest.raises(UserError, match="b.csv line 2"):
        ingest(str(tmp_path / "*.csv"), table="t", wb=wb)
    assert state(wb) == before


def dirty(write, tmp_path):
    """What issue and road call dirty: source, words of the answer."""
    (tmp_path / "folder").mkdir()
    parquet = tmp_path / "cut.parquet"
    pl.DataFrame({"id": range(1000)}).write_parquet(parquet)
    parquet.write_bytes(parquet.read_bytes()[:900])
    pans = "\n".join(f"{i},4111 1111 1111 1111" for i in range(9))
    return {
        tmp_path / "none.csv": ["none.csv"],
        write("", "empty.csv"): ["empty.csv", "empty"],
        write("id,v\n", "head.csv"): ["head.csv", "no rows"],
        write("id,v\n1,2\n3\n4,5,6,7\n", "torn.csv"): [
            "torn.csv line 3",
            "1 column",
            "header has 2",
        ],
        write("id,v\n1,2\n3,4,5", "torn_end.csv"): ["torn_end.csv line 3", "3 columns"],
        parquet: ["cut.parquet", "cut off"],
        write(gzip.compress(os.urandom(99999))[:-9], "cut.csv.gz"): ["cut.csv.gz", "cut off"],
        write(gzip.compress(b"id,v\n" + b"1,2\n" * (20 << 20)), "bomb.csv.gz"): [
            "bomb.csv.gz",
            "bomb",
        ],
        tmp_path / "folder": ["folder", "directory"],
        write("id,ID\n1,2\n", "case.csv"): ["case.csv", "differ only in case"],
        write("id,v\n1,\0\n", "nul.csv"): ["nul.csv", "NUL"],
        write("id,v\nx,2\n", "type.csv"): ["type.csv", "id is VARCHAR and in the table BIGINT"],
        write("id,v\n1.5,2\n", "fraction.csv"): [
            "fraction.csv",
            "id is DOUBLE and in the table BIGINT",
        ],
        write("id\n9\n", "missing.csv"): ["missing.csv", "missing: v"],
        write("id,v,w\n9,9,9\n", "new.csv"): ["new.csv", "new: w", "id BIGINT, v BIGINT"],
        write("id,v\n5,5\n5,6\n", "twice.csv"): ["key id of good", "5 would stand 2 times"],
        write("id,v\n1,6\n", "again.csv"): ["key id of good", "1 would stand 2 times"],
        write("id,v\n,6\n", "gap.csv"): [
            "gap.csv line 2",
            "id is empty",
            "1 of 1 rows are broken",
            "1 refused",
        ],
        write(f"id,v\n{pans}\n", "pans.csv"): ["pans.csv"],
    }


def test_what_is_refused_leaves_no_trace(wb, write, tmp_path):
    ingest(write("id,v\n1,2\n2,3\n", "good.csv"), table="good", key="id", wb=wb)
    before = state(wb)
    for source, words in dirty(write, tmp_path).items():
        with pytest.raises(UserError) as caught:
            ingest(source, table="good", wb=wb)
        said = str(caught.value)
        assert all(w in said for w in words), said
        assert caught.value.hint and len(said) < 600
        assert state(wb) == before, source


def test_a_piece_of_a_lake_is_no_source(wb, write):
    ingest(write("id,fraud\n1,0\n2,1\n"), table="cards", wb=wb)
    (piece,) = (data_path(wb) / "main" / "cards").glob("*.parquet")
    for door in (peek, lambda file: ingest(file, table="again", wb=wb)):
        with pytest.raises(UserError, match="is a piece of a lake"):
            door(piece)
    assert [t["table"] for t in tables(wb=wb)] == ["cards"]


def test_names_of_tables(wb, write):
    path, before = write("id\n1\n"), state(wb)
    for name in (
        '"; drop table x; --',
        "",
        "1a",
        "a b",
        "a-b",
        "ä",
        "x" * 64,
        "mlw_sources",
        "Predictions",
        "a\n",
        None,
        "../x",
    ):
        with pytest.raises(UserError) as caught:
            ingest(path, table=name, wb=wb)
        assert caught.value.hint
    assert state(wb) == before
    assert checked_table("x" * 63) and checked_table("_") and checked_table("select")
    ingest(path, table="select", wb=wb)
    assert sql('FROM "select"', wb=wb).fetchall() == [(1,)]


def test_unknown_modes_and_keys(wb, write):
    path = write("id,v\n1,2\n")
    with pytest.raises(UserError, match="There is: append, replace, upsert"):
        ingest(path, table="t", mode="merge", wb=wb)
    with pytest.raises(UserError, match="Did you mean 'append'"):
        ingest(path, table="t", mode="apend", wb=wb)
    with pytest.raises(UserError, match="the key 'idd' is not a column of t. Did you mean 'id'"):
        ingest(path, table="t", key="idd", wb=wb)
    ingest(path, table="t", key=["ID", "v"], wb=wb)
    assert declared_roles("t", wb) == {"key": ["id", "v"]}
    with pytest.raises(UserError, match="the key of t is id, v, not id"):
        ingest(write("id,v\n1,3\n", "y.csv"), table="t", key="id", wb=wb)


def test_a_key_may_be_declared_later(wb, write):
    path = write("id,v\n1,2\n1,3\n")
    ingest(path, table="t", wb=wb)
    before = state(wb)
    with pytest.raises(UserError, match="1 would stand 2 times"):
        ingest(path, table="t", key="id", wb=wb)
    assert state(wb) == before
    assert ingest(path, table="t", key="v", wb=wb)["added"] == 0
    assert declared_roles("t", wb) == {"key": ["v"]}


def test_replace(wb, write):
    one, other = write("id,v\n1,2\n", "one.csv"), write("id,w\n3,x\n4,y\n", "other.csv")
    ingest(one, table="t", key="id", wb=wb)
    assert counts(ingest(other, table="t", mode="replace", wb=wb)) == (2, 2, 0)
    assert sql("FROM t", wb=wb).fetchall() == [(3, "x"), (4, "y")] and declared_roles("t", wb) == {
        "key": ["id"]
    }
    before = state(wb)
    assert (
        counts(ingest(other, table="t", mode="replace", wb=wb)) == (2, 0, 2) and state(wb) == before
    )
    assert ingest(one, table="t", mode="replace", wb=wb)["added"] == 1  # back again
    sql("DELETE FROM t", write=True, wb=wb)
    assert ingest(one, table="t", mode="replace", wb=wb)["added"] == 1  # emptied by hand
    sql("DROP TABLE t", write=True, wb=wb)
    assert ingest(one, table="t", wb=wb)["added"] == 1  # dropped by hand
    sql("DROP TABLE t", write=True, wb=wb)
    ingest(one, table="t", key="id", wb=wb)
    with pytest.raises(UserError, match="the key id of t is not among the new columns"):
        ingest(write("v\n1\n", "y.csv"), table="t", mode="replace", wb=wb)
    ingest(write("v\n1\n", "y.csv"), table="t", mode="replace", key="v", wb=wb)
    assert declared_roles("t", wb) == {"key": ["v"]}


FRAME = pd.DataFrame({"id": [1, 2, 3], "v": ["a", None, "c"]})
FRAMES = {
    "pandas": lambda: FRAME,
    "Polars": lambda: pl.DataFrame({"id": [1, 2, 3], "v": ["a", None, "c"]}),
    "Arrow": lambda: pa.Table.from_pandas(FRAME),
    "stream": lambda: pa.Table.from_pandas(FRAME).to_reader(),
    "relation": lambda: duckdb.connect().sql(
        "FROM (VALUES (1::BIGINT, 'a'), (2, NULL), (3, 'c')) t(id, v)"
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_what_a_notebook_holds(wb, kind):
    answer = ingest(FRAMES[kind](), table="t", key="id", wb=wb)
    assert counts(answer) == (3, 3, 0)
    for make in FRAMES.values():
        assert counts(ingest(make(), table="t", wb=wb)) == (3, 0, 3)
    assert sorted(sql("FROM t", wb=wb).fetchall()) == [(1, "a"), (2, None), (3, "c")]


def test_card_numbers_stop_before_the_disk(wb, write):
    before = state(wb)
    cards = ["4111111111111111", "5555555555554444", "378282246310005", "x", "y"]
    for source in (
        write("pan\n" + "\n".join(cards) + "\n"),
        pd.DataFrame({"pan": cards}),
        pd.DataFrame({"pan": [4111111111111111, None, 5555555555554444.0]}),
        write('{"pan": "4111-1111-1111-1111"}\n', "x.jsonl"),
        write('{"pan": {"of": ["4111 1111 1111 1111"]}}\n', "nested.jsonl"),
        pa.table({"pan": pa.array([4111111111111111], pa.decimal128(19, 0))}),
        pa.table({"pan": [b"4111111111111111"]}),
        pd.DataFrame({"pan": ["4111.1111.1111.1111"]}),
        write("a;pan\n" + "1;2\n" * 100 + "1;4111111111111111\n" * 60, "late.csv"),
    ):
        with pytest.raises(UserError, match="column pan of .* holds card numbers"):
            ingest(source, table="t", wb=wb)
        assert state(wb) == before


def test_a_card_number_where_a_number_should_stand_is_masked(wb, write):
    rows = [f"{i},{i / 10}" for i in range(100)]
    ingest(write("id,amount\n" + "\n".join(rows) + "\n"), table="t", key="id", wb=wb)
    rows = [f"{i},{i / 10}" for i in range(200, 299)] + ["300,4111 1111 1111 1111"]
    done = ingest(write("id,amount\n" + "\n".join(rows) + "\n", "new.csv"), table="t", wb=wb)
    assert done["quarantined"] == 1
    (row,) = sql("FROM mlw_quarantine", wb=wb).df().to_dict("records")
    assert row["reason"] == "amount holds a card number" and "1111" in row["row"]
    held = [p for p in wb.root.rglob("*") if p.is_file() and b"4111 1111" in p.read_bytes()]
    assert [p.suffix for p in held if p.name != "new.csv"] == []


@pytest.mark.parametrize("start", [1, 4, 5])
def test_random_ids_are_no_card_numbers(wb, write, start):
    import random

    numbers = random.Random(start)
    rows = "\n".join(
        f"{i},{start}{numbers.randrange(10**15):015d},ref-{numbers.randrange(10**16):016d},"
        f"{uuid.UUID(int=numbers.randrange(1 << 128))},{numbers.randrange(1 << 160):040x}"
        for i in range(10_000)
    )
    source = write(f"n,id,ref,uuid,hash\n{rows}\n")
    assert ingest(source, table="t", wb=wb)["added"] == 10_000


KILLED = """
import os, signal, sys
from mlworkbench.data import commits, ingestion, loading
point, folder, source = sys.argv[1:]
def die(*given, **more): os.kill(os.getpid(), signal.SIGKILL)
real = commits._make_durable
def late(wb, since): real(wb, since); die()
if point == "rows written": commits._make_durable = die
if point == "before commit": commits._make_durable = late
if point == "after commit": loading._summary = die
if point == "between files":
    real_load, seen = loading.load, []
    def load(*given, **more): seen.append(1) or len(seen) > 1 and die(); return real_load(*given, **more)
    loading.load = load
ingestion.ingest([source, source + ".2"], table="t", wb=folder)
"""


@pytest.mark.parametrize(
    "point", ["between files", "rows written", "before commit", "after commit"]
)
def test_killed_anywhere_and_called_again(wb, write, point):
    path = write("id\n1\n2\n")
    write("id\n3\n", "x.csv.2")
    script = write(textwrap.dedent(KILLED), "killed.py")
    done = subprocess.run(
        [sys.executable, script, point, wb.root, path], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    held = [t["rows"] for t in tables(wb=wb)]
    assert held == ([3] if point == "after commit" else [])
    answer = ingest([path, f"{path}.2"], table="t", wb=wb)
    assert counts(answer) == ((3, 0, 3) if point == "after commit" else (3, 3, 0))
    assert sorted(sql("FROM t", wb=wb).fetchall()) == [(1,), (2,), (3,)]
    assert verify_files(wb) == []
    assert len(lake_files(wb)) >= 2


def test_the_same_file_twice_at_once(wb, write):
    path = write("id\n" + "\n".join(map(str, range(5000))) + "\n")
    code = "import sys; from mlworkbench.data.ingestion import ingest; print(ingest(sys.argv[1], table='t', wb=sys.argv[2])['added'])"
    with ThreadPoolExecutor(3) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(
                    [sys.executable, "-c", code, path, wb.root], capture_output=True, text=True
                ),
                range(3),
            )
        )
    assert sorted(int(d.stdout or d.stderr) for d in done) == [0, 0, 5000]
    assert sql("SELECT count(DISTINCT id), count(*) FROM t", wb=wb).fetchone() == (5000, 5000)


def test_progress_is_told(wb, write):
    told = []
    ingest(
        write("id\n1\n"), table="t", wb=wb, progress=lambda done, text: told.append((done, text))
    )
    assert [d for d, _ in told] == sorted(d for d, _ in told) and told[0][0] == 0
    assert any("x.csv" in text for _, text in told)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "replace"]), st.sampled_from("abc")),
        min_size=1,
        max_size=5,
    )
)
def test_any_sequence_ends_as_a_plain_set_would(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("steps")
    wb, model = create_workbench(folder / "wb"), set()
    for name in "abc":
        (folder / f"{name}.csv").write_text(f"v\n{name}\n")
    for mode, name in steps:
        ingest(folder / f"{name}.csv", table="t", mode=mode, wb=wb)
        model = {name} if mode == "replace" else model | {name}
        assert sorted(sql("FROM t", wb=wb).fetchall()) == sorted((v,) for v in model)


@pytest.mark.skipif(not DATA.exists(), reason="the real sets are not here")
def test_real_sets(wb, tmp_path):
    for name, rows in (
        ("german_credit", 1000),
        ("taiwan_credit_default", 30_000),
        ("bank_marketing_additional", 41_188),
    ):
        assert counts(ingest(DATA / f"{name}.parquet", table=name, wb=wb)) == (rows, rows, 0)
        assert counts(ingest(DATA / f"{name}.parquet", table=name, wb=wb)) == (rows, 0, rows)
        source = duckdb.sql(f"FROM '{DATA / name}.parquet'").fetchall()
        assert sorted(map(str, sql(f"FROM {name}", wb=wb).fetchall())) == sorted(map(str, source))
