"""The lake under many writers, kills, full disks, flipped bits, and queries that try to leave it."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import CATALOGS
from faults import acknowledged, everything, holding, kill, mlworkbench, python, rows_hash, until

from mlworkbench.core.errors import UserError, WorkbenchError
from mlworkbench.core.settings import open_workbench
from mlworkbench.data.catalog import snapshot_number, tables
from mlworkbench.data.commits import lake_files, verify_files, write_lake
from mlworkbench.data.connections import connect_lake, data_path, lake_cursor
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql

WRITER = """
from mlworkbench.data.commits import write_lake
who, times = int(sys.argv[2]), int(sys.argv[3])
for i in range(times):
    with write_lake(f"{who} {i}", wb=wb) as write:
        write.con.execute("INSERT INTO log SELECT ?, ?, r, hash(r + ?) FROM range(40) t(r)", [who, i, i])
    print("done", f"{who} {i} {write.snapshot}", flush=True)
"""
READER = """
import time
from mlworkbench.data.queries import sql
end = Path(sys.argv[2])
n, last = 0, 0
while not end.exists():
    rows = sql("SELECT who, i, count(*), count(DISTINCT r), sum(h) FROM log GROUP BY ALL", wb=wb).fetchall()
    assert all(r[2] == r[3] == 40 for r in rows), rows
    assert len(rows) >= last, "a commit was unseen"
    n, last = n + 1, len(rows)
print("done", n)
"""


@pytest.fixture(params=CATALOGS)
def catalog(request):
    """Every test with a workbench of its own runs on both catalogs."""
    return request.param


@pytest.fixture
def log(wb):
    """A workbench with a table to write to."""
    with write_lake("log", wb=wb) as write:
        write.con.execute("CREATE TABLE log (who INTEGER, i INTEGER, r INTEGER, h UBIGINT)")
    return wb


def held(wb) -> set[str]:
    """The commits that are there, wholly: read from the rows, not from statistics."""
    rows = sql(
        "SELECT who, i, count(DISTINCT r), bool_and(h = hash(CAST(r AS BIGINT) + i)) FROM log GROUP BY ALL",
        wb=wb,
    ).fetchall()
    assert all(n == 40 and right for _, _, n, right in rows), rows
    return {f"{who} {i}" for who, i, _, _ in rows}


def test_many_writers_lose_nothing(log, torture, tmp_path):
    writers, times = (8, 50) if torture else (4, 4)
    readers = [python(log.root, READER, str(tmp_path / "end"), wait=False) for _ in range(2)]
    started = [python(log.root, WRITER, str(w), str(times), wait=False) for w in range(writers)]
    said = [p.communicate(timeout=550) for p in started]
    (tmp_path / "end").touch()
    read = [p.communicate(timeout=60) for p in readers]
    errors = [line for _, err in said + read for line in err.splitlines()]
    assert all(line.startswith("waiting for ") for line in errors), (
        errors
    )  # on a machine at its limit
    told = [line for out, _ in said for line in acknowledged(out)]
    assert (
        len(told) == writers * times == len({t.split()[2] for t in told})
    )  # each its own snapshot
    assert held(log) == {" ".join(t.split()[:2]) for t in told}
    assert all(int(acknowledged(out)[0]) > 0 for out, _ in read)
    assert verify_files(log) == []


def check_after_crash(wb, told: list[str]) -> None:
    """Acknowledged is present, what is present was asked for, nothing is half, files are right."""
    wb = open_workbench(wb.root)
    there, done = held(wb), {" ".join(t.split()[:2]) for t in told}
    assert done <= there and len(there - done) <= 1, (done, there)
    assert verify_files(wb) == []
    with write_lake("after", wb=wb) as write:
        write.con.execute("INSERT INTO log SELECT 99, 0, r, hash(r + 0) FROM range(40) t(r)")
    assert "99 0" in held(wb)


@pytest.mark.parametrize("point", ["before_fsync", "before_commit", "after_commit"])
def test_killed_at_a_crash_point(log, point):
    code, out, err = python(log.root, WRITER, "1", "5", MLWORKBENCH_CRASH=f"{point}:3")
    assert code == -signal.SIGKILL and len(acknowledged(out)) == 2, err
    assert len(held(log)) == (3 if point == "after_commit" else 2)
    check_after_crash(log, acknowledged(out))


@pytest.mark.parametrize("point", ["ingested", "before_fsync", "before_commit"])
def test_ingestion_killed_is_all_or_nothing(wb, tmp_path, point):
    file = tmp_path / "payments.csv"
    file.write_text("id,amount\n" + "".join(f"{i},{i * 2}\n" for i in range(500)))
    code = "from mlworkbench.data.ingestion import ingest\nprint('done', ingest(sys.argv[2], table='payments', key='id', wb=wb)['added'])"
    before = everything(wb)
    killed, out, _ = python(wb.root, code, str(file), MLWORKBENCH_CRASH=f"{point}:1")
    assert killed == -signal.SIGKILL and out == ""
    assert everything(wb) == before and tables(wb=wb) == []
    again, out, err = python(wb.root, code, str(file))
    assert (again, out) == (0, "done 500\n"), err
    assert sql("SELECT sum(amount), count(DISTINCT id) FROM payments", wb=wb).fetchone() == (
        249_500,
        500,
    )
    assert verify_files(wb) == []


def test_paused_writer_delays_and_loses_nothing(log):
    holder = python(
        log.root, WRITER, "1", "2", wait=False, MLWORKBENCH_CRASH="before_commit:1:pause"
    )
    try:
        assert until(
            lambda: "T" in Path(f"/proc/{holder.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        )
        other = python(log.root, WRITER, "2", "2", wait=False)
        assert held(log) == set()  # a reader does not wait
        time.sleep(1.5)
        assert other.poll() is None, "the other writer did not wait its turn"
        os.kill(holder.pid, signal.SIGCONT)
        said = [p.communicate(timeout=60) for p in (holder, other)]
    finally:
        kill(holder)
        kill(other)
    assert [len(acknowledged(out)) for out, _ in said] == [2, 2], said
    assert held(log) == {"1 0", "1 1", "2 0", "2 1"}


def test_dead_writer_gives_its_turn_back(log):
    code, _, _ = python(log.root, WRITER, "1", "2", MLWORKBENCH_CRASH="before_commit:1")
    assert code == -signal.SIGKILL
    assert python(log.root, WRITER, "2", "1")[0] == 0


@pytest.mark.parametrize("catalog", ["sqlite"])
def test_every_flipped_bit_is_named(wb, torture):
    with write_lake("numbers", wb=wb) as write:
        write.con.execute(
            "CREATE TABLE numbers AS SELECT range AS a, hash(range) AS h FROM range(3000)"
        )
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    print("seed", seed)
    files = sorted(f for f in lake_files(wb) if "numbers" in f)
    for _ in range(2000 if torture else 150):
        name = dice.choice(files)
        file = data_path(wb) / name
        good = file.read_bytes()
        bad = bytearray(good)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        file.write_bytes(bad)
        assert verify_files(wb) == [f"{name} was changed after it was written"]
        file.write_bytes(good)
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        (data_path(wb) / sorted(lake_files(wb))[0]).read_bytes()[::-1],
    ):
        file.write_bytes(bad)
        assert verify_files(wb) == [f"{name} was changed after it was written"]
    file.unlink()
    assert verify_files(wb) == [f"{name} is missing"]


@pytest.mark.parametrize("catalog", ["sqlite"])
def test_moved_and_copied_workbenches_open(log, tmp_path):
    python(log.root, WRITER, "1", "2")
    before = rows_hash(log, "log")
    shutil.copytree(log.root, tmp_path / "a copy's folder")
    copy = open_workbench(tmp_path / "a copy's folder")
    assert rows_hash(copy, "log") == before and verify_files(copy) == []
    assert python(copy.root, WRITER, "2", "1")[0] == 0
    assert rows_hash(log, "log") == before  # the copy writes into itself
    shutil.move(copy.root, tmp_path / "moved")
    moved = open_workbench(tmp_path / "moved")
    assert held(moved) == {"1 0", "1 1", "2 0"} and verify_files(moved) == []


@pytest.mark.parametrize("catalog", ["sqlite"])
@pytest.mark.parametrize("lost", ["lake/catalog.sqlite", "work.sqlite"])
def test_missing_catalog_or_store_is_an_error(wb, lost):
    (wb.root / lost).unlink()
    for attempt in (
        lambda: sql("FROM predictions", wb=wb),
        lambda: write_lake("x", wb=wb).__enter__(),
        lambda: tables(wb=wb),
    ):
        with pytest.raises(WorkbenchError, match="missing"):
            attempt()
    assert not (wb.root / lost).exists()


def test_full_disk_leaves_the_lake_unchanged(tmp_path):

    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        wb = create_workbench(disk / "wb")
        before = everything(wb)
        big = pd.DataFrame({"a": range(900_000), "h": [hash(str(i)) for i in range(900_000)]})
        from mlworkbench.data.ingestion import ingest

        with pytest.raises(WorkbenchError) as found:
            ingest(big, table="big", wb=wb)
        assert "\n" not in str(found.value) and "pace" in str(found.value)
        assert everything(wb) == before
        small = ingest(big.head(50), table="small", wb=wb)
        assert small["added"] == 50 and verify_files(wb) == []
        for file in data_path(wb).rglob("*.parquet"):
            assert str(file.relative_to(data_path(wb))) in lake_files(wb), "a half file was left"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("point", ["before_fsync", "before_commit"])
def test_no_room_at_the_commit(log, point):
    code, out, err = python(log.root, WRITER, "1", "1", MLWORKBENCH_CRASH=f"{point}:1:full")
    assert (
        code == 1
        and "WorkbenchError: the lake could not be written (1 0): [Errno 28] No space left" in err
    )
    assert held(log) == set()
    check_after_crash(log, [])


ATTACKS = """
FROM sqlite_scan('{store}', 'runs')
SELECT * FROM SQLITE_SCAN('{store}', 'runs')
SELECT * FROM "sqlite_scan"('{store}', 'runs')
SELECT (SELECT count(*) FROM sqlite_scan('{store}', 'runs'))
WITH a AS MATERIALIZED (FROM sqlite_scan('{store}', 'runs')) FROM a
WITH RECURSIVE a AS (SELECT 1 x UNION ALL SELECT x + 1 FROM a, sqlite_scan('{store}', 'runs')) FROM a
SELECT 1 WHERE EXISTS (FROM sqlite_scan('{store}', 'runs'))
FROM range(3) JOIN sqlite_scan('{store}', 'runs') ON true
SELECT list((SELECT run FROM sqlite_scan('{store}', 'runs') LIMIT 1)) OVER ()
DESCRIBE SELECT * FROM sqlite_scan('{store}', 'runs')
SUMMARIZE SELECT * FROM sqlite_scan('{store}', 'runs')
FROM (SUMMARIZE SELECT * FROM sqlite_scan('{store}', 'runs'))
PIVOT (FROM sqlite_scan('{store}', 'runs')) ON state USING count(*)
EXPLAIN ANALYZE FROM sqlite_scan('{store}', 'runs')
EXPLAIN /* ( */ ANALYZE FROM sqlite_scan('{store}', 'runs')
/* EXPLAIN */ EXPLAIN (ANALYZE) FROM sqlite_scan('{store}', 'runs')
SELECT/**/*/**/FROM/**/sqlite_scan/**/('{store}', 'runs')
FROM query('FROM sqlite_scan(''{store}'', ''runs'')')
FROM query('FROM sql' || 'ite_scan(''{store}'', ''runs'')')
FROM query_table('log')
FROM sqlite_query('work', 'DELETE FROM runs')
FROM sqlite_attach('{store}')
FROM postgres_query('x', 'SELECT 1')
FROM postgres_scan('', 'public', 'x')
FROM read_text('/etc/passwd')
FROM read_blob('/etc/passwd')
FROM read_csv('/etc/passwd')
FROM read_json('/etc/passwd')
FROM read_parquet('{data}/**/*.parquet')
FROM parquet_scan('{data}/**/*.parquet')
FROM parquet_metadata('{data}/**/*.parquet')
FROM glob('/*')
FROM sniff_csv('/etc/passwd')
FROM '/etc/passwd'
FROM '{data}/main/log/*.parquet'
FROM "{store}"
FROM 'x.csv'
FROM secret_frame
SELECT getenv('HOME')
FROM duckdb_settings()
FROM duckdb_secrets()
FROM duckdb_logs()
SELECT write_log('x')
SELECT nextval('x')
FROM pragma_database_size()
FROM lake.merge_adjacent_files()
FROM lake.expire_snapshots(older_than => now())
FROM ducklake_cleanup_old_files('lake', cleanup_all => true)
FROM ducklake_flush_inlined_data('lake')
FROM ducklake_add_data_files('lake', 'log', '/x')
CALL lake.merge_adjacent_files()
CALL enable_logging()
PRAGMA database_list
PRAGMA version
PRAGMA enable_profiling
SET threads = 7
SET enable_external_access = true
RESET lock_configuration
USE memory
ATTACH ':memory:' AS other
ATTACH '{store}' AS other (TYPE sqlite)
DETACH lake
INSTALL httpfs
LOAD httpfs
COPY log TO '{data}/out.csv'
COPY log FROM '/etc/passwd'
COPY FROM DATABASE lake TO memory
EXPORT DATABASE '{data}'
IMPORT DATABASE '{data}'
CREATE TEMP TABLE q AS SELECT 1
CREATE TEMP MACRO m() AS TABLE FROM sqlite_scan('{store}', 'runs')
CREATE SECRET s (TYPE sqlite, path '{store}')
PREPARE p AS DELETE FROM log
EXECUTE p
DELETE FROM log
EXPLAIN ANALYZE DELETE FROM log
EXPLAIN ANALYZE INSERT INTO log VALUES (1, 1, 1, 1)
EXPLAIN ANALYZE CREATE TABLE log2 AS FROM log
WITH a AS (SELECT 1) INSERT INTO log SELECT 1, 1, 1, 1
FROM log; DELETE FROM log
FROM log;; DROP TABLE log
SELECT 1; -- one
BEGIN TRANSACTION
CHECKPOINT
VACUUM
INSERT INTO work.tags VALUES ('a', 1, 'x', now())
UPDATE __ducklake_metadata_lake.ducklake_snapshot SET next_file_id = 0
ｆｒｏｍ log
FROM "log\u0000"
FROM sqlite_scan\u00a0('{store}', 'runs')
SELECT 1 /* unclosed
-- nothing
;
""".strip().splitlines()


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a != "SELECT 1; -- one"])
def test_the_reading_door_refuses(attacked, attack):
    wb, before = attacked
    secret_frame = pd.DataFrame({"password": ["x"]})  # noqa: F841 a replacement scan would find it
    attack = attack.encode().decode("unicode_escape") if "\\u" in attack else attack
    with pytest.raises(UserError):
        sql(attack.format(store=wb.root / "work.sqlite", data=data_path(wb)), wb=wb).fetchall()
    assert rows_hash(wb, "log") == before
    assert not (data_path(wb) / "out.csv").exists()


@pytest.fixture(scope="module")
def attacked(empty_workbench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked") / "wb"
    shutil.copytree(empty_workbench, folder)
    wb = open_workbench(folder)
    with write_lake("log", wb=wb) as write:
        write.con.execute(
            "CREATE TABLE log AS SELECT 1 AS who, 2 AS i, range AS r, hash(range) AS h FROM range(50)"
        )
    return wb, rows_hash(wb, "log")


def test_the_reading_door_reads(attacked):
    wb, _ = attacked
    for query in (
        "FROM log",
        "TABLE log",
        "DESCRIBE log",
        "SUMMARIZE log",
        "SHOW TABLES",
        "VALUES (1)",
        "FROM log AT (VERSION => 2)",
        "WITH RECURSIVE r AS (SELECT 1 x UNION ALL SELECT x + 1 FROM r WHERE x < 3) FROM r",
        "EXPLAIN FROM log",
        "EXPLAIN ANALYZE SELECT sum(r) FROM log",
        "EXPLAIN (FORMAT json) FROM log",
        "EXPLAIN (SELECT 1)",
        "SELECT 'read_text(' AS a /* '; */",
        "FROM work.runs",
        "FROM lake.snapshots()",
        "FROM range(3)",
        "FROM (PIVOT log ON who IN (1) USING sum(r))",
        "SELECT 1; -- one",
    ):
        sql(query, wb=wb).fetchall()
    assert sql("SELECT $a + 1", params={"a": 1}, wb=wb).fetchone() == (2,)
    hostile = "x'; DELETE FROM log; --"
    assert sql("SELECT $a", params={"a": hostile}, wb=wb).fetchone() == (hostile,)
    with pytest.raises(UserError):
        sql("FROM query($q)", params={"q": "FROM sqlite_scan('x', 'y')"}, wb=wb).fetchall()


@pytest.mark.parametrize("catalog", ["sqlite"])
def test_views_and_macros_that_hide_something_are_refused(log):
    """A view or macro put there by another DuckDB client, round our doors."""
    store = log.root / "work.sqlite"
    for name, make in {
        "plain": f"CREATE VIEW plain AS FROM sqlite_scan('{store}', 'runs')",
        "a AS b": f"CREATE VIEW \"a AS b\" AS FROM sqlite_scan('{store}', 'runs')",
        "columns": f"CREATE VIEW columns(\"as\") AS SELECT 1 FROM sqlite_scan('{store}', 'runs')",
    }.items():
        with write_lake("evil", wb=log) as write:
            write.con.execute(make)
        for attempt in (
            lambda n=name: sql(f'FROM "{n}"', wb=log),
            lambda: sql("INSERT INTO log SELECT 1, 1, 1, 1", write=True, wb=log),
        ):
            with pytest.raises(UserError, match="view"):
                attempt()
        with write_lake("good", wb=log) as write:
            write.con.execute(f'DROP VIEW "{name}"')
    with write_lake("evil", wb=log) as write:
        write.con.execute(
            f"CREATE MACRO f() AS (SELECT count(*) FROM sqlite_scan('{store}', 'runs'))"
        )
    with pytest.raises(UserError, match="function f"):
        sql("SELECT f()", wb=log).fetchall()


RESERVED = """
DELETE FROM predictions
DELETE FROM "Predictions"
DELETE FROM lake.main."PREDICTIONS"
DELETE FROM 'predictions'
INSERT INTO 'mlw_roles' VALUES ('a', 'b', 'c', 1)
INSERT INTO MLW_sources VALUES ('a', 'b', 'c', 1)
/* ' */ DELETE FROM predictions --'
/* " */ DELETE FROM predictions /* " */
-- '\nDELETE FROM predictions -- '
WITH a AS (SELECT E'\\'' b) DELETE FROM predictions --'
WITH a AS (SELECT $$'$$ b) DELETE FROM predictions --'
DELETE FROM E'predictions'
DELETE FROM $$predictions$$
UPDATE predictions SET score = 1
DROP TABLE predictions
DROP TABLE IF EXISTS 'predictions'
ALTER TABLE predictions RENAME TO mine
ALTER TABLE log RENAME TO predictions
ALTER TABLE log RENAME TO "mlw_roles2"
CREATE OR REPLACE TABLE predictions AS SELECT 1
CREATE TABLE IF NOT EXISTS mlw_x AS SELECT 1
CREATE VIEW mlw_x AS SELECT 1
DROP SCHEMA main CASCADE
CREATE SCHEMA other
CREATE MACRO f() AS 1
CREATE FUNCTION f() AS TABLE FROM log
CREATE TEMP TABLE q AS SELECT 1
CREATE TABLE memory.main.q AS SELECT 1
CREATE TABLE temp.q AS SELECT 1
CREATE SECRET s (TYPE sqlite)
CREATE PERSISTENT SECRET s (TYPE sqlite)
CREATE TABLE "; drop table log; --" AS SELECT 1
CREATE TABLE "a b" AS SELECT 1
CREATE TABLE z AS FROM sqlite_scan('{store}', 'runs')
CREATE TABLE z AS FROM query('FROM sqlite_scan(''{store}'', ''runs'')')
CREATE TABLE z AS FROM read_text('/etc/passwd')
CREATE TABLE z AS FROM '/etc/passwd'
CREATE VIEW z AS FROM sqlite_scan('{store}', 'runs')
CREATE VIEW z AS FROM query('FROM sqlite_scan(''{store}'', ''runs'')')
INSERT INTO log SELECT 1, 1, 1, (SELECT count(*) FROM glob('/*'))
DELETE FROM __ducklake_metadata_lake.ducklake_snapshot
DELETE FROM "__DuckLake_metadata_lake".ducklake_snapshot
/* ' */ DELETE FROM __ducklake_metadata_lake.ducklake_snapshot --'
UPDATE work.runs SET state = 'finished'
INSERT INTO work.main.tags VALUES ('a', 1, 'x', now())
COPY log TO '{data}/out.csv'
ATTACH '{store}' AS w
CALL lake.merge_adjacent_files()
DELETE FROM log; DELETE FROM log
SELECT 1
TRUNCATE predictions
COMMENT ON TABLE log IS 'x'
""".strip().splitlines()


@pytest.mark.parametrize("attack", RESERVED)
def test_the_writing_door_reaches_lake_tables_alone(attacked, attack):
    wb, _ = attacked
    before = everything(wb)
    with pytest.raises(UserError):
        sql(
            attack.replace("\\n", "\n").format(store=wb.root / "work.sqlite", data=data_path(wb)),
            write=True,
            wb=wb,
        )
    assert everything(wb) == before


def test_the_writing_door_writes(log):
    for statement in (
        "INSERT INTO log SELECT 1, 1, range, 1 FROM range(20)",
        "UPDATE log SET h = 2 WHERE r IS DISTINCT FROM 3",
        "CREATE TABLE other AS SELECT *, 'predictions' AS kind FROM log WHERE h = 2",
        "DELETE FROM other WHERE kind = 'predictions' AND r = 4",
        'ALTER TABLE other ADD COLUMN "from" INTEGER',
        "CREATE OR REPLACE VIEW v AS FROM other",
        "DROP VIEW v",
        "MERGE INTO other USING (SELECT 5 AS r) u ON other.r = u.r WHEN MATCHED THEN DELETE",
        "TRUNCATE log",
    ):
        sql(statement, write=True, wb=log)
    assert sql("SELECT count(*), sum(r) FROM other", wb=log).fetchone() == (17, 190 - 3 - 4 - 5)
    assert sql("FROM log", wb=log).fetchall() == []
    assert verify_files(log) == []


def test_a_deleted_catalog_is_not_remembered(log):
    """A kept connection does not answer for a workbench that was made anew at the same place."""

    assert lake_cursor(log)
    shutil.rmtree(log.root)
    fresh = create_workbench(log.root)
    assert tables(wb=fresh) == []


@pytest.mark.parametrize("catalog", ["postgresql"])
def test_both_doors_hold_on_postgresql(log):
    address = log.setting("lake", "catalog")
    more = (
        "FROM postgres_query('lake', 'SELECT 1')",
        f"FROM postgres_scan('{address}', 'work', 'runs')",
        f"ATTACH '{address}' AS other (TYPE postgres)",
        "CALL postgres_execute('work', 'DELETE FROM runs')",
    )
    before = everything(log)
    for query in (*more, *(a for a in ATTACKS if "\\u" not in a and a != "SELECT 1; -- one")):
        with pytest.raises(UserError):
            sql(query.format(store="x", data=data_path(log)), wb=log).fetchall()
    for query in (*more, *RESERVED):
        with pytest.raises(UserError):
            sql(query.replace("\\n", "\n").format(store="x", data="/x"), write=True, wb=log)
    assert everything(log) == before


@pytest.mark.parametrize("catalog", ["postgresql"])
def test_a_server_that_restarts_is_met_again(log, postgres):
    with write_lake("one", wb=log) as write:
        write.con.execute("INSERT INTO log SELECT 1, 0, r, hash(r + 0) FROM range(40) t(r)")
    postgres.control("-m", "fast", "stop")
    try:
        for attempt in (
            lambda: write_lake("two", wb=log).__enter__(),
            lambda: sql("FROM log", wb=log),
            lambda: snapshot_number("a-tag", log),
        ):
            with pytest.raises(WorkbenchError) as found:
                attempt()
            assert "\n" not in str(found.value)
    finally:
        postgres.start()
    assert held(log) == {"1 0"}
    with write_lake("three", wb=log) as write:
        write.con.execute("INSERT INTO log SELECT 3, 0, r, hash(r + 0) FROM range(40) t(r)")
    assert held(log) == {"1 0", "3 0"} and verify_files(log) == []


@pytest.mark.parametrize("catalog", ["postgresql"])
def test_a_lost_turn_commits_nothing(log, postgres):
    """The server ends our connections between insert and commit: nothing half, nothing twice."""
    from mlworkbench.core.store import LAKE_LOCK

    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = "
    refused = pytest.raises(WorkbenchError, match="could not be written")
    with refused, write_lake("cut", wb=log) as write:
        write.con.execute("INSERT INTO log SELECT 1, 0, r, hash(r + 0) FROM range(40) t(r)")
        postgres.run(f"{cut}{LAKE_LOCK}")
    assert held(log) == set()
    check_after_crash(log, [])


@pytest.mark.parametrize("catalog", ["sqlite"])
def test_a_clone_with_settings_alone_becomes_a_workbench(wb, tmp_path):
    """Git carries settings, not data; what has data is never made anew."""
    clone = tmp_path / "clone"
    clone.mkdir()
    text = (wb.root / "settings.ini").read_text().replace("timeout = 0", "timeout = 77")
    (clone / "settings.ini").write_text(text)
    with pytest.raises(WorkbenchError, match="mlworkbench init ."):
        lake_cursor(open_workbench(clone))
    made = create_workbench(clone)
    assert made.setting("jobs", "timeout") == "77" and tables(wb=made) == []
    with pytest.raises(UserError, match="already"):
        create_workbench(clone)


def test_duckdb_draws_no_bar_of_its_own_where_somebody_sits(wb):
    code = """
from mlworkbench.data.connections import connect_lake, lake_cursor
for con in (connect_lake(wb), lake_cursor(wb)):
    print(con.execute("SELECT value FROM duckdb_settings() WHERE name = 'enable_progress_bar'").fetchone()[0])
"""  # -c is an interactive session to DuckDB, where its bar is on
    assert python(wb.root, code)[1].split() == ["false", "false"]


@pytest.mark.parametrize("catalog", ["sqlite"])  # a team's is no file
@pytest.mark.parametrize("held", ["work.sqlite", "lake/catalog.sqlite"])
def test_a_locked_file_is_waited_for_with_a_word_after_two_seconds(wb, held):
    with holding(wb, held) as holder:
        waiting = mlworkbench("tables", cwd=wb.root, wait=False)
        said = waiting.stderr.readline()
    out, err = waiting.communicate(timeout=180)
    assert said.startswith("waiting for ") and held in said and f"process {holder}" in said
    assert waiting.returncode == 0, err


@pytest.mark.parametrize("catalog", ["sqlite"])
def test_who_holds_the_catalog_for_too_long_is_named(wb, monkeypatch):
    monkeypatch.setattr("mlworkbench.data.connections.GIVEN_UP", 1.0)
    with holding(wb, "lake/catalog.sqlite") as holder, pytest.raises(WorkbenchError) as found:
        connect_lake(wb)
    assert f"held by process {holder} " in found.value.message and "again" in found.value.hint
    connect_lake(wb).close()
