import copy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("streamlit")
sync_api = pytest.importorskip("playwright.sync_api")
from app_workbench import EVIL, World  # noqa: E402
from faults import holding  # noqa: E402

from mlworkbench.core.errors import UserError  # noqa: E402
from mlworkbench.core.settings import open_workbench  # noqa: E402
from mlworkbench.data.lake import create_workbench  # noqa: E402
from mlworkbench.desk.app import open_app as app  # noqa: E402
from mlworkbench.execution.opening import close_run, open_run  # noqa: E402
from mlworkbench.execution.record import get_run  # noqa: E402

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
SLOW = 60_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("made") / "wb")
    for name, noise, depth in (("shallow", 2.0, 3), (EVIL, 1.0, 6), ("deep", 0.3, 8)):
        world.run(name, noise, depth=depth)
    return world


@pytest.fixture
def world(made, tmp_path):
    """A copy of its own for each test: a workbench that was moved opens."""
    own = copy.copy(made)
    own.wb = open_workbench(shutil.copytree(made.wb.root, tmp_path / "wb"))
    return own


@pytest.fixture
def bare(tmp_path):
    return create_workbench(tmp_path / "wb")


@pytest.fixture
def served(world):
    found = app(wb=world.wb)
    yield world, found.address
    found.stop()


@pytest.fixture
def page(request):
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(SLOW)
        page.alerts = []
        page.on("dialog", lambda d: (page.alerts.append(d.message), d.dismiss()))
        yield page
        browser.close()


def settled(page):
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(400)


def tick(page, row):
    table = page.get_by_test_id("stDataFrame").first
    table.wait_for()
    page.wait_for_timeout(600)
    box = table.bounding_box()
    page.mouse.click(box["x"] + 17, box["y"] + 36 + 35 * row + 17)
    page.wait_for_timeout(800)
    settled(page)


@needs_browser
def test_a_visitor_finds_the_better_run_and_makes_it_champion(served, page):
    world, address = served
    page.goto(address)
    page.get_by_text("Showing 3 of 3 runs").wait_for()
    tick(page, 2)  # the newest is first: shallow is last
    tick(page, 0)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("deep is better than shallow").wait_for()
    assert get_run("shallow", world.wb).run in page.url and "/compare?" in page.url
    link = page.url

    page.goto(address + "run?run=" + get_run("deep", world.wb).run)
    page.get_by_role("button", name="Register as a model").click()
    page.get_by_label("Model", exact=True).fill("fraud")
    page.get_by_role("button", name="Register", exact=True).click()
    page.get_by_text("deep is fraud@1").wait_for()

    page.get_by_role("link", name="Models").click()
    page.get_by_text("Nobody is champion now").wait_for()
    page.get_by_label("Reason", exact=True).fill("fewer missed frauds at the same alarms")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("Waiting for a decision").wait_for()
    page.get_by_label("Reason for the decision").fill("evidence read, costs checked")
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("self-approved, since").wait_for()
    page.get_by_role("link", name="Experiments").click()
    page.get_by_text("version 1, run deep, self-approved").wait_for()

    page.get_by_role("link", name="Models").click()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("no version held it before").wait_for()
    page.get_by_test_id("stPopoverBody").get_by_label("Reason").fill("alerts doubled since Monday")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Roll back").click()
    page.get_by_text("Nobody is champion now").wait_for()
    assert page.get_by_text("fraud@champion is nobody again").is_visible()

    page.goto(link)  # an address pasted into a chat
    page.get_by_text("deep is better than shallow").wait_for()
    assert not page.alerts


@needs_browser
def test_a_run_is_seen_alive_and_does_not_push_in(served, page):
    """New runs are announced, then shown; their progress moves without a reload."""
    world, address = served
    page.goto(address)
    page.get_by_text("Showing 3 of 3 runs").wait_for()
    run = open_run("slow one", experiment="pay", values={"table": "pay"}, wb=world.wb)
    page.get_by_role("button", name="1 new: show").wait_for()
    assert page.get_by_text("Showing 3 of 3 runs").is_visible()
    page.get_by_role("button", name="1 new: show").click()
    page.get_by_text("Showing 4 of 4 runs").wait_for()
    cells = page.get_by_test_id("stDataFrame").first.locator("table")  # what a screen reader reads
    for cell in (3, 8):
        said = json.dumps({"cell": cell + 1, "cells": 10, "at": time.time()})
        (run.folder / "progress.json").write_text(said)
        cells.get_by_text(f"({cell}0%)").first.wait_for(state="attached")
    close_run(run.run, "failed", "cell 2, line 1: ValueError: no", wb=world.wb)
    cells.get_by_text("failed").first.wait_for(state="attached")
    assert not page.alerts


@needs_browser
def test_a_page_says_whom_it_waits_for(served, page):
    world, address = served
    runs = ",".join(get_run(name, world.wb).run for name in ("shallow", "deep"))
    with holding(world.wb, "lake/catalog.sqlite") as holder:
        page.goto(f"{address}compare?runs={runs}")
        page.get_by_text(f"Waiting for {world.wb.root}").wait_for()
        assert f"process {holder}" in page.get_by_test_id("stAlert").inner_text()
    page.get_by_text("It rests on resampling").wait_for()
    page.get_by_text("Waiting for").wait_for(state="detached")


@needs_browser
def test_a_hostile_name_and_notebook_are_only_shown(served, page):
    world, address = served
    evil, deep = get_run(EVIL, world.wb).run, get_run("deep", world.wb).run
    for path in (
        "",
        f"run?run={evil}",
        f"compare?runs={evil},{deep}",
        f"?runs={evil},{deep}",
        f"?only=name={EVIL}",
    ):
        page.goto(address + path)
        page.get_by_role("heading", level=1).wait_for()
        page.wait_for_timeout(2_500)
        settled(page)
        for frame in page.frames:
            assert frame.evaluate("document.querySelectorAll('img[src=x], [onerror]').length") == 0
    page.goto(f"{address}run?run={evil}")
    page.get_by_role("heading", level=1, name=EVIL).wait_for()
    notebook = page.frame_locator("[data-testid=stIFrame]").frame_locator("iframe[sandbox='']")
    notebook.get_by_text("kept").wait_for()
    assert notebook.locator("script").count() == 0 and not page.alerts


def test_a_taken_port_is_refused_and_a_stopped_app_leaves_nothing(bare):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used"):
            app(taken.getsockname()[1], wb=bare)
    found = app(wb=bare)
    assert "mlworkbench app at http://127.0.0.1:" in repr(found)
    found.stop()
    assert found.process.poll() is not None
    with pytest.raises(OSError):
        urllib.request.urlopen(found.address, timeout=2)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_the_address_and_ends_with_its_app(bare, sign):
    command = [
        sys.executable,
        "-c",
        "from mlworkbench.desk.cli import main; main()",
        "app",
        "--workbench",
        str(bare.root),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    assert urllib.request.urlopen(address + "_stcore/health", timeout=10).read() == b"ok"
    foreign = urllib.request.Request(
        address + "_stcore/host-config", headers={"Origin": "http://evil.example"}
    )
    assert "evil.example" not in str(urllib.request.urlopen(foreign, timeout=10).headers)
    root = f"http://127.0.0.1:{urllib.parse.urlsplit(address).port}/"
    for path in ("", "_stcore/health", "_stcore/stream", "static/index.html", "0" * 32 + "/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(root + path, timeout=10)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if children.exists():  # what every user of the machine can read
        token = address.rstrip("/").rpartition("/")[2]
        said = [Path(f"/proc/{c}/cmdline").read_text() for c in children.read_text().split()]
        assert len(token) == 32 and any("streamlit" in s for s in said)
        assert not any(token in s for s in said)
    process.send_signal(sign)
    assert process.wait(30) == 130
    end = time.monotonic() + 10
    port = urllib.parse.urlsplit(address).port
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.2)
    pytest.fail("the app still listens")


def test_without_streamlit_the_command_says_how_to_get_it(bare):
    hide = "import sys, importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'streamlit' else f(n, *a); "
    code = hide + "from mlworkbench.desk.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "app", "--workbench", str(bare.root)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert (
        done.returncode == 2
        and "pip install 'mlworkbench[app]'" in done.stderr
        and "Traceback" not in done.stderr
    )
