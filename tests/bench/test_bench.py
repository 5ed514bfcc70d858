"""The arithmetic behind the tables. Nothing is timed here, and nobody is asked to be fast."""

from __future__ import annotations

import hashlib
import socket
import tarfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.bench import chart, converting, report, targets
from tests.bench.clients import Curl, Manifest
from tests.bench.link import LINKS, Link, linked
from tests.bench.measure import Command, Cost, middle, run
from tests.bench.results import REGISTRY, Results, Row, load
from tests.bench.suites import Bench, serving
from tests.bench.trees import write_tar
from tests.helpers.servers import peers
from tests.helpers.servers.registry import Registry
from tests.peers import corpus

HOME_OF_PACKAGE = Path(__file__).parents[2]
RECEIPT = {"bytes": {"needed": 900, "metadata": 100, "gap": 20, "wasted": 0, "fetched": 1_020}}


def cost(
    wall: float = 1.0, wire: int = 1_020, *, receipt: bool = True, failed: str | None = None
) -> Cost:
    return Cost(wall, wall / 2, 64 << 20, wire, 3, RECEIPT if receipt else {}, failed=failed)


def row(client: str, where: str, case: str, found: Cost, suite: str = "pulls") -> Row:
    return Row(suite, "node", where, case, client, found)


@pytest.fixture
def results() -> Results:
    return Results(
        sizes={"node": 4_000},
        rows=[
            row("zpull", "loopback", "update", cost(0.7)),
            row("zpull --exact", "loopback", "update", cost(1.0)),
            row("podman", "loopback", "update", cost(4.0, 1_115, receipt=False)),
            row("zpull", "loopback", "cold", cost(3.0, 4_000)),
            row("skopeo", "loopback", "cold", cost(1.0, 4_000, receipt=False)),
            row("zpull", LINKS[2].name, "update", cost(0.2)),
            row("curl", LINKS[2].name, "cold", cost(failed="ended with 22", receipt=False)),
        ],
    )


def test_ratios_are_of_the_need_that_the_receipt_tells(results: Results) -> None:
    assert results.need("node") == 1_000
    assert targets.bytes_per_need(results, "node", "zpull") == 1.02
    assert targets.bytes_per_need(results, "node", "podman") == 1.115
    assert targets.bytes_per_need(results, "node", "skopeo") is None


def test_bytes_are_those_that_docker_registry_sent_where_they_are_known(results: Results) -> None:
    results.rows.append(row("zpull", REGISTRY, "update", cost(7.0, 1_044)))
    assert targets.bytes_per_need(results, "node", "zpull") == 1.044
    assert targets.against(results, "node", LINKS[0], "update", "wall", "podman") == 0.175


def test_seconds_beside_busy_strangers_are_told(results: Results) -> None:
    assert targets.disturbed(results) == []
    results.rows.append(
        row("zpull", "80000", "cold", replace(cost(11.0), others=16.5), suite="growth")
    )
    assert targets.disturbed(results) == ["growth: node, 80000, cold, zpull: 1.5 cores"]


def test_blobs_come_from_the_folder_of_the_registry_and_all_else_from_the_registry(
    tmp_path: Path,
) -> None:
    peers.require("docker-registry", "nginx")
    blob = bytes(range(256)) * 40
    hexed = hashlib.sha256(blob).hexdigest()
    path = (
        tmp_path
        / "storage"
        / "docker"
        / "registry"
        / "v2"
        / "blobs"
        / "sha256"
        / hexed[:2]
        / hexed
        / "data"
    )
    path.parent.mkdir(parents=True)
    path.write_bytes(blob)
    with ExitStack() as stack:
        front, registry = serving(tmp_path / "servers", tmp_path / "storage", stack)
        asked = Request(
            f"{front.url}/v2/some/image/blobs/sha256:{hexed}",
            headers={"Range": "bytes=3-9,300-499"},
        )
        with urlopen(asked, timeout=10) as answer:
            assert (answer.status, answer.headers.get_content_type()) == (
                206,
                "multipart/byteranges",
            )
            assert blob[300:500] in answer.read()
        with urlopen(f"{front.url}/v2/", timeout=10) as answer:
            assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert [hit.status for hit in front.hits()] == [206, 200]
        assert registry.hits() == []


def test_the_limit_is_the_bytes_and_four_round_trips(results: Results) -> None:
    assert Link("slow", 1_000, 0.5).limit(3_000) == 5.0
    over = targets.over_limit(results, "node", LINKS[2], "zpull")
    assert over == pytest.approx(0.2 / (1_000 / 6.25e6 + 0.16))


def test_verdicts_know_yes_from_no_from_unknown(results: Results) -> None:
    found = {verdict.what: verdict.holds for verdict in targets.verdicts(results)}
    assert found["update of node, loopback: wall / podman's"] == "yes"
    assert found["cold node, loopback: zpull: wall / skopeo's"] == "**no**"
    assert found[f"cold node, {LINKS[2].name}: wall / curl's"] == "not measured"
    assert found["update of python, exact: bytes / need, several ranges"] == "not measured"


def test_the_largest_image_stands_for_many_files(results: Results) -> None:
    for count, walls in (("9000", (9.0, 9.0)), ("30000", (0.9, 5.0))):
        for client, wall in zip(("zpull", "podman"), walls, strict=True):
            found = Row("growth", "files", count, "update", client, cost(wall))
            results.rows.append(found)
    verdicts = {verdict.what: verdict for verdict in targets.verdicts(results)}
    assert verdicts["30,000 files, update: wall / podman's"].measured == pytest.approx(0.18)
    assert verdicts["30,000 files, update, exact too: peak memory"].measured == 64
    assert verdicts["30,000 files, cold: wall / skopeo's"].holds == "not measured"


@pytest.mark.parametrize(
    ("layers", "way"),
    [
        ([("cached", True), ("partial", True)], "exact"),
        ([("partial", False)], "lean"),
        ([("whole", True), ("partial", True)], "exact and whole"),
        ([], ""),
    ],
)
def test_the_way_is_that_of_the_layers_that_were_lacking(
    layers: list[tuple[str, bool]], way: str
) -> None:
    receipt = {"layers": [{"mode": mode, "identical": same} for mode, same in layers]}
    assert targets.way_of(replace(cost(), receipt=receipt)) == way


def test_a_receipt_is_held_against_the_server() -> None:
    assert cost().counted(1_020, 3).misstated == 0
    assert cost().counted(1_000, 3).misstated == 20
    assert cost(receipt=False).counted(5, 3).misstated == 0


def test_the_middle_is_each_numbers_own_and_a_failure_stays_one() -> None:
    assert middle([cost(3.0, 10), cost(1.0, 30), cost(2.0, 20)]) == cost(2.0, 20)
    assert middle([cost(), cost(failed="no")]).failed == "no"


def test_results_survive_a_file_and_a_second_run_replaces_its_own(
    results: Results, tmp_path: Path
) -> None:
    results.save(tmp_path / "results.json")
    again = load(tmp_path / "results.json")
    assert again == results
    again.replace([row("zpull", "loopback", "update", cost(9.0))])
    assert [found.cost.wall for found in again.rows] == [9.0]
    assert load(tmp_path / "absent.json") == Results()


def test_the_page_has_a_table_for_what_is_known_and_a_dash_for_what_is_not(
    results: Results, tmp_path: Path
) -> None:
    report.write(results, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert (
        "| update of node, exact: bytes / need, several ranges | ≤ 1.12 × | 1.02 × | yes |" in page
    )
    assert "ended with 22" in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120
    assert (tmp_path / "benchmarks.svg").read_text().count("<rect") > 2


def test_long_bars_are_cut_and_keep_their_figures() -> None:
    drawn = chart.svg(
        "a < b", ["one"], [chart.Group("g", [100.0]), chart.Group("h", [None])], [(1.0, "1")]
    )
    assert "a &lt; b" in drawn
    assert ">100.00<" in drawn
    assert (
        max(float(word.split('"')[1]) for word in drawn.split("width=")[2:] if "%" not in word)
        < 860
    )


def test_ideal_ranges_add_up_to_the_need() -> None:
    parts = Manifest((("sha256:a", 1_000), ("sha256:b", 3_000))).parts(400)
    assert parts == Curl((("sha256:a", 100), ("sha256:b", 300)), "curl, ideal ranges")
    assert "0-299" in parts.pull(Path("/tmp"), "h:1", "i", "t").argv


def test_a_tree_is_the_same_tar_every_time(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "b").mkdir(parents=True)
    (tree / "b" / "run").write_bytes(b"#!")
    (tree / "b" / "run").chmod(0o700)
    (tree / "a").symlink_to("b/run")
    first = write_tar(tree, "srv/app", tmp_path / "1.tar")
    (tree / "b" / "run").touch()
    assert write_tar(tree, "srv/app", tmp_path / "2.tar") == first
    with tarfile.open(tmp_path / "1.tar") as tar:
        assert [info.name for info in tar] == [
            "srv",
            "srv/app",
            "srv/app/a",
            "srv/app/b",
            "srv/app/b/run",
        ]
        assert {info.uid for info in tar} == {0}
        assert tar.getmember("srv/app/b/run").mode == 0o755


def test_a_command_is_run_and_its_failure_told(tmp_path: Path) -> None:
    found = run(Command(("sh", "-c", 'echo {\\"bytes\\": {}}')), tmp_path)
    assert found.failed is None
    assert found.receipt == {"bytes": {}}
    assert found.peak > 0
    assert (
        "ended with 3: ['why']"
        == run(Command(("sh", "-c", "echo why >&2; exit 3")), tmp_path).failed
    )


def test_the_relay_carries_every_byte_and_the_end(tmp_path: Path) -> None:
    corpus.layout(tmp_path / "layout", {"v1": [corpus.tar(corpus.grow(1, 40))]})
    with (
        Registry(tmp_path / "layout") as registry,
        linked(Link("fast", 1e9, 0.001), registry.host) as host,
    ):
        for digest, blob in registry.content.blobs.items():
            with socket.create_connection((host.split(":")[0], int(host.split(":")[1]))) as there:
                there.sendall(
                    f"GET /v2/demo/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: "
                    "close\r\n\r\n".encode()
                )
                answer = b"".join(iter(lambda there=there: there.recv(65_536), b""))  # type: ignore[misc]
            assert answer.partition(b"\r\n\r\n")[2] == blob


def test_conversions_are_measured_beside_those_of_skopeo(tmp_path: Path) -> None:
    peers.require("trixie")
    images = {
        "node": [corpus.tar(corpus.grow(1, 60))],
        "python": [corpus.tar(corpus.grow(seed, 5 * seed)) for seed in (2, 3)],
    }
    skopeo = peers.skopeo_new()
    with ExitStack() as stack:
        front, registry = serving(tmp_path / "servers", tmp_path / "storage", stack)
        for name, tars in images.items():
            corpus.layout(tmp_path / name, {"v2": tars})
            skopeo(
                "copy",
                "--dest-tls-verify=false",
                f"oci:{tmp_path}/{name}:v2",
                f"docker://{front.host}/{name}:v2",
            )
        (tmp_path / "work").mkdir()
        bench = Bench(
            tmp_path / "work", front, registry, 1, HOME_OF_PACKAGE, (), (), lambda _: None
        )
        rows = list(converting.converts(bench))
    assert [(row.image, row.client, row.cost.failed) for row in rows] == [
        (name, client, None)
        for name in ("large", "python", "node")
        for client in ("zpull", "skopeo")
    ]
    assert all(row.cost.wire > 1_000 for row in rows)
    found = Results(sizes={"node": 1, "python": 1}, rows=rows)
    what = [one.what for one in targets.verdicts(found) if one.what.startswith("conversion")]
    assert len(what) == 12
    report.write(found, tmp_path)
    assert "## Conversions" in (tmp_path / "benchmarks.md").read_text()
