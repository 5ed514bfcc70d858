"""Check a destination before the pull: would an export fail, or destroy other things."""

from __future__ import annotations

import os

from zchunked.errors import LocalError
from zchunked.export.destination import Destination
from zchunked.export.files.atomic import local_errors
from zchunked.export.files.folder import may_take, taken
from zchunked.export.files.targets import descriptor_of, is_regular, real_path
from zchunked.local.paths import is_folder


def check_target(to: Destination, *, force: bool = False) -> None:
    """LocalError where `export` would fail at once, or destroy something else than an image.

    It must be called before the process opens files of its own: a closed descriptor may become one
    of those.
    """
    path = to.path
    with local_errors(f"cannot write {path}"):
        if to.transport == "oci":
            if not (force or may_take(path)):
                raise taken(path, "OCI layout")
        elif to.is_stdout:
            os.fstat(1)
        elif (descriptor := descriptor_of(path)) is not None:
            os.fstat(descriptor)
        elif is_folder(real_path(path)):
            raise LocalError(f"{path} is a folder; expected the name of a file")
        elif is_regular(path) and not force and path.stat().st_size:
            from zchunked.export.images.archives import is_archive  # noqa: PLC0415 - few targets are there

            if not is_archive(path):
                raise taken(path, "image archive")
