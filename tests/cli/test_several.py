"""Several images in one command.

A receipt for each, each byte once, and one that fails stops no other.
"""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import chunked_layer, gzip_layer, image, make_tar
from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import assert_right, balanced, files, kill_after, started, versions
from tests.helpers.servers.accounts import Request
from tests.helpers.servers.faults import chunked, on
from tests.helpers.servers.registry import Registry
from zchunked.client import Client
from zchunked.errors import NotFoundError, ZPullError
from zchunked.options import Options
from zchunked.results import Plan, PullResult


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
        assert (
            first["bytes"]["fetched"] + second["bytes"]["fetched"] == registry.accounts.body_bytes
        )
        index = json.loads((tmp_path / "out" / "index.json").read_bytes())
        assert len(index["manifests"]) == 2


@pytest.mark.parametrize("is_piped", [False, True])
def test_a_list_has_one_image_a_line_and_comments(is_piped: bool, tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        names = [registry.reference(tag) for tag in ("v1", "v2")]
        text = f"# what this device runs\n\n{names[0]}  # the old one\n{names[1]}\r\n{names[0]}\n"
        (tmp_path / "list").write_text(text)
        done = zpull(
            tmp_path,
            "--from",
            "-" if is_piped else tmp_path / "list",
            stdin=text if is_piped else "",
        )
        assert [line.partition("@")[0] for line in done.out.splitlines()] == [
            name.rpartition(":")[0] for name in names
        ]
        plan = zpull(tmp_path, "plan", "--from", tmp_path / "list", "--format", "json")
        assert [one["estimate"]["bytes"] for one in objects(plan.out)] < [2000, 2000]


def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        gone = registry.reference("none")
        done = zpull(tmp_path, gone, registry.reference("v1"), check=False)
        assert done.code == 3
        assert done.error.startswith(f"zpull: error: {gone}: ")
        assert zpull(tmp_path, "images", "-q").out.count("\n") == 1


def test_the_exit_code_is_the_highest_and_each_error_has_a_line(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        absent, unreachable = registry.reference("none"), "127.0.0.1:1/app:t"
        done = zpull(
            tmp_path, absent, unreachable, registry.reference("v1"), "--patience", "0", check=False
        )
        assert done.code == 5
        summary_of = [line for line in done.err.splitlines() if line.startswith("zpull: error: ")]
        assert [line.split()[2] for line in summary_of] == [f"{absent}:", f"{unreachable}:"]


def test_they_are_pulled_side_by_side(tmp_path: Path) -> None:
    """Neither of two images comes before the other has been asked for its bytes."""
    together = threading.Barrier(2, timeout=30)
    waited: set[str] = set()

    def meet(request: Request) -> bool:
        if request.path.partition("/blobs/")[0] not in waited:
            waited.add(request.path.partition("/blobs/")[0])
            together.wait()
        return False

    def waiting(name: str, seed: int) -> Registry:
        made = {"t": image([chunked_layer(make_tar(files(seed, 5, 10_000)))])}
        return Registry(made, repository=name, faults=[on("blob", chunked(), nth=1, when=meet)])

    with waiting("one", 20) as one, waiting("two", 21) as two, Client(tmp_path / "store") as client:
        for outcome in client.pull_all([one.reference("t"), two.reference("t")]):
            assert isinstance(outcome, PullResult), outcome


def test_versions_side_by_side_cost_what_one_after_the_other_does(tmp_path: Path) -> None:
    common, base = files(30, 30, 10_000), gzip_layer(make_tar(files(31, 10, 10_000)))
    made = {
        f"v{number}": image([base, chunked_layer(make_tar(common | files(32 + number, 3, 10_000)))])
        for number in range(4)
    }
    with Registry(made) as registry:
        for tag in made:
            zpull(tmp_path / "one", registry.reference(tag))
        union = registry.accounts.body_bytes
        asked = registry.accounts.connections
        done = zpull(tmp_path / "all", *map(registry.reference, made), "--format", "json")
        receipts = objects(done.out)
        assert registry.accounts.body_bytes - union == sum(
            one["bytes"]["fetched"] for one in receipts
        )
        assert registry.accounts.body_bytes <= 2.01 * union
        assert registry.accounts.connections - asked <= 8 + len(made), (
            "they use each other's connections"
        )
        for tag, receipt in zip(made, receipts, strict=True):
            balanced(receipt)
            assert_right(tmp_path / "all", registry, tag)
        assert receipts[0]["bytes"]["fetched"] > 5 * receipts[1]["bytes"]["fetched"], (
            "the first one brings the rest"
        )


def test_a_plan_of_several_counts_each_byte_once(tmp_path: Path) -> None:
    with Registry(versions()) as registry, Client(tmp_path / "store") as client:
        names = [registry.reference(tag) for tag in ("v1", "v2", "v1")]
        plans = [one for one in client.plan_all(names) if isinstance(one, Plan)]
        cost = sum(plan.receipt.bytes.fetched for plan in plans)
        done = [one for one in client.pull_all(names) if isinstance(one, PullResult)]
        spent = cost + sum(one.receipt.bytes.fetched for one in done)
        planned = sum(plan.estimate.bytes for plan in plans)
        assert len(plans) == len(done) == 3
        assert planned == pytest.approx(spent, rel=0.03)
        assert plans[2].estimate.bytes <= 2000
        assert {layer.mode for layer in plans[2].layers} == {"cached"}


def test_ctrl_c_ends_them_all_and_each_has_its_receipt(tmp_path: Path) -> None:
    with Registry(versions(), rate=100_000) as registry:
        names = [registry.reference(tag) for tag in ("v1", "v2")]
        with started(tmp_path, *names) as process:
            assert kill_after(process, registry, 100_000, signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert err.count("zpull: error: ") == 1
        assert "interrupted" in err
        for receipt, name in zip(objects(out), names, strict=True):
            assert receipt["reference"] == name
            assert "interrupted" in receipt["error"]
            balanced(receipt)


def test_whoever_leaves_early_ends_the_rest(tmp_path: Path) -> None:
    with Registry(versions(), rate=50_000) as registry, Client(tmp_path / "store") as client:
        outcomes = client.pull_all([registry.reference(tag) for tag in ("none", "v1", "v2")])
        assert isinstance(next(outcomes), NotFoundError)
        del outcomes
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("zpull-")]


def test_one_job_is_one_connection(tmp_path: Path) -> None:
    with (
        Registry(versions()) as registry,
        Client(tmp_path / "store", options=Options(jobs=1)) as client,
    ):
        outcomes = [*client.pull_all([registry.reference(tag) for tag in ("v1", "v2")])]
        assert not [one for one in outcomes if isinstance(one, ZPullError)]
        assert registry.accounts.connections == 3, "one, after each has tried to speak TLS"


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
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    argv: list[str], tmp_path: Path
) -> None:
    done = zpull(tmp_path, *argv, check=False)
    assert done.code == 2
    assert done.error
    assert not (tmp_path / "store").exists()
