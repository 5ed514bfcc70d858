"""Mirrors that are down, lie, lack things, refuse or die.

The pull goes on, and the receipt counts them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import chunked_layer, image, layout, make_tar, tar_layer
from tests.helpers.build.golden import Golden
from tests.helpers.build.images import Layout
from tests.helpers.build.tar import Entry
from tests.helpers.harness.command import Ended, zpull
from tests.helpers.servers.answers import parse_ranges
from tests.helpers.servers.faults import Fault, cut, fail, flip, on, refuse, replaced, reset
from tests.helpers.servers.registry import Registry

DEMO = Golden("demo", "demo-v1")
LAYER = DEMO.expect["layers"][1]
NOBODY = "127.0.0.1:1"


def conf(home: Path, primary: str, *mirrors: str, more: str = "") -> Path:
    """A registries.conf with these hosts as mirrors."""
    tables = "".join([f'[[registry.mirror]]\nlocation = "{mirror}"\n' for mirror in mirrors])
    path = home / "registries.conf"
    path.write_text(f'[[registry]]\nlocation = "{primary}"\n{more}\n{tables}')
    return path


def run(
    home: Path, primary: Registry, *mirrors: Registry | str, options: Sequence[str] = (), **how: Any
) -> Ended:
    hosts = [one if isinstance(one, str) else one.host for one in mirrors]
    words = [primary.reference("demo-v1"), "--format", "json", "--patience", "0", *options]
    return zpull(
        home,
        *words,
        env={"CONTAINERS_REGISTRIES_CONF": str(conf(home, primary.host, *hosts))},
        **how,
    )


def agreed(ended: Ended, *servers: Registry) -> Mapping[str, Any]:
    """The receipt of a pull that went well, held against what all servers say."""
    receipt = ended.receipt
    spent = receipt["bytes"]
    assert receipt["image_id"] == DEMO.expect["config"]["digest"]
    assert spent["fetched"] == sum(server.accounts.body_bytes for server in servers)
    assert spent["fetched"] == spent["needed"] + spent["metadata"] + spent["gap"] + spent["wasted"]
    assert receipt["requests"] == sum(server.accounts.count() for server in servers)
    assert receipt["retries"] == 0, "no karma is spent on a mirror"
    return receipt


@pytest.fixture(
    params=[(), ("--exact",), ("--max-gap", "0")], ids=["as planned", "whole", "in parts"]
)
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def test_a_good_mirror_is_all_that_is_asked(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Registry(DEMO.layout) as primary, Registry(DEMO.layout) as mirror:
        receipt = agreed(run(tmp_path, primary, mirror, options=options), primary, mirror)
        assert primary.accounts.count() == 0
        assert receipt["reference"] == primary.reference("demo-v1"), (
            "the image keeps the name it was asked for"
        )
        assert receipt["bytes"]["wasted"] == 0


def test_a_mirror_that_is_down_is_said_once_and_costs_nothing(tmp_path: Path) -> None:
    with Registry(DEMO.layout) as primary:
        ended = run(tmp_path, primary, NOBODY)
        agreed(ended, primary)
        assert ended.err.count("going on without mirror") == 1
        assert f"{NOBODY}: connection refused" in ended.err


def test_mirrors_are_asked_in_their_order(tmp_path: Path) -> None:
    with (
        Registry(DEMO.layout) as primary,
        Registry(DEMO.layout) as first,
        Registry(DEMO.layout) as second,
    ):
        agreed(run(tmp_path, primary, NOBODY, first, second), primary, first, second)
        assert first.accounts.count()
        assert primary.accounts.count() == second.accounts.count() == 0


def test_a_mirror_serves_where_the_primary_is_out_of_reach(tmp_path: Path) -> None:
    with Registry(DEMO.layout) as mirror:
        path = conf(tmp_path, "registry.invalid:5000", NOBODY, mirror.host)
        words = ("--format", "json", "--registries-conf", path, "--patience", "0")
        ended = zpull(tmp_path, "registry.invalid:5000/demo:demo-v1", *words)
        agreed(ended, mirror)


def test_a_mirror_without_the_image(tmp_path: Path) -> None:
    with Registry(DEMO.layout) as primary, Registry(DEMO.layout, repository="other") as mirror:
        agreed(run(tmp_path, primary, mirror), primary, mirror)
        assert mirror.accounts.blob_bytes == 0


def test_a_mirror_that_lacks_one_layer_serves_the_others(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    def lacks(request: Any) -> bool:
        return bool(request.digest == LAYER["digest"])

    with (
        Registry(DEMO.layout) as primary,
        Registry(DEMO.layout, faults=[on(("blob", "toc"), fail(404), when=lacks)]) as mirror,
    ):
        agreed(run(tmp_path, primary, mirror, options=options), primary, mirror)
        assert set(primary.accounts.bytes_by_blob) == {LAYER["digest"]}
        assert LAYER["digest"] not in mirror.accounts.bytes_by_blob


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("manifest", fail(500)),
        ("manifest", fail(429, retry_after=3600)),
        ("manifest", fail(403)),
        ("manifest", replaced(b"<html>sign in</html>")),
        ("config", fail(502)),
        ("toc", reset(after=100)),
        ("blob", cut(after=1000)),
        ("blob", fail(401)),
        ("any", refuse(how="rst")),
        ("any", fail(302)),
        ("any", fail(400)),
    ],
)
def test_a_mirror_that_fails_in_any_way_is_followed_by_the_next(
    kind: Any, fault: Fault, tmp_path: Path
) -> None:
    with (
        Registry(DEMO.layout) as primary,
        Registry(DEMO.layout, faults=[on(kind, fault)]) as mirror,
    ):
        agreed(run(tmp_path, primary, mirror), primary, mirror)


@pytest.mark.parametrize("kind", ["manifest", "config", "toc", "blob"])
def test_a_mirror_that_lies_is_dropped_and_that_is_said(
    kind: Any, tmp_path: Path, options: tuple[str, ...]
) -> None:
    at = {"toc": LAYER["toc"]["offset"] + 50, "blob": 5000}.get(kind, 40)
    wrong = replaced(b'{"schemaVersion":2}') if kind == "manifest" else flip(at)
    with (
        Registry(DEMO.layout) as primary,
        Registry(
            DEMO.layout, faults=[on(("blob", "toc") if kind == "blob" else kind, wrong)]
        ) as mirror,
    ):
        ended = run(tmp_path, primary, mirror, options=options)
        receipt = agreed(ended, primary, mirror)
        if kind != "toc":  # by itself it is asked for only where something is in the store
            assert ended.err.count("what it sent is not what was promised") == 1
            assert receipt["bytes"]["wasted"] > 0


def test_a_primary_that_lies_is_followed_by_a_mirror_that_was_set_aside(tmp_path: Path) -> None:
    """Three failures in a row set it aside; then it is the only one that has the right bytes."""
    with (
        Registry(DEMO.layout, faults=[on("config", flip(40))]) as primary,
        Registry(DEMO.layout, faults=[on("config", fail(503), nth=1)]) as mirror,
    ):
        agreed(run(tmp_path, primary, mirror), primary, mirror)


def test_a_mirror_that_dies_in_the_middle_of_a_layer(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The primary is asked for the missing bytes alone."""

    def is_big(request: Any) -> bool:
        size = int(LAYER["size"])
        spans = parse_ranges(request.range, size) or [(0, size)]
        return (
            bool(request.digest == LAYER["digest"])
            and sum(end - start for start, end in spans) > 60_000
        )

    faults = [
        on("any", refuse(), after_bytes=60_000),
        on(("blob", "toc"), reset(after=50_000), when=is_big),
    ]
    with Registry(DEMO.layout) as primary, Registry(DEMO.layout, faults=faults) as mirror:
        receipt = agreed(
            run(tmp_path, primary, mirror, options=["-j", "1", *options]), primary, mirror
        )
        assert mirror.accounts.blob_bytes > 40_000
        assert primary.accounts.blob_bytes > 40_000
        assert receipt["bytes"]["wasted"] == 0


def test_a_primary_without_ranges_sends_the_whole_after_a_mirror_has_died(tmp_path: Path) -> None:
    with (
        Registry(DEMO.layout, single_range="501", multi_range="501") as primary,
        Registry(DEMO.layout, faults=[on("any", refuse(), after_bytes=60_000)]) as mirror,
    ):
        agreed(run(tmp_path, primary, mirror, options=["--max-gap", "0"]), primary, mirror)
        assert primary.accounts.blob_bytes > 200_000


def test_what_was_typed_for_one_host_is_not_for_its_mirrors(tmp_path: Path) -> None:
    with (
        Registry(DEMO.layout, auth="basic", credentials=("me", "s3cr3t")) as primary,
        Registry(DEMO.layout, auth="basic", credentials=("me", "s3cr3t")) as mirror,
    ):
        ended = run(tmp_path, primary, mirror, options=["--creds", "me:s3cr3t"])
        agreed(ended, primary, mirror)
        assert not any(request.authorized for request in mirror.accounts.requests)
        assert "s3cr3t" not in ended.err


def test_a_mirror_has_credentials_of_its_own(tmp_path: Path) -> None:
    with (
        Registry(DEMO.layout) as primary,
        Registry(DEMO.layout, auth="bearer", credentials=("me", "s3cr3t")) as mirror,
    ):
        auth = tmp_path / "auth.json"
        auth.write_text(
            json.dumps({"auths": {mirror.host: {"username": "me", "password": "s3cr3t"}}})
        )
        agreed(run(tmp_path, primary, mirror, options=["--authfile", str(auth)]), primary, mirror)
        assert primary.accounts.count() == 0


def test_when_all_have_failed_all_are_named(tmp_path: Path) -> None:
    with Registry(DEMO.layout, faults=[on("any", fail(503))]) as primary:
        ended = run(tmp_path, primary, NOBODY, check=False)
        assert ended.code == 5
        assert "503" in ended.error
        assert f"mirror {NOBODY}/demo: {NOBODY}: connection refused" in ended.error
    with (
        Registry(DEMO.layout, repository="other") as primary,
        Registry(DEMO.layout, repository="other") as mirror,
    ):
        path = conf(tmp_path, primary.host, NOBODY, mirror.host)
        ended = zpull(
            tmp_path,
            f"{primary.host}/demo:x",
            "--registries-conf",
            path,
            "--explain-retries",
            check=False,
        )
        assert ended.code == 3, (
            "nobody waits for a mirror that is down when the registry says that there is nothing"
        )
        assert ended.err.count("again in") == 0


def test_a_liar_alone_is_asked_once_more_and_no_oftener(tmp_path: Path) -> None:
    with Registry(DEMO.layout, faults=[on("config", flip(40))]) as mirror:
        path = conf(tmp_path, NOBODY, mirror.host)
        ended = zpull(
            tmp_path, f"{NOBODY}/demo:demo-v1", "--registries-conf", path, "--patience", "0",
            check=False,
        )  # fmt: skip
        assert ended.code in (5, 6)
        assert mirror.accounts.count("config") == 2


def test_digest_only_mirrors_are_not_asked_for_tags(tmp_path: Path) -> None:
    with Registry(DEMO.layout) as primary, Registry(DEMO.layout) as mirror:
        path = conf(tmp_path, primary.host, mirror.host, more="mirror-by-digest-only = true")
        words = ("--format", "json", "--registries-conf", path)
        zpull(tmp_path, primary.reference("demo-v1"), *words)
        assert mirror.accounts.count() == 0
        digest = DEMO.expect["manifest"]["digest"]
        zpull(tmp_path, f"{primary.host}/demo@{digest}", *words, "--store", tmp_path / "other")
        assert mirror.accounts.count() > 0


def test_what_is_blocked_is_denied_before_anything_is_asked(tmp_path: Path) -> None:
    with Registry(DEMO.layout) as primary:
        path = conf(tmp_path, primary.host, more="blocked = true")
        ended = zpull(
            tmp_path,
            primary.reference("demo-v1"),
            env={"ZPULL_REGISTRIES_CONF": str(path)},
            check=False,
        )
        assert (ended.code, primary.accounts.count()) == (4, 0)
        assert f"is blocked: {path} says so" in ended.error


def test_a_file_not_understood_ends_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("[[registry]\n")
    ended = zpull(tmp_path, "r.example/x:t", "--registries-conf", path, check=False)
    assert ended.code == 8
    assert f"invalid {path}: expected TOML" in ended.error
    assert "line 1" in ended.error
    assert (
        zpull(tmp_path, "r.example/x:t", "--registries-conf", "missing.conf", check=False).code == 2
    )


# ── other places that a manifest names ──


def foreign(url: str, *, chunked: bool = False) -> Layout:
    """An image whose one layer is listed with a URL."""
    tar = make_tar([Entry("data", data=bytes(range(256)) * 400)])
    layer = chunked_layer(tar) if chunked else tar_layer(tar)

    def edit(manifest: Any) -> None:
        manifest["layers"][0]["urls"] = ["ftp://nobody.invalid/x", "http://127.0.0.1:1/x", url]

    return layout({"v1": image([layer], edit_manifest=edit)})


@pytest.mark.parametrize("chunked", [False, True])
def test_the_urls_of_a_layer_are_asked_when_the_registry_has_none_and_see_no_credentials(
    chunked: bool, tmp_path: Path
) -> None:
    content = foreign("http://127.0.0.1:9/x", chunked=chunked)
    digest = max(content.blobs, key=lambda one: b"rootfs" not in content.blobs[one])
    with Registry(content) as elsewhere:
        listed = foreign(
            f"{elsewhere.layout_url}/blobs/{digest.replace(':', '/')}", chunked=chunked
        )
        missing = on(("blob", "toc"), fail(404))
        with Registry(listed, auth="basic", faults=[missing]) as primary:
            ended = zpull(
                tmp_path, primary.reference("v1"), "--creds", "user:secret", "--format", "json"
            )
            receipt = ended.receipt
            assert (
                receipt["bytes"]["fetched"]
                == primary.accounts.body_bytes + elsewhere.accounts.body_bytes
            )
            assert receipt["requests"] == primary.accounts.count() + elsewhere.accounts.count()
            assert not any(request.authorized for request in elsewhere.accounts.requests)
            assert elsewhere.accounts.blob_bytes > 100


def test_the_urls_of_a_layer_are_left_alone_while_the_registry_has_it(tmp_path: Path) -> None:
    with Registry(foreign("http://127.0.0.1:1/x")) as primary:
        zpull(tmp_path, primary.reference("v1"))
    with (
        Registry(foreign("http://127.0.0.1:1/x"), faults=[on("blob", fail(404))]) as mirror,
        Registry(foreign("http://127.0.0.1:1/x")) as primary,
    ):
        path = conf(tmp_path, primary.host, mirror.host)
        zpull(
            tmp_path,
            primary.reference("v1"),
            "--registries-conf",
            path,
            "--store",
            tmp_path / "b",
            "--patience",
            "0",
        )
