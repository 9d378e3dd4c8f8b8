"""The handbook's features over all transactions, side by side in one run: ratios, not seconds.

    python benchmarks/features.py [TRANSACTIONS.parquet] [--part 0.1] [--rounds 3]

Compared, each from the Parquet file to a finished table, each in a process of its own:

ours      the view ``handbook``, compiled by mlworkbench.data.features
hand      the same windows written by hand in DuckDB SQL (plain RANGE frames; ties leak)
rolling   vectorised pandas, ``groupby(…).rolling("7D")``
handbook  the book's algorithm: one pandas frame a customer and a terminal, one after another; it
          runs on a tenth of customers and terminals, and its features' time is scaled by what
          share of the rows that is; loading is not scaled

They take turns, and the median of the rounds counts, for all of them by the clock on the wall. Ours
and hand use both cores, the two others one: beside other work the ratios to those come out smaller.
Without the published file, simulated cards of the same size are used.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PUBLISHED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "handbook_transactions.parquet"
KEY, TIME, CUSTOMER, TERMINAL = "TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID"
AMOUNT, LABEL = "TX_AMOUNT", "TX_FRAUD"
DAYS, DAY = (1, 7, 30), 86_400_000_000


def duck(query):
    """Run one query with two threads, into a table in memory."""
    import duckdb

    con = duckdb.connect()
    con.execute("SET threads = 2; SET memory_limit = '1GB'; SET preserve_insertion_order = false")
    con.execute(f"CREATE TABLE features AS {query}")


def ours(file, part):
    """The view as the library compiles it."""
    from mlworkbench.data.handbook import handbook_view
    from mlworkbench.data.windows import view_sql

    view = handbook_view("cards", KEY, TIME, CUSTOMER, TERMINAL, AMOUNT, LABEL, published=True)
    duck(view_sql(view, f"read_parquet('{file}')"))


def hand(file, part):
    """The same windows in hand-written SQL."""
    outputs, frames = [], []
    for d in DAYS:
        outputs += [f"count(*) OVER c{d} AS cn{d}", f"avg({AMOUNT}) OVER c{d} AS ca{d}"]
        frames.append(
            f"c{d} AS (PARTITION BY {CUSTOMER} ORDER BY t RANGE BETWEEN {d * DAY - 1} PRECEDING AND CURRENT ROW)"
        )
    for d in DAYS:
        outputs += [f"count(*) OVER t{d} AS tn{d}", f"coalesce(avg({LABEL}) OVER t{d}, 0) AS tr{d}"]
        frames.append(
            f"t{d} AS (PARTITION BY {TERMINAL} ORDER BY t RANGE BETWEEN {(d + 7) * DAY - 1} PRECEDING AND {7 * DAY} PRECEDING)"
        )
    duck(
        f"SELECT {KEY}, {AMOUNT}, (isodow({TIME}::TIMESTAMP) >= 6)::INT AS we, (hour({TIME}::TIMESTAMP) <= 6)::INT AS ni, "
        f"{', '.join(outputs)} FROM (SELECT *, epoch_us({TIME}) AS t FROM read_parquet('{file}')) "
        f"WINDOW {', '.join(frames)}"
    )


def load(file):
    """The columns that are needed as a frame, with the two flags of the book."""
    import pandas as pd

    frame = pd.read_parquet(file, columns=[KEY, TIME, CUSTOMER, TERMINAL, AMOUNT, LABEL])
    frame["weekend"] = (frame[TIME].dt.weekday >= 5).astype(int)
    frame["night"] = (frame[TIME].dt.hour <= 6).astype(int)
    return frame


def rolling(file, part):
    """The same windows by pandas, all entities at once."""
    import pandas as pd

    frame = load(file)
    for entity, column, delay in ((CUSTOMER, AMOUNT, 0), (TERMINAL, LABEL, 7)):
        order = frame.sort_values([entity, TIME, KEY])
        groups = order.set_index(TIME).groupby(entity, sort=True)[column]

        def window(days, groups=groups):
            rolled = groups.rolling(f"{days}D")
            return rolled.count().to_numpy(), rolled.sum().to_numpy()

        near = window(delay) if delay else (0, 0)
        for d in DAYS:
            far = window(d + delay)
            number, summed = far[0] - near[0], far[1] - near[1]
            frame.loc[order.index, f"{entity}_{d}_n"] = number
            value = pd.Series(summed, order.index) / pd.Series(number, order.index).where(
                number > 0
            )
            frame[f"{entity}_{d}_m"] = value.fillna(0)


def clocked(begun):
    """Seconds on the wall and of processor since both clocks were read."""
    import numpy as np

    return np.array([time.perf_counter(), time.process_time()]) - begun


def handbook(file, part):
    """The book's loop over entities; return wall and processor seconds, scaled to all rows."""
    import numpy as np
    import pandas as pd

    begun = time.perf_counter(), time.process_time()
    frame = load(file)
    spent = clocked(begun)
    for entity, column, delay in ((CUSTOMER, AMOUNT, 0), (TERMINAL, LABEL, 7)):
        entities = np.unique(frame[entity])
        some = entities[: max(1, int(len(entities) * part))]
        rows = frame[frame[entity].isin(some)]
        begun = time.perf_counter(), time.process_time()

        def one(mine, entity=entity, column=column, delay=delay):
            mine = mine.sort_values(TIME)
            mine.index = mine[TIME]
            near = delay and (
                mine[column].rolling(f"{delay}D").count(),
                mine[column].rolling(f"{delay}D").sum(),
            )
            for d in DAYS:
                rolled = mine[column].rolling(f"{d + delay}D")
                number, summed = rolled.count(), rolled.sum()
                if delay:
                    number, summed = number - near[0], summed - near[1]
                mine[f"{entity}_{d}_n"] = list(number)
                mine[f"{entity}_{d}_m"] = list(summed / number)
            mine.index = mine[KEY]
            return mine.fillna(0)

        done = pd.concat([one(mine) for _, mine in rows.groupby(entity)])
        done.sort_values(TIME).reset_index(drop=True)
        spent += clocked(begun) * len(frame) / len(rows)
    return spent


def measured(name, file, part):
    """Run one candidate in a fresh process: wall seconds, and peak memory in MB."""
    command = [sys.executable, __file__, str(file), "--part", str(part), "--only", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def simulated():
    """Write simulated cards with the published file's columns; return the file."""
    import pyarrow.parquet as pq

    from mlworkbench.data.simulation import simulate_cards

    cards = simulate_cards().drop_columns(["scenario"])
    file = pathlib.Path(tempfile.mkdtemp()) / "cards.parquet"
    pq.write_table(cards.rename_columns([KEY, TIME, CUSTOMER, TERMINAL, AMOUNT, LABEL]), file)
    return file


def main():
    """Let the candidates take turns; print medians, and each ratio beside the wanted one."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("file", nargs="?", default=PUBLISHED if PUBLISHED.exists() else None)
    options.add_argument("--part", type=float, default=0.1)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only")
    chosen = options.parse_args()
    if chosen.only:
        import duckdb  # noqa: F401  imports are not what is measured
        import pandas  # noqa: F401

        import mlworkbench.data.windows  # noqa: F401

        begun = time.perf_counter(), time.process_time()
        scaled = globals()[chosen.only](chosen.file, chosen.part)
        wall, work = clocked(begun) if scaled is None else scaled
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": wall, "cpu": work, "mb": peak}))
        return
    file = chosen.file or simulated()
    names, rounds = ("ours", "hand", "rolling", "handbook"), []
    for _ in range(chosen.rounds):
        rounds.append({name: measured(name, file, chosen.part) for name in names})
    typical = {
        name: {f: statistics.median(r[name][f] for r in rounds) for f in ("seconds", "cpu", "mb")}
        for name in names
    }
    for name in names:
        note = f" (on {chosen.part:.0%}, scaled)" if name == "handbook" else ""
        found = typical[name]
        print(
            f"{name:9} {found['seconds']:7.2f} s {found['cpu']:7.2f} s of processor {found['mb']:7.0f} MB{note}"
        )
    us = typical["ours"]["seconds"]
    for name, bound in (("handbook", 18), ("rolling", 3.5)):
        work = typical[name]["cpu"] / typical["ours"]["cpu"]
        times = typical[name]["seconds"] / us
        print(
            f"ours is {times:.1f} times as fast as {name} (wanted {bound}), in processor time {work:.1f}"
        )
    print(f"ours takes {us / typical['hand']['seconds']:.2f} times as long as hand (wanted 1.25)")
    cpu = typical["ours"]["cpu"] / typical["hand"]["cpu"]
    print(f"  in processor time, which other work on the machine disturbs less: {cpu:.2f}")
    print(f"ours peaks at {typical['ours']['mb']:.0f} MB (wanted 1200)")


if __name__ == "__main__":
    main()
