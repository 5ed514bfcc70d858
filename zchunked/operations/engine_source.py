"""Read an image of docker or podman on this machine, by the archive that the engine saves."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from zchunked.export.engines.engine_commands import Engine
from zchunked.export.engines.engine_names import EngineTarget, Kind
from zchunked.interfaces import Source
from zchunked.oci.reference import LayoutReference
from zchunked.sources.archives.archive import TarObjects
from zchunked.sources.archives.docker_archive import SavedObjects
from zchunked.sources.layout import LayoutSource


def open_engine_image(reference: LayoutReference, spool: Path) -> Source:
    """The caller closes it. `spool`: a folder with room for the archive.

    Raises LocalError where the engine is missing, does not answer, or has no such image: before
    anything is fetched.
    """
    engine = Engine(EngineTarget(cast("Kind", reference.scheme), None, text=str(reference)))
    engine.check()
    image = engine.find(reference.base)
    members = TarObjects(lambda: engine.saving(image), reference.name, spool=spool)
    return LayoutSource(
        reference, members if image.is_oci else SavedObjects(members), is_local=True
    )
