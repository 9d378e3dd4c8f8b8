"""`mlworkbench lab` and the starter notebook in a real browser; skips where there is none."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from mlworkbench.core.errors import UserError
from mlworkbench.desk.starting import init
from mlworkbench.execution.listing import list_runs

EXE = Path(sys.executable).parent / "mlworkbench"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def lab(tmp_path):
    """A running JupyterLab: workbench, address, process."""
    pytest.importorskip("jupyterlab")
    pytest.importorskip("jupyter_server_proxy")
    if not EXE.exists():
        pytest.skip("the command is not here")
    wb = init(tmp_path / "mine", example="cards")
    own = {"HOME": tmp_path / "home", "JUPYTERLAB_SETTINGS_DIR": tmp_path / "settings"}
    own |= {"JUPYTER_RUNTIME_DIR": tmp_path / "run", "JUPYTERLAB_WORKSPACES_DIR": tmp_path / "ws"}
    quiet = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    news = {"fetchNews": "false", "checkForUpdates": False}
    (quiet / "notification.jupyterlab-settings").write_text(json.dumps(news))
    own["HOME"].mkdir()
    process = subprocess.Popen(
        [EXE, "lab", "--no-browser", "--json"],
        cwd=wb.root,
        env=os.environ | {k: str(v) for k, v in own.items()},
        stdout=subprocess.PIPE,
        text=True,
    )
    address = json.loads(process.stdout.readline())["address"]
    yield wb, address, process
    if process.poll() is None:
        process.kill()


def fetch(address: str) -> int | str:
    """The status of a page; ``login`` where it leads there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        found = opener.open(address, timeout=30)
        return "login" if "/login?" in found.url else found.status
    except urllib.error.HTTPError as err:
        return err.code


def end(process: subprocess.Popen) -> list:
    """Ctrl-C; whatever of it is still alive a little later."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0 and process.stdout.read() == ""
    return psutil.wait_procs(family, timeout=30)[1]


def test_token_loopback_kernels_and_proxy(lab):
    wb, address, process = lab
    base, _, token = address.partition("/lab/tree/nbs/start.ipynb?token=")
    assert base.startswith("http://127.0.0.1:") and len(token) >= 32
    assert fetch(f"{base}/api/contents") == 403
    assert fetch(f"{base}/api/contents?token={token}") == 200
    assert fetch(f"{base}/proxy/1/") in ("login", 403), "the proxy asks for the token too"
    assert fetch(f"{base}/proxy/1/?token={token}") in (500, 502, 503, 599), "there is a proxy"
    lines = Path(f"/proc/{process.pid}/cmdline").read_text() if os.path.exists("/proc") else ""
    assert token not in lines
    ports = {
        c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"
    }
    assert ports <= {"127.0.0.1"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    specs = json.load(opener.open(f"{base}/api/kernelspecs?token={token}", timeout=30))
    from mlworkbench.execution.forking import available

    assert available() or "mlworkbench" in specs["kernelspecs"]
    assert end(process) == []


def test_the_starter_notebook_in_a_browser(lab):
    if not CHROMIUM:
        pytest.skip("chromium is not here")
    playwright = pytest.importorskip("playwright.sync_api")
    wb, address, process = lab
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 2400})
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        playwright.expect(page.locator("#jp-main-statusbar")).to_contain_text(
            "Idle", timeout=90_000
        )
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        last = page.locator(".jp-CodeCell .jp-InputPrompt").last
        playwright.expect(last).to_have_text("[7]:", timeout=240_000)
        assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        playwright.expect(page.locator(".jp-OutputArea-output svg[role=img]").first).to_be_visible()
        assert page.get_by_text("It rests on resampling").count() >= 1
        browser.close()
    assert [r.state for r in list_runs(wb=wb)] == ["finished", "finished"]
    assert end(process) == []


def test_without_jupyterlab_it_says_what_to_install(tmp_path, monkeypatch, wb):
    import importlib.util

    from mlworkbench.desk.lab import lab_page, run_lab

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else found(name)
    )
    with pytest.raises(UserError) as error:
        run_lab(wb=wb)
    assert "pip install 'mlworkbench[lab]'" in error.value.hint and error.value.exit_code == 2
    monkeypatch.undo()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used"):
            run_lab(wb=wb, port=taken.getsockname()[1])
    (tmp_path / "outside.ipynb").write_text("{}")
    with pytest.raises(UserError, match="outside the workbench"):
        lab_page(str(tmp_path / "outside.ipynb"), wb)
