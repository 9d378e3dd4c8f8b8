"""A PostgreSQL of the tests' own: Debian's, in a temporary folder, as a user that is not root."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))


def programs() -> Path | None:
    """The folder of pg_ctl and initdb; None where PostgreSQL is not installed."""
    beside = shutil.which("initdb")
    return PROGRAMS[-1] if PROGRAMS else Path(beside).parent if beside else None


@dataclass(frozen=True)
class Server:
    """A running server: its folder, and who it runs as."""

    folder: Path
    user: str
    port: int

    def url(self, database: str, login: str = "boss", tcp: bool = False) -> str:
        """The address of a database; over TCP a login has to show a password."""
        if tcp:
            return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{login}@/{database}?host={self.folder}&port={self.port}"

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as db:
            for statement in statements:
                db.execute(statement)

    def control(self, *words: str) -> None:
        """``pg_ctl``: start, stop."""
        command = [str(programs() / "pg_ctl"), "-D", str(self.folder / "data"), "-s", "-w", *words]
        subprocess.run(_as(self.user, command), check=True, timeout=120, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start it, or start it again; what it writes is not fsynced, since no test cuts its power."""
        options = (
            f"-k {self.folder} -p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off "
            "-c max_connections=300 -c shared_buffers=32MB -c log_min_messages=fatal"
        )
        self.control("-l", str(self.folder / "log"), "-o", options, "start")


def _as(user: str, command: list[str]) -> list[str]:
    return ["runuser", "-u", user, "--", *command] if os.geteuid() == 0 else command


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the block lasts."""
    root = os.geteuid() == 0
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = (
        ("postgres" if "postgres" in known else "nobody") if root else pwd.getpwuid(os.geteuid())[0]
    )
    folder = Path(
        tempfile.mkdtemp(prefix="pg", dir="/tmp")
    )  # short: the path of a socket is bounded
    if root:
        shutil.chown(folder, user)
    folder.chmod(0o755)
    command = [str(programs() / "initdb"), "-D", str(folder / "data"), "-U", "boss", "--no-sync"]
    command += ["-E", "UTF8", "--locale=C", "-A", "trust"]
    server = Server(folder, user, _free_port())
    try:
        subprocess.run(_as(user, command), check=True, timeout=120, stdout=subprocess.DEVNULL)
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (folder / "data" / "pg_hba.conf").write_text(rules)
        server.start()
        yield server
        server.control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
