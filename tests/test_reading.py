"""Reading: every source is whole, or refused with its name, the place and the cure."""

import csv
import datetime as dt
import gzip
import io
import os
import pathlib
import zlib

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.data import files, records, scanning
from mlworkbench.data.files import look
from mlworkbench.data.parts import load
from mlworkbench.data.reading import peek, read_source

DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def taken(source, types=None):
    """Read a source whole: its columns and rows."""
    settings = {"python_enable_replacements": "false"}
    with read_source(source, types=types) as parts, duckdb.connect(config=settings) as con:
        con.execute("SET TimeZone = 'UTC'")
        for number, part in enumerate(parts):
            load(con, part, "CREATE TABLE t AS" if number == 0 else "INSERT INTO t BY NAME")
        return parts[0].columns, con.sql("FROM t").fetchall()


@pytest.fixture
def write(tmp_path):
    def write(data, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


GOOD = {
    "plain": ("a,b\n1,x\n2,y\n", {"a": "BIGINT", "b": "VARCHAR"}, [(1, "x"), (2, "y")]),
    "no line end": ("a,b\n1,x\n2,y", None, [(1, "x"), (2, "y")]),
    "CRLF": ("a,b\r\n1,x\r\n", None, [(1, "x")]),
    "CR": ("a,b\r1,x\r", None, [(1, "x")]),
    "mixed ends": ("a,b\n1,x\r\n2,y\n", None, [(1, "x"), (2, "y")]),
    "blank lines": ("a,b\n1,x\n\n2,y\n\n", None, [(1, "x"), (2, "y")]),
    "byte-order mark": ("\ufeffa,b\n1,x\n", {"a": "BIGINT", "b": "VARCHAR"}, [(1, "x")]),
    "mark before a quote": ('\ufeff"a,1",b\n1,x\n', {"a,1": "BIGINT", "b": "VARCHAR"}, [(1, "x")]),
    "Latin-1": ("a;b\n1;Müller\n".encode("latin-1"), None, [(1, "Müller")]),
    "Windows": ("a;b\n1;5 €\n".encode("cp1252"), None, [(1, "5 €")]),
    "UTF-8": ("a\tb\n1\tМюллер\n", None, [(1, "Мюллер")]),
    "quotes in quotes": ('a,b\n1,"he said ""no"""\n', None, [(1, 'he said "no"')]),
    "backslashes": ('a,b\n1,"he said \\"no\\""\n', None, [(1, 'he said "no"')]),
    "single quotes": ("'a','b'\n'1','x,y'\n", None, [(1, "x,y")]),
    "lines in quotes": ('a,b\n1,"x\n\ny"\n2,"z\r\n"\n', None, [(1, "x\n\ny"), (2, "z\r\n")]),
    "separator in quotes": ('a,b\n1,"x,y"\n', None, [(1, "x,y")]),
    "a quote within a word": ('a,b\n1,5" pipe\n', None, [(1, '5" pipe')]),
    "bar": ("a|b\n1|true\n", {"a": "BIGINT", "b": "BOOLEAN"}, [(1, True)]),
    "one column": ("a\n1\n2\n", None, [(1,), (2,)]),
    "one column with a gap": ("a\n1\n\n2\n", None, [(1,), (None,), (2,)]),
    "missing values": ("a,b\nNA,\n2,x\n", None, [(None, None), (2, "x")]),
    "Namibia": ("a,b\n1,NA\n2,DE\n", None, [(1, "NA"), (2, "DE")]),
    "all missing": ("a,b\n1,\n2,\n", {"a": "BIGINT", "b": "VARCHAR"}, [(1, None), (2, None)]),
    "decimal commas": (
        "a;b\n1,5;x\n1.200,75;y\n",
        {"a": "DOUBLE", "b": "VARCHAR"},
        [(1.5, "x"), (1200.75, "y")],
    ),
    "quoted decimal commas": ('a,b\n"1,5",x\n"-0,25",y\n', None, [(1.5, "x"), (-0.25, "y")]),
    "leading zeros": (
        "a,b\n007,1\n100,2\n",
        {"a": "VARCHAR", "b": "BIGINT"},
        [("007", 1), ("100", 2)],
    ),
    "2^63": ("a,b\n9223372036854775808,1\n", {"a": "VARCHAR", "b": "BIGINT"}, None),
    "1e400": ("a,b\n1e400,1\n", {"a": "VARCHAR", "b": "BIGINT"}, None),
    "ISO": (
        "a,b\n2024-02-29,2024-02-29 10:15:00\n",
        {"a": "DATE", "b": "TIMESTAMP"},
        [(dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 10, 15))],
    ),
    "zones": (
        "a\n2025-03-30T02:30:00+01:00\n2025-03-30T02:30:00Z\n",
        {"a": "TIMESTAMP"},
        [(dt.datetime(2025, 3, 30, 1, 30),), (dt.datetime(2025, 3, 30, 2, 30),)],
    ),
    "German days": (
        "a;b\n31.12.2024;1\n",
        {"a": "DATE", "b": "BIGINT"},
        [(dt.date(2024, 12, 31), 1)],
    ),
    "American days": (
        "a,b\n12/31/2024,1\n",
        {"a": "DATE", "b": "BIGINT"},
        [(dt.date(2024, 12, 31), 1)],
    ),
    "either day": ("a,b\n03/04/2024,1\n", {"a": "VARCHAR", "b": "BIGINT"}, [("03/04/2024", 1)]),
    "an index of pandas": (",a\n0,5\n", {"column1": "BIGINT", "a": "BIGINT"}, [(0, 5)]),
    "hostile column": (
        '"x""; drop table y; --",b\n1,2\n',
        {'x"; drop table y; --': "BIGINT", "b": "BIGINT"},
        [(1, 2)],
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_csv_comes_in_as_it_is_written(write, case):
    data, types, rows = GOOD[case]
    columns, found = taken(write(data))
    assert types is None or columns == types
    assert rows is None or found == rows


@pytest.mark.parametrize(
    "ending,squeeze",
    [
        ("gz", gzip.compress),
        ("zst", lambda b: pa.Codec("zstd").compress(b, asbytes=True)),
        ("csv", gzip.compress),
    ],
)
def test_compression_is_told_by_the_bytes(write, ending, squeeze):
    assert taken(write(squeeze(b"a,b\n1,x\n"), f"x.csv.{ending}"))[1] == [(1, "x")]


def test_members_of_a_gzip_file_are_joined(write):
    both = gzip.compress(b"a,b\n1,x\n") + gzip.compress(b"2,y\n")
    assert taken(write(both))[1] == [(1, "x"), (2, "y")]


BAD = {
    "empty": ("", "is empty (0 bytes)"),
    "blanks": ("\n\n", "nothing but blanks"),
    "header only": ("a,b\n", "has a header (a, b) and no rows"),
    "header only, no end": ("a,b", "no rows"),
    "torn in the middle": ("a,b\n1,2\n3\n4,5\n", "line 3 has 1 column where the header has 2"),
    "torn at the end": ("a,b\n1,2\n4,5,6", "line 3 has 3 columns where the header has 2"),
    "torn often": ("a,b\n1,2\n3\n4,5,6\n7\n", "and 2 more lines are torn"),
    "torn first": ("a,b\n1\n2,3\n", "line 2 has 1 column"),
    "torn after lines in quotes": ('a,b\n1,"\n\n\n"\n2\n', "line 6 has 1 column"),
    "open quote": ('a,b\n1,"2\n3,4\n', "opened in line 2 is never closed"),
    "text after a quote": ('a,b\n1,"2"3\n', "line 2 has text after a closing quote"),
    "blank first line": ("\na,b\n1,2\n", "begins with a blank line"),
    "twice": ("a,a\n1,2\n", "the column 'a' twice"),
    "case": ("Age,age\n1,2\n", "'Age' and 'age', which differ only in case"),
    "wide": (",".join(f"c{i}" for i in range(100_000)) + "\n1\n", "100,000 columns"),
    "no header": ("1,2\n3,4\n", "looks like data"),
    "NUL": (b"a,b\n1,\x00\n", "NUL bytes"),
    "NUL far below": (b"a,b\n" + b"1,2\n" * 300_000 + b"\x00,1\n", "NUL byte in line 300,002"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
    "UTF-16 without mark": ("a,b\n1,2\n".encode("utf-16-be"), "UTF-16"),
    "cut gzip": (gzip.compress(os.urandom(9000).hex().encode())[:-20], "gzip file that is cut off"),
    "broken gzip": (
        gzip.compress(b"a,b\n1,2\n")[:-8] + b"\0" * 8,
        "gzip file that is cut off or damaged",
    ),
    "cut zstd": (
        pa.Codec("zstd").compress(b"a,b\n1,2\n" * 99, asbytes=True)[:-4],
        "zstd file that is cut off",
    ),
    "zip": (b"PK\x03\x04rest", "zip archive"),
    "PDF": (b"%PDF-1.7", "PDF document"),
    "no Parquet": (b"PAR1abc", "Parquet file that is cut off or damaged"),
    "a date that is none": (
        "a,b\n" + "1,2024-01-01\n" * 12_000 + "2,2024-02-30\n",
        "line 12,002: column b holds '2024-02-30'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_not_whole_is_refused_by_name(write, case):
    data, text = BAD[case]
    path = write(data)
    with pytest.raises(UserError) as caught:
        taken(path)
    assert text in caught.value.message and str(path) in caught.value.message
    assert caught.value.hint and "\n" not in str(caught.value) and len(str(caught.value)) < 500


BAD_JSON = {
    "torn": ('{"a":1}\n{"a":\n', "line 2 is no JSON object"),
    "array": ('[{"a":1}]', "one JSON array"),
    "pretty": ('{\n"a": 1}\n', "line 1 is no JSON object"),
    "a list among them": ('{"a":1}\n[1]\n', "line 2 is no JSON object"),
    "case": ('{"a":1,"A":2}\n', "'A' and 'a', which differ only in case"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_json_lines_are_whole_or_refused(write, case):
    data, text = BAD_JSON[case]
    with pytest.raises(UserError) as caught:
        taken(write(data, "x.jsonl"))
    assert text in caught.value.message and "x.jsonl" in caught.value.message


def test_json_lines(write):
    data = '{"a":1,"b":"007","c":{"d":[1]}}\n\n{"a":2.5,"e":"x"}\n{"e":7}'
    columns, rows = taken(write(data, "x.jsonl"))
    assert columns["a"] == "DOUBLE" and columns["b"] == "VARCHAR" and columns["e"] == "VARCHAR"
    assert rows == [(1.0, "007", {"d": [1]}, None), (2.5, None, None, "x"), (None, None, None, "7")]
    assert taken(write(b"\xef\xbb\xbf" + b'{"a":1}\n', "m.jsonl"))[1] == [(1,)]
    assert taken(write(gzip.compress(b'{"a":1}\n'), "m.jsonl.gz"))[1] == [(1,)]


def test_what_a_sample_cannot_know(write):
    start = "n,day,code,x\n" + "1,2024-01-01,12,1\n" * 15_000
    columns, rows = taken(write(start + "1.5,2024-01-01 10:15,012,NA\n"))
    assert columns == {"n": "DOUBLE", "day": "TIMESTAMP", "code": "VARCHAR", "x": "BIGINT"}
    assert rows[-1] == (1.5, dt.datetime(2024, 1, 1, 10, 15), "012", None)
    assert taken(write(start + "123456789012345678901,2024-01-01,1,1e999\n"))[0]["n"] == "VARCHAR"
    late = write((start + "1,2024-01-01,1,é\n").encode("latin-1"))
    assert taken(late)[1][-1][3] == "é"


def test_a_long_field(write, torture):
    size = 50_000_000 if torture else 10_000_000
    assert len(taken(write("a,b\n1," + "x" * size + "\n2,y\n"))[1][0][1]) == size
    with pytest.raises(UserError, match="record of"):
        taken(write("a,b\n1," + "x" * (65 << 20) + "\n"))


def test_a_bomb_is_stopped_before_it_unpacks(write):
    squeezer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeezer.compress(b"1,2\n" * (1 << 20)) for _ in range(60)) + squeezer.flush()
    path = write(bomb, "bomb.csv.gz")
    seen = 0
    with pytest.raises(UserError, match="decompression bomb"):
        for piece in files.chunks(look(path)):
            seen += len(piece)
    assert seen <= files.FREE_BYTES < 60 * 4 << 20


def test_files_that_are_no_files(write, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "gone.csv")
    good = write("a,b\n1,2\n", "cards.csv")
    for name, text in {
        "": "without a name",
        tmp_path: "is a directory",
        tmp_path / "pipe": "pipe or a device",
        tmp_path / "dangling.csv": "which does not exist",
        tmp_path / "crads.csv": "Did you mean 'cards.csv'?",
        tmp_path / "no" / "x.csv": "does not exist either",
        tmp_path / "no*.csv": "no file matches",
        "https://x.org/a.csv": "is an address",
    }.items():
        with pytest.raises(UserError) as caught:
            taken(str(name))
        assert text in str(caught.value), name
    if os.geteuid():
        good.chmod(0)
        with pytest.raises(UserError, match="may not be read"):
            taken(good)


def test_links_out_of_the_folder(write, tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "secret.csv"
    inside.mkdir()
    outside.write_text("a\n1\n")
    (inside / "link.csv").symlink_to(outside)
    with pytest.raises(UserError, match="symbolic link out of the folder"):
        taken(str(inside / "*.csv"))
    assert taken(inside / "link.csv")[1] == [(1,)]


@pytest.mark.parametrize(
    "name", ["we[i]rd*.csv", "'; drop table x; --.csv", "naïve ☂.csv", "a\nb.csv", "--option.csv"]
)
def test_hostile_file_names(write, tmp_path, name):
    write("z\n9\n", "weird.csv")  # what the name would match as a pattern
    assert taken(write("a,b\n1,2\n", name))[1] == [(1, 2)]


def test_a_file_that_grows_while_it_is_read(write):
    path = write("a,b\n1,2\n")
    with read_source(path) as parts, duckdb.connect() as con:
        with open(path, "a") as file:
            file.write("3,4\n")
        with pytest.raises(UserError, match="changed while it was read: 8 bytes before, 12 after"):
            load(con, parts[0], "CREATE TABLE t AS")
    with read_source(path) as parts, duckdb.connect() as con:
        path.unlink()
        with pytest.raises(WorkbenchError, match="removed while it was read"):
            load(con, parts[0], "CREATE TABLE t AS")


def test_what_the_reader_drops_is_noticed(write, monkeypatch):
    path = write("a,b\n1,2\n3,4\n")
    real = records.count_records

    def one_more(found, dialect, broken):
        import dataclasses

        return dataclasses.replace(real(found, dialect, broken), rows=3)

    monkeypatch.setattr("mlworkbench.data.delimited.count_records", one_more)
    with pytest.raises(UserError, match="holds 3 records, and 2 were read"):
        taken(path)


TABLE = pa.table(
    {"a": [1, 2, None], "b": ["x", None, "z"], "t": pa.array([0, 1, 2], pa.timestamp("us"))}
)
FRAMES = {
    "pandas": lambda: TABLE.to_pandas(types_mapper=pd.ArrowDtype),
    "Polars": lambda: pl.from_arrow(TABLE),
    "lazy Polars": lambda: pl.from_arrow(TABLE).lazy(),
    "Arrow": lambda: TABLE,
    "Arrow batch": lambda: TABLE.to_batches()[0],
    "stream of batches": lambda: pa.RecordBatchReader.from_batches(
        TABLE.schema, iter(TABLE.to_batches(1))
    ),
    "relation": lambda: duckdb.connect().from_arrow(TABLE),
    "relation of a query": lambda: duckdb.connect().from_arrow(TABLE).filter("true"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_every_kind_are_the_same_rows(kind):
    columns, rows = taken(FRAMES[kind]())
    assert columns == {"a": "BIGINT", "b": "VARCHAR", "t": "TIMESTAMP"}
    assert sorted(rows, key=str) == sorted([tuple(r.values()) for r in TABLE.to_pylist()], key=str)


def test_every_kind_of_frame_has_one_fingerprint():
    marks = set()
    for make in FRAMES.values():
        with read_source(make()) as parts:
            marks.add(parts[0].fingerprint)
    with read_source(TABLE.take([2, 0, 1])) as parts:
        marks.add(parts[0].fingerprint)
    assert len(marks) == 1
    with read_source(pa.concat_tables([TABLE, TABLE])) as parts:
        assert parts[0].fingerprint not in marks  # duplicates count


def test_frames_that_cannot_be_tables():
    for frame, text in (
        (pd.DataFrame({"a": [1, "x"]}), "values of several types"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame(), "no columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "A"]), "differ only in case"),
        (pd.Series([1]), "is no source of rows"),
        (object(), "is no source of rows"),
        ([], "the list of files is empty"),
        ([TABLE], "a list holds files"),
    ):
        with pytest.raises(UserError, match=text):
            taken(frame)


def test_pandas_as_it_comes():
    frame = pd.DataFrame({"v": [1.5, None], "c": pd.Categorical(["x", None]), "n": [None, None]})
    frame["t"] = pd.to_datetime(["2025-01-01 10:00+02:00", None], utc=True)
    frame.index = pd.Index([7, 8], name="id")
    columns, rows = taken(frame)
    assert columns == {
        "id": "BIGINT",
        "v": "DOUBLE",
        "c": "VARCHAR",
        "n": "VARCHAR",
        "t": "TIMESTAMP",
    }
    assert rows == [(7, 1.5, "x", None, dt.datetime(2025, 1, 1, 8)), (8, None, None, None, None)]


def test_a_stream_is_read_in_bounded_memory(torture):
    many, size = (400 if torture else 60), 50_000
    schema = pa.schema({"a": pa.int64(), "b": pa.string()})

    def batches():
        for i in range(many):
            values = list(range(i * size, (i + 1) * size))
            yield pa.record_batch(
                [pa.array(values), pa.array([f"row {v}" for v in values])], schema
            )

    before = pa.total_allocated_bytes()
    peak = 0

    def watched():
        nonlocal peak
        for batch in batches():
            peak = max(peak, pa.total_allocated_bytes() - before)
            yield batch

    with read_source(pa.RecordBatchReader.from_batches(schema, watched())) as parts:
        assert parts[0].rows == many * size
    assert peak < 30 * size * 24  # a few batches, not all of them


def test_types_of_a_table_are_kept(write):
    path = write("a,b,c\n007,1,\n")
    assert taken(path, types={"a": "VARCHAR", "b": "DOUBLE", "c": "TIMESTAMP"})[1] == [
        ("007", 1.0, None)
    ]
    path = write("a,b\n5,2024-01-01\n")
    assert taken(path, types={"A": "VARCHAR", "b": "TIMESTAMP"})[1] == [
        ("5", dt.datetime(2024, 1, 1))
    ]
    assert taken(write("a\n1.5\n"), types={"a": "BIGINT"})[0] == {
        "a": "DOUBLE"
    }  # not bent: refused later


def test_parquet_as_it_comes(write, tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path)
    assert len(taken(path)[1]) == 3
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 1, 20):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="cut off or damaged"):
            taken(path)
    pq.write_table(TABLE.slice(0, 0), path)
    with pytest.raises(UserError, match="has no rows"):
        taken(path)


TEXT = st.text(alphabet='a1 ,"\n\r;é', max_size=60)


@settings(max_examples=300, deadline=None)
@given(TEXT, st.integers(1, 9))
@example('"" "\r1', 1)
@example('"a\n', 1)
def test_the_counter_counts_as_pythons_csv_does(text, size):
    wanted = [r for r in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True) if r]
    tally = scanning.Tally(ord(","), ord('"'), ord('"'), 1)
    data = text.encode()
    for i in range(0, len(data), size):
        tally.feed(data[i : i + size])
    tally.finish()
    assume(not tally.at[scanning.STRAY_LINE])  # refused
    unfinished = tally.at[scanning.STATE] == scanning.QUOTED
    assert tally.at[scanning.RECORDS] + unfinished == len(wanted)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(st.text(alphabet='a1 ,"\n\r;\\é', max_size=8), min_size=3, max_size=3),
        min_size=2,
        max_size=30,
    ),
    st.booleans(),
)
def test_the_compiled_counter_is_the_plain_one(rows, quote_all):
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerows(rows)
    data = written.getvalue().encode()
    plain, fast = (scanning.Tally(ord(","), ord('"'), ord('"'), 3) for _ in range(2))
    plain.feed(data)
    plain.finish()
    small, scanning.SMALL = scanning.SMALL, 0
    try:
        fast.feed(data)
        fast.finish()
    finally:
        scanning.SMALL = small
    assert fast.compiled and [int(x) for x in fast.at] == plain.at
    assert [list(map(int, c)) for c in fast.columns] == plain.columns
    assert plain.at[scanning.RECORDS] == len(rows) and not plain.at[scanning.TORN]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_python_writes_comes_back(tmp_path_factory, data):
    value = st.text(
        alphabet=st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12
    ).map(str.strip)
    rows = data.draw(st.lists(st.tuples(value, value), min_size=1, max_size=20))
    separator = data.draw(st.sampled_from(",;\t|"))
    path = tmp_path_factory.mktemp("written") / "x.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL)
        writer.writerow(["first", "second"])
        writer.writerows(rows)
    _, found = taken(path, types={"first": "VARCHAR", "second": "VARCHAR"})
    assert found == [tuple(v or None for v in row) for row in rows]


def test_a_peek(write):
    seen = peek(write("a;b\n1;2,5\n2;3,5\n3;4,5\n"), rows=2)
    assert seen.columns == {"a": "BIGINT", "b": "DOUBLE"} and seen.rows == [(1, 2.5), (2, 3.5)]
    assert "BIGINT" in str(seen) and "';'" in seen.note
    html = peek(write("a,b\n1,<img src=x onerror=alert(1)>\n"))._repr_html_()
    assert "<img" not in html and "&lt;img" in html
    assert peek(TABLE).rows[0][0] == 1
    with pytest.raises(UserError, match="is empty"):
        peek(write(""))


@pytest.mark.skipif(not DATA.exists(), reason="the real sets are not here")
@pytest.mark.parametrize(
    "name",
    ["german_credit", "adult_census_income", "taiwan_credit_default", "bank_marketing_additional"],
)
def test_real_sets_survive_the_way_through_csv(tmp_path, name):
    con = duckdb.connect()
    source = DATA / f"{name}.parquet"
    con.execute(f"COPY (FROM '{source}') TO '{tmp_path}/x.csv'")
    held = con.sql(f"FROM '{source}'")
    with read_source(tmp_path / "x.csv") as parts:
        load(con, parts[0], "CREATE TABLE t AS")
        kinds = zip(held.columns, held.types, parts[0].columns.items(), strict=True)
        assert all(n == m and (str(a) == "VARCHAR") == (b == "VARCHAR") for n, a, (m, b) in kinds)
    for one, other in (("t", f"'{source}'"), (f"'{source}'", "t")):
        assert con.sql(f"FROM {one} EXCEPT ALL FROM {other}").fetchall() == []
