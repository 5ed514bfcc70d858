"""`zpull rm` and `zpull gc` as commands: what they say, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import versions
from tests.helpers.servers.registry import Registry


def test_rm_forgets_and_gc_frees(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        for tag in ("v1", "v2"):
            zpull(tmp_path, registry.reference(tag))
        name = registry.reference("v1")
        assert zpull(tmp_path, "rm", name).out.startswith(f"{name}  ")
        assert zpull(tmp_path, "images", "-q").out.count("\n") == 1
        said = json.loads(zpull(tmp_path, "gc", "--format", "json").out)
        assert said["bytes"]["freed"] == said["bytes"]["before"] - said["bytes"]["after"] > 0
        zpull(tmp_path, "export", registry.reference("v2"), "--to", f"oci:{tmp_path / 'out'}")
        assert zpull(tmp_path, "rm", name, check=False).code == 3
        again = zpull(tmp_path, "gc").out
        assert again.startswith("freed ")


def test_rm_takes_a_digest_or_its_beginning_and_all_or_nothing(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        digest = zpull(tmp_path, registry.reference("v1"), "-q").out.strip()
        assert zpull(tmp_path, "rm", digest[7:19], "host/none:x", check=False).code == 3
        assert digest in zpull(tmp_path, "images", "--format", "json").out
        zpull(tmp_path, "rm", digest[7:19])
        assert zpull(tmp_path, "images", "-q").out == ""


def test_gc_keeps_named_images_and_says_what_goes(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        for tag in ("v1", "v2"):
            zpull(tmp_path, registry.reference(tag))
        dry = zpull(tmp_path, "gc", "--keep", registry.reference("v2"), "--dry-run").out
        assert f"would remove {registry.reference('v1')}" in dry
        assert zpull(tmp_path, "images", "-q").out.count("\n") == 2
        said = zpull(tmp_path, "gc", "--keep", registry.reference("v2")).out
        assert f"removed {registry.reference('v1')}" in said
        assert zpull(tmp_path, "gc", "--keep", registry.reference("v1"), check=False).code == 3, (
            "nothing goes by mistake"
        )
        assert zpull(tmp_path, "images", "-q").out.count("\n") == 1
        assert zpull(tmp_path, "gc", registry.reference("v2"), check=False).code == 2


@pytest.mark.parametrize("how", [("--max-size", "1k"), ("env",)])
def test_gc_keeps_a_budget_from_the_command_or_the_environment(how: tuple[str, ...], tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        zpull(tmp_path, registry.reference("v1"))
        if how == ("env",):
            zpull(tmp_path, "gc", env={"ZPULL_STORE_MAX": "1k"})
            assert zpull(tmp_path, "gc", env={"ZPULL_STORE_MAX": "much"}, check=False).code == 2
        else:
            zpull(tmp_path, "gc", *how)
        assert zpull(tmp_path, "images", "-q").out == ""
