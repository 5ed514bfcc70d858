"""Run docker, podman and containerd by their own commands: pull, load, save.

An engine is given an image in one of two ways: it pulls from a registry on loopback that holds just
this image, so that only layers it lacks travel; or, where it cannot reach our loopback, an archive
is streamed into its `load`. docker and podman give an image as an archive, by their `save`. podman
and containerd learn for this one pull that the image's registry is there, and call it by its own
name from the start. docker has to call it something else first; a shell that outlives us takes that
name away.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

from zchunked.errors import FormatError, LocalError
from zchunked.export.engines.engine_names import EngineTarget, Kind, repository_of
from zchunked.export.engines.program import NOTHING, PIPE, Program

TRANSFER = "zpull-transfer"
"""First part of an image's name on the loopback registry, removed again after the transfer."""

_PROGRAM: dict[Kind, str] = {"docker": "docker", "podman": "podman", "containerd": "ctr"}
_PROBE: dict[Kind, tuple[str, ...]] = {
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("info", "--format", "{{.Host.ServiceIsRemote}}"),
    "containerd": ("version",),
}
_LEFT_OVER = re.compile(rf"127\.0\.0\.1:\d+/{TRANSFER}/\S*", re.ASCII)
_PROBE_SECONDS = 30
_DOCKER_READS_ZSTD = 23  # before, it says "archive/tar: invalid tar header"
_PULL_AND_TAG = (
    '"$0" pull --quiet "$1" && "$0" tag "$1" "$2"; code=$?; "$0" rmi --no-prune "$1" >/dev/null '
    "2>&1; exit $code"
)
_AND_REMOVE = 'folder=$1; shift; "$0" "$@"; code=$?; rm -rf "$folder"; exit $code'
_REGISTRIES = """\
[[registry]]
prefix = "{repository}"
location = "{address}/{there}"
insecure = true
"""
_HOSTS = """\
server = "http://{address}/v2/{there}"
[host."http://{address}/v2/{there}"]
capabilities = ["pull", "resolve"]
override_path = true
"""


@dataclass(frozen=True, slots=True)
class Offer:
    """Where an engine finds an image.

    `address` is HOST:PORT of a registry on loopback, spoken to without TLS. `digest`, `platform`:
    of the image, empty while they are not known.
    """

    address: str
    repository: str
    digest: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image that an engine has.

    `is_oci`: it is saved as an OCI archive, otherwise as docker's.
    """

    image_id: str
    is_oci: bool


class Engine:
    """An engine of this machine. Its methods raise LocalError with the engine's own message."""

    def __init__(self, target: EngineTarget) -> None:
        """Ask it whether it is there; it answers meanwhile. LocalError where it is missing."""
        self.target = target
        program = shutil.which(_PROGRAM[target.kind])
        if program is None:
            raise LocalError(
                f"{target.text.rstrip(':')}: there is no {_PROGRAM[target.kind]} on this "
                f"machine; install {target.kind}, or use an archive instead (oci-archive:FILE, "
                "docker-archive:FILE)"
            )
        first = ("-n", target.namespace) if target.kind == "containerd" else ()
        self._program = Program(target.kind, program, *first)
        self._asked = self._program.start(*_PROBE[target.kind])

    def check(self) -> None:
        """Wait for its answer: LocalError where it does not give one. Before any fetch."""
        _ = self._answer

    @cached_property
    def _answer(self) -> str:
        words = _PROBE[self.target.kind]
        return self._program.result(self._asked, words, seconds=_PROBE_SECONDS)

    @cached_property
    def is_remote(self) -> bool:
        """Whether it runs elsewhere, and so does not share the loopback."""
        return self._answer.strip() == "true" if self.target.kind == "podman" else self._is_far()

    @cached_property
    def _reads_zstd(self) -> bool:
        major = re.match(r"[0-9]+", self._answer) if self.target.kind == "docker" else None
        return major is None or int(major[0]) >= _DOCKER_READS_ZSTD

    def unpacks(self, media_types: Iterable[str]) -> bool:
        """Whether it unpacks layers of these types. What it is loaded with is unpacked already."""
        return self._reads_zstd or not any(one.endswith("zstd") for one in media_types)

    @property
    def may_start_early(self) -> bool:
        """Whether it pulls by a name alone: then it starts while the manifest is asked for."""
        return self.target.kind == "podman"

    def _is_far(self) -> bool:
        """Whether docker runs on another machine or a virtual one, which has its own loopback."""
        if self.target.kind != "docker":
            return False
        where = self._program.run(
            "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", may_fail=True
        ).strip()
        if where and not where.startswith("unix://"):
            return True
        return "Docker Desktop" in self._program.run("info", "--format", "{{.OperatingSystem}}")

    # ── by a registry on loopback ──

    def clean(self) -> None:
        """Remove names that a transfer which was killed has left behind."""
        if self.target.kind == "docker":
            names = self._program.run(
                "images", "--digests", "--format", "{{.Repository}}@{{.Digest}}", may_fail=True
            )
            for name in filter(_LEFT_OVER.fullmatch, names.split()):
                self._program.run("rmi", "--no-prune", name, may_fail=True)

    def pull(self, offer: Offer, name: str, is_over: Callable[[], bool]) -> None:
        """Have the engine pull the offer and call it `name`. No other name stays after a kill.

        Ends early, with LocalError, once `is_over` holds. For any thread.
        """
        kind, (program, *first) = self.target.kind, self._program.argv
        if kind == "docker":
            argv = [
                _PULL_AND_TAG,
                program,
                f"{offer.address}/{offer.repository}@{offer.digest}",
                name,
            ]
        elif kind == "podman":
            folder = Path(mkdtemp(prefix="zpull-"))
            conf = folder / "registries.conf"
            text = _REGISTRIES.format(
                repository=repository_of(name), address=offer.address, there=offer.repository
            )
            conf.write_text(text)
            argv = [
                _AND_REMOVE,
                program,
                str(folder),
                "--registries-conf",
                str(conf),
                "pull",
                "--quiet",
                name,
            ]
        else:
            folder = Path(mkdtemp(prefix="zpull-"))
            (folder / "_default").mkdir()
            text = _HOSTS.format(address=offer.address, there=offer.repository)
            (folder / "_default" / "hosts.toml").write_text(text)
            words = [
                "images",
                "pull",
                "--hosts-dir",
                str(folder),
                "--platform",
                offer.platform,
                name,
            ]
            argv = [_AND_REMOVE, program, str(folder), *first, *words]
        self._program.run_script(argv, is_over)

    # ── by an archive ──

    @contextmanager
    def loading(self) -> Iterator[IO[bytes]]:
        """Write an image archive that carries its name.

        Raises at the end if the engine did not take it.
        """
        words = ("images", "import", "-") if self.target.kind == "containerd" else ("load",)
        with self._program.start(*words, stdin=PIPE, stdout=NOTHING) as process:
            assert process.stdin
            assert process.stderr
            broken: OSError | None = None
            try:
                yield process.stdin
                process.stdin.close()
            except BrokenPipeError as error:
                broken = error
            except BaseException:
                process.kill()
                raise
            said = process.stderr.read()
        if process.returncode or broken is not None:
            raise self._program.failure(said, words) from broken

    # ── what it has ──

    def find(self, name: str) -> SavedImage:
        """LocalError with what the engine says where it has no such image."""
        form = "{{.Id}} {{.ManifestType}}" if self.target.kind == "podman" else "{{.Id}}"
        image_id, _, manifest_type = (
            self._program.run("image", "inspect", "--format", form, name).strip().partition(" ")
        )
        # To another kind of archive than its manifest podman writes another config, which has
        # another digest.
        return SavedImage(
            image_id, is_oci=manifest_type == "application/vnd.oci.image.manifest.v1+json"
        )

    @contextmanager
    def saving(self, image: SavedImage) -> Iterator[int]:
        """A pipe with the image's archive, to be read to the end.

        Raises LocalError as the engine says.
        """
        words = ["save", image.image_id]
        if self.target.kind == "podman":
            words[1:1] = [
                "--quiet",
                "--format",
                "oci-archive" if image.is_oci else "docker-archive",
            ]
        with self._program.start(*words) as process:
            assert process.stdout
            assert process.stderr
            broken: FormatError | None = None
            try:
                yield process.stdout.fileno()
            except FormatError as error:  # perhaps since the engine ended early
                broken = error
            except BaseException:
                process.kill()
                raise
            said = process.stderr.read()
        if process.returncode:
            raise self._program.failure(said, words) from broken
        if broken is not None:
            raise broken
