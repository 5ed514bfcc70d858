"""`zpull push`: from a layout or the store to a registry, through kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

import zchunked
from tests.helpers.build.golden import Golden
from tests.helpers.harness import command
from tests.helpers.servers.uploads import UploadRegistry
from tests.push.test_push import MiB
from zchunked.oci.digest import digest_of

DEMO = Golden("demo", "demo-v1")
SOURCE = f"oci:{DEMO.layout}:{DEMO.tag}"


def check(
    registry: UploadRegistry, golden: Golden, repository: str = "team/app", tag: str = "v1"
) -> None:
    data = registry.manifests[repository][tag]
    assert data == golden.blob(golden.expect["manifest"]["digest"])
    document = json.loads(data)
    for one in [document["config"], *document["layers"]]:
        assert registry.blob(repository, one["digest"]) == golden.blob(one["digest"])
    assert registry.broken == []


def test_a_layouts_image_and_then_the_stores(tmp_path: Path) -> None:
    with UploadRegistry() as registry:
        told = command.receipt(tmp_path, "push", SOURCE, f"{registry.host}/team/app:v1")
        check(registry, DEMO)
        assert told["manifest_digest"] == DEMO.expect["manifest"]["digest"]
        assert told["push"]["sent"] == DEMO.expect["image_bytes"] == registry.received
        again = command.zpull(tmp_path, "push", SOURCE, f"{registry.host}/team/app:v2")
        assert again.out == f"{registry.host}/team/app:v2@{told['manifest_digest']}\n"
        assert registry.received == told["push"]["sent"]
        assert "were there" in again.err


def test_only_what_changed_goes_up(tmp_path: Path) -> None:
    with UploadRegistry() as registry:
        command.zpull(tmp_path, "push", SOURCE, f"{registry.host}/team/app:v1")
        before = registry.received
        newer = Golden("demo", "demo-v2")
        told = command.receipt(
            tmp_path, "push", f"oci:{newer.layout}:{newer.tag}", f"{registry.host}/team/app:v2"
        )
        check(registry, newer, tag="v2")
        assert told["push"]["skipped"] == 1
        assert registry.received - before == told["push"]["sent"]


def test_a_push_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Kill -9 while the registry takes its time; what it has then is not sent again."""
    noise = _layout(tmp_path / "noise", os.urandom(24 * MiB))
    with UploadRegistry() as registry:
        registry.seconds_per_block = 0.002
        target = f"{registry.host}/team/app:v1"
        argv = [*command.ARGV, "push", f"oci:{noise}", target]
        with subprocess.Popen(
            argv, env=command.environment(tmp_path), stderr=subprocess.DEVNULL
        ) as process:
            end = time.monotonic() + 60
            while registry.received < 6 * MiB and time.monotonic() < end:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        registry.seconds_per_block = 0.0
        assert registry.received >= 6 * MiB
        told = command.receipt(tmp_path, "push", f"oci:{noise}", target)
        assert told["push"]["resumed_bytes"] > 4 * MiB
        assert registry.received <= 1.03 * 24 * MiB
        assert registry.broken == []
        assert told["manifest_digest"] in registry.manifests["team/app"]


def _layout(folder: Path, data: bytes) -> Path:
    from tests.peers import corpus  # noqa: PLC0415

    corpus.layout(folder, {"t": [corpus.tar({"noise": data})]})
    return folder


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("oci:/somewhere", 2),
        ("s3://bucket/prefix", 2),
        ("docker:app", 2),
        ("127.0.0.1:1/a@sha256:" + "0" * 64, 2),
        ("127.0.0.1:1/a:t", 5),
    ],
)
def test_where_nothing_can_be_pushed(target: str, code: int, tmp_path: Path) -> None:
    ended = command.zpull(tmp_path, "push", SOURCE, target, "--patience", "0", check=False)
    assert ended.code == code
    assert ended.error
    assert ended.out == ""


@pytest.mark.parametrize("name", ["http://host/app", "team/app:v1", "Team/App", ""])
def test_blobs_are_mounted_from_repositories_alone(name: str, tmp_path: Path) -> None:
    golden = Golden("demo", "plain-gzip")
    words = ("push", f"oci:{golden.layout}:{golden.tag}", "127.0.0.1:1/a:t", "--mount-from", name)
    ended = command.zpull(tmp_path, *words, check=False)
    assert ended.code == 2
    assert "without a tag" in ended.err


def test_credentials_are_for_the_target(tmp_path: Path) -> None:
    with UploadRegistry(needs_login=True, elsewhere=True) as registry:
        command.zpull(
            tmp_path, "push", SOURCE, f"{registry.host}/team/app:v1", "--creds", "me:secret"
        )
        check(registry, DEMO)


def _signed(registry: UploadRegistry, repository: str, *, by_api: bool) -> tuple[str, str]:
    """Gives the image that is there a signature; its digest and that of its blob."""
    image = registry.manifests[repository]["v1"]
    blob, config = b"a signature", b"{}"
    for data in (blob, config):
        registry.blobs[repository][registry.digest(data)] = data
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": registry.digest(config),
            "size": len(config),
        },
        "layers": [{"mediaType": "text/plain", "digest": registry.digest(blob), "size": len(blob)}],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": registry.digest(image), "size": len(image),
        },
    }  # fmt: skip
    data = json.dumps(document).encode()
    registry.manifests[repository][registry.digest(data)] = data
    listed = {
        "mediaType": document["mediaType"],
        "digest": registry.digest(data),
        "size": len(data),
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    }
    text = json.dumps(index).encode()
    if by_api:
        registry.referrers[registry.digest(image)] = text
    else:
        registry.manifests[repository][registry.digest(image).replace(":", "-")] = text
    return registry.digest(data), registry.digest(blob)


@pytest.mark.parametrize("by_api", [True, False])
@pytest.mark.parametrize("acknowledges", [True, False])
def test_signatures_go_with_the_image(by_api: bool, acknowledges: bool, tmp_path: Path) -> None:
    with UploadRegistry() as first, UploadRegistry(acknowledges_subjects=acknowledges) as second:
        command.zpull(tmp_path, "push", SOURCE, f"{first.host}/team/app:v1")
        artifact, blob = _signed(first, "team/app", by_api=by_api)
        source, target = f"{first.host}/team/app:v1", f"{second.host}/mine/app:v1"
        command.zpull(tmp_path / "other", "push", source, target, "--with-referrers")
        check(second, DEMO, "mine/app")
        assert artifact in second.manifests["mine/app"]
        assert second.blob("mine/app", blob) == b"a signature"
        fallback = DEMO.expect["manifest"]["digest"].replace(":", "-")
        assert (fallback in second.manifests["mine/app"]) is not acknowledges
        if not acknowledges:
            [entry] = json.loads(second.manifests["mine/app"][fallback])["manifests"]
            assert (entry["digest"], entry["artifactType"]) == (
                artifact,
                "application/vnd.example.signature",
            )
            command.zpull(tmp_path / "other", "push", source, target, "--with-referrers")
            assert len(json.loads(second.manifests["mine/app"][fallback])["manifests"]) == 1


def test_a_program_pushes_and_may_go_to_the_location_itself(tmp_path: Path) -> None:
    with UploadRegistry(elsewhere=True) as registry, zchunked.Client(tmp_path / "store") as client:
        done = client.push(SOURCE, f"{registry.host}/team/app:v1")
        check(registry, DEMO)
        assert (done.uploaded.sent, done.uploaded.sent_twice) == (registry.received, 0)
        assert done.manifest_digest == DEMO.expect["manifest"]["digest"]
        with closing(client.uploads(f"{registry.host}/team/other")) as uploads:
            upload = uploads.begin()
            assert upload is not None
            assert upload.location.startswith("http://127.0.0.1:")
            assert registry.host not in upload.location
            assert "of-this-upload" not in repr(upload)
            assert upload.offset == 0
            body, go = uploads.send(upload, 5, lambda: [b"hello"])
            upload = uploads.resumed(go())
            assert (upload.offset, body.sent) == (5, 5)
            uploads.finish(upload, digest_of(b"hello"))
        assert registry.blob("team/other", digest_of(b"hello")) == b"hello"
        registry.cut_every = 1
        impatient = zchunked.Client(
            tmp_path / "store", options=zchunked.Options(patience=zchunked.Patience(0))
        )
        with closing(impatient), pytest.raises(zchunked.errors.TransferError) as failure:
            impatient.push(SOURCE, f"{registry.host}/team/third:v1")
        assert "run the same command to resume" in str(failure.value)
        assert failure.value.uploaded.blobs == 0


INDEX = Golden("demo", "multi-platform-mixed")


def check_all(registry: UploadRegistry, repository: str, tag: str) -> int:
    """The index is there byte for byte, with everything that it lists; the bytes of all blobs."""
    root = registry.manifests[repository][tag]
    assert root == INDEX.blob(INDEX.expect["index"]["digest"])
    blobs = {}
    for entry in json.loads(root)["manifests"]:
        data = registry.manifests[repository][entry["digest"]]
        assert data == INDEX.blob(entry["digest"])
        document = json.loads(data)
        for one in [document["config"], *document["layers"]]:
            blobs[one["digest"]] = registry.blob(repository, one["digest"])
            assert blobs[one["digest"]] == INDEX.blob(one["digest"])
    assert registry.broken == []
    return sum(map(len, blobs.values()))


def test_a_whole_index_goes_up_with_what_is_no_image(tmp_path: Path) -> None:
    """Two instances of one platform and an attestation are in it.

    Signatures of children are kept.
    """
    source = f"oci:{INDEX.layout}:{INDEX.tag}"
    with UploadRegistry() as first, UploadRegistry() as second:
        told = command.receipt(
            tmp_path, "push", source, f"{first.host}/team/app:v1", "--platform", "all"
        )
        assert told["manifest_digest"] == INDEX.expect["index"]["digest"]
        assert told["push"]["sent"] == check_all(first, "team/app", "v1") == first.received
        again = command.receipt(
            tmp_path, "push", source, f"{first.host}/team/app:v2", "--platform", "all"
        )
        assert (again["push"]["sent"], first.received) == (0, told["push"]["sent"])
        artifact, blob = _signed(first, "team/app", by_api=True)
        words = (
            "push",
            f"{first.host}/team/app:v1",
            f"{second.host}/mine/app:v1",
            "--platform",
            "all",
        )
        told = command.receipt(tmp_path / "other", *words, "--with-referrers")
        assert told["push"]["sent"] == check_all(second, "mine/app", "v1") + len(
            b"a signature"
        ) + len(b"{}")
        assert (artifact in second.manifests["mine/app"], second.blob("mine/app", blob)) == (
            True,
            b"a signature",
        )


def test_all_platforms_of_what_is_no_index_are_its_one_image(tmp_path: Path) -> None:
    with UploadRegistry() as registry:
        command.zpull(tmp_path, "push", SOURCE, f"{registry.host}/team/app:v1", "--platform", "all")
        check(registry, DEMO)


def test_an_index_that_is_spoilt_on_the_disk_is_healed_and_pushed(tmp_path: Path) -> None:
    source = f"oci:{INDEX.layout}:{INDEX.tag}"
    with UploadRegistry() as first, UploadRegistry() as second:
        command.zpull(tmp_path, "push", source, f"{first.host}/team/app:v1", "--platform", "all")
        words = (
            "push",
            f"{first.host}/team/app:v1",
            f"{second.host}/mine/app:v1",
            "--platform",
            "all",
        )
        second.cut_every = 1
        command.zpull(tmp_path / "other", *words, "--patience", "0", check=False)
        second.cut_every = None
        files = [
            one for one in (tmp_path / "other" / "store" / "blobs").rglob("*") if one.is_file()
        ]
        largest = max(files, key=lambda one: one.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
        told = command.zpull(tmp_path / "other", *words)
        assert "is damaged" in told.err
        check_all(second, "mine/app", "v1")
