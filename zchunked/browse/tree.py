"""The file tree of an image: layers applied in order, whiteouts obeyed, links followed."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from zchunked.errors import NotFoundError, UsageError
from zchunked.formats.tars.tar_reader import Member

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MOST_LINKS = 40  # as Linux follows in one path
_KINDS = {"reg": "file"}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file, directory, link or device of an image.

    Attributes:
        path: From the image's root, without a leading slash.
        kind: `file`, `dir`, `symlink`, `hardlink`, `char`, `block` or `fifo`.
        mode: Permission bits.
        uid: Owner.
        gid: Group.
        size: Bytes of the content of a file or hardlink; 0 for all else.
        mtime: Nanoseconds since 1970.
        link: What a symlink says; of a hardlink the path of the file that holds its content.
        layer: Number of the layer that holds its content; 0 is the lowest.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: str | None
    layer: int


def apply_layer(tree: dict[str, FileEntry], members: Iterable[Member], layer: int) -> None:
    """Change the tree as unpacking the layer over it would; `members` in the tar's order."""
    lower = [*tree]  # whiteouts remove what lies below, never what their own layer adds
    added: dict[str, FileEntry] = {}
    removed: set[str] = set()
    emptied: set[str] = set()
    for member in members:
        path = path_of(member.name)
        folder, name = posixpath.split(path)
        if name == _OPAQUE:
            emptied.add(folder)
        elif name.startswith(_WHITEOUT):
            removed.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
        elif path:
            entry = added[path] = _entry(path, member, layer)
            if entry.kind == "hardlink" and (
                same := added.get(entry.link or "") or tree.get(entry.link or "")
            ):
                # The content of now: a later layer may put another file at that path.
                link, size = same.link if same.kind == "hardlink" else same.path, same.size
                entry = added[path] = replace(entry, link=link, size=size, layer=same.layer)
            if entry.kind != "dir":
                emptied.add(path)  # what was a directory below is none any more
    if removed or emptied:
        for path in lower:
            above = _folders(path)
            if path in removed or not removed.isdisjoint(above) or not emptied.isdisjoint(above):
                del tree[path]
    tree.update(added)


def find_file(tree: Mapping[str, FileEntry], path: str) -> FileEntry:
    """The file or hardlink at a path, symlinks followed as if the image were the root.

    Raises NotFoundError where there is nothing, UsageError for what has no content.
    """
    wanted, links = _parts(path), 0
    done: list[str] = []
    found: FileEntry | None = None
    while wanted:
        part = wanted.pop(0)
        if part == "..":
            done, found = done[:-1], None
            continue
        here = "/".join([*done, part])
        found = tree.get(here)
        if found is None:
            if any(other.startswith(here + "/") for other in tree):  # no layer lists the directory
                done.append(part)
                continue
            raise NotFoundError(f"the image has no file {path!r}: there is no {here!r}")
        if found.kind == "symlink":
            links += 1
            if links > _MOST_LINKS:
                raise NotFoundError(
                    f"the image has no file {path!r}: more than {_MOST_LINKS} links lead on from it"
                )
            target = found.link or ""
            done = [] if target.startswith("/") else done
            wanted = _parts(target) + wanted
            continue
        done.append(part)
    if found is None or found.kind not in ("file", "hardlink"):
        raise UsageError(
            f"{path!r} of the image: expected a file, got a {found.kind if found else 'dir'}"
        )
    return found


def path_of(name: bytes) -> str:
    """The path from the image's root that a name in a tar means; empty for the root itself."""
    return posixpath.normpath("/" + os.fsdecode(name)).lstrip("/")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _folders(path: str) -> list[str]:
    """All directories above a path, the root (empty) among them."""
    return ["", *(path[:at] for at, letter in enumerate(path) if letter == "/")]


def _entry(path: str, member: Member, layer: int) -> FileEntry:
    link: str | None = None
    if member.kind == "symlink":
        link = os.fsdecode(member.link_name)
    elif member.kind == "hardlink":
        link = path_of(member.link_name)
    return FileEntry(
        path,
        _KINDS.get(member.kind, member.kind),
        member.mode,
        member.uid,
        member.gid,
        member.payload_bytes,
        member.mtime,
        link,
        layer,
    )
