"""Work that tests kill: numbered steps, the same in every workbench, so that a twin says what each step leaves."""

import json
import os
import sys
import traceback
from pathlib import Path

import pandas as pd

from mlworkbench.core.settings import Workbench, open_workbench
from mlworkbench.data.catalog import declare_roles, snapshot_number
from mlworkbench.data.commits import write_lake
from mlworkbench.data.connections import lake_cursor, quoted
from mlworkbench.data.features import FeatureView, count, mean, total
from mlworkbench.data.history import tag
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.queries import sql
from mlworkbench.data.refreshing import refresh
from mlworkbench.data.upkeep import compact, expire

VIEW = FeatureView(
    name="seen",
    table="pay",
    key="id",
    time="at",
    features=(
        count("who", "3 days"),
        total("amount", "who", "3 days"),
        mean("amount", "who", "9 rows"),
    ),
)
AT = "TIMESTAMP '2026-01-01' + to_hours(CAST(id % 977 AS BIGINT))"


def prepare(wb: Workbench) -> None:
    """The tables that the steps change, and a tag that upkeep has to keep."""
    with write_lake("begin", wb=wb) as write:
        write.con.execute("CREATE TABLE log (step BIGINT, r BIGINT, h UBIGINT)")
        made = f'SELECT range AS id, range % 7 AS who, {AT} AS "at", range % 50 AS amount FROM range(300)'
        write.con.execute(f"CREATE TABLE pay AS {made.replace('id %', 'range %')}")
        declare_roles(write.con, "pay", key="id", entity="who", time="at")
    tag("kept", write.snapshot, wb=wb)


def commit(wb: Workbench, i: int) -> None:
    """Add rows; now and then delete and change others in the same commit."""
    with write_lake(f"step {i}", wb=wb) as write:
        write.con.execute(f"INSERT INTO log SELECT {i}, range, hash(range + {i}) FROM range(40)")
        if i % 3 == 2:
            write.con.execute(f"DELETE FROM log WHERE step = {i - 2} AND r % 5 = 0")
            write.con.execute(f"UPDATE log SET h = {i} WHERE step = {i - 1} AND r % 7 = 0")


def take_in(wb: Workbench, i: int) -> None:
    """A clean file, one with a broken row, one in Latin-1, a frame that brings rows up to date."""
    first = i * 50
    if i % 4 == 3:
        frame = pd.DataFrame({"id": range(first - 50, first + 9), "v": f"new {i}"})
        ingest(frame, table="coming", mode="upsert", key="id", wb=wb)
        return
    lines = [f"{n},v {n}" for n in range(first, first + 50)]
    lines[7:7] = ["x,broken"] if i % 4 == 1 else []
    lines[9] += " é" if i % 4 == 2 else ""
    file = Path(wb.root).with_name("in") / f"{i}.csv"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes("\n".join(["id,v", *lines]).encode("latin-1"))
    ingest(file, table="coming", key="id", wb=wb)


def feature(wb: Workbench, i: int) -> None:
    """Change the source, then bring the view up to date: a step each."""
    if i % 2:
        refresh(VIEW, wb=wb)
        return
    new = f"range({1000 + i * 30}, {1030 + i * 30}) t(id)"
    with write_lake(f"step {i}", wb=wb) as write:
        write.con.execute(f"INSERT INTO pay SELECT id, id % 7, {AT}, id % 50 FROM {new}")
        write.con.execute(f"DELETE FROM pay WHERE id % 31 = {i % 31}")
        write.con.execute(f"UPDATE pay SET amount = {i} WHERE id % 29 = {i % 29}")


def upkeep(wb: Workbench, i: int) -> None:
    """Let files and snapshots pile up, then compact and expire; one commit that changes rows a step."""
    if i % 4 == 0:
        commit(wb, i)
    elif i % 4 == 1:
        sql(f"DELETE FROM pay WHERE id % 37 = {i % 37}", write=True, wb=wb)
    elif i % 4 == 2:
        compact(grace=0, wb=wb)
    else:
        expire(0, grace=0, wb=wb)


WORKS = {"commit": commit, "ingest": take_in, "features": feature, "upkeep": upkeep}


def _rows(wb: Workbench, table: str, at: int | None = None) -> tuple:
    """How many rows and the sum of their hashes, read from the files; fractions to six places."""
    con = lake_cursor(wb, at)
    types = con.execute(f"DESCRIBE lake.main.{quoted(table)}").fetchall()
    values = ", ".join(
        f"round({quoted(name)}, 6)" if kind == "DOUBLE" else quoted(name)
        for name, kind, *_ in types
    )
    query = f"SELECT count(h), sum(h::HUGEINT) FROM (SELECT hash({values}) AS h FROM lake.main.{quoted(table)})"
    return con.execute(query).fetchone()


def state(wb: Workbench) -> str:
    """What the steps have left: every row of every table, the quarantine, the sources, the tagged past."""
    con = lake_cursor(wb)
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY 1"
    names = [n for (n,) in con.execute(query).fetchall() if not n.startswith("mlw_")]
    held = {name: _rows(wb, name) for name in names if name != "predictions"}
    broken = 'SELECT table_name, line, reason, "row" FROM mlw_quarantine ORDER BY ALL'
    sources = "SELECT table_name, sha256, rows FROM mlw_sources ORDER BY ALL"
    past = f"(SELECT hash(pay) AS h FROM pay AT (VERSION => {snapshot_number('kept', wb)}))"
    queries = (broken, sources, f"SELECT count(h), sum(h::HUGEINT) FROM {past}")
    return repr((held, *(con.execute(query).fetchall() for query in queries)))


def take(folder: str, work: str, first: int, steps: int) -> None:
    """Take some steps, and say each one once it is done."""
    wb = open_workbench(Path(folder))
    for number in range(first, first + steps):
        WORKS[work](wb, number)
        os.write(1, f"done {number}\n".encode())


def serve() -> None:
    """Take steps in processes forked from this one, which has imported everything: a line of JSON asks for one.

    Answers with the process's id, which stays its own until an empty line asks for the exit code.
    """
    for line in sys.stdin:
        asked = json.loads(line)
        if not (child := os.fork()):
            os.setsid()
            for target, name in zip((1, 2), asked["files"], strict=True):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
            os.environ |= asked["environment"]
            code = 1
            try:
                take(*asked["words"])
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            os._exit(code)
        os.write(1, f"{child}\n".encode())
        sys.stdin.readline()
        os.write(1, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())


if __name__ == "__main__":  # python works.py [FOLDER WORK FIRST STEPS]
    if sys.argv[1:]:
        take(*sys.argv[1:3], *map(int, sys.argv[3:5]))
    else:
        serve()
