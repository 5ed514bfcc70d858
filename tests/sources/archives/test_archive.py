"""Archives as they are in the field, as images to pull.

Docker's of all ages, piped, compressed, hostile.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import select
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.helpers.build.front import Image, chunked_layer, gzip_layer, image, make_tar, read_layout
from tests.helpers.build.stored import keep_image
from tests.helpers.harness.command import ARGV, environment, receipt, zpull
from tests.helpers.harness.rough import started
from zchunked.errors import FormatError, LimitError, NotFoundError
from zchunked.export.destination import parse_destination
from zchunked.export.write import export
from zchunked.limits import Limits
from zchunked.oci.reference import LayoutReference, parse_image
from zchunked.sources.archives.archive import TarObjects
from zchunked.store import Store

BASE, APP = (gzip_layer(make_tar({name: name.encode() * 2000})) for name in ("base", "app"))
IMAGE = image([BASE, APP, BASE])
OTHER = image([APP])
NAME = "example.com/app:v1"
Members = dict[str, bytes | str]
"""Content, or where a symbolic link leads."""


def tar_of(members: Members) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def listing(
    one: Image, layers: list[str], *names: str | None, config: str = "config.json"
) -> bytes:
    return json.dumps(
        [{"Config": config, "RepoTags": list(names) or None, "Layers": layers}]
    ).encode()


def old(one: Image = IMAGE) -> Members:
    """As docker wrote until 24.

    A folder for each layer, and a link where a layer is one that was written before.
    """
    return {
        "1/layer.tar": one.layers[0].tar, "1/VERSION": b"1.0", "1/json": b"{}",
        "2/layer.tar": one.layers[1].tar, "3/layer.tar": "../1/layer.tar",
        "config.json": one.config, "repositories": b"{}",
        "manifest.json": listing(one, [f"{n}/layer.tar" for n in (1, 2, 3)], NAME),
    }  # fmt: skip


def blob(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def new(one: Image = IMAGE, *, packed: bool = False) -> Members:
    """As docker writes since 25.

    Blobs by their digests; compressed ones with the containerd store.
    """
    blobs: Members = {
        blob(layer.digest if packed else layer.diff_id): layer.blob if packed else layer.tar
        for layer in one.layers
    }
    names = [blob(layer.digest if packed else layer.diff_id) for layer in one.layers]
    return {**blobs, blob(one.config_digest): one.config,
            "manifest.json": listing(one, names, NAME, config=blob(one.config_digest))}  # fmt: skip


ARCHIVES: dict[str, Members] = {"old": old(), "new": new(), "packed": new(packed=True)}


def pulled(home: Path, reference: str, **how: bytes) -> None:
    """What was pulled is the image, layer by layer."""
    out = home / "out"
    if how:
        done = subprocess.run(
            [*ARGV, reference, "--to", f"oci:{out}:t"], env=environment(home),
            capture_output=True, input=how["stdin"], check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    else:
        zpull(home, reference, "--to", f"oci:{out}:t")
    found = read_layout(out)
    manifest = json.loads(found.manifests[found.tags["t"]][1])
    assert manifest["config"]["digest"] == IMAGE.config_digest


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("name", ["", f":{NAME}"])
def test_docker_archives_of_all_ages(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(ARCHIVES[kind]))
    pulled(tmp_path, f"docker-archive:{path}{name}")
    again = receipt(tmp_path, f"docker-archive:{path}{name}")
    assert {layer["mode"] for layer in again["layers"]} == {"cached"}
    assert again["bytes"]["fetched"] == again["bytes"]["wasted"] == 0
    assert [layer["diff_id"] for layer in again["layers"]] == IMAGE.diff_ids


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress,
    "gzip of several members": lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
}  # fmt: skip


@pytest.mark.parametrize("pack", PACKERS)
def test_an_archive_comes_through_a_pipe(tmp_path: Path, pack: str) -> None:
    pulled(tmp_path, "docker-archive:-", stdin=PACKERS[pack](tar_of(old())))
    assert list((tmp_path / "store").glob("archive-*")) == []


def test_a_compressed_file_and_a_pipe_with_a_name_too(tmp_path: Path) -> None:
    path = tmp_path / "app.tar.gz"
    path.write_bytes(gzip.compress(tar_of(old())))
    pulled(tmp_path, f"docker-archive:{path}")
    command = f"{' '.join(ARGV)} docker-archive:<(gunzip < {path}) -q"
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_was_exported_can_be_pulled_again(tmp_path: Path) -> None:
    one = image([chunked_layer(make_tar({"app": b"one" * 1000}))])
    with Store(tmp_path / "first") as store:
        stored = keep_image(store, one)
        for kind in ("oci-archive", "docker-archive"):
            export(store, stored, parse_destination(f"{kind}:{tmp_path}/{kind}"))
    for kind, path, name in [
        ("oci-archive", "oci-archive", ":v1"),
        ("docker-archive", "docker-archive", ":example.com/app:v1"),
        ("docker-archive", "oci-archive", ""),
    ]:  # fmt: skip
        assert receipt(tmp_path, f"{kind}:{tmp_path}/{path}{name}")["image_id"] == one.config_digest


def test_of_several_images_one_has_to_be_named(tmp_path: Path) -> None:
    both = old() | {"other.json": OTHER.config, "o.tar": OTHER.layers[0].tar}
    both["manifest.json"] = json.dumps([
        {"Config": "config.json", "RepoTags": ["app:v1"],
         "Layers": [f"{n}/layer.tar" for n in (1, 2, 3)]},
        {"Config": "other.json", "RepoTags": ["host/other:x", "host/other:y"], "Layers": ["o.tar"]},
    ]).encode()  # fmt: skip
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(both))
    for name, want in (
        ("app:v1", IMAGE),
        ("docker.io/library/app:v1", IMAGE),
        ("host/other:y", OTHER),
    ):
        assert receipt(tmp_path, f"docker-archive:{path}:{name}")["image_id"] == want.config_digest
    for name in ("", ":app:v2"):
        refused = zpull(tmp_path, f"docker-archive:{path}{name}", check=False)
        assert refused.code == 3
        assert "docker.io/library/app:v1" in refused.error


def change(**members: bytes | str | None) -> bytes:
    made = {
        **old(),
        **{name.replace("__", "/").replace("_", "."): content for name, content in members.items()},
    }
    return tar_of({name: content for name, content in made.items() if content is not None})


def test_waiting_for_a_pipe_can_be_interrupted(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with started(tmp_path, "docker-archive:-", stdin=reading) as process:
        os.write(writing, tar_of(old())[:2000])
        while select.select([reading], [], [], 0)[0]:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    os.close(reading)
    os.close(writing)


BAD: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 7, "not a tar"),
    "no tar": (b"<html>" * 1000, 7, "not a tar"),
    "a bomb": (gzip.compress(bytes(64 << 20)), 7, "not a tar"),
    "bzip2": (bz2.compress(tar_of(old())), 7, "compressed with bzip2"),
    "cut short": (tar_of(old())[:3000], 7, ""),
    "half a gzip": (gzip.compress(tar_of(old()))[:-500], 7, ""),
    "no listing": (change(manifest_json=None), 7, "no manifest.json"),
    "a broken listing": (change(manifest_json=b"{"), 7, "manifest.json is not what it should be"),
    "a list of nothing": (change(manifest_json=b"[]"), 3, "no image"),
    "a missing layer": (change(**{"2__layer_tar": None}), 7, "which is not in it"),
    "a link out": (change(**{"2__layer_tar": "../../../../etc/passwd"}), 7, "which is not in it"),
    "an absolute link": (change(**{"2__layer_tar": "/etc/passwd"}), 7, "which is not in it"),
    "links in a circle": (
        change(**{"2__layer_tar": "../3/layer.tar", "3__layer_tar": "../2/layer.tar"}), 7, "links"
    ),
    "too few layers": (change(manifest_json=listing(IMAGE, ["1/layer.tar"])), 7, "diff IDs"),
    "another layer": (change(**{"2__layer_tar": bytes(4096)}), 6, ""),
    "a config that is none": (change(config_json=b"[]"), 7, "config"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path, bad: str) -> None:
    data, code, words = BAD[bad]
    path = tmp_path / "app.tar"
    path.write_bytes(data)
    refused = zpull(tmp_path, f"docker-archive:{path}", check=False)
    assert refused.code == code, refused.err
    assert words in refused.error
    assert os.listdir(tmp_path / "store" / "blobs") == [] or code == 6  # noqa: PTH208


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    for path in ("absent", "."):
        with pytest.raises(NotFoundError):
            TarObjects(tmp_path / path, "here", spool=None).get("index.json", 10)


def objects(tmp_path: Path, data: bytes, limits: Limits) -> TarObjects:
    (tmp_path / "x.tar").write_bytes(data)
    return TarObjects(tmp_path / "x.tar", "here", spool=tmp_path, limits=limits)


def test_numbers_of_an_archive_meet_our_limits(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="members"):
        objects(tmp_path, tar_of(old()), Limits(archive_members_count=3)).get("x", 1)
    with pytest.raises(LimitError, match="limit is 1"):
        objects(tmp_path, tar_of(old()), Limits()).get("manifest.json", 1)
    with pytest.raises(LimitError, match=r"^here: "):
        objects(tmp_path, gzip.compress(bytes(1 << 20)), Limits(tar_bytes=1000)).get("x", 1)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(FormatError, match="a header of"):
        objects(tmp_path, header.tobuf(tarfile.USTAR_FORMAT) + bytes(10240), Limits()).get("x", 1)


@pytest.mark.parametrize(("text", "scheme", "base", "tag"), [
    ("oci-archive:app.tar", "oci-archive", "app.tar", None),
    ("oci-archive:-", "oci-archive", "-", None),
    ("oci-archive:/a/app.tar:host/app:v1", "oci-archive", "/a/app.tar", "host/app:v1"),
    ("docker-archive:-:app", "docker-archive", "-", "docker.io/library/app:latest"),
    ("docker-archive:x.tar:host:5000/app:v1", "docker-archive", "x.tar", "host:5000/app:v1"),
])  # fmt: skip
def test_archives_are_named_like_targets(
    text: str, scheme: str, base: str, tag: str | None
) -> None:
    found = parse_image(text)
    assert isinstance(found, LayoutReference)
    assert (found.scheme, found.base, found.tag, found.is_local) == (scheme, base, tag, True)
    assert parse_image(str(found)) == found
