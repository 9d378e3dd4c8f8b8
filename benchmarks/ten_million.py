"""Ten million simulated transactions against one million: the cost of a row, and the peak of memory.

    nice python benchmarks/ten_million.py [--millions 10]

The handbook's view is built over half a year of simulated cards, from the lake's table to the
committed, fsynced view, each size in a process of its own, with the settings of a new workbench
(4 GB). Simulating is not counted. A row's cost is compared in seconds and in seconds of processor,
which other work on the machine disturbs less.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("MLWORKBENCH_THREADS", "2")
MILLION, DAYS = 2_750, 183  # customers of a million transactions in that time


def one_table(millions, folder):
    """Make a workbench with a table of so many million simulated transactions."""
    from mlworkbench.data.commits import write_lake
    from mlworkbench.data.lake import create_workbench
    from mlworkbench.data.simulation import simulate_cards

    wb = create_workbench(folder)
    for part in range(millions):  # worlds side by side, so that none is simulated at once
        cards = simulate_cards(MILLION, 2 * MILLION, DAYS, seed=part)
        with write_lake(f"million {part}", wb=wb) as write:
            write.con.register("cards_of_one", cards)
            shifted = (
                f"SELECT * REPLACE (transaction_id + {part * 10_000_000} AS transaction_id, "
                f"customer_id + {part * MILLION} AS customer_id, "
                f"terminal_id + {part * 2 * MILLION} AS terminal_id) FROM cards_of_one"
            )
            made = "INSERT INTO cards" if part else "CREATE TABLE cards AS"
            write.con.execute(f"{made} {shifted}")


def one_build(folder):
    """Build the view: rows, seconds, seconds of processor and the peak of memory, as JSON."""
    from mlworkbench.core.settings import open_workbench
    from mlworkbench.data.building import build

    parts = set()
    wall, work = time.perf_counter(), time.process_time()
    built = build("handbook", open_workbench(folder), progress=lambda _, said: parts.add(said))
    wall, work = time.perf_counter() - wall, time.process_time() - work
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parts = sum(", part " in said for said in parts) // 2
    found = {"rows": built["rows"], "wall": wall, "work": work, "mb": peak, "parts": parts or 1}
    print(json.dumps(found))


def in_a_process(*arguments):
    """Run this script with these words in a fresh process; return what it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    """Build the features of one million rows and of many; print what a row takes, and the peak in MB."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--millions", type=int, default=10)
    options.add_argument("--table", type=int)
    options.add_argument("--build", action="store_true")
    options.add_argument("folder", nargs="?")
    chosen = options.parse_args()
    if chosen.table:
        return one_table(chosen.table, chosen.folder)
    if chosen.build:
        return one_build(chosen.folder)
    found = []
    for millions in (1, chosen.millions):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder) / "wb"
            in_a_process("--table", millions, folder)
            found.append(json.loads(in_a_process("--build", folder).splitlines()[-1]))
        print(
            "{rows:>12,} rows in {parts} parts {wall:7.1f} s {work:7.1f} s of processor {mb:6.0f} MB".format(
                **found[-1]
            ),
            flush=True,
        )
    for clock, name in (("wall", "time"), ("work", "processor time")):
        one, many = (f[clock] / f["rows"] for f in found)
        print(f"a row takes {many / one:.2f} times as much {name} (wanted 1.3)")
    print(f"the peak is {found[-1]['mb']:.0f} MB (wanted 4096)")


if __name__ == "__main__":
    main()
