"""Two processes ingest and train at once while a third reads all the time: nothing is lost, no error is seen."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import CATALOGS

from mlworkbench.data.catalog import snapshots
from mlworkbench.data.commits import verify_files
from mlworkbench.data.ingestion import ingest
from mlworkbench.data.queries import sql
from mlworkbench.execution.listing import list_runs

WRITER = """
import sys
import numpy as np, pandas as pd
import mlworkbench as mw
who, rounds = int(sys.argv[1]), int(sys.argv[2])
for round in range(rounds):
    first = (who * 1000 + round) * 100
    mw.ingest(pd.DataFrame({"id": range(first, first + 100), "who": who}), table="events", key="id")
    mw.ingest(pd.DataFrame({"id": range(100), "who": who}), table=f"own_{who}", key="id", mode="replace")
    if round % 4 == 0:
        run = mw.run("train", table="pay", target="y", iterations=5, name=f"{who}-{round}")
        assert run.state == "finished", run
    with mw.start_run(f"by hand {who}-{round}"):
        mw.log_params(round=round)
        mw.log_metric("auc", 0.5 + round / 100)
"""
READER = """
import json, os, sys
import mlworkbench as mw
seen, most, looks = [], 0, 0
while os.path.exists(sys.argv[1]):
    n, whole = mw.sql("select count(*), count(*) % 100 from events").fetchone()
    runs = mw.runs()
    finished = sum(r.state == "finished" for r in runs)
    sizes = "select count(*) as n from predictions group by run"
    parts = mw.sql(f"select count(distinct n) > 1 from ({sizes})").fetchone()[0]
    lost = mw.sql("select count(*) from work.runs where state not in ('running', 'finished')").fetchone()[0]
    mw.tables(), mw.snapshots()
    if n < most or whole or lost or parts:
        seen.append((n, most, whole, lost, parts))
    most, looks = n, looks + 1
print(json.dumps({"looks": looks, "wrong": seen, "finished": finished}))
"""


@pytest.mark.parametrize("catalog", CATALOGS)
def test_two_write_and_train_while_one_reads(wb, tmp_path, torture):
    rounds = 40 if torture else 5
    rng = np.random.default_rng(0)
    pay = pd.DataFrame({"id": range(300), "x": rng.normal(size=300)})
    pay["y"] = (pay["x"] + rng.normal(size=300) > 0).astype(int)
    ingest(pay, table="pay", key="id", wb=wb)
    ingest(pd.DataFrame({"id": range(-100, 0), "who": 0}), table="events", key="id", wb=wb)
    going = tmp_path / "going"
    going.touch()
    environment = os.environ | {"MLWORKBENCH": str(wb.root), "MLWORKBENCH_THREADS": "1"}

    def start(source: str, *words: object) -> subprocess.Popen:
        command = [sys.executable, "-c", source, *map(str, words)]
        return subprocess.Popen(
            command, env=environment, cwd=wb.root, stdout=-1, stderr=-1, text=True
        )

    reader = start(READER, going)
    writers = [start(WRITER, who, rounds) for who in (1, 2)]
    said = [w.communicate(timeout=500) for w in writers]
    going.unlink()
    read, complaint = reader.communicate(timeout=60)
    assert [w.returncode for w in writers] == [0, 0], said
    assert reader.returncode == 0, complaint
    found = json.loads(read)
    assert found["wrong"] == [] and found["looks"] > 3, found
    assert not any("rror" in err for _, err in said), said
    count = sql(
        "select count(*), count(distinct id), count(distinct who) from events", wb=wb
    ).fetchone()
    assert count == (100 + 2 * rounds * 100, 100 + 2 * rounds * 100, 3)
    trained = 2 * len(range(0, rounds, 4))
    runs = list_runs(wb=wb)
    assert len(runs) == 2 * rounds + trained and {r.state for r in runs} == {"finished"}
    assert sum(r.kind == "job" for r in runs) == trained
    scored = sql("select run, count(*) from predictions group by run", wb=wb).fetchall()
    assert len(scored) == trained and {n for _, n in scored} == {scored[0][1]}
    numbers = [s["snapshot"] for s in snapshots(wb=wb)]
    assert numbers == sorted(set(numbers)) and verify_files(wb) == []
