"""Features at a moment: our join of a built view onto a table of labels, and Feast's over the same rows.

    python benchmarks/point_in_time.py [--python INTERPRETER] [--labels 20000] [--rounds 3]

Feast (https://feast.dev) is not needed for anything else, so it is looked for in the interpreter that
``--python`` names; where there is none, the comparison is left out. Its offline store is the one for
local files, its source a Parquet file of the view with entity and time. Both sides are timed in a
process of their own from an open store to a pandas frame; imports and registering are not counted.
"""

import argparse
import datetime as dt
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

DAYS, CUSTOMERS = 183, 1_000


def prepare(folder, labels):
    """Simulated cards, their view, a table of labels, and the same as Parquet files for Feast."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mlworkbench.data.building import build
    from mlworkbench.data.commits import write_lake
    from mlworkbench.data.lake import create_workbench
    from mlworkbench.data.queries import sql
    from mlworkbench.data.simulation import simulate_cards

    wb, rng = create_workbench(folder / "wb"), np.random.default_rng(0)
    cards = simulate_cards(CUSTOMERS, 2 * CUSTOMERS, DAYS)
    seconds = rng.integers(0, DAYS * 86_400, labels)
    asked = {
        "label": range(labels),
        "customer_id": rng.integers(0, CUSTOMERS, labels),
        "at": np.datetime64("2018-04-01", "us") + seconds * np.timedelta64(1_000_000, "us"),
    }
    with write_lake("cards and labels", wb=wb) as write:
        for name, rows in (("cards", cards), ("labels", pa.table(asked))):
            write.con.register("rows_of_it", rows)
            write.con.execute(f"CREATE TABLE {name} AS FROM rows_of_it")
    build("handbook", wb)
    utc = "\"at\"::TIMESTAMP AT TIME ZONE 'UTC' AS event_timestamp"
    rows = f"SELECT customer_id, {utc}, h.* FROM handbook h JOIN cards USING (transaction_id)"
    asked = f"SELECT label, customer_id, {utc} FROM labels"
    for name, query in (("features", rows), ("labels", asked)):
        pq.write_table(sql(query, wb=wb).to_arrow_table(), folder / f"{name}.parquet")
    return cards.num_rows


def ours(folder):
    """Return a call that joins by the library."""
    from mlworkbench.core.settings import open_workbench
    from mlworkbench.data.joining import point_in_time

    wb = open_workbench(folder / "wb")

    def join():
        found = point_in_time("labels", {"handbook": "customer_id"}, time="at", wb=wb).df()
        return found.rename(columns=lambda name: name.removeprefix("handbook_"))

    return join


def feast(folder):
    """Return a call that joins by Feast's local store."""
    import pandas as pd
    import pyarrow.parquet as pq
    from feast import Entity, FeatureStore, FeatureView, FileSource, RepoConfig, ValueType

    config = RepoConfig(
        project="peer",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    store, file = FeatureStore(config=config), str(folder / "features.parquet")
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
    source = FileSource(path=file, timestamp_field="event_timestamp")
    view = FeatureView(name="v", entities=[customer], ttl=dt.timedelta(0), source=source)
    store.apply([customer, view])
    names = set(pq.read_schema(file).names) - {"customer_id", "event_timestamp", "transaction_id"}
    labels = pd.read_parquet(folder / "labels.parquet")

    def join():
        wanted = [f"v:{name}" for name in sorted(names)]
        return store.get_historical_features(entity_df=labels, features=wanted).to_df()

    return join


def one_side(name, folder):
    """Join once in this process; prints seconds and the peak of memory, and keeps the rows."""
    join = globals()[name](folder)
    wall, work = time.perf_counter(), time.process_time()
    found = join()
    wall, work = time.perf_counter() - wall, time.process_time() - work
    found.sort_values("label").to_parquet(folder / f"{name}.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "work": work, "mb": peak}))


def measured(python, name, folder):
    """Join once in a fresh process; return seconds and peak memory in MB."""
    command = [python, __file__, "--side", name, "--folder", folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def agreement(folder):
    """How many labels Feast leaves out, and for which share of the others both give the same features."""
    import numpy as np
    import pandas as pd

    sides = (pd.read_parquet(folder / f"{name}.parquet") for name in ("ours", "feast"))
    mine, theirs = (side.set_index("label") for side in sides)
    names = [name for name in theirs if name in mine and name != "customer_id"]
    both = mine.loc[theirs.index, names].astype(float), theirs[names].astype(float)
    return len(mine) - len(theirs), float(np.isclose(*both, equal_nan=True).all(axis=1).mean())


def main():
    """Let both sides take turns; print medians, ratios, and how far they agree."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--python", default=sys.executable, help="an interpreter that has feast")
    options.add_argument("--labels", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--side")
    options.add_argument("--folder", type=pathlib.Path)
    chosen = options.parse_args()
    if chosen.side:
        return one_side(chosen.side, chosen.folder)
    if subprocess.run([chosen.python, "-c", "import feast"], capture_output=True).returncode:
        print(f"skipped: {chosen.python} has no feast; name an interpreter that has it: --python")
        return None
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        rows = prepare(folder, chosen.labels)
        print(f"{chosen.labels:,} labels onto {rows:,} rows of fifteen features")
        sides = {"ours": sys.executable, "feast": chosen.python}
        found = {name: [] for name in sides}
        for _ in range(chosen.rounds):  # they take turns, and medians count
            for name, python in sides.items():
                found[name].append(measured(python, name, folder))
        typical = {
            name: {clock: statistics.median(r[clock] for r in runs) for clock in runs[0]}
            for name, runs in found.items()
        }
        for name, t in typical.items():
            print(f"{name:6} {t['wall']:7.2f} s {t['work']:7.2f} s of processor {t['mb']:6.0f} MB")
        for clock, said in (("wall", "time"), ("work", "processor time")):
            ratio = typical["feast"][clock] / typical["ours"][clock]
            print(f"feast takes {ratio:.1f} times as much {said}")
        left_out, same = agreement(folder)
        print(
            f"feast leaves {left_out:,} labels out; both give the same features for {same:.2%} of the others"
        )


if __name__ == "__main__":
    main()
