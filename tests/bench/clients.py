"""The clients that are measured: zpull and its peers, each with its home and a pull command."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.request import Request, urlopen

from tests.bench.measure import Command
from tests.helpers.servers import peers

_ACCEPT = "application/vnd.oci.image.manifest.v1+json"


class Client(Protocol):
    """`home` is what it remembers between pulls."""

    @property
    def name(self) -> str: ...

    def pull(self, home: Path, host: str, image: str, tag: str) -> Command: ...


def freeze(engine: Path) -> str:
    """Copy the package as it is now, so that edits do not reach a measurement; names this state."""
    source = Path(__file__).parents[2] / "zchunked"
    shutil.copytree(source, engine / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(engine)], check=True)
    hasher = hashlib.sha256()
    for path in sorted(engine.rglob("*.py")):
        hasher.update(f"{path.relative_to(engine)}\0".encode() + path.read_bytes())
    return hasher.hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Zpull:
    """`exports` asks for an OCI layout as well, as skopeo makes one."""

    engine: Path
    """Where the package lies that is measured."""
    exports: bool = False
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(["zpull", *(["--to oci:"] if self.exports else []), *self.options])

    def pull(self, home: Path, host: str, image: str, tag: str) -> Command:
        return self._command(home, f"{host}/{image}:{tag}", *self._exports(home, image, tag))

    def plan(self, home: Path, host: str, image: str, tag: str) -> Command:
        return self._command(home, "plan", f"{host}/{image}:{tag}")

    def convert(self, home: Path, source: str, layout: Path) -> Command:
        """From layout to layout, with an empty store."""
        return self._command(home, "convert", source, f"oci:{layout}:v2", "--level", "3")

    def _exports(self, home: Path, image: str, tag: str) -> tuple[str, ...]:
        return ("--to", f"oci:{home}/layout-{image}-{tag}:{tag}") if self.exports else ()

    def _command(self, home: Path, *words: str) -> Command:
        # Over a link https would be tried first: two round trips that no host of images costs.
        argv = (
            sys.executable,
            "-P",
            "-m",
            "zchunked",
            *words,
            "--plain-http",
            "--format",
            "json",
            *self.options,
        )
        return Command(
            (*argv, "--store", str(home / "store")),
            {"HOME": str(home), "PYTHONPATH": str(self.engine)},
        )


@dataclass(frozen=True, slots=True)
class Skopeo:
    """Copies to an OCI layout; what is there already is not copied again, by whole blobs."""

    name: str = "skopeo"

    def pull(self, home: Path, host: str, image: str, tag: str) -> Command:
        tool = peers.skopeo_new()
        words = (
            "copy",
            "--src-tls-verify=false",
            f"docker://{host}/{image}:{tag}",
            f"oci:{home}/layout:{tag}",
        )
        home.mkdir(parents=True, exist_ok=True)
        return Command((*tool.argv, *words), tool.env)


@dataclass(frozen=True, slots=True)
class Podman:
    """Podman, which pulls partially into overlay storage.

    That is unpacked files: it does more than to keep the bytes.
    """

    name: str = "podman"

    def pull(self, home: Path, host: str, image: str, tag: str) -> Command:
        tool = peers.podman_new(home)
        return Command(
            (*tool.argv, "pull", "--tls-verify=false", f"{host}/{image}:{tag}"), tool.env
        )


@dataclass(frozen=True, slots=True)
class Curl:
    """curl, which knows no registries: what the bytes alone cost.

    Of each blob the first `sizes` bytes, or all.
    """

    blobs: tuple[tuple[str, int | None], ...]
    """Digest, and how much of it."""
    name: str = "curl"

    def pull(self, home: Path, host: str, image: str, tag: str) -> Command:
        home.mkdir(parents=True, exist_ok=True)
        argv = ["curl", "--silent", "--show-error", "--parallel"]
        for number, (digest, size) in enumerate(self.blobs):
            part = ["--range", f"0-{size - 1}"] if size is not None else []
            argv += [
                *(["--next"] if number else []),
                "--fail",
                *part,
                "--output",
                f"{home}/{number}",
            ]
            argv.append(f"http://{host}/v2/{image}/blobs/{digest}")
        return Command(tuple(argv))


@dataclass(frozen=True, slots=True)
class Tools:
    """Download all layers at once, hash blob and tar: the least that proves a diff ID."""

    layers: tuple[str, ...]
    name: str = "curl, zstd, openssl"

    @staticmethod
    def are_here() -> bool:
        return all(map(shutil.which, ("curl", "zstd", "openssl")))

    def pull(self, home: Path, host: str, image: str, tag: str) -> Command:
        urls = [f"http://{host}/v2/{image}/blobs/{digest}" for digest in self.layers]
        prove = (
            "{ curl -sSf $url | tee /dev/fd/3 | zstd -dcq | openssl sha256 >&2; } 3>&1 | "
            "openssl sha256"
        )
        return Command(("sh", "-c", f"for url; do {prove} & done; wait", "sh", *urls))


def keep(home: Path, saved: Path) -> None:
    """Keep what a client remembers.

    It goes back to where it was: podman's storage knows its own path.
    """
    subprocess.run(["cp", "--archive", "--reflink=auto", str(home), str(saved)], check=True)


def forget(home: Path, saved: Path | None = None) -> None:
    """Let a client remember nothing, or what was kept."""
    shutil.rmtree(home, ignore_errors=True)
    if saved:
        keep(saved, home)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Of an image in a registry: config first, then the layers."""

    blobs: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.blobs)

    def whole(self) -> Curl:
        return Curl(tuple((digest, None) for digest, _ in self.blobs))

    def proved(self) -> Tools:
        return Tools(tuple(digest for digest, _ in self.blobs[1:]))

    def parts(self, need: int) -> Curl:
        """As many bytes as are needed, a piece of each blob in proportion to its size."""
        share = min(1.0, need / self.size)
        return Curl(
            tuple((digest, max(1, int(size * share))) for digest, size in self.blobs),
            "curl, ideal ranges",
        )


def manifest(host: str, image: str, tag: str) -> Manifest:
    asked = Request(f"http://{host}/v2/{image}/manifests/{tag}", headers={"Accept": _ACCEPT})
    with urlopen(asked, timeout=30) as answer:
        document = json.load(answer)
    described: Sequence[dict[str, object]] = [document["config"], *document["layers"]]
    return Manifest(tuple((str(row["digest"]), int(str(row["size"]))) for row in described))
