"""What a forked kernel saves: one notebook through Papermill on `python3` and on `mlworkbench`.

Interleaved in one run, so that both meet the same machine; the ratio is what counts. A private
fork server is used, warmed by one run that is not counted (its cost is printed by itself).

    python benchmarks/kernels.py [--rounds 7]
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOKS = {
    "trivial": ["x = 1", "print(x)"],
    "libraries": [
        "import pandas, catboost, duckdb, optuna",
        "print(duckdb.sql('select 42').fetchone())",
    ],
    "training": [
        "import catboost, duckdb, numpy as np, optuna, pandas as pd",
        "x = np.random.default_rng(0).random((5000, 20)); y = (x[:, 0] + x[:, 1] > 1).astype(int)",
        "m = catboost.CatBoostClassifier(iterations=100, verbose=0, thread_count=1, allow_writing_files=False).fit(x, y)",
    ],
}


def seconds(source: Path, kernel: str) -> float:
    """Seconds that Papermill takes for a notebook on a kernel of this name."""
    import papermill

    begun = time.perf_counter()
    papermill.execute_notebook(
        source, source.with_name("out.ipynb"), kernel_name=kernel, progress_bar=False
    )
    return time.perf_counter() - begun


def floor(cells: list[str]) -> float:
    """The same cells in a bare namespace of this (by then warm) process."""
    begun, names = time.perf_counter(), {}
    for cell in cells:
        with contextlib.redirect_stdout(None):
            exec(cell, names)
    return time.perf_counter() - begun


def main() -> None:
    """Print for each notebook: bare cells, an ordinary kernel, a forked one, and their ratios."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=7)
    rounds = asked.parse_args().rounds
    folder = Path(tempfile.mkdtemp(prefix="mlw"))
    os.environ.update(XDG_RUNTIME_DIR=str(folder), JUPYTER_PATH=str(folder / "share" / "jupyter"))
    import logging

    import nbformat

    from mlworkbench.execution.forking import available
    from mlworkbench.execution.provisioner import install_kernelspec
    from mlworkbench.execution.server_status import status, stop_server

    if why := available():
        sys.exit(f"kernels cannot be forked here: {why}")
    logging.disable(logging.WARNING)
    install_kernelspec(folder)
    out, table = sys.stdout, {}
    for name, cells in NOTEBOOKS.items():
        source = folder / f"{name}.ipynb"
        made = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(
            nbformat.v4.new_notebook(cells=made, metadata={"language_info": {"name": "python"}}),
            source,
        )
        warm = seconds(source, "mlworkbench")
        if name == "trivial":
            out.write(f"first run, which starts the server: {warm:.2f} s\n")
        seconds(source, "python3")
        floor(cells)
        times: dict[str, list[float]] = {"python3": [], "mlworkbench": [], "bare": []}
        for _ in range(rounds):
            for kernel in ("python3", "mlworkbench"):
                times[kernel].append(seconds(source, kernel))
            times["bare"].append(floor(cells))
        middle = {k: statistics.median(v) for k, v in times.items()}
        table[name] = {**middle, "ratio": middle["python3"] / middle["mlworkbench"]}
        out.write(
            f"{name:10s} python3 {middle['python3']:.3f} s  mlworkbench {middle['mlworkbench']:.3f} s"
            f"  (bare {middle['bare']:.3f} s)  {table[name]['ratio']:.2f} times faster\n"
        )
    (server,) = status()
    private = [
        line
        for line in Path(f"/proc/{server.original}/smaps_rollup").read_text().splitlines()
        if line.startswith(("Rss", "Pss:"))
    ]
    out.write(f"server: {server.threads} thread, {server.forks} forks, {'; '.join(private)}\n")
    out.write(json.dumps(table) + "\n")
    stop_server()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
