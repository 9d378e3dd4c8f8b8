"""Contract check and profile of a million rows by twenty columns, against DuckDB's count, min and max.

    python benchmarks/contracts.py [--rows N] [--repeats N] [--peers PYTHON]

The goal is a ratio of at most 3. Beside it, pandera checks the same promises and ydata-profiling
makes its smallest profile of the same rows, in a Python of their own (they want other versions of
what we use): `python -m venv peers && peers/bin/pip install 'pandera[pandas]' ydata-profiling pyarrow`,
then `--peers peers/bin/python`. Both get the frame in memory already.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time

from mlworkbench.data.checks import check_select
from mlworkbench.data.commits import write_lake
from mlworkbench.data.connections import lake_cursor
from mlworkbench.data.contracts import find_contract
from mlworkbench.data.lake import create_workbench
from mlworkbench.data.odcs import Contract, Promise
from mlworkbench.data.profiles import profile

PEERS = """
import importlib.util, json, sys, time
import pandas as pd
frame, repeats = pd.read_parquet(sys.argv[1]), int(sys.argv[2])
def timed(act):
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        spent.append(time.perf_counter() - began)
    return min(spent)
found = {}
if importlib.util.find_spec("pandera"):
    import pandera.pandas as pa
    def of(name):
        tests = [pa.Check.in_range(0, 10**9)] if name[0] in "nd" else []
        tests += [pa.Check.isin([f"w{i}" for i in range(5)])] if name == "s0" else []
        return pa.Column(checks=tests, nullable=False, unique=name == "id")
    schema = pa.DataFrameSchema({name: of(name) for name in frame.columns})
    found["pandera"] = timed(lambda: schema.validate(frame))
if importlib.util.find_spec("ydata_profiling"):
    from ydata_profiling import ProfileReport
    repeats = 1  # it takes long
    found["ydata-profiling"] = timed(
        lambda: ProfileReport(frame, minimal=True, progress_bar=False).get_description()
    )
print(json.dumps(found))
"""
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
    """Time a contract check and a profile against a bare scan, and against peers where installed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--peers", default=sys.executable, help="a Python that has the peers")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wb = create_workbench(f"{folder}/wb")
        with write_lake("a million rows", wb=wb) as write:
            write.con.execute(f"CREATE TABLE t AS {table(chosen.rows)}")
        contract = promises(find_contract("t", wb))
        columns = {p.name: p.type for p in contract.columns}
        con = lake_cursor(wb)
        stats = ", ".join(f'count("{n}"), min("{n}"), max("{n}")' for n in columns)

        def bare():
            con.execute(f"SELECT {stats} FROM t").fetchone()

        def check():
            assert check_select(con, "t", contract, columns).broken == 0

        def look():
            profile("t", wb=wb)

        base, *ours = timed([bare, check, look], chosen.repeats)
        con.execute("FROM t").df().to_parquet(f"{folder}/t.parquet")
        words = [chosen.peers, "-c", PEERS, f"{folder}/t.parquet", str(chosen.repeats)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peers = json.loads(done.stdout.splitlines()[-1])
    print(f"{chosen.rows:,} rows by {len(columns)} columns, least of {chosen.repeats}")
    print(f"{'DuckDB: count, min, max':40}{base:7.3f} s   1.00")
    for name, seconds in zip(["contract check", "profile"], ours, strict=True):
        print(f"{name:40}{seconds:7.3f} s   {seconds / base:.2f}   (goal 3)")
    for name, mine in {"pandera": ours[0], "ydata-profiling": ours[1]}.items():
        if name in peers:
            print(f"{name:40}{peers[name]:7.3f} s   {peers[name] / mine:.1f} times ours")
        else:
            print(f"{name:40}skipped: not installed in {chosen.peers}")


if __name__ == "__main__":
    main()
