"""How long `mlworkbench --help` and `import mlworkbench` take, against a bare Python that imports click.

    python benchmarks/startup.py [ROUNDS]

Interleaved in one run; the medians' ratios are printed. Wanted: at most 3 for the help, 2 for the import.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

EXE = Path(sys.executable).parent / "mlworkbench"
COMMANDS = {
    "python, import click": [sys.executable, "-c", "import click"],
    "import mlworkbench": [sys.executable, "-c", "import mlworkbench"],
    "mlworkbench --help": [str(EXE), "--help"],
}


def main(rounds: int = 15) -> None:
    """Print the medians and their ratios."""
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            took[name].append(time.perf_counter() - began)
    floor = statistics.median(took["python, import click"])
    for name, seconds in took.items():
        median = statistics.median(seconds)
        print(f"{name:<22} {median * 1000:6.0f} ms   {median / floor:5.2f} times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
