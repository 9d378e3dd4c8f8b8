"""How long the app's pages take with ten and with two thousand runs, in a real browser where there is one.

Prints the server's time for the script of each page (AppTest), first and again, and their ratios to ten runs.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "apps")]

from app_workbench import World  # noqa: E402

from mlworkbench.core.store import metrics, now, params, runs, writing  # noqa: E402
from mlworkbench.execution.record import new_id  # noqa: E402


def fill(world: World, count: int) -> None:
    """Copy runs as rows: 15 parameters and 5 metrics each."""
    with writing(world.wb) as db:
        for i in range(count):
            run = f"{new_id()}{i}"
            db.execute(
                runs.insert(),
                {
                    "run": run,
                    "name": f"train-{i}",
                    "experiment": "pay",
                    "kind": "job",
                    "state": "finished",
                    "actor": "me",
                    "started": now(),
                    "ended": now(),
                    "attempt": 1,
                },
            )
            db.execute(
                params.insert(),
                [
                    {"run": run, "name": f"p{j}", "value": str(i % (j + 2)), "type": "int"}
                    for j in range(15)
                ],
            )
            db.execute(
                metrics.insert(),
                [
                    {
                        "run": run,
                        "name": n,
                        "split": "test",
                        "step": 0,
                        "value": 0.8 + i / 1e5,
                        "low": 0.79,
                        "high": 0.82,
                        "n": 100,
                    }
                    for n in ("auc", "average_precision", "brier", "log_loss", "accuracy")
                ],
            )


def visit(world: World, page: str, **address: str) -> tuple[float, float]:
    """Seconds that a page's script takes when nothing is kept, and when it is drawn again."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    st.cache_resource.clear()
    os.environ["MLWORKBENCH"] = str(world.wb.root)
    at = AppTest.from_file(str(ROOT / "apps" / "app.py"), default_timeout=120)
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    if page != "experiments":
        st.cache_resource.clear()
        at.switch_page(f"views/{page}.py")
    else:
        at = AppTest.from_file(str(ROOT / "apps" / "app.py"), default_timeout=120)
        st.cache_resource.clear()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        at.run()
        assert not at.exception, at.exception
        times.append(time.perf_counter() - begun)
    return times[0], min(times[1:])


def main() -> None:
    """Print the table."""
    found: dict = {}
    for count in (10, 2_000):
        world = World(Path(tempfile.mkdtemp()) / "wb")
        a, b = world.run("shallow", 2.0), world.run("deep", 0.3)
        fill(world, count - 2)
        for page in ("experiments", "run", "compare", "models"):
            found[page, count] = visit(world, page, runs=f"{a.run},{b.run}", run=a.run)
    print("page          10 runs: first  again   2,000 runs: first  again   ratio of first")
    for page in ("experiments", "run", "compare", "models"):
        (f, g), (h, i) = found[page, 10], found[page, 2_000]
        print(f"{page:<12} {f:>14.2f} {g:>6.2f} {h:>19.2f} {i:>6.2f} {h / f:>16.1f}")


if __name__ == "__main__":
    main()
