"""The command as a user meets it.

Verbs, exit codes, one line for each error, nothing but the result on stdout.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.harness.command import environment, receipt, zpull
from tests.helpers.servers.registry import Registry
from zchunked.cli.words.tables import VERBS

DEMO = Golden("demo", "demo-v1").layout


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--bogus"], 2, "--help lists what is possible"),
        (["host.example/Upper/case:tag"], 2, "must be lower case"),
        (["host/name:bad tag"], 2, "invalid tag"),
        (["host/name@sha256:12"], 2, "64 lower-case hex digits"),
        (["https://host/name"], 2, "unknown kind of image"),
        (["host/name", "--platform", "amd64"], 2, "os/architecture"),
        (["host/name", "--to", "nowhere:x"], 2, "unknown destination"),
        (["host/name", "--to", "oci-archive:-", "--to", "docker-archive:-"], 2, "standard output"),
        (["host/name", "-j", "0"], 2, "between 1 and 64"),
        (["export", "host/name"], 2, "--to"),
        (["export", "host/name", "--to", "oci:x"], 3, "pull it first"),
        (["127.0.0.1:1/name", "--patience", "0"], 5, "connection refused"),
    ],
)
def test_an_error_is_one_line_and_a_documented_exit_code(
    argv: list[str], code: int, says: str, tmp_path: Path
) -> None:
    ended = zpull(tmp_path, *argv, check=False)
    assert ended.code == code, ended.err
    assert says in ended.error
    assert ended.out == ""


def test_stdout_has_the_result_alone(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        ended = zpull(tmp_path, registry.reference("demo-v1"))
        digest = Golden("demo", "demo-v1").expect["manifest"]["digest"]
        assert ended.out == f"{registry.host}/demo@{digest}\n"
        assert zpull(tmp_path, registry.reference("demo-v1"), "-q").out == f"{digest}\n"
        assert zpull(tmp_path, registry.reference("demo-v1"), "-q").err == ""


def test_missing_tag_is_not_found_and_denied_is_denied(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        assert zpull(tmp_path, registry.reference("absent"), check=False).code == 3
    with Registry(DEMO, auth="basic") as registry:
        ended = zpull(tmp_path, registry.reference("demo-v1"), "--creds", "me:s3cr3t", check=False)
        assert ended.code == 4
        assert "s3cr3t" not in ended.err


@pytest.mark.parametrize("multi_range", ["206", "501"])
def test_a_plan_says_what_the_pull_then_fetches(multi_range: str, tmp_path: Path) -> None:
    with Registry(DEMO, multi_range=multi_range) as registry:  # type: ignore[arg-type]
        zpull(tmp_path, registry.reference("demo-v1"))
        plan = receipt(tmp_path, "plan", registry.reference("demo-v2"), "--rate", "4Mbit")
        before = registry.accounts.body_bytes
        refused = zpull(tmp_path, registry.reference("demo-v2"), "--max-bytes", "10k", check=False)
        assert refused.code == 9
        assert str(plan["estimate"]["requests"]) in refused.error
        between = registry.accounts.body_bytes
        text = zpull(tmp_path, registry.reference("demo-v2"), "--dry-run").out
        assert "partial" in text
        middle = registry.accounts.body_bytes
        assert between - before == middle - between  # the manifest alone
        pulled = receipt(tmp_path, registry.reference("demo-v2"))
        sent = registry.accounts.body_bytes - middle
    assert abs(plan["estimate"]["bytes"] - sent) <= 0.03 * sent
    assert plan["estimate"]["requests"] == pulled["requests"]
    assert plan["bytes"]["needed"] == 0


def test_a_plan_of_whole_layers_says_why(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        text = zpull(tmp_path, "plan", registry.reference("plain-gzip")).out
        assert text.count("gzip layer without a table of contents") == 2
        before = registry.accounts.blob_bytes
        assert before <= 1000  # the config


def test_options_come_from_the_environment_and_what_is_typed_wins(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        env = {"ZPULL_FORMAT": "json", "ZPULL_EXACT": "1", "ZPULL_JOBS": "2"}
        summary_of = json.loads(zpull(tmp_path, registry.reference("demo-v1"), env=env).out)
        assert {layer["mode"] for layer in summary_of["layers"]} == {"whole"}
        assert (
            zpull(tmp_path, registry.reference("demo-v1"), "--format", "text", env=env).out.count(
                "@"
            )
            == 1
        )


def test_images_lists_what_was_pulled(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        zpull(tmp_path, registry.reference("demo-v1"))
        zpull(tmp_path, registry.reference("multi-platform"), "--platform", "linux/arm64")
        rows = json.loads(zpull(tmp_path, "images", "--format", "json").out)
        assert {(row["reference"], row["platform"]) for row in rows} == {
            (registry.reference("demo-v1"), "linux/amd64"),
            (registry.reference("multi-platform"), "linux/arm64"),
        }
        head, *lines = zpull(tmp_path, "images").out.splitlines()
        assert head.split() == [
            "IMAGE",
            "PLATFORM",
            "DIGEST",
            "SIZE",
            "SHARED",
            "PROVED",
            "BY",
            "PULLED",
        ]
        assert len(lines) == 2
        assert all("just now" in line and "kB" in line for line in lines)
        assert all(row["size"] > 1000 for row in rows)


def test_an_export_takes_what_zpull_printed(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        printed = zpull(tmp_path, registry.reference("demo-v1")).out.strip()
        zpull(tmp_path, registry.reference("demo-v2"))
    digest = printed.partition("@")[2]
    for number, name in enumerate([printed, digest, digest[:20], digest[7:], digest[7:15]]):
        summary_of = zpull(tmp_path, "export", name, "-q", "--to", f"oci:{tmp_path}/{number}").out
        assert summary_of == f"{digest}\n"
    for name, code in (("sha256:", 2), ("sha256:0123456789", 3), (registry.reference("absent"), 3)):
        assert (
            zpull(tmp_path, "export", name, "--to", f"oci:{tmp_path}/x", check=False).code == code
        )


def test_verbose_shows_requests_without_secrets(tmp_path: Path) -> None:
    with Registry(DEMO, auth="bearer", redirect=True) as registry:
        shown = zpull(tmp_path, registry.reference("demo-v1"), "-v").err
        requests = [line for line in shown.splitlines() if line.startswith("zpull: GET http://")]
        assert len(requests) == registry.accounts.count()
        assert any(" bytes=" in line and ": 206 after " in line for line in requests)
        for url in (line.split()[2].rstrip(":") for line in requests):
            for pair in url.partition("?")[2].split("&"):
                assert not pair or pair.endswith("=…") or pair.split("=")[0] in ("scope", "service")
        quiet = zpull(tmp_path, registry.reference("demo-v2"), "-q", "--progress", "json").err
        assert '"event": "planned"' in quiet
        assert "requested" not in quiet


def test_a_plan_without_a_measured_rate_gives_no_time(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        image = registry.reference("demo-v1")
        assert receipt(tmp_path, "plan", image)["estimate"]["seconds"] is None
        assert " s at " not in zpull(tmp_path, "plan", image).out
        assert "at 500 kB/s" in zpull(tmp_path, "plan", image, "--rate", "4Mbit").out


def test_bytes_come_no_faster_than_the_limit(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        done = receipt(tmp_path, registry.reference("demo-v1"), "--limit-rate", "400kB/s")
    assert done["seconds"] >= 0.5 * done["bytes"]["fetched"] / 400_000 > 0.1


def test_a_target_that_is_in_the_way_is_named_and_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    target.joinpath("mine").write_text("precious")
    with Registry(DEMO) as registry:
        ended = zpull(tmp_path, registry.reference("demo-v1"), "--to", f"oci:{target}", check=False)
    assert ended.code == 8
    assert "is not an OCI layout" in ended.error
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        argv = [
            sys.executable,
            "-m",
            "zchunked",
            "-q",
            registry.reference("demo-v1"),
            "--to",
            "docker-archive:-",
        ]
        with subprocess.Popen(
            argv,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as sender:
            assert sender.stdout is not None
            sender.stdout.close()
            assert sender.stderr is not None
            summary_of = sender.stderr.read()
    assert sender.returncode == 8
    assert "Traceback" not in summary_of


def test_the_manual_page_has_every_option(tmp_path: Path) -> None:
    page = zpull(tmp_path, "--print-manual").out
    for verb in VERBS.values():
        assert f".SS zpull {verb.name}" in page
        for option in verb.options:
            assert option.flag.replace("-", "\\-") in page
    if shutil.which("man"):
        tmp_path.joinpath("zpull.1").write_text(page)
        shown = subprocess.run(
            ["man", "--warnings", "-l", tmp_path / "zpull.1"],
            env=environment(tmp_path, {"MANWIDTH": "80", "LC_ALL": "C.UTF-8"}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stderr == ""
        assert "ENVIRONMENT" in shown.stdout
