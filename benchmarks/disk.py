"""Peak memory and time of training in memory and from the disk, each in a process of its own.

    python benchmarks/disk.py [--rows N] [--features N] [--iterations N]

Both roads lead to the same model (up to CatBoost's random numbers above 200,000 training rows); the
second has to need less memory, the more so the larger the table.
"""

import argparse
import json
import subprocess
import sys
import tempfile

from mlworkbench.core.settings import open_workbench
from mlworkbench.data.catalog import declare_roles
from mlworkbench.data.commits import write_lake
from mlworkbench.data.lake import create_workbench

ONE = """
import json, resource, sys, time
from mlworkbench.core.settings import open_workbench
from mlworkbench.modelling.datasets import describe_problem, load_dataset
from mlworkbench.modelling.quantized import pool_on_disk
from mlworkbench.modelling.training import fit_catboost, pool_in_memory
road, root, iterations = sys.argv[1], sys.argv[2], int(sys.argv[3])
wb, began = open_workbench(root), time.perf_counter()
problem = describe_problem({"table": "t", "target": "y", "split": "random"}, wb)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if road == "disk":
    pool = pool_on_disk(problem, wb=wb)
else:
    pool = pool_in_memory(problem, *load_dataset(problem, wb=wb).part("train", "validation"))
model = fit_catboost(pool, None, problem, iterations=iterations, threads=2)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answer = {"before": before / 1024, "peak": peak / 1024, "seconds": time.perf_counter() - began}
print(json.dumps(answer | {"loss": model.get_best_score()["learn"]["Logloss"]}))
"""


def main():
    """Train along both roads, each in a process of its own; print peaks in MB, seconds and losses."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--features", type=int, default=20)
    options.add_argument("--iterations", type=int, default=20)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wb = create_workbench(f"{folder}/wb", lake_memory="512MB")
        values = ", ".join(
            f"(hash(i * 7 + {k}) % 1000003) / 7 AS f{k}" for k in range(chosen.features)
        )
        made = f"SELECT i AS id, {values}, f0 + f1 + hash(i) % 90000 > 180000 AS y FROM range({chosen.rows}) t(i)"
        with write_lake("rows", wb=wb) as write:
            write.con.execute(f"CREATE TABLE t AS {made}")
            declare_roles(write.con, "t", key="id")
        found = {}
        for road in ("memory", "disk"):
            words = [
                sys.executable,
                "-c",
                ONE,
                road,
                str(open_workbench(wb).root),
                str(chosen.iterations),
            ]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found[road] = json.loads(done.stdout.splitlines()[-1])
    memory, disk = found["memory"], found["disk"]
    print(f"{chosen.rows:,} rows by {chosen.features} numbers, lake memory 512 MB")
    for road, one in found.items():
        held = one["peak"] - one["before"]
        print(
            f"{road:8} peak {one['peak']:7,.0f} MB ({held:7,.0f} MB above the start)  {one['seconds']:6.1f} s"
        )
    print(
        f"peak above the start, disk to memory: {(disk['peak'] - disk['before']) / (memory['peak'] - memory['before']):.2f}"
    )
    print(f"logistic loss in training: {memory['loss']:.5f} and {disk['loss']:.5f}")


if __name__ == "__main__":
    main()
