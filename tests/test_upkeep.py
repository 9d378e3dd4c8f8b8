"""Upkeep changes no answer: tags, differences, compaction and expiry against kills, readers and a plain definition."""

import random
import signal

import pytest
from conftest import CATALOGS
from faults import everything, many, python, rows_hash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlworkbench.core.errors import UserError
from mlworkbench.core.settings import open_workbench
from mlworkbench.core.store import reads, writing
from mlworkbench.data.catalog import declare_roles, snapshots, tables
from mlworkbench.data.commits import lake_files, verify_files, write_lake
from mlworkbench.data.connections import data_path
from mlworkbench.data.history import diff, list_tags, tag
from mlworkbench.data.queries import sql
from mlworkbench.data.upkeep import compact, expire, referred_snapshots
from mlworkbench.execution.opening import close_run, open_run


@pytest.fixture(params=CATALOGS)
def catalog(request):
    """Upkeep on both catalogs."""
    return request.param


def grown(wb, seed: int, commits: int) -> dict[int, str]:
    """A table with a history; each of its snapshots and a hash of its rows."""
    dice, states = random.Random(seed), {}
    with write_lake("begin", wb=wb) as write:
        write.con.execute("CREATE TABLE pay AS SELECT range AS id, 0 AS v FROM range(50)")
        declare_roles(write.con, "pay", key="id")
    for step in range(commits):
        with write_lake(f"step {step}", wb=wb) as write:
            first, kind = dice.randrange(400), dice.choice(("add", "add", "delete", "update"))
            if kind == "add":
                many = f"range({1000 + step * 20}, {1020 + step * 20})"
                write.con.execute(f"INSERT INTO pay SELECT range, {step} FROM {many}")
            elif kind == "update":
                write.con.execute(f"UPDATE pay SET v = {step} + 100 WHERE id % 7 = {first % 7}")
            else:
                write.con.execute(f"DELETE FROM pay WHERE id % 11 = {first % 11}")
        number = write.snapshot or max(states, default=0)
        states[number] = rows_hash(wb, "pay", number) if number else ""
    return {n: h for n, h in states.items() if n}


def test_upkeep_changes_no_answer(wb, torture):
    seed = random.randrange(10**6)
    print("seed", seed)
    states = grown(wb, seed, 40 if torture else 9)
    dice = random.Random(seed)
    tagged, read = dice.sample(sorted(states)[:-1], 2)
    tag("march", tagged, wb=wb)
    run = open_run("reader", wb=wb)
    with writing(wb) as db:
        db.execute(reads.insert(), {"run": run.run, "table_name": "pay", "snapshot": read})
    close_run(run.run, "finished", wb=wb)
    assert {tagged, read} <= referred_snapshots(wb)
    compact(grace=0, wb=wb)
    assert all(rows_hash(wb, "pay", n) == h for n, h in states.items()) and verify_files(wb) == []
    found = expire(0, grace=0, wb=wb)
    kept = {s["snapshot"] for s in snapshots(wb=wb)}
    assert {tagged, read, max(states)} <= kept and not kept & set(found["expired"])
    assert found["expired"] and len(kept) == found["kept"]
    for number in kept & set(states):
        assert rows_hash(wb, "pay", number) == states[number]
    assert verify_files(wb) == [] and tables(wb=wb)[0]["snapshot"] is not None
    on_disk = {str(p.relative_to(data_path(wb))) for p in data_path(wb).rglob("*.parquet")}
    assert on_disk == lake_files(wb)
    with pytest.raises(UserError, match="expired"):
        sql("FROM pay", at=found["expired"][-1], wb=wb)


UPKEEP = """
from mlworkbench.data.upkeep import compact, expire
compact(grace=0, wb=wb)
expire(0, grace=0, wb=wb)
print("done", "upkeep")
"""
POINTS = ("before_fsync", "before_commit", "after_commit", "compacted", "expired", "freed")


def test_upkeep_killed_changes_no_answer(wb, torture):
    states = grown(wb, 1, 8)
    newest = max(states)
    tag("kept", sorted(states)[2], wb=wb)
    points = [(p, n) for p in POINTS for n in (1, 2, 3, 4)]
    for point, times in points if torture else random.sample(points[::4], 1):
        code, _, err = python(wb.root, UPKEEP, MLWORKBENCH_CRASH=f"{point}:{times}")
        assert code in (0, -signal.SIGKILL), err
        again = open_workbench(wb.root)
        assert verify_files(again) == [] and rows_hash(again, "pay") == states[newest]
        assert rows_hash(again, "pay", list_tags(again)[0]["snapshot"]) == states[sorted(states)[2]]
    assert python(wb.root, UPKEEP)[0] == 0
    assert rows_hash(wb, "pay") == states[newest] and verify_files(wb) == []


ROWS = st.dictionaries(
    st.integers(0, 6), st.tuples(st.none() | st.integers(0, 2), st.none() | st.sampled_from("ab"))
)


@pytest.mark.parametrize("catalog", ["sqlite"])
def test_diff_is_what_plain_python_says(wb, torture):
    @settings(
        max_examples=200 if torture else 5,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(old=ROWS, new=ROWS)
    def holds(old, new):
        with write_lake("anew", wb=wb) as write:
            write.con.execute("CREATE OR REPLACE TABLE t (id INTEGER, n INTEGER, s VARCHAR)")
            declare_roles(write.con, "t", key="id")
            write.con.execute("DELETE FROM t")
        marks = []
        for rows in (old, new):
            with write_lake("state", wb=wb) as write:
                write.con.execute("DELETE FROM t")
                for key, value in rows.items():
                    write.con.execute("INSERT INTO t VALUES (?, ?, ?)", [key, *value])
                write.con.execute("CREATE OR REPLACE TABLE mark AS SELECT 1 AS x")
            marks.append(write.snapshot)
        found = diff("t", *marks, limit=100, wb=wb)
        changed = {k for k in old.keys() & new.keys() if old[k] != new[k]}
        assert (found["added"], found["removed"]) == (len(new.keys() - old), len(old.keys() - new))
        assert found["changed"] == len(changed)
        counts = {c: sum(old[k][i] != new[k][i] for k in changed) for i, c in enumerate("ns")}
        assert found["columns"] == {c: n for c, n in counts.items() if n}
        rows = {r["id"]: r for r in found["rows"]}
        assert rows.keys() == changed | (old.keys() ^ new.keys())
        assert all(set(rows[k]["before"]) == set(rows[k]["after"]) for k in changed)

    holds()


@pytest.mark.parametrize("catalog", ["sqlite"])
def test_tags_and_differences_on_the_command_line(wb, tmp_path):
    states = sorted(grown(wb, 3, 4))
    tag("march", states[0], wb=wb)
    before, wanted = (
        everything(wb),
        {
            ("tag", "march", str(states[-1])): (2, "the tag march names snapshot"),
            ("diff", "pay", "march", "--json"): (0, '"added"'),
            ("diff", "pay", "march", str(states[-1])): (0, "rows told apart by id"),
            ("diff", "nothing", "march"): (2, "there is no table 'nothing'"),
            ("sql", "select 1 from pay limit 1", "--at", "march"): (0, "1"),
            ("expire", "--older-than", "0", "--dry-run"): (0, "would go"),
            ("sql", "from runz"): (2, "Did you mean 'work.runs'"),
        },
    )
    for words, answer in zip(wanted, many(list(wanted), wb.root, tmp_path / "said"), strict=True):
        code, says = wanted[words]
        assert (answer[0], says in answer[1] + answer[2]) == (code, True), (words, answer)
    assert everything(wb) == before
