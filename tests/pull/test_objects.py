"""`zpull fetch` and `zpull locate`.

One object, proved, to standard output; and where objects can be had.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import (
    Index,
    chunked_layer,
    gzip_layer,
    image,
    index,
    make_tar,
    write_layout,
)
from tests.helpers.harness.command import ARGV, environment, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers import faults
from tests.helpers.servers.faults import on
from tests.helpers.servers.registry import Registry
from zchunked.errors import NotFoundError
from zchunked.oci.digest import Digest
from zchunked.oci.reference import LayoutReference, parse_image
from zchunked.sources.blob_urls import place_in_layout
from zchunked.store import Store

AMD = image(
    [chunked_layer(make_tar(files(1, 10, 5000))), gzip_layer(make_tar(files(2, 30, 50_000)))]
)
ARM = image([gzip_layer(make_tar(files(3, 2, 500)))], platform="linux/arm64")
BOTH: Index = index([AMD, ARM])
IMAGES = {"amd": AMD, "both": BOTH}
BIG = AMD.layers[1]
NOTHING = "sha256:" + hashlib.sha256(b"").hexdigest()
ABSENT = "sha256:" + "0" * 64


def fetch(home: Path, *args: str, env: dict[str, str] | None = None) -> tuple[int, bytes, str]:
    done = subprocess.run(
        [*ARGV, "fetch", *args],
        env=environment(home, env),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


def test_the_manifest_is_what_was_served(tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        assert fetch(tmp_path, registry.reference("both"))[:2] == (0, BOTH.manifest)
        assert fetch(tmp_path, registry.reference("both"), "--platform", "linux/arm64")[:2] == (
            0,
            ARM.manifest,
        )
        assert fetch(tmp_path, registry.reference("amd"), "-q") == (0, AMD.manifest, "")
        asked = registry.accounts.count()
        assert fetch(tmp_path, f"{registry.host}/demo@{AMD.digest}")[:2] == (0, AMD.manifest)
        assert registry.accounts.count() == asked


@pytest.mark.parametrize("redirect", [False, True])
@pytest.mark.parametrize("single", ["206", "200", "400", "416", "501", "200-then-206"])
def test_any_object_comes_by_its_digest_and_a_second_time_from_the_store(
    redirect: bool, single: Any, tmp_path: Path
) -> None:
    wanted = {layer.digest: layer.blob for layer in AMD.layers}
    wanted |= {AMD.config_digest: AMD.config, AMD.digest: AMD.manifest, BOTH.digest: BOTH.manifest}
    with Registry(IMAGES, redirect=redirect, single_range=single, auth="bearer") as registry:
        repository = registry.reference("no-such-tag")
        for digest, data in wanted.items():
            assert fetch(tmp_path, repository, digest)[:2] == (0, data)
        asked = registry.accounts.count()
        for digest, data in wanted.items():
            assert fetch(tmp_path, repository, digest) == (0, data, "")
        assert fetch(tmp_path, repository, BIG.digest, "--offline")[:2] == (0, BIG.blob)
        assert registry.accounts.count() == asked
        assert not registry.accounts.cdn_saw_authorization


def test_what_a_pull_brought_is_there_and_its_sizes_are_known(tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        zpull(tmp_path, registry.reference("amd"))
        asked = registry.accounts.count()
        for digest in (AMD.config_digest, AMD.digest, BIG.digest):
            assert fetch(tmp_path, registry.reference("amd"), digest)[0] == 0
        assert fetch(tmp_path, registry.reference("amd"), "--offline")[:2] == (0, AMD.manifest)
        assert registry.accounts.count() == asked


def test_a_hint_saves_the_question_what_it_is(tmp_path: Path) -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    with Registry(IMAGES) as registry:
        assert fetch(tmp_path, registry.reference("amd"), ARM.digest, "--media-type", kind)[:2] == (
            0,
            ARM.manifest,
        )
        assert registry.accounts.count() == 1


def test_a_blob_whose_size_the_server_does_not_say_is_found_through_the_manifests(
    tmp_path: Path,
) -> None:
    silent = faults.headers(Content_Range=None, Content_Length=None)
    with Registry(IMAGES, faults=[on("blob", silent, faults.chunked(), times=1)]) as registry:
        assert fetch(tmp_path, registry.reference("both"), BIG.digest)[:2] == (0, BIG.blob)


@pytest.mark.parametrize("what", [ABSENT, NOTHING])
def test_what_is_not_there_is_not_found(what: str, tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        code, out, err = fetch(tmp_path, registry.reference("amd"), what)
    assert (code, out) == (3, b"")
    assert "neither a blob nor a manifest" in err


def test_bad_words_are_usage_errors(tmp_path: Path) -> None:
    assert fetch(tmp_path, "example.com/app", "sha256:12")[0] == 2
    assert fetch(tmp_path, "example.com/APP")[0] == 2
    assert fetch(tmp_path)[0] == 2


def test_a_link_that_breaks_is_forgiven_and_no_byte_comes_twice(tmp_path: Path) -> None:
    with Registry(
        IMAGES, faults=[on("blob", faults.reset(after=100_000), nth=range(2, 9))]
    ) as registry:
        assert fetch(tmp_path, registry.reference("amd"), BIG.digest)[:2] == (0, BIG.blob)
        assert registry.accounts.sent_twice(BIG.digest) <= 1


def test_a_killed_fetch_goes_on_where_it_was(tmp_path: Path) -> None:
    with Registry(IMAGES, rate=1_000_000) as registry:
        argv = [*ARGV, "fetch", registry.reference("amd"), BIG.digest]
        with subprocess.Popen(
            argv, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as one:
            while registry.accounts.body_bytes < BIG.size // 3:
                time.sleep(0.002)
            one.send_signal(signal.SIGKILL)
            assert one.communicate()[0] == b""
        before = registry.accounts.body_bytes
        assert fetch(tmp_path, registry.reference("amd"), BIG.digest)[:2] == (0, BIG.blob)
        assert registry.accounts.body_bytes - before < BIG.size * 0.9


def test_giving_up_says_what_is_here(tmp_path: Path) -> None:
    with Registry(
        IMAGES, faults=[on("blob", faults.reset(after=1000), nth=range(2, 99))]
    ) as registry:
        code, out, err = fetch(tmp_path, registry.reference("amd"), BIG.digest, "--patience", "0")
    assert (code, out) == (5, b"")
    assert f"of {BIG.size} bytes are here" in err
    assert "run the same command to resume" in err


def test_damage_on_the_way_is_fetched_again_and_twice_is_the_end(tmp_path: Path) -> None:
    once, ever = [on("blob", faults.flip(5000), nth=2)], [on("blob", faults.flip(5000))]
    with Registry(IMAGES, faults=once) as registry:
        assert fetch(tmp_path, registry.reference("amd"), BIG.digest, "-j", "1")[:2] == (
            0,
            BIG.blob,
        )
    with Registry(IMAGES, faults=ever) as registry:
        home = tmp_path / "other"
        code, out, err = fetch(home, registry.reference("amd"), BIG.digest)
        assert (code, out) == (6, b"")
        assert BIG.digest in err
    with Store(home / "store") as store:
        assert store.covered(Digest(BIG.digest)) == []
    with Registry(IMAGES, faults=[on("manifest", faults.replaced(b"{}"))]) as registry:
        code, out, _ = fetch(home, f"{registry.host}/demo@{AMD.digest}")
        assert (code, out) == (6, b"")


def test_damage_in_the_store_is_exit_code_6(tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        fetch(tmp_path, registry.reference("amd"), BIG.digest)
        for path in (tmp_path / "store" / "blobs").iterdir():
            if path.stat().st_size >= BIG.size // 20:
                data = path.read_bytes()
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        code, out, err = fetch(tmp_path, registry.reference("amd"), BIG.digest)
        assert code == 6
        assert out != BIG.blob
        assert "zpull verify" in err
        zpull(tmp_path, "verify", check=False)
        assert fetch(tmp_path, registry.reference("amd"), BIG.digest)[:2] == (0, BIG.blob)


def test_a_reader_that_has_seen_enough_hears_nothing(tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        argv = [*ARGV, "fetch", "-q", registry.reference("amd"), BIG.digest]
        for unbuffered in ({}, {"PYTHONUNBUFFERED": "1"}):
            with subprocess.Popen(
                argv,
                env=environment(tmp_path, unbuffered),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as sender:
                assert sender.stdout is not None
                assert sender.stderr is not None
                sender.stdout.read(10)
                sender.stdout.close()
                assert sender.stderr.read() == b""


@pytest.mark.parametrize(("to", "says"), [(">&-", "is closed"), (">/dev/full", "the disk is full")])
def test_a_place_that_takes_nothing_is_local_trouble(to: str, says: str, tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        command = " ".join([*ARGV, "fetch", "-q", registry.reference("amd"), BIG.digest, to])
        ended = subprocess.run(
            command, shell=True, env=environment(tmp_path), capture_output=True, check=False
        )
    assert ended.returncode == 8
    assert says in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


def test_offline_says_what_is_missing(tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        zpull(tmp_path, registry.reference("amd"), "--max-bytes", "1", check=False)
        with Store(tmp_path / "store") as store:
            store.set_image(
                registry.reference("amd"), "linux/amd64", Digest(AMD.digest), Digest(AMD.digest)
            )
        asked = registry.accounts.count()
        code, out, err = fetch(tmp_path, registry.reference("amd"), BIG.digest, "--offline")
        assert (code, out) == (3, b"")
        assert f"{BIG.size} of {BIG.size} bytes" in err
        assert fetch(tmp_path, registry.reference("amd"), ABSENT, "--offline")[0] == 3
        assert registry.accounts.count() == asked


# ── locate ──


@pytest.mark.parametrize("single", ["206", "200", "400"])
def test_every_blob_has_a_url_and_none_is_downloaded(single: Any, tmp_path: Path) -> None:
    with Registry(IMAGES, redirect=True, single_range=single) as registry:
        told = json.loads(
            zpull(tmp_path, "locate", registry.reference("amd"), "--format", "json").out
        )
        assert [one["digest"] for one in told] == [
            AMD.config_digest,
            *(layer.digest for layer in AMD.layers),
        ]
        assert all(one["url"].startswith(f"http://{registry.cdn}/blobs/") for one in told)
        assert [one["size"] for one in told] == [
            len(AMD.config),
            *(layer.size for layer in AMD.layers),
        ]
        assert registry.accounts.blob_bytes == 0
        assert not any(request.host == "cdn" for request in registry.accounts.requests)
        text = zpull(tmp_path, "locate", registry.reference("amd")).out.splitlines()
        assert [line.split()[0] for line in text] == [one["digest"] for one in told]


def test_a_registry_that_serves_itself_is_the_answer(tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        ended = zpull(tmp_path, "locate", registry.reference("amd"), BIG.digest, "-q")
        assert ended.out == f"{registry.url}/v2/demo/blobs/{BIG.digest}\n"
        assert ended.err == ""
        assert registry.accounts.blob_bytes <= 1
        assert registry.accounts.count() == 1
        assert zpull(tmp_path, "locate", registry.reference("amd"), ABSENT, check=False).code == 3
        assert zpull(tmp_path, "locate", registry.reference("absent"), check=False).code == 3


def test_the_urls_expiry_is_told(tmp_path: Path) -> None:
    target = (
        "https://s3.example/b?X-Amz-Date=20261121T114500Z&X-Amz-Expires=900&X-Amz-Signature=abc"
    )
    redirect = [on("blob", faults.fail(307), faults.headers(Location=target))]
    with Registry(IMAGES, faults=redirect) as registry:
        ended = zpull(tmp_path, "locate", registry.reference("amd"), BIG.digest)
        assert ended.out == f"{BIG.digest}  {target}  until 2026-11-21T12:00:00Z\n"
        ended = zpull(tmp_path, "locate", registry.reference("amd"), BIG.digest, "--format", "json")
        assert json.loads(ended.out)[0]["expires"] == "2026-11-21T12:00:00Z"


def test_locating_forgives_a_bad_moment(tmp_path: Path) -> None:
    with Registry(
        IMAGES, redirect=True, faults=[on("blob", faults.fail(503), times=2)]
    ) as registry:
        assert zpull(tmp_path, "locate", registry.reference("amd")).out.count("\n") == 3


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("oci+https://cdn.example/images:v1", "https://cdn.example/images/blobs/sha256/"),
        ("oci+http://localhost:80/a/b", "http://localhost:80/a/b/blobs/sha256/"),
        ("s3://bucket/prefix:v1", "s3://bucket/prefix/blobs/sha256/"),
    ],
)
def test_layouts_have_their_blobs_at_known_places(reference: str, place: str) -> None:
    parsed = parse_image(reference)
    assert isinstance(parsed, LayoutReference)
    assert place_in_layout(parsed, Digest(ABSENT)) == place + "0" * 64


def test_a_blob_in_a_directory_has_a_path(tmp_path: Path) -> None:
    parsed = LayoutReference("oci", str(tmp_path), None, None)
    with pytest.raises(NotFoundError):
        place_in_layout(parsed, Digest(ABSENT))
    file = tmp_path / "blobs" / "sha256" / ("0" * 64)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert place_in_layout(parsed, Digest(ABSENT)) == str(file)


@pytest.mark.parametrize("scheme", ["oci", "oci+http"])
def test_objects_of_layouts_come_as_well(scheme: str, tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "layout", {"amd": AMD})
    with Registry(IMAGES) as registry:
        base = (
            f"oci:{folder}"
            if scheme == "oci"
            else registry.layout_url.replace("http", "oci+http", 1)
        )
        assert fetch(tmp_path, f"{base}:amd")[:2] == (0, AMD.manifest)
        for digest, data in (
            (BIG.digest, BIG.blob),
            (AMD.config_digest, AMD.config),
            (AMD.digest, AMD.manifest),
        ):
            assert fetch(tmp_path, f"{base}:amd", digest)[:2] == (0, data)
        assert fetch(tmp_path, f"{base}:amd", ABSENT)[:2] == (3, b"")
        urls = [json.loads(zpull(tmp_path, "locate", f"{base}:amd", "--format", "json").out)]
    places = [one["url"] for one in urls[0]]
    where = str(folder) if scheme == "oci" else registry.layout_url
    assert places == [
        f"{where}/blobs/sha256/{digest[7:]}"
        for digest in (AMD.config_digest, *(layer.digest for layer in AMD.layers))
    ]
