"""Forked kernels through Jupyter's own doors: isolation, ends of all kinds, and nothing left behind."""

import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from mlworkbench.execution import forking
from mlworkbench.execution.provisioner import ForkProvisioner, install_kernelspec
from mlworkbench.execution.server_status import status, stop_server
from mlworkbench.execution.servers import socket_folder

pytestmark = pytest.mark.skipif(bool(forking.available()), reason=forking.available() or "can fork")


@pytest.fixture(scope="module")
def jupyter():
    """A folder where Jupyter finds our kernelspec and, from an uninstalled checkout, our provisioner."""
    folder = Path(tempfile.mkdtemp(prefix="mlw"))
    install_kernelspec(folder)
    group = "jupyter_client.kernel_provisioners"
    if not importlib.metadata.entry_points(group=group, name="mlworkbench-fork"):
        info = folder / "mlworkbench-0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlworkbench\nVersion: 0.0\n")
        (info / "entry_points.txt").write_text(
            f"[{group}]\nmlworkbench-fork = mlworkbench.execution.provisioner:ForkProvisioner\n"
        )
        sys.path.append(str(folder))
    yield folder
    with suppress(ValueError):
        sys.path.remove(str(folder))
    shutil.rmtree(folder)


@pytest.fixture
def place(jupyter, monkeypatch):
    """Fork servers of our own, which import little and are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mlw"))
    (folder / "lib").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("JUPYTER_PATH", str(jupyter / "share" / "jupyter"))
    monkeypatch.setenv("MLWORKBENCH_PRELOAD", "numpy")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "lib"), str(jupyter)]))
    monkeypatch.delenv("MLWORKBENCH_FORK", raising=False)
    yield folder
    pids = [server.pid for server in status()]
    stop_server()
    left = [pid for pid in pids if not gone(pid)]
    files = list((folder / f"mlworkbench-{os.getuid()}").glob("*"))
    shutil.rmtree(folder, ignore_errors=True)
    assert not left and not files


def gone(pid: int, seconds: float = 10) -> bool:
    """Wait until a process has ended (a zombie has)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


def until(true, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def kernel(fork: bool = True, **how):
    """A kernel of ours and what it answers: `ask(expression)`."""
    manager = KernelManager(kernel_name="mlworkbench")
    manager.start_kernel(**how)
    assert bool(manager.provisioner.reason) != fork, manager.provisioner.reason
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)

        def ask(expression: str, before: str = "") -> object:
            told = client.execute(
                before,
                user_expressions={"x": f"__import__('json').dumps({expression})"},
                reply=True,
                timeout=60,
            )
            content = told["content"]
            assert content["status"] == "ok", content
            assert content["user_expressions"]["x"]["status"] == "ok", content
            return json.loads(eval(content["user_expressions"]["x"]["data"]["text/plain"]))

        ask.manager, ask.client, ask.provisioner = manager, client, manager.provisioner
        yield ask
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def notebook(*cells: str):
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(c)) for c in cells]
    return nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def run(*cells: str, **how) -> list:
    """Run cells in a kernel of ours through nbclient; return the outputs."""
    nb = notebook(*cells)
    NotebookClient(nb, kernel_name="mlworkbench", timeout=60, **how).execute()
    return [output for cell in nb.cells for output in cell.outputs]


# ------------------------------------------------------------------------ what it is for


def test_a_kernel_is_forked_with_the_libraries_at_hand(place):
    with kernel() as ask:
        assert ask("'numpy' in sys.modules", "import sys")
        (server,) = status()
        assert server.kernels == (ask.provisioner.pid,) and server.threads == 1
        assert ask("os.getppid()", "import os") == server.original
        assert ask("os.getsid(0) == os.getpgrp() == os.getpid()")


def test_papermill_and_nbclient_need_nothing_special(place, tmp_path):
    import papermill

    nb = notebook("a = 1", "print(a)\na")
    nb.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nb, tmp_path / "in.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "in.ipynb",
        tmp_path / "out.ipynb",
        {"a": 7},
        kernel_name="mlworkbench",
        progress_bar=False,
        cwd=tmp_path,
    )
    assert [o.output_type for o in done.cells[-1].outputs] == ["stream", "execute_result"]
    assert done.cells[-1].outputs[0].text == "7\n"
    assert run("import os\nprint(os.getppid())")[0].text.strip() == str(status()[0].original)


def test_all_libraries_without_a_thread_and_each_of_them_works(place, monkeypatch):
    monkeypatch.delenv("MLWORKBENCH_PRELOAD")
    with kernel() as ask:
        (server,) = status()
        assert server.threads == 1
        loaded = ask(
            "[m for m in ('pandas', 'duckdb', 'catboost', 'optuna', 'sklearn', 'polars') if m in sys.modules]",
            "import sys",
        )
        assert loaded == ["pandas", "duckdb", "catboost", "optuna", "sklearn"]
        said = ask(
            "said",
            """
import os, numpy as np, pandas as pd, duckdb, catboost, optuna, pyarrow, threadpoolctl
from sklearn.ensemble import HistGradientBoostingClassifier
optuna.logging.disable_default_handler()
x = np.random.default_rng(0).random((400, 4)); y = (x[:, 0] > .5).astype(int)
frame = pd.DataFrame(x, columns=list("abcd"))
study = optuna.create_study(); study.optimize(lambda t: t.suggest_float("v", 0, 1), n_trials=2)
said = {
  "blas": bool(np.linalg.norm(x @ x.T) > 0),
  "duckdb": duckdb.sql("select sum(a) > 0 from frame").fetchone()[0],
  "catboost": bool(catboost.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False).fit(frame, y).score(frame, y) > .9),
  "sklearn": bool(HistGradientBoostingClassifier(max_iter=5).fit(x, y).score(x, y) > .9),
  "optuna": len(study.trials),
  "cpus": [len(os.sched_getaffinity(0)), pyarrow.cpu_count(), sorted({l["num_threads"] for l in threadpoolctl.threadpool_info()})],
}
try:
    import polars
    p = polars.DataFrame({"a": x[:, 0], "c": ["u", "v"] * 200})
    pool = catboost.Pool(p, y, cat_features=["c"])
    said["polars"] = [p.select(polars.col("a").count()).item(), pool.shape[1]]
except ImportError:
    said["polars"] = [400, 2]
""",
        )
    cpus = len(os.sched_getaffinity(0))
    assert said == {
        "blas": True, "duckdb": True, "catboost": True, "sklearn": True, "optuna": 2,
        "cpus": [cpus, cpus, [cpus]], "polars": [400, 2],
    }  # fmt: skip


def test_threads_are_what_the_runs_environment_says(place, monkeypatch):
    import threadpoolctl  # noqa: F401

    look = "sorted({l['num_threads'] for l in threadpoolctl.threadpool_info()})"
    with kernel(env={**os.environ, "OMP_NUM_THREADS": "3"}) as ask:
        assert ask(look, "import threadpoolctl") == [3]
    with kernel(env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}) as ask:
        assert ask(look, "import threadpoolctl") == [1]
    assert len(status()) == 1


def test_what_notebooks_do_works_in_a_fork_as_elsewhere(place, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MLWORKBENCH_PRELOAD", "numpy,matplotlib.pyplot,sklearn.ensemble")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.delenv(
        "PYTEST_CURRENT_TEST", raising=False
    )  # with it ipykernel leaves handles alone
    outputs = run(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        "import joblib\nprint(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(4)))",
        "import multiprocessing as mp\nwith mp.get_context('spawn').Pool(2) as pool: print(pool.map(abs, [-1, -2]))",
        "import asyncio\np = await asyncio.create_subprocess_exec('true')\nprint(await p.wait())",
        "!echo from a shell",
        "import os; os.system('echo by handle')",
    )
    assert "image/png" in outputs[0].data
    said = "".join(o.get("text", "") for o in outputs[1:])
    for part in ("[0, 1, 2, 3]", "[1, 2]", "from a shell", "by handle"):
        assert part in said


def test_libraries_that_look_for_a_notebook_find_one(place, monkeypatch):
    look = "[plotly.io.renderers.default, tqdm.auto.tqdm.__mro__[1].__module__, matplotlib.get_backend(), pandas.options.display.max_columns]"
    pytest.importorskip("matplotlib")
    monkeypatch.delenv("MLWORKBENCH_PRELOAD")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    with kernel() as ask:
        forked = ask(look, "import matplotlib, pandas, plotly.io, tqdm.auto")
    monkeypatch.setenv("MLWORKBENCH_FORK", "0")
    with kernel(fork=False) as ask:
        assert ask(look, "import matplotlib, pandas, plotly.io, tqdm.auto") == forked
    monkeypatch.delenv("MLWORKBENCH_FORK")


def test_sockets_in_files_and_encrypted_ones(place):
    for traits in ({"transport": "ipc", "ip": str(place / "k")}, {"transport_encryption": "auto"}):
        manager = KernelManager(kernel_name="mlworkbench")
        for name, value in traits.items():
            if manager.has_trait(name):
                setattr(manager, name, value)
        manager.start_kernel()
        assert manager.provisioner.reason == ""
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=30)
        client.stop_channels()
        manager.shutdown_kernel()
    assert not list(place.glob("k-*"))


def test_arguments_reach_the_kernel_and_history_stays_out_of_the_home_folder(place):
    look = "get_ipython().history_manager.hist_file"
    with kernel() as ask:
        assert ask(look) == ":memory:"
    with kernel(extra_arguments=[f"--HistoryManager.hist_file={place / 'h.sqlite'}"]) as ask:
        assert ask(look) == str(place / "h.sqlite")


# ------------------------------------------------------------------------ isolation

DIRTY = """
import os, sys, random, tempfile, sqlite3, logging, atexit, numpy as np
secret = 42
random.seed(1); np.random.seed(1)
os.environ["LEFT"] = "1"; os.environ.pop("PATH", None)
os.chdir("/")
sys.path.append("/left"); sys.modules["left"] = sys
connection = sqlite3.connect("FOLDER/left.db"); connection.execute("create table t (a int)")
temporary = tempfile.NamedTemporaryFile(prefix="mlwleft")
directory = tempfile.TemporaryDirectory(prefix="mlwleft")
unclosed = open("FOLDER/unclosed.txt", "w"); unclosed.write("kept")
logging.getLogger().addHandler(logging.NullHandler())
try:
    import matplotlib.pyplot as plt
    plt.figure()
except ImportError: pass
"""
CLEAN = """
import builtins, json, logging, os, random, sys, tempfile, threading, numpy as np
try:
    import matplotlib.pyplot as plt
    figures = plt.get_fignums()
except ImportError: figures = []
files = []
for fd in os.listdir("/proc/self/fd"):
    try: files.append((int(fd), os.readlink("/proc/self/fd/" + fd)))
    except OSError: pass
print(json.dumps({
    "variables": "secret" in globals() or hasattr(builtins, "secret"),
    "random": [random.random(), float(np.random.rand())],
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "path": "/left" in sys.path or "left" in sys.modules,
    "figures": figures,
    "open files": [f for n, f in files if n > 2 and f.startswith("/") and not f.startswith("/dev")],
    "sockets": [f for n, f in files if f.startswith("socket")],
    "temporary": tempfile.gettempdir(),
    "handlers": len(logging.getLogger().handlers),
    "authkey": __import__("multiprocessing").current_process().authkey.hex(),
}))
"""


def findings(place) -> set[str]:
    """What a run sees of the run before it, or of the server."""
    (place / "work").mkdir(exist_ok=True)
    (place / "tmp").mkdir(exist_ok=True)
    env = {**os.environ, "TMPDIR": str(place / "tmp"), "MINE": "1"}
    seen = []
    for _ in range(2):
        with kernel(env=env, cwd=str(place / "work")) as ask:
            ask(
                "1",
                DIRTY.replace("FOLDER", str(place / "work")).replace(
                    "create table t", "create table if not exists t"
                ),
            )
        with kernel(env=env, cwd=str(place / "work")) as ask:
            held = {
                os.readlink(f)
                for f in Path(f"/proc/{status()[0].original}/fd").iterdir()
                if f.is_symlink()
            }
            told = ask(
                "told",
                f"import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n{textwrap.indent(CLEAN, '    ')}\ntold = json.loads(out.getvalue())",
            )
            told["sockets"] = [s for s in told["sockets"] if s in held]
            seen.append(told)
    one, two = seen
    own = {
        "JPY_PARENT_PID",
        "MPLBACKEND",
        "PYDEVD_USE_FRAME_EVAL",
        "TERM",
        "CLICOLOR",
        "FORCE_COLOR",
        "CLICOLOR_FORCE",
        "PAGER",
        "GIT_PAGER",
    }
    want = {k: v for k, v in env.items() if k not in own}
    found = {
        name
        for name in ("variables", "path", "figures", "open files", "sockets")
        if one[name] or two[name]
    }
    if {k: v for k, v in one["environment"].items() if k not in own} != want:
        found.add("environment")
    found |= {
        name
        for name in ("random", "authkey")
        if not set(map(str, [one[name]] if isinstance(one[name], str) else one[name])).isdisjoint(
            map(str, [two[name]] if isinstance(two[name], str) else two[name])
        )
    }
    if {one["folder"], two["folder"]} != {str(place / "work")}:
        found.add("folder")
    if {one["temporary"], two["temporary"]} != {str(place / "tmp")}:
        found.add("temporary")
    if (
        list((place / "tmp").glob("mlwleft*"))
        or (place / "work" / "unclosed.txt").read_text() != "kept"
    ):
        found.add("temporary files")
    return found


LEAKS = {
    "variables": "isolation.run_kernel = lambda *a, real=isolation.run_kernel: (setattr(__import__('builtins'), 'secret', 42), real(*a))[1]",
    "random": "isolation._own_chance = lambda: (random.seed(7), __import__('numpy').random.seed(7))",
    "environment": "isolation._own_environment = lambda env, cwd: (os.environ.update(env), os.chdir(cwd), setattr(tempfile, 'tempdir', None))",
    "folder": "os_chdir = os.chdir\nos.chdir = lambda to: None",
    "temporary": "tempfile.tempdir = '/tmp'\nisolation._own_environment = lambda env, cwd: (os.environ.clear(), os.environ.update(env), os.chdir(cwd))",
    "temporary files": "isolation.leave = os._exit",
    "sockets": "copying._let_go = lambda link: None",
    "open files": "kept = open(__file__)",
    "figures": "import matplotlib.pyplot as plt\nplt.figure()",
    "path": "sys.path.append('/left')",
    "authkey": "isolation._own_chance = lambda: None",
}  # fmt: skip


def test_two_runs_in_a_row_share_nothing(place):
    assert findings(place) == set()


@pytest.mark.parametrize("leak", LEAKS)
def test_the_isolation_test_sees_a_server_that_leaks(place, monkeypatch, leak):
    if leak == "figures":
        pytest.importorskip("matplotlib")
    begin = (
        "import os, random, sys, tempfile\nfrom mlworkbench.execution import copying, isolation\n"
    )
    (place / "lib" / "leaky.py").write_text(begin + LEAKS[leak])
    monkeypatch.setenv("MLWORKBENCH_PRELOAD", "numpy,leaky")
    assert leak in findings(place)


def test_limits_mask_and_processors_are_the_clients(place):
    import resource

    with kernel():  # the server was started before they change
        pass
    mask, (soft, hard) = os.umask(0o027), resource.getrlimit(resource.RLIMIT_NOFILE)
    cpus = os.sched_getaffinity(0)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 777), hard))
        os.sched_setaffinity(0, {min(cpus)})
        with kernel() as ask:
            got = ask(
                "[os.umask(0), resource.getrlimit(resource.RLIMIT_NOFILE)[0], sorted(os.sched_getaffinity(0))]",
                "import os, resource",
            )
    finally:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.sched_setaffinity(0, cpus)
    assert got == [0o027, min(soft, 777), [min(cpus)]]


# ------------------------------------------------------------------------ ends


def test_an_interrupt_ends_the_cell_and_not_the_kernel(place):
    with kernel() as ask:
        asked = ask.client.execute(
            "import time\nprint('on', flush=True)\ntime.sleep(60)",
            stop_on_error=False,  # else ipykernel aborts what is asked in the next moment
        )
        while ask.client.get_iopub_msg(timeout=30)["content"].get("text") != "on\n":
            pass
        ask.manager.interrupt_kernel()
        reply = ask.client._recv_reply(asked, timeout=20)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert ask("1 + 1") == 2


@pytest.mark.parametrize(
    ("end", "code"),
    [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 11)", -11)],
)
def test_a_kernel_that_ends_is_noticed_with_its_code(place, end, code):
    with kernel() as ask:
        process = ask.provisioner.process
        ask.client.execute(f"import os\n{end}")
        assert process.wait(10) == code
        assert not ask.manager.is_alive()


def test_nbclient_says_that_the_kernel_died(place):
    with pytest.raises(DeadKernelError):
        run("import os\nos._exit(1)")


def test_what_a_kernel_left_running_ends_with_it(place):
    cell = """
    import os, subprocess, sys
    held = [subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "600"], start_new_session=True)]
    far = subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True)
    with open("PIDS", "w") as told: told.write(str([p.pid for p in held] + [int(far.stdout)]))
    END
    """
    for end, raises in (("", False), ("os._exit(0)", True)):
        nb = notebook(cell.replace("END", end).replace("PIDS", str(place / "pids")), "1")
        with pytest.raises(DeadKernelError) if raises else nullcontext():
            NotebookClient(nb, kernel_name="mlworkbench", timeout=60).execute()
        pids = json.loads((place / "pids").read_text())
        assert len(pids) == 3 and all(gone(pid) for pid in pids)


CLIENT = """
import sys, time
from jupyter_client import KernelManager
m = KernelManager(kernel_name="mlworkbench"); m.start_kernel()
assert not m.provisioner.reason, m.provisioner.reason
c = m.client(); c.start_channels(); c.wait_for_ready(60)
r = c.execute("import subprocess; p = subprocess.Popen(['sleep', '600'], start_new_session=True)", user_expressions={"p": "p.pid"}, reply=True, timeout=60)
print(m.provisioner.pid, r["content"]["user_expressions"]["p"]["data"]["text/plain"], flush=True)
"""


def a_client(then: str = "time.sleep(600)") -> tuple[subprocess.Popen, list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT + then], stdout=subprocess.PIPE, text=True
    )
    return process, [int(p) for p in process.stdout.readline().split()]


@pytest.mark.parametrize("without_server", [False, True])
def test_a_killed_client_takes_its_kernel_along(place, without_server):
    client, (pid, child) = a_client()
    if without_server:
        os.kill(status()[0].pid, signal.SIGKILL)
    client.kill()
    client.wait()
    assert gone(pid)
    assert without_server or gone(child)
    if without_server:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        for left in (place / f"mlworkbench-{os.getuid()}").iterdir():
            left.unlink()


NESTED = """
from jupyter_client import KernelManager
import os
manager = KernelManager(kernel_name="mlworkbench")
manager.start_kernel(env={**os.environ, "PLOTLY_NESTED": "1"})
forked = manager.provisioner.reason == ""
manager.shutdown_kernel(now=True)
"""


def test_a_server_that_a_kernel_started_outlives_it(place, monkeypatch):
    """A notebook is closed that was the first to start runs; those of others go on."""
    with ExitStack() as first, ExitStack() as second:
        notebook, _ = first.enter_context(kernel()), second.enter_context(kernel())
        (outer,) = status()
        assert notebook("forked", NESTED)
        (inner,) = (server for server in status() if server.pid != outer.pid)
        assert psutil.Process(inner.pid).ppid() == notebook.provisioner.pid
        monkeypatch.setenv("PLOTLY_NESTED", "1")
        with kernel() as run:
            assert run.provisioner.pid in next(s for s in status() if s.pid == inner.pid).kernels
            first.close()
            assert psutil.Process(inner.pid).ppid() == outer.original
            second.close()  # once more somebody sweeps
            assert run("1 + 1") == 2 and not gone(inner.pid, 1)


def test_a_killed_server_is_replaced_and_its_kernels_live_on(place):
    with kernel() as first:
        (old,) = status()
        os.kill(old.pid, signal.SIGKILL)
        assert gone(old.pid)
        assert first("1 + 1") == 2
        with kernel() as second:
            (new,) = status()
            assert new.pid != old.pid and second("1 + 1") == 2
        process = first.provisioner.process
    assert process.poll() is not None


def test_a_server_whose_original_is_killed_is_replaced(place):
    with kernel() as first:
        (old,) = status()
        os.kill(old.original, signal.SIGKILL)
        assert gone(old.pid)
        assert first("1 + 1") == 2
        with kernel() as second:
            assert status()[0].pid != old.pid and second("1 + 1") == 2


def test_a_stopped_server_makes_no_second_kernel(place):
    """A client that gave up waiting has an ordinary kernel; the forked one must never start."""
    with kernel():
        (server,) = status()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        manager = KernelManager(kernel_name="mlworkbench")
        manager.provisioner = ForkProvisioner(
            kernel_id="x", kernel_spec=manager.kernel_spec, parent=manager, patience=0.3
        )
        manager.start_kernel()
        assert "did not answer" in manager.provisioner.reason
        ports = manager.get_connection_info()["shell_port"]
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert until(lambda: not status()[0].kernels)
    assert manager.is_alive() and ports
    manager.shutdown_kernel(now=True)


# ------------------------------------------------------------------------ the server's own life


def test_a_stale_socket_is_replaced(place):
    with kernel():
        (old,) = status()
    os.kill(old.pid, signal.SIGKILL)
    assert Path(old.socket).exists() and gone(old.pid)
    with kernel():
        assert status()[0].socket == old.socket


def test_nonsense_on_the_socket_does_no_harm(place):
    with kernel():
        (server,) = status()
    for said in (
        b"",
        b"x",
        b"\0\0\0\5{oops",
        b"\0\0\0\2{}",
        b"\0\0\0\4null",
        b"\0\0\0\2[]",
        b"\0\0\0\1" + b"5",
        b'\0\0\0\x0f{"do":"kernel"}',
    ):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(server.socket)
            link.sendall(said)
    with kernel() as ask:
        assert ask("1") == 1 and status()[0].pid == server.pid


def test_a_folder_open_to_others_is_refused(place):
    folder = place / f"mlworkbench-{os.getuid()}"
    folder.mkdir(mode=0o755)
    with kernel(fork=False) as ask:
        assert "not a private folder" in ask.provisioner.reason
    folder.rmdir()


def test_two_who_start_at_once_share_one_server(place):
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda _: a_client("m.shutdown_kernel()"), range(4)))
    assert [client.wait(60) for client, _ in clients] == [0] * 4
    running = [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(place) in " ".join(p.info["cmdline"] or [])
    ]
    (server,) = status()
    assert server.forks >= 4
    assert {p.pid for p in running} <= {
        server.pid,
        *(c.pid for c in psutil.Process(server.pid).children(recursive=True)),
    }


def test_an_edited_module_makes_a_new_server(place, monkeypatch):
    (place / "lib" / "edited.py").write_text("value = 1")
    monkeypatch.setenv("MLWORKBENCH_PRELOAD", "edited")
    with kernel() as ask:
        assert ask("edited.value", "import edited") == 1
        (old,) = status()
        (place / "lib" / "edited.py").write_text("value = 22")
        with kernel() as other:
            assert other("edited.value", "import edited") == 22
            assert status()[0].pid != old.pid
        assert ask("edited.value") == 1
    assert gone(old.pid)


def test_another_environment_has_another_server(place, monkeypatch):
    with kernel():
        pass
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with kernel():
        assert len(status()) == 2


def test_a_library_with_a_thread_is_told_and_an_ordinary_kernel_started(place, monkeypatch):
    (place / "lib" / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    )
    monkeypatch.setenv("MLWORKBENCH_PRELOAD", "threaded")
    with kernel(fork=False) as ask:
        assert "has threads" in ask.provisioner.reason and ask("1") == 1


def test_it_can_be_switched_off(place, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_FORK", "0")
    with kernel(fork=False) as ask:
        assert ask.provisioner.reason == "switched off by MLWORKBENCH_FORK" and ask("1") == 1
    assert status() == [] and stop_server() == 0


def test_an_idle_server_ends_and_one_without_its_socket_too(place, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_FORK_IDLE", "0.5")
    with kernel() as ask:
        (server,) = status()
        time.sleep(1)
        assert ask("1") == 1 and status(), "a server with a kernel is not idle"
    assert gone(server.pid)
    monkeypatch.setenv("MLWORKBENCH_FORK_IDLE", "600")
    with kernel():
        (server,) = status()
        Path(server.socket).unlink()
    assert gone(server.pid)
    for left in (place / f"mlworkbench-{os.getuid()}").iterdir():
        left.unlink()


def test_nothing_is_left_behind(place, torture):
    with kernel():
        (server,) = status()

    def state() -> tuple:
        mine, its = psutil.Process(), psutil.Process(server.pid)
        original = psutil.Process(server.original)
        assert until(lambda: len(its.children(recursive=True)) == 2), "it and the spare, no more"
        return (
            len(its.children(recursive=True)),
            its.num_fds(),
            original.num_fds(),
            mine.num_fds(),
            len(mine.children(recursive=True)),
            its.num_threads(),
        )

    for _ in range(2):
        run("1")
    before = state()
    for _ in range(100 if torture else 6):
        run("import duckdb, threading\nthreading.Thread(target=print).start()")
        with pytest.raises(DeadKernelError):
            run("import os\nos._exit(0)")
    assert state() == before
    sockets = list(socket_folder().glob("*"))
    assert len(sockets) == 2, "one socket and its log"


def test_a_restarted_kernel_is_a_fresh_fork(place):
    with kernel() as ask:
        ask("a", "a = 1")
        first = ask.provisioner.pid
        ask.manager.restart_kernel()
        ask.client.wait_for_ready(timeout=30)
        assert ask("'a' in globals()") is False
        assert ask.provisioner.pid != first and not ask.provisioner.reason


# ------------------------------------------------------------------------ functions in forks


def test_a_function_in_a_fork(place):
    (place / "lib" / "work.py").write_text(
        "import os, sys, time\n"
        "def look(code):\n    print(os.getcwd(), os.environ['MINE'], 'numpy' in sys.modules, flush=True)\n    return code\n"
        "def fail():\n    raise RuntimeError('no luck')\n"
        "def stay():\n    time.sleep(600)\n"
    )
    with open(place / "log", "w+") as log:
        env = {**os.environ, "MINE": "1"}
        assert (
            forking.fork(
                "work:look", {"code": 5}, env=env, cwd=place, stdout=log, stderr=subprocess.STDOUT
            ).wait(30)
            == 5
        )
        assert forking.fork("work:fail", env=env, stdout=log, stderr=log).wait(30) == 1
    said = (place / "log").read_text()
    assert said.startswith(f"{os.path.realpath(place)} 1 True\n") and said.endswith(
        "RuntimeError: no luck\n"
    )
    staying = forking.fork("work:stay")
    assert staying.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        staying.wait(0.05)
    staying.terminate()
    assert staying.wait(10) == -signal.SIGTERM == staying.poll()


def test_where_there_is_no_forking_a_function_is_refused(place, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_FORK", "0")
    with pytest.raises(forking.NoFork, match="switched off"):
        forking.fork("time:time")
