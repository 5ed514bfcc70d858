"""`--seed` as a user types it."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from tests.helpers.build.front import chunked_layer, image, make_tar
from tests.helpers.harness.command import receipt, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry


def test_plan_counts_seeds_and_the_pull_then_fetches_that(tmp_path: Path) -> None:
    old, new = files(1, 30, 5000), files(2, 5, 5000)
    with Registry({"v2": image([chunked_layer(make_tar(old | new))])}) as registry:
        for name, data in old.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        name = registry.reference("v2")
        without = receipt(tmp_path, "plan", name)
        seeds = os.pathsep.join(("", str(tmp_path / "absent"), str(tmp_path / "root")))
        planned = receipt(tmp_path, "plan", name, env={"ZPULL_SEED": seeds})
        assert planned["estimate"]["bytes"] < without["estimate"]["bytes"] / 4
        assert planned["bytes"]["cached"] > 100_000
        before = registry.accounts.body_bytes
        pulled = receipt(tmp_path, name, "--seed", tmp_path / "root")
        assert (
            pulled["bytes"]["fetched"]
            == planned["estimate"]["bytes"]
            == registry.accounts.body_bytes - before
        )
        assert pulled["bytes"]["needed"] < 26_000


def test_two_seeds_typed_and_one_unreadable(tmp_path: Path) -> None:
    old = files(1, 10, 5000)
    with Registry({"v1": image([chunked_layer(make_tar(old))])}) as registry:
        with tarfile.open(tmp_path / "seed.tar", "w") as tar:
            for name, data in old.items():
                tmp_path.joinpath("one").write_bytes(data)
                tar.add(tmp_path / "one", name)
        tmp_path.joinpath("text").write_text("no archive at all")
        ended = zpull(
            tmp_path,
            registry.reference("v1"),
            "--seed",
            tmp_path / "text",
            "--seed",
            tmp_path / "seed.tar",
        )
        assert "text' is left out" in ended.err
        assert "seeds hold 10 of 10 wanted chunks" in ended.err
