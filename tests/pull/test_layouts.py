"""`zpull oci:DIR` and `zpull oci+http://…`, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import (
    Layout,
    chunked_layer,
    image,
    make_tar,
    read_layout,
    write_layout,
)
from tests.helpers.build.golden import Golden
from tests.helpers.harness.command import receipt, zpull
from tests.helpers.servers.faults import on, reset
from tests.helpers.servers.registry import Registry

V1, V2 = Golden("demo", "demo-v1"), Golden("demo", "demo-v2")
COLUMNS = ("needed", "metadata", "gap", "wasted")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", read_layout(V1.layout))


def blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def balanced(found: dict[str, Any]) -> dict[str, int]:
    spent: dict[str, int] = found["bytes"]
    assert spent["fetched"] == sum(spent[column] for column in COLUMNS)
    return spent


def is_shared(folder: Path) -> bool:
    """Whether this file system took the blobs over.

    Then the test's own layout has its blobs linked.
    """
    return any(path.stat().st_nlink > 1 for path in folder.rglob("*") if path.is_file())


def test_a_directory_costs_nothing_and_proves_everything(folder: Path, tmp_path: Path) -> None:
    found = receipt(tmp_path, f"oci:{folder}:demo-v2")
    assert found["image_id"] == V2.expect["config"]["digest"]
    assert [layer["diff_id"] for layer in found["layers"]] == V2.expect["diff_ids"]
    assert balanced(found)["fetched"] == found["requests"] == 0
    assert {layer["mode"] for layer in found["layers"]} == {"cached"}
    assert found["bytes"]["cached"] >= found["bytes"]["image"] - V2.expect["config"]["size"]
    again = receipt(tmp_path, f"oci:{folder}:demo-v2")
    assert again["bytes"]["cached"] == again["bytes"]["image"]


def test_a_directory_whose_blobs_cannot_be_shared_is_read_once_and_only_what_is_missing(
    folder: Path, tmp_path: Path
) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)  # nobody links what others may change
    zpull(tmp_path, f"oci:{folder}:demo-v1")
    before = sum(path.stat().st_size for path in (tmp_path / "store" / "blobs").iterdir())
    found = receipt(tmp_path, f"oci:{folder}:demo-v2")
    assert balanced(found)["fetched"] == found["requests"] == 0
    assert found["image_id"] == V2.expect["config"]["digest"]
    grown = sum(path.stat().st_size for path in (tmp_path / "store" / "blobs").iterdir()) - before
    if not is_shared(folder) and {layer["mode"] for layer in found["layers"]} != {"cached"}:
        assert grown < found["bytes"]["image"] / 3


def test_what_a_directory_brought_makes_an_update_from_elsewhere_partial(
    folder: Path, tmp_path: Path
) -> None:
    zpull(tmp_path, f"oci:{folder}:demo-v1")
    with Registry(V1.layout) as registry:
        found = receipt(tmp_path, registry.reference("demo-v2"))
        assert balanced(found)["fetched"] < found["bytes"]["image"] / 4


def test_a_plan_of_a_directory_takes_nothing_over(folder: Path, tmp_path: Path) -> None:
    found = receipt(tmp_path, "plan", f"oci:{folder}:demo-v2", "--max-bytes", "0")
    assert found["estimate"] == {"bytes": 0, "requests": 0, "seconds": 0.0}
    assert not is_shared(folder)
    assert receipt(tmp_path, f"oci:{folder}:demo-v2", "--max-bytes", "0")["requests"] == 0


def test_exports_and_names_of_a_layouts_image(folder: Path, tmp_path: Path) -> None:
    name = f"oci:{folder}:demo-v1"
    assert (
        zpull(tmp_path, name, "--to", f"oci:{tmp_path}/a").out
        == f"oci:{folder}@{V1.expect['manifest']['digest']}\n"
    )
    assert zpull(tmp_path, "images").out.splitlines()[1].startswith(name + " ")
    zpull(
        tmp_path,
        "export",
        name,
        "--to",
        f"oci:{tmp_path}/b",
        "--to",
        f"docker-archive:{tmp_path}/c.tar",
    )
    for out in ("a", "b"):
        assert read_layout(tmp_path / out).tags == {"demo-v1": V1.expect["manifest"]["digest"]}
    with tarfile.open(tmp_path / "c.tar") as archive:
        file = archive.extractfile("manifest.json")
        assert file is not None
        assert not json.load(file)[0].get("RepoTags")  # no engine knows a directory


def test_a_layout_without_a_tag_exports_without_a_name(folder: Path, tmp_path: Path) -> None:
    content = read_layout(folder)
    write_layout(
        folder, Layout({"demo-v1": content.tags["demo-v1"]}, content.manifests, content.blobs)
    )
    zpull(tmp_path, f"oci:{folder}", "--to", f"oci:{tmp_path}/out")
    entries = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert [entry.get("annotations") for entry in entries] == [None]


def test_a_tag_may_be_a_whole_reference(tmp_path: Path) -> None:
    tag = "registry.example:5000/app:v1"
    made = image([chunked_layer(make_tar({"a": b"b"}))])
    folder = write_layout(tmp_path / "layout", {tag: made})
    zpull(tmp_path, f"oci:{folder}:{tag}", "--to", f"docker-archive:{tmp_path}/c.tar")
    with tarfile.open(tmp_path / "c.tar") as archive:
        file = archive.extractfile("manifest.json")
        assert file is not None
        assert json.load(file)[0]["RepoTags"] == [tag]


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "link"])
def test_a_damaged_directory_ends_in_one_line_and_the_target_stays_absent(
    folder: Path, tmp_path: Path, how: str
) -> None:
    layer = max(V1.layers, key=lambda one: one["size"])
    path = blob(folder, layer["digest"])
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 3] ^= 1
    elif how == "cut":
        del data[len(data) // 2 :]
    path.unlink()
    if how in ("flip", "cut"):
        path.write_bytes(data)
    elif how == "link":
        path.symlink_to(blob(V1.layout, layer["digest"]))
    ended = zpull(tmp_path, f"oci:{folder}:demo-v1", "--to", f"oci:{tmp_path}/out", check=False)
    assert ended.code == {"flip": 6, "cut": 6, "gone": 3, "link": 7}[how], ended.err
    assert layer["digest"][7:19] in ended.error
    assert not (tmp_path / "out").exists()
    path.unlink(missing_ok=True)
    path.write_bytes(blob(V1.layout, layer["digest"]).read_bytes())
    assert zpull(tmp_path, f"oci:{folder}:demo-v1", "--to", f"oci:{tmp_path}/out").code == 0


def test_a_layout_changed_in_place_after_a_pull_spoils_no_export(
    folder: Path, tmp_path: Path
) -> None:
    zpull(tmp_path, f"oci:{folder}:demo-v1")
    path = blob(folder, max(V1.layers, key=lambda one: one["size"])["digest"])
    good = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(good) // 3)
        file.write(b"changed in place")
    ended = zpull(
        tmp_path, "export", f"oci:{folder}:demo-v1", "--to", f"oci:{tmp_path}/out", check=False
    )
    if path.stat().st_nlink == 1:  # a reflink is a file of its own
        assert ended.code == 0
        return
    assert ended.code == 6
    assert not (tmp_path / "out").exists()
    path.unlink()
    path.write_bytes(good)
    zpull(tmp_path, f"oci:{folder}:demo-v1", "--to", f"oci:{tmp_path}/out")


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (
            ["oci:/nowhere/at/all:v1"],
            3,
            "/nowhere/at/all: no such directory; expected an OCI layout",
        ),
        (["oci:"], 2, "expected oci:DIR"),
        (["oci+http://host.example/base:v1"], 2, "--plain-http"),
        (["oci+http://127.0.0.1:1/base:v1", "--patience", "0"], 5, "connection refused"),
        (["export", "oci:/nowhere:v1", "--to", "oci:x"], 3, "pull it first"),
        ([f"oci:{V1.layout}"], 3, "so say which; it offers :demo-v1, :demo-v2"),
        ([f"oci:{V1.layout}:nope"], 3, "no image is called 'nope'; it offers :demo-v1"),
    ],
)
def test_errors_say_what_to_do(argv: list[str], code: int, says: str, tmp_path: Path) -> None:
    ended = zpull(tmp_path, *argv, check=False)
    assert ended.code == code, ended.err
    assert says in ended.error
    assert ended.out == ""


@pytest.mark.parametrize("ranges", [True, False])
def test_a_layout_on_the_web_counts_what_its_server_counts(tmp_path: Path, ranges: bool) -> None:
    habit = {} if ranges else {"multi_range": "200", "single_range": "200"}
    with Registry(V1.layout, **habit) as registry:  # type: ignore[arg-type]
        base = f"oci+{registry.layout_url}"
        zpull(tmp_path, f"{base}:demo-v1")
        accounts = registry.accounts
        requests, size = accounts.count(), accounts.body_bytes
        plan = receipt(tmp_path, "plan", f"{base}:demo-v2")
        assert balanced(plan)["wasted"] == 0 or not ranges
        found = receipt(tmp_path, f"{base}:demo-v2")
        assert plan["requests"] + found["requests"] == accounts.count() - requests
        if ranges:
            assert (
                plan["bytes"]["fetched"] + found["bytes"]["fetched"] == accounts.body_bytes - size
            )
            assert plan["estimate"]["requests"] == found["requests"]
            # part headers are guessed
            assert abs(plan["estimate"]["bytes"] - balanced(found)["fetched"]) < 1000
        again = receipt(tmp_path, f"{base}:demo-v2")
        assert again["requests"] == 1
        assert (
            again["bytes"]["fetched"]
            == again["bytes"]["metadata"]
            == len(registry.content.index_json())
        )


def test_a_directory_needs_no_network_library(tmp_path: Path) -> None:
    code = (
        "import sys; from zchunked.cli import run; code = run(sys.argv[1:]); "
        "sys.exit(code or 'requests' in sys.modules or 'urllib3' in sys.modules)"
    )
    argv = [sys.executable, "-c", code, "plan", f"oci:{V1.layout}:demo-v1", "--store"]
    done = subprocess.run([*argv, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_plan_takes_no_layer_whole_where_there_are_no_ranges(tmp_path: Path) -> None:
    with Registry(V1.layout, multi_range="200", single_range="200") as registry:
        base = f"oci+{registry.layout_url}"
        plan = receipt(tmp_path, "plan", f"{base}:demo-v1")
        here = sum(path.stat().st_size for path in (tmp_path / "store" / "blobs").iterdir())
        assert here < 10_000
        assert {layer["reason"] for layer in plan["layers"]} == {"its host serves no ranges"}
        balanced(plan)
        found = receipt(tmp_path, f"{base}:demo-v1")
        assert plan["estimate"]["bytes"] == balanced(found)["fetched"]
        assert plan["estimate"]["requests"] == found["requests"]


def test_a_layout_over_a_link_that_keeps_breaking_arrives_all_the_same(tmp_path: Path) -> None:
    with Registry(
        V1.layout, faults=[on(("blob", "toc", "config"), reset(after=(0, 60_000)))], seed=7
    ) as registry:
        found = receipt(tmp_path, f"oci+{registry.layout_url}:demo-v1")
        assert found["retries"] > 0
        assert found["image_id"] == V1.expect["config"]["digest"]
        assert found["requests"] == registry.accounts.count()
        assert (
            balanced(found)["needed"] + found["bytes"]["metadata"] < found["bytes"]["image"] * 1.02
        )


def test_a_killed_pull_of_a_directory_leaves_nothing_that_hurts(
    folder: Path, tmp_path: Path
) -> None:
    """Between the link and the row that claims it.

    Then the file is nobody's, and the next pull takes it again.
    """
    (tmp_path / "store" / "blobs").mkdir(parents=True)
    layer = blob(folder, V1.layers[0]["digest"])
    layer.chmod(0o644)
    (tmp_path / "store" / "blobs" / "0123456789ab-1").hardlink_to(layer)
    found = receipt(tmp_path, f"oci:{folder}:demo-v1")
    assert found["image_id"] == V1.expect["config"]["digest"]
    zpull(tmp_path, "verify")
    assert not (tmp_path / "store" / "blobs" / "0123456789ab-1").exists()
    assert layer.exists()
