"""An export from the store to wherever a person said."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import chunked_layer, image, make_tar, read_layout
from tests.helpers.build.stored import keep_image
from zchunked.errors import LocalError, UsageError
from zchunked.export.destination import parse_destination
from zchunked.export.images.names import Names, names_of
from zchunked.export.write import export
from zchunked.receipt import Export
from zchunked.store import Store

IMAGE = image([chunked_layer(make_tar({"app": b"one" * 1000}))])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as found:
        yield found


@pytest.mark.parametrize(("name", "said", "tag"), [
    ("host/app:v1", "", "v1"),
    ("host:5000/app:v1", "", "v1"),
    ("host:5000/app", "", None),
    (f"host:5000/app@{IMAGE.digest}", "", None),
    (f"host/app:v1@{IMAGE.digest}", "", "v1"),
    ("host/app:v1", ":v2", "v2"),
])  # fmt: skip
def test_a_layout_calls_the_image_what_it_was_called_or_what_was_said(
    store: Store, tmp_path: Path, name: str, said: str, tag: str | None
) -> None:
    text = f"oci:{tmp_path}/out{said}"
    done = export(store, keep_image(store, IMAGE, name=name), parse_destination(text))
    assert done == Export(text, IMAGE.digest)
    entry = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"][0]
    assert entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    assert IMAGE.digest in read_layout(tmp_path / "out").manifests


def test_archives_are_files_that_appear_complete(store: Store, tmp_path: Path) -> None:
    stored = keep_image(store, IMAGE)
    assert (
        export(store, stored, parse_destination(f"oci-archive:{tmp_path}/o.tar")).manifest_digest
        == IMAGE.digest
    )
    assert (
        export(store, stored, parse_destination(f"docker-archive:{tmp_path}/d.tar")).manifest_digest
        is None
    )
    with tarfile.open(tmp_path / "d.tar") as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == ["example.com/app:v1"]
    with tarfile.open(tmp_path / "o.tar") as tar:
        assert "index.json" in tar.getnames()
    assert {path.name for path in tmp_path.iterdir()} == {"store", "o.tar", "d.tar"}


@pytest.mark.parametrize("to", ["oci-archive", "docker-archive"])
def test_a_target_in_a_folder_that_is_not_there_is_a_local_error(
    store: Store, tmp_path: Path, to: str
) -> None:
    with pytest.raises(LocalError, match="cannot write"):
        export(
            store,
            keep_image(store, IMAGE),
            parse_destination(f"{to}:{tmp_path}/no/such/folder/x.tar"),
        )


def test_a_target_that_is_a_folder_is_a_local_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(LocalError):
        export(store, keep_image(store, IMAGE), parse_destination(f"oci-archive:{tmp_path}/x.tar"))
    assert {path.name for path in tmp_path.iterdir()} == {"store", "x.tar"}


def test_standard_output_gets_the_archive_and_nothing_else(
    store: Store, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    done = export(store, keep_image(store, IMAGE), parse_destination("oci-archive:-"))
    out, _ = capfdbinary.readouterr()
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert {"oci-layout", "index.json"} <= set(tar.getnames())
    assert done == Export("oci-archive:-", IMAGE.digest)


@pytest.mark.parametrize(("pulled", "said", "tag", "full"), [
    ("h.io/app:v1", None, "v1", "h.io/app:v1"),
    ("h.io/app:v1", "v2", "v2", "h.io/app:v2"),
    ("h.io/app:v1", "other/name:x", "other/name:x", "docker.io/other/name:x"),
    ("h.io/app:v1", "host:5000/name", "host:5000/name", "host:5000/name:latest"),
    (f"h.io/app@{IMAGE.digest}", None, None, None),
    (f"h.io/app@{IMAGE.digest}", "v2", "v2", "h.io/app:v2"),
    ("oci:dir:v1", None, "v1", None),
    ("oci:dir:h.io/app:v1", None, "h.io/app:v1", "h.io/app:v1"),
    ("docker-archive:-:app:v1", None, "docker.io/library/app:v1", "docker.io/library/app:v1"),
    ("h.io/app:v1", "An/Odd.Name", "An/Odd.Name", None),
])  # fmt: skip
def test_what_an_export_is_called(
    pulled: str, said: str | None, tag: str | None, full: str | None
) -> None:
    assert names_of(pulled, said) == Names(tag, full)


def test_the_name_in_a_docker_archive_is_a_whole_reference() -> None:
    assert names_of("h.io/app:v1", "name", is_whole=True).full == "docker.io/library/name:latest"
    for text in ("docker-archive:x.tar:UPPER", f"docker-archive:x.tar:app@{IMAGE.digest}"):
        with pytest.raises(UsageError):
            parse_destination(text)
