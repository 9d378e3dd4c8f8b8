"""The whole road, narrated: `make demo`. Every line that begins with $ is a command that you can type.

python docs/demo.py FOLDER
"""

import json
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

EXE = Path(sys.executable).parent / "mlworkbench"
BEGAN = time.monotonic()


def say(text: str) -> None:
    """A paragraph of narration."""
    print("\n" + textwrap.fill(" ".join(text.split()), 96), flush=True)


def shown(words: tuple[str, ...]) -> str:
    """A command's words as they are typed in a shell."""
    return " ".join(f'"{w}"' if " " in w or not w else w for w in words)


def do(*words: str, refused: bool = False, quiet: bool = False) -> str:
    """Type a command, show what it says; a refusal is expected where we say so."""
    print(f"\n  $ mlworkbench {shown(words)}", flush=True)
    done = subprocess.run([EXE, *words], cwd=FOLDER, capture_output=True, text=True)
    text = (done.stdout + done.stderr).strip()
    if bool(done.returncode) != refused:
        print(text)
        sys.exit(f"the demo stopped: `mlworkbench {shown(words)}` ended with {done.returncode}")
    if not quiet:
        print(textwrap.indent(text, "    "), flush=True)
    return done.stdout


def ask(*words: str) -> dict:
    """The JSON answer of a command, not shown."""
    done = subprocess.run([EXE, *words, "--json"], cwd=FOLDER, capture_output=True, text=True)
    return json.loads(done.stdout)


def fresh(folder: Path) -> Path:
    """An empty place for the demo; an earlier demo's workbench is replaced, anything else is left alone."""
    if (folder / "settings.ini").exists() and (folder / ".demo").exists():
        shutil.rmtree(folder)
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty and not a demo: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def main() -> None:
    """Tell the whole road: payments, features, two runs, a comparison, a champion, scores."""
    say("mlworkbench, from raw payments to a promoted champion. It takes about three minutes.")
    say(
        "A workbench is a folder. The payments of 1,000 simulated customers over two months go into its lake."
    )
    do("init", ".")
    (FOLDER / ".demo").touch()
    do("simulate", "cards", "--customers", "1000", "--terminals", "2000", "--days", "62")
    do(
        "sql",
        "select is_fraud, count(*) n, round(avg(amount), 2) mean_amount from cards group by 1 order by 1",
    )

    say(
        "Features are SQL windows that look back and never forward; a label counts only after its seven days' delay."
    )
    do("features", "build", "handbook")

    say(
        "Two trainings: the same notebook, another depth. Each is a tracked run: code, parameters, snapshot, packages."
    )
    about = "-p table=cards -p target=is_fraud -p view=handbook -p iterations=200".split()
    train = ("run", "train", *about)
    do(*train, "-p", "depth=3", "--name", "shallow")
    do(*train, "-p", "depth=6", "--name", "deep")
    say(
        "Which one is better? On the same rows, drawn again customer by customer; 'cannot tell' is an honest answer."
    )
    do("compare", "shallow", "deep")
    print(
        f"\n    (the first verdict, {time.monotonic() - BEGAN:.0f} seconds after the beginning)",
        flush=True,
    )

    say(
        "Three things are refused on this road, and say why. First, a misspelt parameter: no kernel starts, nothing is recorded."
    )
    do(*train, "-p", "dept=8", refused=True)
    say(
        "Second, a leak. Without the view every column is a feature, and `scenario` was written down after the label. It is named, with the cure."
    )
    do("run", "train", "-p", "table=cards", "-p", "target=is_fraud", refused=True)

    say(
        "A first champion. The gates are judged and kept as evidence; here who asks may approve, and it says so for ever."
    )
    do("register", "shallow", "--name", "fraud")
    do("promote", "fraud@1", "--to", "champion", "--reason", "somebody has to be first")
    do("approve", ask("requests")[0]["request"], "--reason", "gates read")
    say(
        "Third, a challenger that was only lucky: the same model with another seed is stopped by the gate."
    )
    do(*train, "-p", "depth=3", "-p", "seed=1", "--name", "lucky", quiet=True)
    do("register", "lucky", "--name", "fraud")
    do("promote", "fraud@2", "--to", "champion", "--reason", "it looks better", refused=True)

    say(
        "Tuning: an Optuna study on folds of the past; the test rows are looked at once, by the refitted best."
    )
    do("tune", *about, "--trials", "8")
    say("The champion scores every payment: each row with its key, its version and its score.")
    do("score", "cards", "--model", "fraud@champion", "--to", "card_scores")
    do(
        "sql",
        "select version, count(*) n, round(avg(score), 4) mean_score from card_scores group by 1",
    )
    do("audit", "verify")

    runs = ",".join(ask("show", name)["run"] for name in ("shallow", "deep"))
    minutes, seconds = divmod(round(time.monotonic() - BEGAN), 60)
    print(f"""
That was the road, in {minutes} min {seconds} s. Now look at it:

  cd {FOLDER.name} && {EXE} app --page 'compare?runs={runs}'
      prints an address that opens the comparison
  cd {FOLDER.name} && {EXE} lab
      opens the starter notebook, nbs/start.ipynb

With a file of your own:

  {EXE} init mine && cd mine && {EXE} ingest FILE --table mine
  {EXE} run train -p table=mine -p target=COLUMN
""")


if __name__ == "__main__":
    FOLDER = fresh(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
