"""A result that could not be written is a failure, whatever the verb."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.build.stored import NAME, keep_image
from tests.helpers.harness.command import ARGV, environment
from tests.helpers.servers.registry import Registry
from zchunked.store import Store

IMAGE = image([gzip_layer(make_tar({"app": b"one" * 1000}))])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with Store(tmp_path / "store") as store:
        keep_image(store, IMAGE)
    return tmp_path


@pytest.fixture
def reference() -> Iterator[str]:
    with Registry({"v1": IMAGE}) as registry:
        yield registry.reference("v1")


def ended(home: Path, command: str, redirect: str) -> tuple[int, str]:
    text = f"{' '.join(ARGV)} {command} {redirect}"
    done = subprocess.run(
        ["bash", "-c", text],
        env=environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", [
    "images", "images -q", "images --format json", "verify", f"export {NAME} --to oci:out",
        "--version", "--help",
    "{reference}", "{reference} -q", "{reference} --format json", "plan {reference}",
        "locate {reference}",
    "fetch {reference}", "publish {reference} there", "export {name} --to oci-archive:-",
])  # fmt: skip
def test_a_result_that_is_lost_is_exit_code_8(
    home: Path, reference: str, command: str, redirect: str
) -> None:
    code, text = ended(home, command.format(reference=reference, name=NAME), redirect)
    assert code == 8, text
    assert text.count("zpull: error: ") == 1
    assert "bug" not in text


@pytest.mark.parametrize("redirect", ["2>&-", "2>&- <&-"])
def test_errors_that_nobody_can_read_change_nothing(home: Path, redirect: str) -> None:
    code, text = ended(home, f"export {NAME} --to oci-archive:- > x.tar", redirect)
    assert (code, text) == (0, "")
    assert ended(home, "images -q", redirect) == (0, f"{IMAGE.digest}\n")


def test_the_text_of_an_archive_on_standard_output_never_gets_into_it(home: Path) -> None:
    ended(home, f"export {NAME} --to oci-archive:- > x.tar", "")
    ended(home, f"export {NAME} --to oci-archive:- > y.tar", "2>&-")
    assert (home / "x.tar").read_bytes() == (home / "y.tar").read_bytes()
