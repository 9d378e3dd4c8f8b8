"""A small durable commit (turn, fsync, checksum, author, message) against a bare DuckLake commit.

    python benchmarks/commits.py [ROUNDS]

Interleaved in one run, one row a commit, SQLite catalog; medians and their ratio. Wanted: at most 2.
The bare commit is DuckLake's own: an open connection, BEGIN, author and message, INSERT, COMMIT; its
Parquet file is not fsynced and has no checksum.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from mlworkbench.data.commits import verify_files, write_lake
from mlworkbench.data.connections import load_extension
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql


def bare_lake(folder: Path) -> duckdb.DuckDBPyConnection:
    """A DuckLake of nobody's, with the catalog settings that ours has."""
    con = duckdb.connect()
    for name in ("ducklake", "sqlite_scanner"):
        load_extension(con, name)
    con.execute(
        f"ATTACH 'ducklake:sqlite:{folder}/bare.sqlite' AS lake (DATA_PATH '{folder}/bare/', "
        "DATA_INLINING_ROW_LIMIT 0, META_JOURNAL_MODE 'WAL')"
    )
    con.execute("USE lake")
    con.execute("CREATE TABLE log (a INTEGER, b INTEGER)")
    return con


def main(rounds: int = 60) -> None:
    """Print the medians and their ratio."""
    took: dict[str, list[float]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        wb = create_workbench(Path(folder) / "wb")
        sql("CREATE TABLE log (a INTEGER, b INTEGER)", write=True, wb=wb)
        with contextlib.closing(bare_lake(Path(folder))) as con:
            for number in range(rounds + 3):
                began = time.perf_counter()
                con.execute("BEGIN")
                con.execute("CALL lake.set_commit_message('me', 'one row')")
                con.execute("INSERT INTO log VALUES (?, 1)", [number])
                con.execute("COMMIT")
                between = time.perf_counter()
                with write_lake("one row", wb=wb) as write:
                    write.con.execute("INSERT INTO log VALUES (?, 1)", [number])
                took["ours"].append(time.perf_counter() - between)
                took["bare"].append(between - began)
        assert verify_files(wb) == []
    bare, ours = (statistics.median(took[name][3:]) for name in ("bare", "ours"))
    print(f"bare DuckLake commit  {bare * 1000:6.1f} ms")
    print(f"ours, durable         {ours * 1000:6.1f} ms   {ours / bare:5.2f} times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
