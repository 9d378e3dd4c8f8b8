"""CSV to a hashed, fsynced lake table, against DuckDB's bare CSV to Parquet; ratios within one run.

    python benchmarks/ingestion.py [--rows N] [--repeats N]

The goal is a ratio of at most 2. A second call with the same file is timed too.
"""

import argparse
import tempfile
import time
from pathlib import Path

import duckdb

from mlworkbench.data.commits import verify_files
from mlworkbench.data.dialects import find_dialect
from mlworkbench.data.files import look
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.queries import sql
from mlworkbench.data.reading import read_source
from mlworkbench.data.records import count_records

ROWS = """
SELECT i AS transaction_id, TIMESTAMP '2025-01-01' + to_seconds(i * 9) AS "at",
    (hash(i) % 5000)::BIGINT AS customer_id, (hash(i + 1) % 10000)::BIGINT AS terminal_id,
    round(random() * 200, 2) AS amount, (i * 9)::BIGINT AS seconds, (i // 9600)::BIGINT AS day,
    (random() < 0.008)::BIGINT AS is_fraud, 'merchant ' || hash(i + 2) % 900 AS merchant
FROM range({rows}) t(i)
"""


def timed(acts, repeats):
    """Least seconds of each call; they take turns, so that a busy moment hits all of them."""
    spent = [[] for _ in acts]
    for number in range(repeats):
        for act, seconds in zip(acts, spent, strict=True):
            began = time.perf_counter()
            act(number)
            seconds.append(time.perf_counter() - began)
    return [min(seconds) for seconds in spent]


def main():
    """Time a CSV file into the lake, step by step, against a bare copy to Parquet."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_750_000)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = root / "cards.csv"
        duckdb.execute(f"COPY ({ROWS.format(rows=chosen.rows)}) TO '{source}'")
        size = source.stat().st_size
        wb = create_workbench(root / "wb")

        def bare(number):
            with duckdb.connect() as con:
                con.execute(f"COPY (FROM read_csv('{source}')) TO '{root}/bare{number}.parquet'")

        def ours(number):
            ingest(source, table=f"cards{number}", wb=wb)

        ours(99)  # compile the counter once, as a long-lived notebook has
        dialect = find_dialect(source.read_bytes()[: 1 << 20], False)

        def counted(_):
            count_records(look(source), dialect)

        def looked(_):
            with read_source(source):
                pass

        def repeated(_):
            ingest(source, table="cards0", wb=wb)

        base, lake, again, whole, count = timed(
            [bare, ours, repeated, looked, counted], chosen.repeats
        )
        assert sql("SELECT count(*) FROM cards0", wb=wb).fetchone() == (chosen.rows,)
        assert verify_files(wb) == []
    print(f"{chosen.rows:,} rows, {size / 1e6:.0f} MB of CSV, least of {chosen.repeats}")
    print(f"DuckDB, bare CSV to Parquet             {base:6.2f} s   1.00")
    print(f"CSV to a hashed, fsynced lake table     {lake:6.2f} s   {lake / base:.2f}   (goal 2)")
    print(f"  of it: looking (count, hash, types)   {whole:6.2f} s   {whole / base:.2f}")
    print(f"    of it: counting and hashing         {count:6.2f} s   {count / base:.2f}")
    print(f"the same file again                     {again:6.2f} s   {again / base:.2f}")


if __name__ == "__main__":
    main()
