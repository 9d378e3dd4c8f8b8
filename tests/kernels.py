"""A real kernel, cell by cell, as JupyterLab drives one."""

import contextlib
import os
import re
import signal
from dataclasses import dataclass, field

from jupyter_client.manager import KernelManager


@dataclass
class Shown:
    """What one cell did."""

    status: str
    texts: list[str] = field(default_factory=list)
    html: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(self.texts + self.errors))


class Kernel:
    """A kernel and its client."""

    def __init__(self, folder, workbench, name: str = "python3"):
        self.manager = KernelManager(kernel_name=name)
        environment = {k: v for k, v in os.environ.items() if k != "MLWORKBENCH_RUN"}
        environment["MLWORKBENCH"] = str(workbench.root)
        self.manager.start_kernel(cwd=str(folder), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=90)

    def cell(self, source: str, seconds: float = 120) -> Shown:
        shown = Shown("")

        def hear(message: dict) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                shown.texts.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.texts.append(content["data"].get("text/plain", ""))
                if "text/html" in content["data"]:
                    shown.html.append(content["data"]["text/html"])
            elif message["msg_type"] == "error":
                shown.errors.extend(content["traceback"])

        reply = self.client.execute_interactive(source, output_hook=hear, timeout=seconds)
        shown.status = reply["content"]["status"]
        return shown

    def cells(self, *sources: str) -> Shown:
        for source in sources:
            shown = self.cell(source)
            assert shown.status == "ok", shown.text
        return shown

    def end(self) -> None:
        """As JupyterLab does it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()

    def kill(self) -> None:
        """As the kernel of the system does it."""
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
