"""An image handed over while it is pulled.

To an engine that looks at what it gets, and to none that is gone.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.rough import files
from tests.helpers.servers.answers import Answer
from tests.helpers.servers.faults import on
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import until
from zchunked import Client
from zchunked.errors import LocalError, NotFoundError, UsageError
from zchunked.export.engines.engine_commands import Engine, Offer
from zchunked.export.engines.engine_names import EngineTarget, Kind
from zchunked.oci.reference import parse_image
from zchunked.operations.destinations.writing import EngineDestination
from zchunked.operations.pulling import ImagePull
from zchunked.receipt import Receipt

IMAGE = image([gzip_layer(make_tar(files(1, 30, 9000))), gzip_layer(make_tar(files(2, 30, 9000)))])
FIRST, LATE = IMAGE.layers


class FakeEngine(Engine):
    """It pulls as `pull_from` does, and notes what it was asked to do."""

    def __init__(self, pull_from: Callable[[Offer], None], kind: Kind = "docker") -> None:
        self.target = EngineTarget(kind, None, text=f"{kind}:")
        self.is_remote, self._reads_zstd = False, True
        self._pull_from = pull_from
        self.names: list[str] = []

    def check(self) -> None:
        pass

    def clean(self) -> None:
        pass

    def pull(self, offer: Offer, name: str, is_over: Callable[[], bool]) -> None:
        self.names.append(name)
        self._pull_from(offer)


def get(offer: Offer, what: str) -> bytes:
    host, _, port = offer.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    with closing(connection):
        connection.request("GET", f"/v2/{offer.repository}/{what}")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise LocalError(f"{answer.status}: {body!r}")
        return body


def all_of(offer: Offer) -> None:
    assert get(offer, f"manifests/{offer.digest}") == IMAGE.manifest
    assert get(offer, f"blobs/{IMAGE.config_digest}") == IMAGE.config
    for layer in IMAGE.layers:
        assert get(offer, f"blobs/{layer.digest}") == layer.blob


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with closing(Client(tmp_path / "store")) as client:
        yield client


def begun(client: Client, registry: Registry, engine: Engine) -> ImagePull:
    reference = parse_image(registry.reference("t"))
    return ImagePull(
        client._context(None), reference, [EngineDestination(engine)], Receipt(str(reference))
    )


def test_an_engine_has_the_first_layer_before_the_last_is_fetched(client: Client) -> None:
    go_on = threading.Event()

    def late(answer: Answer, _: object) -> Answer:
        assert go_on.wait(30)
        return answer

    def pull(offer: Offer) -> None:
        assert get(offer, f"blobs/{FIRST.digest}") == FIRST.blob
        go_on.set()
        all_of(offer)

    engine = FakeEngine(pull)
    with Registry(
        {"t": IMAGE}, faults=[on("any", late, when=lambda one: one.digest == LATE.digest)]
    ) as registry:
        with closing(begun(client, registry, engine)) as work:
            work.fetch()
            work.deliver(force=False)
        assert engine.names == [registry.reference("t")]
        assert [one.to for one in work.receipt.exports] == ["docker:"]


def test_podman_starts_while_the_manifest_is_asked_for(client: Client) -> None:
    """And gets what there is to get, or hears that there is nothing."""
    has_started, said = threading.Event(), []

    def late(answer: Answer, _: object) -> Answer:
        assert has_started.wait(30)
        return answer

    def pull(offer: Offer) -> None:
        has_started.set()
        try:
            assert get(offer, "manifests/t") == IMAGE.manifest
        except LocalError as error:
            said.append(str(error))
            raise
        all_of(replace(offer, digest=IMAGE.digest))

    slow = on("any", late, when=lambda one: one.kind == "manifest")
    with Registry({"t": IMAGE}, faults=[slow]) as registry:
        with closing(begun(client, registry, FakeEngine(pull, "podman"))) as work:
            work.fetch()
            work.deliver(force=False)
        assert not said
        has_started.clear()
        registry.content.tags.clear()
        with (
            closing(begun(client, registry, FakeEngine(pull, "podman"))) as work,
            pytest.raises(NotFoundError),
        ):
            work.fetch()
    assert "was not found" in said[0]


def test_a_pull_that_fails_ends_the_engines(client: Client) -> None:
    said: list[str] = []

    def pull(offer: Offer) -> None:
        try:
            all_of(offer)
        except (http.client.HTTPException, OSError, LocalError) as error:
            said.append(str(error))
            raise LocalError("the engine failed") from error

    content = {"t": IMAGE}
    with Registry(content) as registry:
        del registry.content.blobs[LATE.digest]
        with (
            closing(begun(client, registry, FakeEngine(pull))) as work,
            pytest.raises(NotFoundError),
        ):
            work.fetch()
    assert said


def test_an_engine_that_was_too_impatient_gets_it_once_more(client: Client) -> None:
    tries: list[Offer] = []

    def pull(offer: Offer) -> None:
        tries.append(offer)
        get(offer, f"manifests/{offer.digest}")
        if len(tries) == 1:
            raise LocalError("i/o timeout")
        all_of(offer)

    with (
        Registry({"t": IMAGE}) as registry,
        closing(begun(client, registry, FakeEngine(pull))) as work,
    ):
        work.fetch()
        work.deliver(force=False)
    assert len(tries) == 2


def test_nobody_else_gets_anything(client: Client) -> None:
    def pull(offer: Offer) -> None:
        for wrong in ("zpull-transfer/" + "0" * 32, "demo", "library/demo"):
            with pytest.raises(LocalError, match="404"):
                get(
                    Offer(offer.address, wrong, offer.digest, offer.platform),
                    f"manifests/{offer.digest}",
                )
        with pytest.raises(LocalError, match="404"):
            get(offer, "blobs/sha256:" + "0" * 64)
        all_of(offer)

    with (
        Registry({"t": IMAGE}) as registry,
        closing(begun(client, registry, FakeEngine(pull))) as work,
    ):
        work.fetch()
        work.deliver(force=False)


def test_an_engine_answers_while_its_caller_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is waited for before a registry is asked for anything."""
    script = tmp_path / "podman"
    script.write_text(f"#!/bin/sh\nread -r word <{tmp_path}/go\necho $word >&2; exit 1\n")
    script.chmod(0o755)
    os.mkfifo(tmp_path / "go")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    engine = Engine(EngineTarget("podman", None, text="podman:"))
    (tmp_path / "go").write_text("stopped\n")
    with pytest.raises(LocalError, match=r"^podman: stopped$"):
        engine.check()
    threading.Thread(target=(tmp_path / "go").write_text, args=("stopped\n",)).start()
    with (
        Registry({"t": IMAGE}) as registry,
        closing(Client(tmp_path / "store")) as client,
        pytest.raises(LocalError, match=r"^podman: stopped$"),
    ):
        client.pull(registry.reference("t"), to=["podman:", f"oci:{tmp_path}/layout"])
    assert registry.accounts.count() == 0


def test_several_images_do_not_get_one_name(client: Client) -> None:
    for to in ("docker:app", "podman:quay.io/org/app:v1", "containerd:k8s.io/quay.io/org/app"):
        with pytest.raises(UsageError, match="names one image, and there are several"):
            client.pull_all(["registry.invalid/a", "registry.invalid/b"], to=to)


def test_docker_is_asked_by_a_shell_that_tidies_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is ended in the middle of its pull."""
    log = tmp_path / "log"
    script = tmp_path / "docker"
    script.write_text(
        f'#!/bin/sh\necho "$@" >>{log}\ncase $1 in context) echo unix:///x;; info) echo Debian;; '
        "pull) exec sleep 60;; esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    engine = Engine(EngineTarget("docker", None, text="docker:"))
    engine.check()
    began = time.monotonic()
    with pytest.raises(LocalError):
        engine.pull(
            Offer("127.0.0.1:1", "zpull-transfer/x", "sha256:0", "linux/amd64"),
            "a/b:c",
            lambda: "pull" in log.read_text(),
        )
    assert time.monotonic() - began < 30
    assert (
        log.read_text().splitlines()[-1] == "rmi --no-prune 127.0.0.1:1/zpull-transfer/x@sha256:0"
    )


def test_an_engine_asks_nobody_who_was_killed(tmp_path: Path) -> None:
    """It would ask for 75 s if it is docker, and later pulls of the same layers wait for that."""
    ready, tidied = tmp_path / "ready", tmp_path / "tidied"
    script = f"sh -c 'echo >{ready}; exec sleep 60'; echo >{tidied}"
    code = (
        "from zchunked.export.engines.program import Program\n"
        f"Program('docker', 'docker').run_script([{script!r}], lambda: False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    until(ready.exists)
    process.kill()
    process.wait()
    until(tidied.exists, 10)
