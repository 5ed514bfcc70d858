"""URLs and paths of blobs in a layout, known without a request."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from zchunked.errors import LocalError, NotFoundError
from zchunked.local.paths import is_file
from zchunked.oci.digest import Digest
from zchunked.oci.reference import LayoutReference
from zchunked.sources.layout import blob_path


def place_in_layout(reference: LayoutReference, blob: Digest) -> str:
    """URL or path of a blob in a layout. NotFoundError where a directory lacks it."""
    if reference.scheme in ("oci-archive", "docker-archive") or reference.is_engine:
        raise NotFoundError(
            f"{reference.name} comes as an archive: a blob in it has no place of its own"
        )
    if reference.scheme != "oci":
        base = quote(reference.base, safe="/%:@!$&'()*+,;=~[]")
        return f"{reference.scheme.removeprefix('oci+')}://{base}/{blob_path(blob)}"
    path = Path(reference.base, blob_path(blob))
    try:
        if not is_file(path):
            raise NotFoundError(f"{reference.name} holds no blob {blob}")
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from error
    return str(path.absolute())
