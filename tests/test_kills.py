"""Killed or cut from power at any moment: the workbench opens and holds exactly the acknowledged work."""

import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from faults import acknowledged, kill_group, python, until
from powercut import Disk, calls, traced
from works import WORKS, prepare, state

from mlworkbench.core.settings import open_workbench
from mlworkbench.data.lake import verify_files
from mlworkbench.desk.examining import doctor, mend

POINTS = {
    "commit": ["before_fsync", "before_commit", "after_commit"],
    "ingest": ["ingested", "before_fsync", "before_commit", "after_commit"],
    "features": ["before_fsync", "before_commit", "after_commit"],
    "upkeep": ["before_fsync", "before_commit", "after_commit", "compacted", "expired", "freed"],
}
HERE = Path(__file__).parent
PROGRAM = "import runpy\nsys.argv[1:] = [str(wb.root), *sys.argv[2:]]\nrunpy.run_path('works.py', run_name='__main__')"


class Twin:
    """An undisturbed workbench that takes the same steps; what it holds after each."""

    def __init__(self, root: Path, work: str):
        self.wb, self.work, self.steps = open_workbench(root), work, 0
        prepare(self.wb)
        self.states = [state(self.wb)]

    def after(self, steps: int) -> str:
        """The state after some steps."""
        while self.steps < steps:
            WORKS[self.work](self.wb, self.steps)
            self.steps += 1
            self.states.append(state(self.wb))
        return self.states[steps]


@pytest.fixture
def twin(empty_workbench, tmp_path):
    """Makes the twin of a kind of work."""

    def make(work: str) -> Twin:
        shutil.copytree(empty_workbench, tmp_path / "twin" / "wb")
        return Twin(tmp_path / "twin" / "wb", work)

    return make


def judged(root: Path, twin: Twin, done: int) -> int:
    """Hold a workbench against what was acknowledged; gives how many steps it has taken."""
    wb = open_workbench(root)
    assert verify_files(wb) == []
    held, wanted = state(wb), [twin.after(done), twin.after(done + 1)]
    assert held in wanted, f"after {done} acknowledged steps\n{held}\nis none of\n" + "\n".join(
        wanted
    )
    found = doctor(wb)
    assert found["well"] or mend(wb)["well"], found
    assert state(wb) == held  # mending changes no answer
    return done + wanted.index(held)


def run(root: Path, work: str, first: int, steps: int, **more):
    """Take some steps in a process of its own."""
    return python(root, PROGRAM, work, str(first), str(steps), cwd=HERE, **more)


@pytest.mark.parametrize("catalog", ["sqlite", "postgresql"])
@pytest.mark.parametrize("work", WORKS)
def test_killed_at_every_kind_of_moment(wb, work, catalog, twin, torture):
    """Half of the kills at named points, half after a random time; each goes on where the last one ended."""
    if not torture and (catalog == "postgresql") != (work == "commit"):
        pytest.skip("in make torture")
    seed = random.randrange(10**6)
    dice, other, done, late = random.Random(seed), twin(work), 0, 0
    prepare(wb)
    rounds, steps = (100, 12) if torture else (2, 4)
    for number in range(rounds):
        if number % 2:
            process = run(wb.root, work, done, steps, wait=False)
            first = until(lambda p=process: p.stdout.readline())
            time.sleep(dice.random() * 1.5)
            kill_group(process)
            told = acknowledged(first + process.stdout.read())
        else:
            point = f"{dice.choice(POINTS[work])}:{dice.randrange(1, steps + 1)}"
            code, out, err = run(wb.root, work, done, steps, MLWORKBENCH_CRASH=point)
            assert code in (0, -signal.SIGKILL), err
            told = acknowledged(out)
        assert told == [str(done + i) for i in range(len(told))]
        found = judged(wb.root, other, done + len(told))
        late += found - done - len(told)
        done = found
    print(
        f"kills {work:9} {catalog:10} seed {seed:6} kills {rounds:4} steps {done:5} done but not told {late:3}"
    )


@pytest.mark.parametrize("work", WORKS)
def test_power_cut_at_every_kind_of_moment(wb, work, twin, torture, tmp_path):
    """What was not fsynced is gone, or in every second cut partly there; the next step works."""
    if not shutil.which("strace"):
        pytest.skip("strace is not here")
    if not torture and work not in ("ingest", "upkeep"):
        pytest.skip("in make torture")
    seed = random.randrange(10**6)
    dice, other, steps = random.Random(seed), twin(work), 16 if torture else 4
    prepare(wb)
    disk = Disk(wb.root)
    log, words = tmp_path / "trace", [str(wb.root), work, "0", str(steps)]
    run = traced([sys.executable, "works.py", *words], log, cwd=HERE)
    if "ptrace" in run.stderr:
        pytest.skip("strace is not allowed here")
    assert len(acknowledged(run.stdout)) == steps, run.stderr
    events = list(calls(log))
    tells = [n for n, (name, said, *_) in enumerate(events) if name == "write" and '"done ' in said]
    cuts = dice.choices(tells, k=25) + dice.choices(range(len(events)), k=25) if torture else []
    cuts = sorted(cuts or [tells[-1], dice.randrange(len(events))])
    went, done = 0, 0
    for number, cut in enumerate(cuts):
        for event in events[went : cut + 1]:
            disk.apply(*event)
        went, done = cut + 1, sum(t <= cut for t in tells)
        folder = tmp_path / f"cut {number}"
        disk.after_cut(folder, dice if number % 2 else None)
        found = judged(folder, other, done)
        WORKS[work](open_workbench(folder), found)
        assert state(open_workbench(folder)) == other.after(found + 1)
        shutil.rmtree(folder)
    print(
        f"power cuts {work:9} seed {seed:6} calls {len(events):6} cuts {len(cuts):3} steps {steps}"
    )
