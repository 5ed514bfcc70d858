"""Run docker, podman and containerd by their own commands: pull, load, save.

An engine is given an image in one of two ways: it pulls from a registry on loopback that holds just
this image, so that only layers it lacks travel; or, where it cannot reach our loopback, an archive
is streamed into its `load`. docker and podman give an image as an archive, by their `save`. podman
and containerd learn for this one pull that the image's registry is there, and call it by its own
name from the start. docker has to call it something else first; a shell that outlives us takes that
name away.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

from zchunked.errors import FormatError, LocalError
from zchunked.export.engines.engine_names import EngineTarget, Kind, repository_of
from zchunked.oci.quoting import printable

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
_LOOK_SECONDS = 0.1
_FAREWELL_SECONDS = 20.0
_PULL_AND_TAG = (
    "trap : INT TERM; "
    '"$0" pull --quiet "$1" && "$0" tag "$1" "$2"; code=$?; "$0" rmi --no-prune "$1" >/dev/null '
    "2>&1; exit $code"
)
_AND_REMOVE = 'trap : INT TERM; folder=$1; shift; "$0" "$@"; code=$?; rm -rf "$folder"; exit $code'
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
    """An engine that answered. Its methods raise LocalError with the engine's own message."""

    def __init__(self, target: EngineTarget) -> None:
        """LocalError where the engine is missing or does not answer, before any fetch."""
        self.target = target
        program = shutil.which(_PROGRAM[target.kind])
        if program is None:
            raise LocalError(
                f"{target.text.rstrip(':')}: there is no {_PROGRAM[target.kind]} on this "
                f"machine; install {target.kind}, or use an archive instead (oci-archive:FILE, "
                "docker-archive:FILE)"
            )
        self._argv = [program, *(("-n", target.namespace) if target.kind == "containerd" else ())]
        answer = self._run(*_PROBE[target.kind], seconds=_PROBE_SECONDS)
        self.is_remote = answer.strip() == "true" if target.kind == "podman" else self._is_far()
        major = re.match(r"[0-9]+", answer) if target.kind == "docker" else None
        self._reads_zstd = major is None or int(major[0]) >= _DOCKER_READS_ZSTD

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
        where = self._run(
            "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", may_fail=True
        ).strip()
        if where and not where.startswith("unix://"):
            return True
        return "Docker Desktop" in self._run("info", "--format", "{{.OperatingSystem}}")

    def _run(self, *words: str, may_fail: bool = False, seconds: float | None = None) -> str:
        argv = [*self._argv, *words]
        try:
            done = subprocess.run(
                argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LocalError(
                f"{self.target.kind} does not answer: `{words[0]}` took more than {seconds:g} s"
            ) from error
        except OSError as error:
            raise LocalError(f"cannot run {argv[0]}: {error.strerror}") from error
        if done.returncode and not may_fail:
            raise LocalError(
                f"{self.target.kind}: {self._complaint(done.stderr or done.stdout, words)}"
            )
        return done.stdout.decode("utf-8", "replace")

    def _complaint(self, said: bytes, words: tuple[str, ...]) -> str:
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        return (
            printable(lines[-1][:500])
            if lines
            else f"`{' '.join(words[:2])}` failed and said nothing"
        )

    # ── by a registry on loopback ──

    def clean(self) -> None:
        """Remove names that a transfer which was killed has left behind."""
        if self.target.kind == "docker":
            names = self._run(
                "images", "--digests", "--format", "{{.Repository}}@{{.Digest}}", may_fail=True
            )
            for name in filter(_LEFT_OVER.fullmatch, names.split()):
                self._run("rmi", "--no-prune", name, may_fail=True)

    def pull(self, offer: Offer, name: str, is_over: Callable[[], bool]) -> None:
        """Have the engine pull the offer and call it `name`. No other name stays after a kill.

        Ends early, with LocalError, once `is_over` holds. For any thread.
        """
        kind, program = self.target.kind, self._argv[0]
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
            argv = [_AND_REMOVE, program, str(folder), *self._argv[1:], *words]
        self._wait(["/bin/sh", "-c", *argv], is_over)

    def _wait(self, argv: list[str], is_over: Callable[[], bool]) -> None:
        """A process group of its own: neither Ctrl-C nor our end keeps it from tidying up."""
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise LocalError(f"cannot run {argv[0]}: {error.strerror}") from error
        with process:
            said = self._outcome(process, is_over)
        if process.returncode:
            raise LocalError(f"{self.target.kind}: {self._complaint(said, ('pull',))}")

    def _outcome(self, process: subprocess.Popen[bytes], is_over: Callable[[], bool]) -> bytes:
        while True:
            try:
                out, said = process.communicate(timeout=_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if is_over():
                    return self._end(process)
            else:
                return said or out

    def _end(self, process: subprocess.Popen[bytes]) -> bytes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            return process.communicate(timeout=_FAREWELL_SECONDS)[1]
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return process.communicate()[1]

    def _started(self, *words: str, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [*self._argv, *words], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise LocalError(f"cannot run {self._argv[0]}: {error.strerror}") from error

    # ── by an archive ──

    @contextmanager
    def loading(self) -> Iterator[IO[bytes]]:
        """Write an image archive that carries its name.

        Raises at the end if the engine did not take it.
        """
        words = ("images", "import", "-") if self.target.kind == "containerd" else ("load",)
        with self._started(*words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
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
            raise LocalError(f"{self.target.kind}: {self._complaint(said, words)}") from broken

    # ── what it has ──

    def find(self, name: str) -> SavedImage:
        """LocalError with what the engine says where it has no such image."""
        form = "{{.Id}} {{.ManifestType}}" if self.target.kind == "podman" else "{{.Id}}"
        image_id, _, manifest_type = (
            self._run("image", "inspect", "--format", form, name).strip().partition(" ")
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
        with self._started(*words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
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
            raise LocalError(
                f"{self.target.kind}: {self._complaint(said, tuple(words))}"
            ) from broken
        if broken is not None:
            raise broken
