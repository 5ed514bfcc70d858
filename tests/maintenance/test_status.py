"""What `zpull status` says of pulls under way, killed ones and finished ones."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.build.front import Image
from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import kill_after, large, run, started
from tests.helpers.servers.registry import Registry
from zchunked.maintenance.status import status
from zchunked.oci.digest import Digest
from zchunked.store import Store


def test_a_running_pull_is_told_with_what_is_not_committed_yet(tmp_path: Path) -> None:
    made: Image = large()
    layer = made.layers[0]
    with Store(tmp_path) as puller, Store(tmp_path) as other:
        manifest = puller.put(made.manifest)
        puller.pulls.begin("host/app:v1", "linux/amd64", manifest, 0)
        writer = puller.writer(Digest(layer.digest), layer.size)
        writer.write(0, layer.blob[:1000])
        (found,) = status(other, now=lambda: puller.pulls.rows()[0].began + 2)
        writer.close()
    assert (found.reference, found.platform, found.is_running) == (
        "host/app:v1",
        "linux/amd64",
        True,
    )
    assert [(one.here, one.size) for one in found.layers] == [
        (1000 if one is layer else 0, one.size) for one in made.layers
    ]
    assert found.rate == 500


def test_a_killed_pull_is_interrupted_until_it_is_finished(tmp_path: Path) -> None:
    with Registry({"big": large()}, rate=2_000_000) as registry:
        with started(tmp_path, registry.reference("big")) as process:
            assert kill_after(process, registry, 1_000_000)
            process.wait()
        (told,) = json.loads(zpull(tmp_path, "status", "--format", "json").out)
        assert told["reference"] == registry.reference("big")
        assert not told["is_running"]
        assert 500_000 < told["here"] < told["size"]
        said = zpull(tmp_path, "status", "--watch").out
        assert f"{registry.reference('big')}  linux/amd64  interrupted" in said
        run(tmp_path, registry, "big")
        assert zpull(tmp_path, "status", "-q").out == ""
        assert json.loads(zpull(tmp_path, "status", "--format", "json").out) == []
