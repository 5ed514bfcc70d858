"""`zpull rm` and `zpull gc` as commands: what they say, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.build.front import chunked_layer, image, make_tar
from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import assert_right, files, versions
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
def test_gc_keeps_a_budget_from_the_command_or_the_environment(
    how: tuple[str, ...], tmp_path: Path
) -> None:
    with Registry(versions()) as registry:
        zpull(tmp_path, registry.reference("v1"))
        if how == ("env",):
            zpull(tmp_path, "gc", env={"ZPULL_STORE_MAX": "1k"})
            assert zpull(tmp_path, "gc", env={"ZPULL_STORE_MAX": "much"}, check=False).code == 2
        else:
            zpull(tmp_path, "gc", *how)
        assert zpull(tmp_path, "images", "-q").out == ""


def weight(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "store").rglob("*") if path.is_file())


def test_a_pull_leaves_the_store_below_its_budget(tmp_path: Path) -> None:
    common = files(60, 20, 10_000)
    made = {
        f"v{n}": image([chunked_layer(make_tar(common | files(61 + n, 20, 10_000)))])
        for n in range(4)
    }
    budget = 850_000  # two versions and a half
    with Registry(made) as registry:
        for tag in made:
            done = zpull(
                tmp_path, registry.reference(tag), "-q", env={"ZPULL_STORE_MAX": str(budget)}
            )
            assert done.err == ""
            assert weight(tmp_path) <= 1.02 * budget
            assert_right(tmp_path, registry, tag)
        there = zpull(tmp_path, "images", "-q").out.split()
        assert 1 < len(there) < 4, "the oldest went, and no more than had to"
        done = zpull(
            tmp_path, *map(registry.reference, made), env={"ZPULL_STORE_MAX": "1k"}, check=False
        )
        assert done.code == 0
        for tag in made:
            assert_right(tmp_path, registry, tag)  # what the command itself has brought stays
        assert (
            zpull(
                tmp_path, registry.reference("v0"), env={"ZPULL_STORE_MAX": "much"}, check=False
            ).code
            == 2
        )
        dry = zpull(tmp_path, "plan", registry.reference("v0"), env={"ZPULL_STORE_MAX": "1k"})
        assert dry.code == 0
        assert zpull(tmp_path, "images", "-q").out.count("\n") == 4
