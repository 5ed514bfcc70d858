"""`--offline`: from the store and from seeds alone, without a request.

An error says what is missing, in bytes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.build.front import (
    chunked_layer,
    gzip_layer,
    image,
    index,
    make_tar,
    write_layout,
)
from tests.helpers.harness.command import receipt, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry

SHARED, OLD, NEW = files(1, 30, 5000), files(2, 5, 5000), files(3, 5, 5000)
V1 = image([chunked_layer(make_tar(SHARED | OLD)), gzip_layer(make_tar(files(4, 5, 5000)))])
V2 = image([chunked_layer(make_tar(SHARED | NEW)), V1.layers[1]])


def missing(error: str) -> list[int]:
    return [int(number) for number in re.findall(r"(\d+) of \d+ bytes of sha256:", error)]


def test_what_was_pulled_is_there_without_a_request(tmp_path: Path) -> None:
    with Registry({"v1": V1}) as registry:
        name = registry.reference("v1")
        zpull(tmp_path, name)
        asked = registry.accounts.count()
        target = tmp_path / "out"
        told = receipt(tmp_path, name, "--offline", "--to", f"oci:{target}")
        assert registry.accounts.count() == asked
    assert told["requests"] == told["bytes"]["fetched"] == 0
    assert told["bytes"]["cached"] == told["bytes"]["image"]
    assert target.joinpath("index.json").is_file()
    by_digest = f"{name.rpartition(':')[0]}@{V1.digest}"
    assert receipt(tmp_path, by_digest, env={"ZPULL_OFFLINE": "1"})["requests"] == 0


def test_a_name_that_was_never_pulled_is_not_found(tmp_path: Path) -> None:
    ended = zpull(tmp_path, "example.com/app:v1", "--offline", "--format", "json", check=False)
    assert ended.code == 3
    assert "never pulled" in ended.error
    assert "never pulled" in ended.receipt["error"]
    ended = zpull(tmp_path, f"example.com/app@{V1.digest}", "--offline", check=False)
    assert (ended.code, "manifest" in ended.error) == (3, True)


def test_the_error_lists_what_is_missing_by_layer_and_in_total(tmp_path: Path) -> None:
    with Registry({"v1": V1, "v2": V2}) as registry:
        zpull(tmp_path, registry.reference("v1"))
        planned = receipt(tmp_path, "plan", registry.reference("v2"))
        by_digest = f"{registry.host}/demo@{V2.digest}"
        asked = registry.accounts.count()
        ended = zpull(tmp_path, by_digest, "--offline", check=False)
        assert registry.accounts.count() == asked
    assert ended.code == 3
    lacking = sum(
        chunk.end - chunk.start for chunk in V2.layers[0].chunks if chunk.file.split("/")[2] == "3"
    )
    assert missing(ended.error) == [lacking]
    assert f"{lacking} bytes are missing: " in ended.error
    assert V2.layers[0].digest in ended.error
    assert "without --offline" in ended.error
    assert planned["layers"][1]["mode"] == "cached"


def test_documents_without_tables_of_contents_count_layers_whole(tmp_path: Path) -> None:
    with Registry({"v2": V2}) as registry:
        name = registry.reference("v2")
        assert zpull(tmp_path, name, "--max-bytes", "1", check=False).code == 9
        by_digest = f"{registry.host}/demo@{V2.digest}"
        ended = zpull(tmp_path, by_digest, "--offline", check=False)
        assert ended.code == 3
        first, second = missing(ended.error)
        assert first < V2.layers[0].size  # its table of contents is here
        assert second == V2.layers[1].size
        plan = receipt(tmp_path, "plan", by_digest, "--offline")
        assert plan["requests"] == 0
        assert plan["estimate"]["bytes"] >= first + second


@pytest.mark.parametrize("only", ["manifest", "manifest and config"])
def test_any_half_of_a_pull_ends_in_a_list(only: str, tmp_path: Path) -> None:
    from zchunked.store import Store  # noqa: PLC0415

    with Store(tmp_path / "store") as store:
        store.put(V1.manifest)
        if "config" in only:
            store.put(V1.config)
    ended = zpull(tmp_path, f"example.com/app@{V1.digest}", "--offline", check=False)
    assert ended.code == 3
    want = [layer.size for layer in V1.layers]
    assert missing(ended.error) == (want if "config" in only else [len(V1.config), *want])
    assert f"{sum(missing(ended.error))} bytes are missing" in ended.error


def test_chunks_that_suffice_are_put_together_and_proved_offline(tmp_path: Path) -> None:
    """The tables of contents of v2 came with a plan, its chunks with v1 and from a seed."""
    with Registry({"v1": V1, "v2": V2}) as registry:
        zpull(tmp_path, registry.reference("v1"))
        zpull(tmp_path, "plan", registry.reference("v2"))
    for name, data in NEW.items():
        path = tmp_path / "seed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    told = receipt(
        tmp_path, f"{registry.host}/demo@{V2.digest}", "--offline", "--seed", tmp_path / "seed"
    )
    assert told["requests"] == 0
    assert told["layers"][0]["mode"] == "partial"
    assert zpull(tmp_path, "images", "-q").out.count("\n") == 2


def test_each_platform_of_an_index_has_its_own_answer(tmp_path: Path) -> None:
    arm = image([gzip_layer(make_tar(files(7, 2, 500)))], platform="linux/arm64")
    with Registry({"t": index([V1, arm])}) as registry:
        name = registry.reference("t")
        zpull(tmp_path, name, "--platform", "linux/arm64")
        assert receipt(tmp_path, name, "--offline", "--platform", "linux/arm64")["requests"] == 0
        ended = zpull(tmp_path, name, "--offline", "--platform", "linux/amd64", check=False)
    assert (ended.code, V1.digest in ended.error) == (3, True)


def test_bytes_that_the_disk_lost_are_missing_and_named(tmp_path: Path) -> None:
    with Registry({"v1": V1}) as registry:
        zpull(tmp_path, registry.reference("v1"))
        for path in (tmp_path / "store" / "blobs").iterdir():
            if path.stat().st_size > 10_000:
                path.write_bytes(b"")
        zpull(tmp_path, "verify", check=False)
        ended = zpull(tmp_path, registry.reference("v1"), "--offline", check=False)
    assert ended.code == 3
    assert missing(ended.error)


def test_a_store_copied_elsewhere_serves_as_well(tmp_path: Path) -> None:
    with Registry({"v1": V1}) as registry:
        zpull(tmp_path, registry.reference("v1"))
        name = registry.reference("v1")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    assert receipt(tmp_path, name, "--offline", "--store", tmp_path / "copy")["requests"] == 0


def test_a_layout_on_this_machine_is_no_network(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "layout", {"v1": V1})
    told = receipt(tmp_path, f"oci:{folder}:v1", "--offline")
    assert told["requests"] == told["bytes"]["fetched"] == 0
    ended = zpull(tmp_path, "oci+https://example.com/images:v1", "--offline", check=False)
    assert (ended.code, "never pulled" in ended.error) == (3, True)
