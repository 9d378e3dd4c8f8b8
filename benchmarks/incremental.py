"""A day of new rows in a month of a million: a refresh against the full build, in one run.

    python benchmarks/incremental.py [--customers 16667] [--rounds 3] [--grown 0]

Simulated cards of 31 days; the last day comes after the view ``handbook`` was built. Both sides go
from the lake's table to the committed, fsynced view. Medians; processor time is disturbed less by
other work on the machine. With ``--grown N`` the full build alone, of one and of N million rows:
the cost of a row, and the peak of memory.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("MLWORKBENCH_THREADS", "2")


def clocked(function, *given):
    """Run once: wall seconds and seconds of processor."""
    wall, work = time.perf_counter(), time.process_time()
    function(*given)
    return time.perf_counter() - wall, time.process_time() - work


def made(customers, days=31):
    """A workbench with a table of cards, and the rows of its last day apart."""
    import pyarrow.compute as pc

    from mlworkbench.data.lake import create_workbench, write_lake
    from mlworkbench.data.simulation import simulate_cards

    cards = simulate_cards(customers=customers, terminals=2 * customers, days=days)
    midnight = pc.max(cards["at"]).as_py().replace(hour=0, minute=0, second=0, microsecond=0)
    late = pc.greater_equal(cards["at"], midnight)
    wb = create_workbench(tempfile.mkdtemp())
    with write_lake("a month", wb=wb) as write:
        write.con.register("month", cards.filter(pc.invert(late)))
        write.con.execute("CREATE TABLE cards AS FROM month")
    return wb, cards.filter(late), cards.num_rows


def day_against_month(customers, rounds):
    from mlworkbench.data.building import build
    from mlworkbench.data.lake import sql, write_lake
    from mlworkbench.data.refreshing import refresh

    wb, day, rows = made(customers)
    build("handbook", wb)
    full, some = [], []
    for _ in range(rounds):
        full.append(clocked(build, "handbook", wb))
        with write_lake("a day", wb=wb) as write:
            write.con.register("day", day)
            write.con.execute("INSERT INTO cards FROM day")
        some.append(clocked(refresh, "handbook", wb))
        sql(f"DELETE FROM cards WHERE \"at\" >= '{min(day['at'].to_pylist())}'", write=True, wb=wb)
        refresh("handbook", wb)
    print(f"{rows:,} rows, {day.num_rows:,} of them new")
    for place, name in enumerate(("wall", "processor")):
        whole, part = (statistics.median(t[place] for t in side) for side in (full, some))
        print(
            f"{name:9} full {whole:6.2f} s, a day {part:6.2f} s: {part / whole:.2f} (wanted 0.10)"
        )


def one_build(customers, days):
    """In a process of its own: rows, seconds and peak memory of one full build."""
    from mlworkbench.data.building import build

    wb, _, rows = made(customers, days)
    wall, work = clocked(build, "handbook", wb)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "wall": wall, "work": work, "mb": peak}))


def grown(millions):
    """The cost of a row at one million and at many, with the same customers a day."""
    found = []
    for customers, days in ((2_750, 183), (2_750 * millions, 183)):
        command = [sys.executable, __file__, "--one", str(customers), "--days", str(days)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        shown = found[-1]
        print(
            f"{shown['rows']:>12,} rows {shown['wall']:7.1f} s {shown['work']:7.1f} s of processor {shown['mb']:6.0f} MB"
        )
    one, many = (f["work"] / f["rows"] for f in found)
    print(f"a row costs {many / one:.2f} times as much processor time (wanted 1.3)")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--customers", type=int, default=16_667)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--grown", type=int, default=0)
    options.add_argument("--one", type=int)
    options.add_argument("--days", type=int, default=31)
    chosen = options.parse_args()
    if chosen.one:
        one_build(chosen.one, chosen.days)
    elif chosen.grown:
        grown(chosen.grown)
    else:
        day_against_month(chosen.customers, chosen.rounds)


if __name__ == "__main__":
    main()
