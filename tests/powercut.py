"""A simulated power cut: what a process wrote, from strace's log, and the disk as it may be after a cut at any moment.

Nothing that was not fsynced is sure to be there: a file has the bytes of its last fsync, a name is
there once its folder was fsynced. What the machine may have written all the same is drawn by lot.
"""

import codecs
import os
import random
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,open,read,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,"
    "fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,copy_file_range,sendfile,mmap"
)
LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?", re.DOTALL)
OPENED = re.compile(r"(-?\w+)<([^>]*)>")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?')


def traced(command: list[str], log: Path, **more) -> subprocess.CompletedProcess:
    """Run a command under strace."""
    words = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-s",
        "100000000",
        "-o",
        str(log),
        "-e",
        f"trace={CALLS}",
    ]
    return subprocess.run([*words, *command], capture_output=True, text=True, **more)


def calls(log: Path):
    """The finished calls of a log: name, arguments, answer, path of what was opened."""
    begun: dict[str, str] = {}
    with open(log, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            process = line.split(" ", 1)[0]
            if line.endswith("<unfinished ...>\n"):
                begun[process] = line.removesuffix("<unfinished ...>\n")
                continue
            if "resumed>" in line[:60]:
                line = begun.pop(process) + line.split("resumed>", 1)[1]
            if found := LINE.match(line):
                yield found[2], found[3], int(found[4]), found[5] or ""


@dataclass
class File:
    """A file: its bytes of now, and those that are sure to survive."""

    now: bytearray = field(default_factory=bytearray)
    sure: bytes = b""


class Disk:
    """The files below a folder, as the processes see them and as a power cut leaves them."""

    def __init__(self, root: Path):
        self.root, self.places = str(root), {}
        self.now: dict[str, File | None] = {}  # None is a folder
        for path in root.rglob("*"):
            data = None if path.is_dir() else path.read_bytes()
            self.now[str(path)] = None if data is None else File(bytearray(data), data)
        self.sure = dict(self.now)

    def _path(self, text: str, folder: str = "") -> str:
        return os.path.normpath(os.path.join(folder, text))

    def apply(self, name: str, said: str, answer: int, opened: str) -> None:
        """Take one call into account."""
        handles = OPENED.findall(TEXT.sub('""', said))
        texts = [codecs.escape_decode(t)[0] for t, _ in TEXT.findall(said)]
        where = handles[0][1] if handles else ""
        file = self.now.get(where)
        if answer < 0:
            return
        if name in ("openat", "open") and opened.startswith(f"{self.root}/"):
            held = (
                self.now.setdefault(opened, File()) if "O_CREAT" in said else self.now.get(opened)
            )
            if held is not None and "O_TRUNC" in said:
                held.now.clear()
            self.places[answer] = len(held.now) if held and "O_APPEND" in said else 0
        elif name in (
            "rename",
            "renameat",
            "renameat2",
            "unlink",
            "unlinkat",
            "rmdir",
            "mkdir",
            "mkdirat",
        ):
            folders = [h[1] for h in handles if not h[0].isdigit() or name.endswith(("at", "at2"))]
            paths = [
                self._path(t.decode(), (folders or [""])[min(i, len(folders) - 1)])
                for i, t in enumerate(texts)
            ]
            self._named(name, [p for p in paths if p.startswith(f"{self.root}/")])
        elif name in ("fsync", "fdatasync") and where.startswith(self.root):
            self._synced(where, file)
        elif where.startswith(self.root) and file is not None:
            self._written(name, said, answer, int(handles[0][0]), texts, file, where)

    def _named(self, name: str, paths: list[str]) -> None:
        if not paths:
            return
        if name.startswith("mkdir"):
            self.now[paths[0]] = None
        elif name.startswith("rename"):
            moved = {
                p: f for p, f in self.now.items() if p == paths[0] or p.startswith(f"{paths[0]}/")
            }
            for p, f in moved.items():
                del self.now[p]
                self.now[paths[1] + p[len(paths[0]) :]] = f
        else:
            self.now.pop(paths[0], None)

    def _synced(self, where: str, file: File | None) -> None:
        if file is not None:
            file.sure = bytes(file.now)
            return
        for names in (self.sure, self.now):
            for p in [p for p in names if p.rpartition("/")[0] == where]:
                if p in self.now:
                    self.sure[p] = self.now[p]
                else:
                    del self.sure[p]

    def _written(self, name, said, answer, handle, texts, file, where) -> None:
        if name == "lseek":
            self.places[handle] = answer
        elif name == "read":
            self.places[handle] = self.places.get(handle, 0) + answer
        elif name in ("write", "pwrite64"):
            at = self.places.get(handle, 0) if name == "write" else int(said.rsplit(", ", 1)[1])
            data = texts[0][:answer]
            assert len(data) == answer, f"strace cut {where}"
            file.now.extend(b"\0" * (at - len(file.now)))
            file.now[at : at + answer] = data
            if name == "write":
                self.places[handle] = at + answer
        elif name == "ftruncate":
            size = int(said.rsplit(", ", 1)[1])
            file.now[:] = bytes(file.now[:size]).ljust(size, b"\0")
        elif name == "mmap":
            shared = "PROT_WRITE" in said and "MAP_SHARED" in said
            assert not shared or where.endswith("-shm"), f"{where} is written through memory"
        else:
            raise AssertionError(f"{name} of {where} is not followed")

    def after_cut(self, folder: Path, dice: random.Random | None = None) -> None:
        """Write the disk as it is after a cut; with ``dice``, some of what was not sure survived."""

        def lucky() -> bool:
            return dice is not None and dice.random() < 0.5

        names = dict(self.sure)
        for path in {*self.sure, *self.now}:
            if lucky():
                names.pop(path, None)
                names |= {path: self.now[path]} if path in self.now else {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in sorted(names):
            place, file = folder / path[len(self.root) + 1 :], names[path]
            if not place.parent.is_dir():
                continue  # the folder's own name is lost
            if file is None:
                place.mkdir()
            else:
                place.write_bytes(bytes(file.now) if lucky() else file.sure)
