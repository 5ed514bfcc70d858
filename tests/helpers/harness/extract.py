"""Extract tars of our own: the first releases of Python 3.11, as Debian 12 has, know no filters."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path


def extract(
    tar: tarfile.TarFile, folder: Path, members: Iterable[tarfile.TarInfo] | None = None
) -> None:
    if hasattr(tarfile, "fully_trusted_filter"):
        tar.extractall(folder, members, filter="fully_trusted")
    else:
        tar.extractall(folder, members)
