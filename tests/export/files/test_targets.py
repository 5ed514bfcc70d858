"""Files that are named as targets.

Regular ones are replaced whole, everything else is written through.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.build.stored import NAME, keep_image
from tests.helpers.harness.command import ARGV, environment, zpull
from zchunked.errors import LocalError
from zchunked.export.check import check_target
from zchunked.export.destination import parse_destination
from zchunked.export.files.targets import descriptor_of, is_stream, opened
from zchunked.export.write import export
from zchunked.store import Store

IMAGE = image([gzip_layer(make_tar({"app": b"one" * 1000}))])
ARCHIVES = ["oci-archive", "docker-archive"]
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as found:
        keep_image(found, IMAGE)
        yield found


def shell(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    """In bash, with `zpull export` as $EXPORT."""
    text = f"{' '.join(ARGV)} export {NAME}"
    return subprocess.run(
        ["bash", "-c", f'export() {{ {text} "$@"; }}; {command}'],
        env=environment(home), cwd=home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@contextmanager
def reader_of(fifo: Path) -> Iterator[list[bytes]]:
    came: list[bytes] = []
    thread = threading.Thread(target=lambda: came.append(fifo.read_bytes()), daemon=True)
    thread.start()
    yield came
    thread.join(10)


@pytest.mark.parametrize("to", ARCHIVES)
def test_a_pipe_gets_the_archive_and_stays_a_pipe(store: Store, tmp_path: Path, to: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with reader_of(fifo) as came:
        export(store, keep_image(store, IMAGE), parse_destination(f"{to}:{fifo}"))
    tmp_path.joinpath("x.tar").write_bytes(came[0])
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert "manifest.json" in tar.getnames()
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


@ROOT
@pytest.mark.parametrize("name", ["null", "link"])
def test_a_device_stays_a_device(store: Store, tmp_path: Path, name: str) -> None:
    device = tmp_path / "null"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tmp_path / "link").symlink_to(device)
    before = {path.name for path in tmp_path.iterdir()}
    for to in ARCHIVES:
        export(store, keep_image(store, IMAGE), parse_destination(f"{to}:{tmp_path / name}"))
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == before


@ROOT
def test_a_device_that_is_full_is_an_error(store: Store, tmp_path: Path) -> None:
    os.mknod(tmp_path / "full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    with pytest.raises(LocalError, match="disk is full"):
        export(store, keep_image(store, IMAGE), parse_destination(f"oci-archive:{tmp_path}/full"))


def test_descriptors_are_known_by_all_their_names(tmp_path: Path) -> None:
    tmp_path.joinpath("out").symlink_to("/proc/self/fd/1")
    tmp_path.joinpath("chain").symlink_to("out")
    names = {"/dev/stdout": 1, "/dev/stderr": 2, "/dev/fd/3": 3, "/proc/self/fd/7": 7,
        f"/proc/{os.getpid()}/fd/7": 7,
             str(tmp_path / "out"): 1, str(tmp_path / "chain"): 1, str(tmp_path / "x"): None,
                 "/dev/null": None,
             "/proc/self/fd/x": None, "/dev/fd": None}  # fmt: skip
    assert {name: descriptor_of(Path(name)) for name in names} == names
    assert is_stream(Path("/dev/stdout"))
    assert parse_destination("docker-archive:/dev/stdout").is_stdout


def test_an_open_file_goes_on_where_it_was(tmp_path: Path) -> None:
    """A file of the shell's `3>> log`: neither replaced, nor written from its beginning."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    with opened(Path(f"/dev/fd/{handle}")) as file:
        file.write(b"after\n")
    os.write(handle, b"more\n")
    os.close(handle)
    assert path.read_bytes() == b"before\nafter\nmore\n"


@pytest.mark.parametrize("command", [
    "export --to docker-archive:/dev/fd/3 3> x.tar",
    "export --to oci-archive:/dev/stdout > x.tar",
    "export --to oci-archive:- > x.tar",
    "export --to docker-archive:>(cat > x.tar); sleep 0.3",
])  # fmt: skip
def test_what_shells_pass_is_written_through(store: Store, tmp_path: Path, command: str) -> None:
    done = shell(tmp_path, command)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert "manifest.json" in tar.getnames()
    assert f"@{IMAGE.digest}" in done.stdout + done.stderr
    assert (f"@{IMAGE.digest}" in done.stderr) == ("stdout" in command or ":-" in command)


@pytest.mark.parametrize("command", ["/dev/fd/3 3>&-", "/dev/stdout >&-", "- >&-"])
def test_a_closed_descriptor_is_an_error_before_anything_is_opened(
    store: Store, tmp_path: Path, command: str
) -> None:
    """A file of the store could get its number."""
    done = shell(tmp_path, f"export --to oci-archive:{command}")
    assert done.returncode == 8
    assert "Bad file descriptor" in done.stderr or "is closed" in done.stderr


@pytest.mark.parametrize("to", [*ARCHIVES, "oci"])
def test_a_file_that_is_no_image_is_kept_unless_forced(
    store: Store, tmp_path: Path, to: str
) -> None:
    path = tmp_path / "thesis.tex"
    path.write_bytes(b"precious")
    where = parse_destination(f"{to}:{path}")
    with pytest.raises(
        LocalError, match=r"is there already and is not .*; choose another target, or use --force"
    ):
        check_target(where)
    with pytest.raises(LocalError, match="--force"):
        export(store, keep_image(store, IMAGE), where)
    assert path.read_bytes() == b"precious"
    export(store, keep_image(store, IMAGE), where, force=True)
    assert path.is_dir() == (to == "oci")


@pytest.mark.parametrize("to", ARCHIVES)
def test_an_archive_of_before_and_an_empty_file_are_replaced(
    store: Store, tmp_path: Path, to: str
) -> None:
    path = tmp_path / "x.tar"
    path.touch()
    for one in ARCHIVES:
        export(store, keep_image(store, IMAGE), parse_destination(f"{one}:{path}"))
        export(store, keep_image(store, IMAGE), parse_destination(f"{to}:{path}"))


def test_another_tar_is_no_image(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    path.write_bytes(
        make_tar({"index.json": b"{}", "manifest.json": b'{"name":"an extension"}', "x": b"y"})
    )
    with pytest.raises(LocalError, match="not an image archive"):
        check_target(parse_destination(f"oci-archive:{path}"))


def test_a_link_to_an_archive_stays_and_the_archive_is_replaced(
    store: Store, tmp_path: Path
) -> None:
    tmp_path.joinpath("latest.tar").symlink_to("app.tar")
    for _ in range(2):
        export(
            store, keep_image(store, IMAGE), parse_destination(f"oci-archive:{tmp_path}/latest.tar")
        )
    assert tmp_path.joinpath("latest.tar").is_symlink()
    assert tarfile.is_tarfile(tmp_path / "app.tar")


@ROOT
def test_a_strangers_link_in_a_folder_for_everybody_is_not_followed(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    folder.chmod(0o1777)
    link = folder / "app.tar"
    link.symlink_to(tmp_path / "victim")
    os.chown(link, 1001, 1001, follow_symlinks=False)
    with pytest.raises(LocalError, match="another user's link"):
        export(store, keep_image(store, IMAGE), parse_destination(f"oci-archive:{link}"))
    assert not tmp_path.joinpath("victim").exists()


@pytest.mark.parametrize("to", [*ARCHIVES, "oci"])
def test_the_command_refuses_before_it_pulls(tmp_path: Path, to: str) -> None:
    path = tmp_path / "thesis.tex"
    path.write_bytes(b"precious")
    done = zpull(tmp_path, "127.0.0.1:1/app:v1", "--to", f"{to}:{path}", check=False)
    assert (done.code, path.read_bytes()) == (8, b"precious")
    assert "--force" in done.error
