"""Which image is meant.

Through indexes of any depth, beside artifacts, and where lists lie about sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import (
    Document,
    Json,
    dumps,
    gzip_layer,
    image,
    index,
    layout,
    make_tar,
    write_layout,
)
from tests.helpers.harness.command import receipt, zpull
from tests.helpers.harness.pulls import AMD64, Outcome, open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.errors import ArtifactError, LimitError, NotFoundError
from zchunked.events import Noted, Warned
from zchunked.oci.platform import Platform
from zchunked.store import Store

APP = image([gzip_layer(make_tar({"app": b"amd64"}))])
ARM = image([gzip_layer(make_tar({"app": b"arm64"}))], platform="linux/arm64")
EMPTY = "application/vnd.oci.empty.v1+json"


def _artifact(manifest: Json) -> None:
    manifest["config"]["mediaType"] = EMPTY
    manifest["artifactType"] = "application/vnd.example.sbom"


ARTIFACT = image([gzip_layer(make_tar({"sbom": b"{}"}))], edit_manifest=_artifact)


def silent(*inside: Document) -> Document:
    """An index that says nothing of platforms."""

    def edit(value: Json) -> None:
        for entry in value["manifests"]:
            del entry["platform"]

    return index(inside, edit=edit)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path) as found:
        yield found


def pulled(store: Store, content: Document, platform: Platform = AMD64) -> Outcome:
    return pull(MemorySource(layout({"t": content})), store, platform=platform)


@pytest.mark.parametrize("content", [
    silent(APP), silent(silent(APP)), silent(silent(silent(APP))),
    silent(silent(silent(silent(APP)))), silent(index([ARM, APP])),
    index([ARM, silent(index([APP]))]), silent(ARTIFACT, APP), silent(APP, ARTIFACT),
    silent(silent(ARTIFACT), APP), silent(silent(ARTIFACT), silent(index([ARM])), silent(APP)),
    index([ARTIFACT, APP]),
], ids=str)  # fmt: skip
def test_the_image_is_found(store: Store, content: Document) -> None:
    found = pulled(store, content).receipt
    assert found.manifest_digest == APP.digest
    assert found.index_digest == content.digest
    assert found.warnings == []


def test_a_manifest_alone_has_no_index(store: Store) -> None:
    assert pulled(store, APP).receipt.index_digest is None


def test_where_nothing_fits_it_says_what_is_offered(store: Store) -> None:
    for content in (index([ARM]), silent(index([ARM])), silent(silent(ARTIFACT), index([ARM]))):
        with pytest.raises(NotFoundError, match="no image for linux/amd64; it offers linux/arm64"):
            pulled(store, content)
    with pytest.raises(NotFoundError, match="2 do not say for what they are"):
        pulled(store, silent(APP, ARM))
    with pytest.raises(ArtifactError, match="this is an artifact"):
        pulled(store, silent(ARTIFACT))


def test_the_search_is_bounded(store: Store) -> None:
    deep: Document = APP
    for _ in range(12):
        deep = silent(deep)
    with pytest.raises(LimitError, match="indexes within indexes"):
        pulled(store, deep)
    many = [
        image([gzip_layer(make_tar({"n": b"%d" % n}))], edit_manifest=_artifact) for n in range(40)
    ]
    with pytest.raises(LimitError, match="among the first 32 manifests"):
        pulled(store, silent(*many))


@pytest.mark.parametrize("change", [-190, 190])
def test_a_list_with_wrong_sizes_and_right_digests_is_pulled_with_a_note(
    store: Store, change: int
) -> None:
    def edit(value: Json) -> None:
        value["manifests"][0]["size"] += change

    outcome = pulled(store, index([APP], edit=edit))
    assert outcome.receipt.manifest_digest == APP.digest
    (note,) = [
        event.text
        for event in outcome.events
        if isinstance(event, Noted) and "lists manifest" in event.text
    ]
    assert f"with {len(APP.manifest) + change} bytes, it has {len(APP.manifest)}" in note


# ── platforms ──


@pytest.mark.parametrize("want", [Platform("linux", "arm64"), Platform("windows", "amd64")])
def test_an_image_for_another_platform_than_asked_is_pulled_with_a_warning(
    store: Store, want: Platform
) -> None:
    outcome = pulled(store, APP, want)
    (warning,) = outcome.receipt.warnings
    assert f"the image is for linux/amd64, not for {want}" in warning
    assert [event.text for event in outcome.events if isinstance(event, Warned)] == [warning]


@pytest.mark.parametrize(("has", "want"), [
    ("linux/arm/v6", "linux/arm/v7"), ("linux/amd64", "linux/amd64/v3"),
    ("linux/arm64/v8", "linux/arm64"), ("linux", "linux/arm64"),
])  # fmt: skip
def test_one_that_runs_there_or_does_not_say_is_no_reason_to_warn(
    store: Store, has: str, want: str
) -> None:
    def edit(config: Json) -> None:
        config.pop("architecture", None) if has == "linux" else None

    one = image(
        [gzip_layer(make_tar({"a": b"b"}))],
        platform=has if "/" in has else "linux/amd64",
        edit_config=edit,
    )
    assert pulled(store, one, Platform(*want.split("/"))).receipt.warnings == []


@pytest.mark.parametrize("quiet", [(), ("-q",), ("--progress", "none")])
def test_the_command_warns_whatever_the_progress(tmp_path: Path, quiet: tuple[str, ...]) -> None:
    folder = write_layout(tmp_path / "layout", {"t": APP})
    done = zpull(tmp_path, f"oci:{folder}:t", "--platform", "linux/arm64", *quiet)
    assert "zpull: warning: the image is for linux/amd64, not for linux/arm64" in done.err


# ── layouts ──


def entries(folder: Path, *documents: Document, **names: str) -> None:
    """An `index.json` that says nothing but what it must."""
    listed = [
        {"mediaType": one.media_type, "digest": one.digest, "size": len(one.manifest)}
        for one in documents
    ]
    for entry, name in zip(listed, names.values(), strict=False):
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    (folder / "index.json").write_bytes(
        dumps({"schemaVersion": 2, "mediaType": None, "manifests": listed})
    )


@pytest.mark.parametrize("documents", [
    (ARTIFACT, APP), (APP, ARTIFACT), (index([APP, ARM]), APP, ARM),
    (ARM, index([APP, ARM]), ARTIFACT, APP), (silent(silent(APP)),),
    (silent(silent(APP)), ARTIFACT),
], ids=str)  # fmt: skip
def test_the_only_image_of_a_layout_is_found_beside_what_is_none(
    tmp_path: Path, documents: tuple[Document, ...]
) -> None:
    content: dict[str, Document] = {str(number): one for number, one in enumerate(documents)}
    folder = write_layout(tmp_path / "layout", content)
    entries(folder, *documents)
    assert receipt(tmp_path, f"oci:{folder}")["manifest_digest"] == APP.digest
    entries(folder, *documents, **{str(number): "v1" for number in range(len(documents))})
    assert receipt(tmp_path, f"oci:{folder}:v1")["manifest_digest"] == APP.digest


def test_two_images_stay_a_choice(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "layout", {"a": APP, "b": ARM})
    entries(folder, APP, ARM)
    assert "so say which" in zpull(tmp_path, f"oci:{folder}", check=False).error
