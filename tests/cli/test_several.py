"""Several images in one command: a receipt for each, each byte once, and one that fails stops no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import versions
from tests.helpers.servers.registry import Registry


def objects(text: str) -> list[dict[str, Any]]:
    """JSON documents one behind the other."""
    found, decoder = [], json.JSONDecoder()
    while text.strip():
        one, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        found.append(one)
    return found


def test_each_image_has_a_receipt_and_shared_bytes_come_once(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        names = [registry.reference(tag) for tag in ("v1", "v2")]
        done = zpull(tmp_path, *names, "--format", "json", "--to", f"oci:{tmp_path / 'out'}")
        first, second = objects(done.out)
        assert [first["reference"], second["reference"]] == names
        assert second["bytes"]["cached"] > 0
        assert first["bytes"]["fetched"] + second["bytes"]["fetched"] == registry.accounts.body_bytes
        index = json.loads((tmp_path / "out" / "index.json").read_bytes())
        assert len(index["manifests"]) == 2


@pytest.mark.parametrize("is_piped", [False, True])
def test_a_list_has_one_image_a_line_and_comments(is_piped: bool, tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        names = [registry.reference(tag) for tag in ("v1", "v2")]
        text = f"# what this device runs\n\n{names[0]}  # the old one\n{names[1]}\r\n{names[0]}\n"
        (tmp_path / "list").write_text(text)
        done = zpull(tmp_path, "--from", "-" if is_piped else tmp_path / "list", stdin=text if is_piped else "")
        assert [line.partition("@")[0] for line in done.out.splitlines()] == [name.rpartition(":")[0] for name in names]
        plan = zpull(tmp_path, "plan", "--from", tmp_path / "list", "--format", "json")
        assert [one["estimate"]["bytes"] for one in objects(plan.out)] < [2000, 2000]


def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        gone = registry.reference("none")
        done = zpull(tmp_path, gone, registry.reference("v1"), check=False)
        assert done.code == 3
        assert done.error.startswith(f"zpull: error: {gone}: ")
        assert zpull(tmp_path, "images", "-q").out.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["host/a:t", "host/b:t", "--to", "docker-archive:x.tar"],
        ["host/a:t", "host/b:t", "--digestfile", "x"],
        ["host/a:t", "Host/B:t"],
        ["--from", "/nowhere/list"],
        ["pull"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(argv: list[str], tmp_path: Path) -> None:
    done = zpull(tmp_path, *argv, check=False)
    assert done.code == 2
    assert done.error
    assert not (tmp_path / "store").exists()
