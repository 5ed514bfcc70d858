"""Power loss at any moment: the writes of a real run, recorded by strace, cut anywhere.

The disk that is imagined keeps its promises and nothing more (fsync(2)): a file's bytes are safe
once it was synced, its name once its folder was. All else may be there, or not, or in parts of 512
bytes.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CALLS = (
    "openat,open,creat,close,dup,dup2,dup3,fcntl,write,pwrite64,writev,pwritev,ftruncate,fallocate,copy_file_range,"
    "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,link,linkat,mkdir,mkdirat"
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>)?(.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_SECTOR = 512


def strace() -> str | None:
    """The program, where it is installed and may trace."""
    found = shutil.which("strace")
    if (
        found is None
        or subprocess.run([found, "-qq", "true"], capture_output=True, check=False).returncode
    ):
        return None
    return found


@dataclass(frozen=True, slots=True)
class Op:
    """One change of the recorded folder. `path` is relative to it; `data` starts at `at`."""

    kind: str
    path: str
    other: str = ""
    at: int = 0
    data: bytes = b""


def record(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    folder: Path,
    trace: Path,
    given: bytes = b"",
) -> list[Op]:
    """Run the command, with `given` for standard input.

    What it changed below `folder`, in order.
    """
    program = strace()
    assert program
    there = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    words = [
        program,
        "-f",
        "-qq",
        "-xx",
        "-s",
        str(64 << 20),
        "-e",
        f"trace={_CALLS}",
        "-o",
        str(trace),
    ]
    done = subprocess.run(
        [*words, *map(str, argv)],
        env=dict(env),
        input=given,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(_Reader(folder, there).ops(trace.read_text(encoding="ascii")))


class _Reader:
    """Descriptors of one process (its threads share them) → paths and offsets."""

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        """`sizes`: of the files that are there already."""
        self._root = str(folder)
        self._open: dict[int, str] = {}
        self._at: dict[int, int] = {}
        self._appends: set[int] = set()
        self._sizes: dict[str, int] = dict(sizes)

    def ops(self, text: str) -> Iterator[Op]:
        begun: dict[str, str] = {}
        for line in text.splitlines():
            found = _LINE.fullmatch(line)
            assert found, line[:200]
            pid, rest = found[1], found[2]
            if rest.endswith("<unfinished ...>"):
                begun[pid] = rest.removesuffix("<unfinished ...>")
                continue
            if "resumed>" in line[:60]:
                rest = begun.pop(pid, "") + rest
            call = _CALL.match(rest)
            if call and int(call[3]) >= 0:
                yield from self._op(call[1], call[2], int(call[3]))

    def _inside(self, path: str) -> str | None:
        path = os.path.normpath(path)
        return (
            os.path.relpath(path, self._root) if f"{path}/".startswith(f"{self._root}/") else None
        )

    def _op(self, name: str, words: str, result: int) -> Iterator[Op]:
        texts = [bytes.fromhex(one.replace("\\x", "")) for one in _TEXT.findall(words)]
        numbers = [int(one) for one in re.findall(r"(?<![\w\"\\])-?\d+", _TEXT.sub("", words))]
        handle = numbers[0] if numbers else -1
        if name in ("openat", "open", "creat"):
            yield from self._opened(texts[0].decode(), words, result)
        elif name == "close":
            self._open.pop(handle, None)
        elif name.startswith("dup") or name == "fcntl":
            if handle in self._open and (name != "fcntl" or "F_DUPFD" in words):
                self._open[result], self._at[result] = self._open[handle], self._at[handle]
        elif name.startswith(("rename", "link", "unlink", "mkdir")):
            yield from self._on_name(name, [one.decode() for one in texts])
        elif (path := self._open.get(handle)) is not None:
            yield from self._on_file(name, path, handle, numbers, texts, result)

    def _on_name(self, name: str, paths: list[str]) -> Iterator[Op]:
        if name.startswith(("rename", "link")):
            old, new = (self._inside(one) for one in paths[:2])
            if new is not None:
                self._sizes[new] = self._sizes.get(old or "", 0)
                yield Op(
                    name[:4],
                    old or "",
                    new,
                    data=b"" if old is not None else Path(paths[0]).read_bytes(),
                )
        elif (path := self._inside(paths[0])) is not None:
            self._sizes.pop(path, None)
            yield Op(name.removesuffix("at"), path)

    def _opened(self, path: str, words: str, handle: int) -> Iterator[Op]:
        self._open.pop(handle, None)
        inside = self._inside(path)
        if inside is None:
            return
        self._open[handle], self._at[handle] = inside, 0
        self._appends.discard(handle)
        if "O_APPEND" in words:
            self._appends.add(handle)
        if "O_CREAT" in words and inside not in self._sizes:
            self._sizes[inside] = 0
            yield Op("create", inside)
        if "O_TRUNC" in words:
            self._sizes[inside] = 0
            yield Op("truncate", inside)

    def _on_file(
        self, name: str, path: str, handle: int, numbers: list[int], texts: list[bytes], result: int
    ) -> Iterator[Op]:
        if name in ("fsync", "fdatasync"):
            yield Op("sync", path)
        elif name == "ftruncate":
            self._sizes[path] = numbers[1]
            yield Op("truncate", path, at=numbers[1])
        elif name in ("write", "writev", "pwrite64", "pwritev"):
            data = b"".join(texts)[:result]
            at = numbers[-1] if name.startswith("p") else self._at[handle]
            if handle in self._appends:
                at = self._sizes.get(path, 0)
            self._at[handle] = at + result
            self._sizes[path] = max(self._sizes.get(path, 0), at + result)
            yield Op("write", path, at=at, data=data)
        else:
            raise AssertionError(f"{name} on a file of the store is not imagined yet")


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    fresh: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes at an offset since the last sync; None cuts there."""

    def contents(self, keep: Iterator[bool]) -> bytes:
        data = bytearray(self.safe)
        for at, piece in self.fresh:
            if piece is None:
                if next(keep):
                    del data[at:]
                    data.extend(bytes(at - len(data)))
                continue
            for low in range(0, len(piece), _SECTOR):
                if next(keep):
                    part = piece[low : low + _SECTOR]
                    if len(data) < at + low:
                        data.extend(bytes(at + low - len(data)))
                    data[at + low : at + low + len(part)] = part
        return bytes(data)

    def sync(self) -> None:
        always = iter(lambda: True, False)
        self.safe, self.fresh = bytearray(self.contents(always)), []


class Disk:
    """What is on the disk after each step, as far as the disk has promised."""

    def __init__(self) -> None:
        self._names: dict[str, _File | None] = {".": None}  # None: a folder
        self._safe: dict[str, _File | None] = {".": None}

    def apply(self, op: Op) -> None:
        names = self._names
        if op.kind == "create":
            names[op.path] = _File()
        elif op.kind == "mkdir":
            names[op.path] = None
        elif op.kind == "unlink":
            names.pop(op.path, None)
        elif op.kind in ("rena", "link"):
            names[op.other] = names[op.path] if op.path else _File(bytearray(op.data))
            if op.kind == "rena":
                names.pop(op.path, None)
        elif op.kind == "sync":
            self._sync(op.path)
        elif (file := names.get(op.path)) is not None:
            file.fresh.append((op.at, op.data if op.kind == "write" else None))

    def _sync(self, path: str) -> None:
        file = self._names.get(path)
        if file is not None:
            file.sync()
            return
        inside = [
            name for name in {*self._names, *self._safe} - {"."} if str(Path(name).parent) == path
        ]
        for name in inside:
            if name in self._names:
                self._safe[name] = self._names[name]
            else:
                self._safe.pop(name, None)

    def write_to(self, folder: Path, kept: float, dice: random.Random) -> None:
        """The folder after a power loss in which each unsynced thing survived with this chance."""
        keep = iter(lambda: dice.random() < kept, None)
        folder.mkdir(parents=True)
        for name in sorted({*self._names, *self._safe} - {"."}):
            is_safe, is_there = name in self._safe, name in self._names
            survives = is_safe if is_safe == is_there else next(keep) == is_there
            place = folder / name
            if not survives or not place.parent.is_dir():
                continue
            file = self._names.get(name) if is_there else self._safe.get(name)
            if file is None:
                place.mkdir(exist_ok=True)
            else:
                place.write_bytes(file.contents(keep))


def crashes(
    ops: Sequence[Op], folder: Path, dice: random.Random, every: int = 1, after: int = 0
) -> Iterator[tuple[int, float, Path]]:
    """From step `after` on, each `every`th: the store without unsynced bytes, with all, torn."""
    disk = Disk()
    for step, op in enumerate(ops):
        disk.apply(op)
        if step >= after and ((step - after) % every == 0 or step == len(ops) - 1):
            for kept in (0.0, 1.0, 0.5):
                place = folder / f"{step}-{kept}"
                disk.write_to(place, kept, dice)
                yield step, kept, place
                shutil.rmtree(place)
