"""Killed or cut from power at any moment: the workbench opens and holds exactly the acknowledged work."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from faults import acknowledged, until
from powercut import Disk, calls, traced
from works import WORKS, prepare, state

from mlworkbench.core.settings import open_workbench
from mlworkbench.data.commits import verify_files
from mlworkbench.desk.examining import doctor, mend

POINTS = {
    "commit": ["before_fsync", "before_commit", "after_commit"],
    "ingest": ["ingested", "before_fsync", "before_commit", "after_commit"],
    "features": ["before_fsync", "before_commit", "after_commit"],
    "upkeep": ["before_fsync", "before_commit", "after_commit", "compacted", "expired", "freed"],
}
HERE = Path(__file__).parent


class Twin:
    """An undisturbed workbench that takes the same steps; what it held after those that were asked for."""

    def __init__(self, root: Path, work: str):
        self.wb, self.work, self.steps, self.states = open_workbench(root), work, 0, {}
        prepare(self.wb)

    def after(self, steps: int) -> str:
        """The state after some steps; never of fewer than before, unless they were asked for then."""
        while self.steps < steps:
            WORKS[self.work](self.wb, self.steps)
            self.steps += 1
        if steps not in self.states:
            assert steps == self.steps
            self.states[steps] = state(self.wb)
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


class Worker:
    """A process that has imported everything; each piece of work is a process forked from it."""

    def __init__(self, folder: Path):
        self.files, self.group = [folder / "out", folder / "err"], None
        self.process = subprocess.Popen(
            [sys.executable, "works.py"],
            cwd=HERE,
            env=os.environ | {"MLWORKBENCH_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
        )

    def ask(self, line: str) -> int:
        """Send a line; the number that is the answer."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def begin(self, *words, **environment: str) -> None:
        """Begin some steps."""
        for file in self.files:
            file.write_text("")
        asked = {"words": words, "environment": environment, "files": list(map(str, self.files))}
        self.group = self.ask(json.dumps(asked))

    def kill(self) -> None:
        """Kill the process that takes the steps, with its group."""
        os.killpg(self.group, signal.SIGKILL)

    def end(self) -> tuple[int, list[str], str]:
        """Wait for it to end: the exit code, what was acknowledged, and the errors."""
        code, self.group = self.ask(""), None
        out, err = (file.read_text() for file in self.files)
        return code, acknowledged(out), err

    def said(self) -> int:
        """How many lines it has said so far, of errors too."""
        return sum(file.read_text().count("\n") for file in self.files)


@pytest.fixture
def worker(tmp_path):
    """A process to fork the work from."""
    made = Worker(tmp_path)
    yield made
    if made.group:  # the test failed
        made.kill()
    made.process.stdin.close()
    made.process.wait(60)


def at_point(worker: Worker, words: tuple, point: str, dice: random.Random) -> None:
    """Let it be killed at a named point, the first, second or third time that it comes there."""
    worker.begin(*words, 12, MLWORKBENCH_CRASH=f"{point}:{dice.randrange(1, 4)}")


def at_random(worker: Worker, words: tuple, dice: random.Random) -> None:
    """Kill it at a random moment of the two steps after its second, as long as that one took."""
    worker.begin(*words, 200)
    assert until(lambda: worker.said() >= 1, 300)
    begun = time.monotonic()
    assert until(lambda: worker.said() >= 2, 300)
    time.sleep(dice.random() * 2 * (time.monotonic() - begun))
    worker.kill()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("catalog", ["sqlite", "postgresql"])
@pytest.mark.parametrize("work", WORKS)
def test_killed_at_every_kind_of_moment(wb, work, catalog, twin, worker, torture):
    """As many kills at named points as after a random time; each goes on where the last one ended."""
    if not torture and (catalog == "postgresql") != (work == "commit"):
        pytest.skip("in make torture")
    seed, wanted = random.randrange(10**6), 50 if torture else 1
    dice, other, done, late = random.Random(seed), twin(work), 0, 0
    prepare(wb)
    kills, rounds = Counter(), 0
    while kills.total() < 2 * wanted:
        rounds, words = rounds + 1, (str(wb.root), work, done)
        assert rounds < 4 * wanted + 20, kills
        if 2 * kills["random"] <= kills.total():
            place = "random"
            at_random(worker, words, dice)
        else:
            place = dice.choice(POINTS[work])
            at_point(worker, words, place, dice)
        code, told, err = worker.end()
        assert code in (0, -signal.SIGKILL), err
        kills[place] += code != 0
        assert told == [str(done + i) for i in range(len(told))]
        found = judged(wb.root, other, done + len(told))
        late += found - done - len(told)
        done = found
    print(
        f"kills {work:9} {catalog:10} seed {seed:6} steps {done:5} done but not told {late:3} at "
        + ", ".join(f"{place} {kills[place]}" for place in ["random", *POINTS[work]])
    )


@pytest.mark.timeout(7200)
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
