"""Contract check and profile of a million rows by twenty columns, against DuckDB's count, min and max.

    python benchmarks/contracts.py [--rows N] [--repeats N]

The goal is a ratio of at most 3. pandera, where it is installed, checks the same promises beside it.
"""

import argparse
import importlib.util
import tempfile
import time

from mlworkbench.data.checks import check_select
from mlworkbench.data.contracts import find_contract
from mlworkbench.data.lake import create_workbench, lake_cursor, write_lake
from mlworkbench.data.odcs import Contract, Promise
from mlworkbench.data.profiles import profile

ROWS = """
SELECT i AS id, TIMESTAMP '2025-01-01' + to_seconds(i * 9) AS "at", (random() < .01)::BOOLEAN AS flag,
    {whole}, {fractions}, {words} FROM range({rows}) t(i)
"""


def table(rows):
    """Twenty columns: an id, a moment, a flag, eight whole numbers, five fractions, four texts."""
    whole = ", ".join(f"(hash(i + {k}) % {10 ** (k + 1)})::BIGINT AS n{k}" for k in range(8))
    fractions = ", ".join(f"round(random() * {10**k}, 2) AS d{k}" for k in range(5))
    words = ", ".join(f"'w' || hash(i * 7 + {k}) % {5 * 10**k} AS s{k}" for k in range(4))
    return ROWS.format(rows=rows, whole=whole, fractions=fractions, words=words)


def promises(contract):
    """Ranges for numbers, nothing missing, a pattern and allowed values."""
    made = []
    for p in contract.columns:
        limits = {"low": 0, "high": 10**9} if p.name[0] in "nd" else {}
        allowed = tuple(f"w{i}" for i in range(5)) if p.name == "s0" else ()
        made.append(
            Promise(p.name, p.type, required=True, allowed=allowed, roles=p.roles, **limits)
        )
    return Contract(contract.table, tuple(made), ("id",))


def timed(acts, repeats):
    """Least seconds of each call; they take turns, so that a busy moment hits all of them."""
    spent = [[] for _ in acts]
    for _ in range(repeats):
        for act, seconds in zip(acts, spent, strict=True):
            began = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - began)
    return [min(seconds) for seconds in spent]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wb = create_workbench(f"{folder}/wb")
        with write_lake("a million rows", wb=wb) as write:
            write.con.execute(f"CREATE TABLE t AS {table(chosen.rows)}")
        contract = promises(find_contract("t", wb))
        columns = {p.name: p.type for p in contract.columns}
        con = lake_cursor(wb)
        stats = ", ".join(f'count("{n}"), min("{n}"), max("{n}")' for n in columns)
        frame = con.execute("FROM t").df() if importlib.util.find_spec("pandera") else None

        def bare():
            con.execute(f"SELECT {stats} FROM t").fetchone()

        def check():
            assert check_select(con, "t", contract, columns).broken == 0

        def look():
            profile("t", wb=wb)

        acts = [bare, check, look]
        if frame is not None:
            import pandera.pandas as pa

            def of(p):
                tests = [pa.Check.in_range(p.low, p.high)] if p.low is not None else []
                tests += [pa.Check.isin(p.allowed)] if p.allowed else []
                return pa.Column(checks=tests, nullable=False, unique=p.name == "id")

            schema = pa.DataFrameSchema({p.name: of(p) for p in contract.columns})
            acts.append(lambda: schema.validate(frame))
        base, *others = timed(acts, chosen.repeats)
    names = ["contract check", "profile", "pandera, the frame in memory already"]
    print(f"{chosen.rows:,} rows by {len(columns)} columns, least of {chosen.repeats}")
    print(f"{'DuckDB: count, min, max':40}{base:7.3f} s   1.00")
    for name, seconds in zip(names, others, strict=False):
        print(
            f"{name:40}{seconds:7.3f} s   {seconds / base:.2f}"
            + ("   (goal 3)" if name[0] != "p" or name == "profile" else "")
        )


if __name__ == "__main__":
    main()
