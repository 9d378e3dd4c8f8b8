"""A day of new rows in a month of a million: a refresh against the full build, in one run.

    python benchmarks/incremental.py [--customers 16667] [--rounds 3]

Simulated cards of 31 days; the last day comes after the view ``handbook`` was built. Both sides go
from the lake's table to the committed, fsynced view. Medians; processor time is disturbed less by
other work on the machine.
"""

import argparse
import os
import statistics
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

    from mlworkbench.data.commits import write_lake
    from mlworkbench.data.lake import create_workbench
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
    """Build a month, then bring in a day; print what share of the time the day takes."""
    from mlworkbench.data.building import build
    from mlworkbench.data.commits import write_lake
    from mlworkbench.data.queries import sql
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


def main():
    """Read the options and compare a day with a month."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--customers", type=int, default=16_667)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    day_against_month(chosen.customers, chosen.rounds)


if __name__ == "__main__":
    main()
