"""The command where its surroundings lack something.

Streams, a home, letters, room on the disk behind a stream.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.harness.command import environment
from tests.helpers.servers.registry import Registry

DEMO = Golden("demo", "demo-v1").layout
IMAGE = f"oci:{DEMO}:demo-v1"


def shell(home: Path, line: str, *words: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    """`$Z` in the line is zpull, `$1` the first of the words."""
    script = line.replace("$Z", f"'{sys.executable}' -m zchunked")
    done = subprocess.run(
        ["bash", "-c", script, "sh", *words],
        env=environment(home, extra),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert b"bug" not in done.stderr
    assert b"Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('$Z "$1" 2>&-', 0),
        ('$Z "$1" <&-', 0),
        ('$Z "$1" 2>/dev/full', 0),
        ('$Z "$1" --progress json 2>/dev/full', 0),
        ('$Z "$1" >&-', 8),
        ('$Z "$1" <&- >&- 2>&-', 8),
        ('$Z "$1" >/dev/full', 8),
        ('$Z "$1" --format json >/dev/full', 8),
        ('$Z plan "$1" >/dev/full', 8),
        ("$Z images >/dev/full", 0),
        ("$Z --version >/dev/full", 8),
        ("$Z --help >&-", 8),
        ('$Z fetch "$1" >&-', 8),
        ('$Z "$1" --to docker-archive:- >&-', 8),
        ('$Z "$1" -q --to oci-archive:- >/dev/full', 8),
    ],
)
def test_closed_and_full_streams(line: str, code: int, tmp_path: Path) -> None:
    done = shell(tmp_path, line, IMAGE)
    assert done.returncode == code, done.stderr


def test_a_long_result_on_a_full_disk_says_what_is_full(tmp_path: Path) -> None:
    done = shell(tmp_path, '$Z "$1" --format json >/dev/full', IMAGE)
    assert b"error: standard output: No space left on device" in done.stderr


def test_nothing_is_written_into_files_that_were_opened_on_closed_streams(tmp_path: Path) -> None:
    shell(tmp_path, '$Z "$1" <&- >&- 2>&-', IMAGE)
    assert shell(tmp_path, "$Z verify").returncode == 0
    assert (
        shell(tmp_path, '$Z export "$1" --to oci:"$2"', IMAGE, str(tmp_path / "out")).returncode
        == 0
    )


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_paths_that_are_no_text_and_locales_without_letters(
    locale: str, utf8: str, tmp_path: Path
) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9-\xff")
    os.makedirs(strange)  # noqa: PTH103 - the name is no text
    layout = strange + "/in"
    os.symlink(DEMO, layout)  # noqa: PTH211
    extra = {"LC_ALL": locale, "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
    for line in (
        (
            '$Z "$1" --store "$2/store" --to oci:"$2/out" --to oci-archive:"$2/out.tar" '
            '--digestfile "$2/digest"'
        ),
        '$Z "$1" --store "$2/store" --format json',
        '$Z images --store "$2/store"',
        '$Z export "$1" --store "$2/store" --to docker-archive:"$2/export.tar"',
        '$Z "$1" --store "$2/other" --seed "$2/out"',
        '$Z publish "$1" "$2/published" --store "$2/store"',
        "$Z --help",
    ):
        done = shell(tmp_path, line, f"oci:{layout}:demo-v1", strange, **extra)
        assert done.returncode == 0, (line, done.stderr)


def test_what_is_printed_of_a_path_that_is_no_text_can_be_given_back(tmp_path: Path) -> None:
    layout = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.symlink(DEMO, layout)  # noqa: PTH211
    printed = shell(tmp_path, '$Z "$1"', f"oci:{layout}:demo-v1").stdout.strip()
    assert b"caf\xe9" in printed
    assert shell(tmp_path, '$Z "$1"', os.fsdecode(printed)).returncode == 0


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_the_error_names_the_option(home: str | None, tmp_path: Path) -> None:
    """As in a container with an arbitrary uid: nothing in the passwd file either."""
    code = (
        "import os, sys, pwd\n"
        "def absent(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = absent\n"
        "sys.argv[1:] = ['images']\n"
        "from zchunked.cli import main\n"
        "main()\n"
    )
    surroundings = {
        name: value
        for name, value in environment(tmp_path).items()
        if name not in ("HOME", "ZPULL_STORE")
    }
    if home is not None:
        surroundings["HOME"] = home
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=surroundings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 8
    assert "--store" in done.stderr
    assert "HOME" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_home_a_named_store_is_enough(tmp_path: Path) -> None:
    with Registry(DEMO) as registry:
        done = shell(tmp_path, 'unset HOME; $Z "$1"', registry.reference("demo-v1"))
    assert done.returncode == 0


def test_warnings_of_libraries_stay_away_from_people(tmp_path: Path) -> None:
    code = (
        "from zchunked.cli.terminal.streams import prepare; prepare(); import warnings; "
        "warnings.warn('the clock is way off')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
