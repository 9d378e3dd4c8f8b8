"""A workbench for the app's tests: predictions logged directly, since nothing here is about training."""

from pathlib import Path

import catboost
import nbformat
import numpy as np
import pandas as pd

from mlworkbench.core.looks import record_look
from mlworkbench.core.settings import Workbench
from mlworkbench.data.commits import write_lake
from mlworkbench.data.lake import create_workbench
from mlworkbench.execution.journal import log_fact, log_file, log_metric, log_model, log_read
from mlworkbench.execution.opening import close_run, open_run
from mlworkbench.execution.predictions import log_predictions
from mlworkbench.execution.record import Run
from mlworkbench.modelling.ledger import rows_sketch
from mlworkbench.modelling.resampling import intervals

EVIL = "<img src=x onerror=alert(1)>"
SIGNATURE = {
    "task": "binary",
    "classes": ["0", "1"],
    "table": "pay",
    "view": "",
    "features": {"a": "number", "b": "number"},
}


class World:
    """Rows, a model, and runs that scored the rows with more or less noise."""

    def __init__(self, folder: Path, rows: int = 1_500):
        self.wb: Workbench = create_workbench(folder)
        self.random = np.random.default_rng(5)
        self.x = self.random.normal(size=(rows, 2))
        self.label = (self.x[:, 0] + self.random.normal(0, 1, rows) > 1.2).astype(int)
        self.columns = {
            "amount": self.random.gamma(2, 40, rows).round(2),
            "entity": [f"customer {i % 200}" for i in range(rows)],
            "at": pd.Timestamp("2026-09-07")
            + pd.to_timedelta(self.random.integers(0, 21, rows), "D"),
        }
        with write_lake("a table", wb=self.wb) as write:
            write.con.execute(
                "CREATE TABLE pay AS SELECT 1.0::DOUBLE AS a, 2.0::DOUBLE AS b, 0 AS fraud"
            )
        model = catboost.CatBoostClassifier(
            iterations=5, depth=2, verbose=False, allow_writing_files=False
        )
        self.model = model.fit(self.x, self.label)

    def run(
        self,
        name: str,
        noise: float = 1.0,
        *,
        kind: str = "job",
        state: str = "finished",
        experiment: str = "pay",
        **params,
    ) -> Run:
        """A run that scored every row; the less noise the better."""
        run = open_run(
            name, experiment=experiment, kind=kind, values={"table": "pay", **params}, wb=self.wb
        )
        to = {"run": run.run, "wb": self.wb}
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell(f"# {name}\n\n<script>alert(2)</script>kept")]
        )
        nbformat.write(notebook, run.folder / "notebook.ipynb")
        log_file(run.folder / "notebook.ipynb", "notebook", **to)
        log_read("pay", 2, **to)
        log_fact("leaks", "{}", **to)
        if state == "finished":
            log_model(self.model, SIGNATURE, **to)
            z = 1.6 * self.x[:, 0] - 1.9 + self.random.normal(0, noise, len(self.label))
            score = 1 / (1 + np.exp(-z))
            log_predictions(self.label, score, **to, **self.columns)
            rows = {"rows": len(score), "sketch": rows_sketch(range(len(score)))}
            record_look("evaluation", "pay", "fraud", run=run.run, wb=self.wb, **rows)
            for n, i in intervals("binary", self.label, score, resamples=200).items():
                log_metric(n, i.value, i.low, i.high, n=i.n, **to)
        error = (
            None if state == "finished" else "cell 3, line 1: ZeroDivisionError: division by zero"
        )
        return close_run(run.run, state, error, wb=self.wb)
