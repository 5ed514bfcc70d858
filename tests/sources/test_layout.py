"""Which image of a layout is meant, and what a layout may not do to us."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build.front import OCI_INDEX, OCI_MANIFEST, Json, Layout, dumps, write_layout
from zchunked.errors import FormatError, IntegrityError, LimitError, NotFoundError
from zchunked.interfaces import Pieces
from zchunked.limits import Limits
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import Descriptor, Index, candidates, parse_document
from zchunked.oci.platform import Platform
from zchunked.oci.reference import LayoutReference
from zchunked.ranges import ByteRange
from zchunked.sources.layout import LayoutSource, blob_path, find_image, parse_index
from zchunked.sources.objects.directory import DirectoryObjects

REF_NAME, IMAGE_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
MANIFEST = b'{"schemaVersion":2}'
DIGEST = digest_of(MANIFEST)
DATA = b"content of a blob" * 100
BLOB = Descriptor("", digest_of(DATA), len(DATA))


def entry(number: int, platform: str = "", media_type: str = OCI_MANIFEST, **names: str) -> Json:
    keys = {"ref": REF_NAME, "name": IMAGE_NAME}
    found: Json = {"mediaType": media_type, "digest": f"sha256:{number:064x}", "size": 10}
    if platform:
        found["platform"] = dict(
            zip(("os", "architecture", "variant"), platform.split("/"), strict=False)
        )
    return found | (
        {"annotations": {keys[key]: name for key, name in names.items()}} if names else {}
    )


def index_of(*entries: Mapping[str, object]) -> Index:
    return parse_index(dumps({"schemaVersion": 2, "manifests": list(entries)}), "here")


def found(tag: str | None, *entries: Json) -> list[int]:
    return [
        int(one.descriptor.digest[7:], 16) for one in find_image(index_of(*entries), tag, "here")
    ]


# ── names ──


def test_an_image_goes_by_either_annotation() -> None:
    both = entry(1, ref="v1", name="docker.io/library/app:v1")
    assert found("v1", both, entry(2, ref="v2")) == [1]
    assert found("docker.io/library/app:v1", both, entry(2, ref="v2")) == [1]
    assert found("docker.io/library/app:v2", both, entry(2, ref="docker.io/library/app:v2")) == [2]


def test_one_image_under_two_names_is_one_image() -> None:
    assert found(None, entry(1, ref="v1"), entry(1, ref="latest")) == [1]
    assert found("v1", entry(1, ref="v1"), entry(1, ref="v1")) == [1]


def test_the_only_image_needs_no_name_and_attestations_are_no_images() -> None:
    assert found(None, entry(1)) == [1]
    assert found(None, entry(1, ref="v1"), entry(2, "unknown/unknown")) == [1]
    assert found(None, entry(1, ref="v1"), entry(2, media_type="application/vnd.dev.cosign")) == [1]


def test_a_choice_is_for_the_person() -> None:
    with pytest.raises(
        NotFoundError, match=r"here: the layout holds 2 images, so say which; it offers :v1, :v2"
    ):
        found(None, entry(1, ref="v1"), entry(2, ref="v2"))
    with pytest.raises(NotFoundError, match=r"no image is called 'v3'; it offers :v1, :v2"):
        found("v3", entry(1, ref="v1"), entry(2, ref="v2"))
    with pytest.raises(
        NotFoundError, match=r"2 images are called 'v1'; it offers @sha256:0+1, @sha256:0+2"
    ):
        found("v1", entry(1, ref="v1"), entry(2, ref="v1"))
    with pytest.raises(NotFoundError, match=r"so say which; it offers @sha256:0+1, @"):
        found(None, entry(1), entry(2))
    with pytest.raises(NotFoundError, match="holds no image"):
        found(None)
    with pytest.raises(NotFoundError, match="it offers nothing"):
        found("v1")


def test_names_do_not_flood_a_message_nor_drive_a_terminal() -> None:
    with pytest.raises(NotFoundError) as caught:
        found(
            "x", *[entry(number, ref=f"\x1b[31m{number:03}" + "y" * 1000) for number in range(1000)]
        )
    text = str(caught.value)
    assert len(text) < 3000
    assert text.endswith("and 980 more")
    assert "\x1b" not in text


def test_images_that_differ_by_platform_alone_are_one_index(tmp_path: Path) -> None:
    entries = [
        entry(1, "linux/amd64", ref="v1"),
        entry(2, "linux/arm64", ref="v1"),
        entry(3, ref="v2"),
    ]
    assert found("v1", *entries) == [1, 2]
    assert found(None, *entries[:2]) == [1, 2]
    tmp_path.joinpath("index.json").write_bytes(dumps({"schemaVersion": 2, "manifests": entries}))
    document = open_layout(tmp_path, "v1").manifest(None)
    assert document.media_type == OCI_INDEX
    read = parse_document(document.data)
    assert isinstance(read, Index)
    assert candidates(read, Platform("linux", "arm64"))[0].descriptor.digest.endswith("2")


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([
        "schemaVersion", "manifests", "digest", "size", "platform", "annotations", "mediaType",
    ]), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_an_index_is_read_or_malformed_whatever_it_says(data: bytes) -> None:
    try:
        index = parse_index(data, "here")
    except FormatError:
        return
    assert isinstance(index, Index)


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html>", b"[]", b"{}", MANIFEST, b'{"schemaVersion":2,"layers":[]}']
)
def test_what_is_no_index_is_malformed_and_says_where(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^here/index\.json"):
        parse_index(data, "here")


# ── directories ──


def open_layout(folder: Path, tag: str | None = "v1", limits: Limits | None = None) -> LayoutSource:
    objects = DirectoryObjects(folder)
    return LayoutSource(
        LayoutReference("oci", str(folder), tag, None),
        objects,
        files=objects,
        limits=limits or Limits(),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = Layout({"v1": DIGEST}, {DIGEST: (OCI_MANIFEST, MANIFEST)}, {BLOB.digest: DATA})
    return write_layout(tmp_path / "layout", content)


def read_some(folder: Path) -> list[Pieces]:
    return list(open_layout(folder).read(BLOB, [ByteRange(5, 10)]))


def test_the_directory_itself_may_be_behind_a_link(folder: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("link").symlink_to(folder)
    assert read_some(tmp_path / "link") == [[(5, DATA[5:10])]]


def test_a_blob_that_links_out_of_the_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(DATA)
    path = folder / blob_path(BLOB.digest)
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(FormatError, match="symbolic link, which is not followed"):
        read_some(folder)
    with pytest.raises(FormatError, match="symbolic link"):
        DirectoryObjects(folder).open_blob(BLOB)


def test_a_folder_that_links_out_of_the_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "blobs").rename(tmp_path / "elsewhere")
    (folder / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="symbolic link"):
        read_some(folder)


def test_a_pipe_or_a_folder_instead_of_a_file_does_not_hold_us(folder: Path) -> None:
    path = folder / blob_path(BLOB.digest)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FormatError, match="expected a regular file"):
        read_some(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(FormatError, match="expected a regular file"):
        read_some(folder)


def test_a_blob_of_another_size_is_damaged(folder: Path) -> None:
    folder.joinpath(blob_path(BLOB.digest)).write_bytes(DATA + b"more")
    with pytest.raises(IntegrityError, match="has 1704 bytes there, its descriptor promises 1700"):
        read_some(folder)


def test_an_index_above_the_limit_is_not_read(folder: Path) -> None:
    with pytest.raises(LimitError, match="limit is 10"):
        open_layout(folder, limits=Limits(manifest_bytes=10)).manifest(None)


def test_a_manifest_listed_above_the_limit_is_not_read(folder: Path) -> None:
    huge = entry(1, ref="v1") | {"size": 1 << 40}
    folder.joinpath("index.json").write_bytes(dumps({"schemaVersion": 2, "manifests": [huge]}))
    with pytest.raises(LimitError, match="limit is"):
        open_layout(folder).manifest(None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"imageLayoutVersion":"2.0.0"}', "invalid layout version; expected 1.0.0, got '2.0.0'"),
        ("{}", "says no version"),
        ("1.0.0", "says no version"),
    ],
)
def test_a_layout_of_another_version_is_refused(folder: Path, text: str, says: str) -> None:
    folder.joinpath("oci-layout").write_text(text)
    with pytest.raises(FormatError, match=says):
        open_layout(folder).manifest(None)


def test_a_layout_may_lack_the_file_with_its_version(folder: Path) -> None:
    folder.joinpath("oci-layout").unlink()
    assert open_layout(folder).manifest(None).data == MANIFEST


def test_what_is_no_layout_is_not_found(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    for name, says in (
        ("absent", "no such directory"),
        ("file", "no such directory"),
        (".", "no index.json in it"),
    ):
        with pytest.raises(NotFoundError, match=says):
            open_layout(tmp_path / name).manifest(None)


def test_a_manifest_that_is_here_is_not_read_again(folder: Path) -> None:
    objects = DirectoryObjects(folder)
    reference = LayoutReference("oci", str(folder), "v1", None)
    source = LayoutSource(
        reference, objects, documents=lambda digest: MANIFEST if digest == DIGEST else None
    )
    folder.joinpath(blob_path(DIGEST)).unlink()
    document = source.manifest(None)
    assert document.data == MANIFEST
    assert document.cost == document.cost_again == folder.joinpath("index.json").stat().st_size
