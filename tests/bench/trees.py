"""Public packages, installed by their ordinary clients, and the tars that a build makes of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_ZEROS = bytes(1024)
_WHEELS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
_MTIME = 1_700_000_000  # of every file: real builds set it too, and a second build is the same tar


def node_modules(folder: Path, pins: str, before: Path | None = None) -> Path:
    """Install `pins` into a new folder; what they do not name stays as in `before`, if given."""
    if before:
        shutil.copytree(before, folder, symlinks=True)
    else:
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(
            '{"name": "bench", "version": "1.0.0", "private": true}'
        )
    bounds = ["@<=".join(pin.rsplit("@", 1)) for pin in pins.split()]
    quiet = ("--no-audit", "--no-fund", "--no-progress", "--loglevel=error")
    options = ("--ignore-scripts", "--legacy-peer-deps", "--prefer-offline", *quiet)
    _install(["npm", "install", *options, *bounds], folder)
    return folder / "node_modules"


def site_packages(folder: Path, pins: str) -> Path:
    """Unpack the wheels of `pins`, and nothing they depend on, into a new folder."""
    folder.mkdir(parents=True)
    wheels = [word for platform in _WHEELS for word in ("--platform", platform)]
    chosen = [
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--python-version=3.11",
        *wheels,
    ]
    bounds = [pin.replace("==", "<=") for pin in pins.split()]
    _install(
        [sys.executable, "-m", "pip", "install", *chosen, "--target", str(folder), *bounds], folder
    )
    # scripts that name the interpreter of this machine
    shutil.rmtree(folder / "bin", ignore_errors=True)
    return folder


def _install(argv: list[str], folder: Path) -> None:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(argv[:3])} … ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )


def write_tar(tree: Path, under: str, target: Path) -> str:
    """The plain tar of `tree`, in order of names, owned by root; returns its digest's hex."""
    hasher = hashlib.sha256()
    with target.open("wb") as out:

        def put(data: bytes) -> None:
            hasher.update(data)
            out.write(data)

        for parent in reversed(Path(under, "_").parents[:-1]):
            put(_header(str(parent), tarfile.DIRTYPE, 0o755).tobuf(tarfile.PAX_FORMAT))
        for path in _walk(tree):
            info = _described(path, f"{under}/{path.relative_to(tree)}")
            put(info.tobuf(tarfile.PAX_FORMAT))
            if info.isreg():
                with path.open("rb") as file:
                    for piece in _pieces(file):
                        put(piece)
                put(bytes(-info.size % 512))
        put(_ZEROS)
    return hasher.hexdigest()


def _walk(tree: Path) -> Iterator[Path]:
    for path in sorted(tree.iterdir(), key=lambda path: path.name):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _described(path: Path, name: str) -> tarfile.TarInfo:
    if path.is_symlink():
        info = _header(name, tarfile.SYMTYPE, 0o777)
        info.linkname = os.readlink(path)  # noqa: PTH115 -- the text of the link, not a path of ours
    elif path.is_dir():
        info = _header(name, tarfile.DIRTYPE, 0o755)
    else:
        status = path.stat()
        info = _header(name, tarfile.REGTYPE, 0o755 if status.st_mode & 0o100 else 0o644)
        info.size = status.st_size
    return info


def _header(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, _MTIME
    return info


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece
