"""A private folder in which a new layout is made, locked while its process lives."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

from zchunked.export.files.atomic import partial_name, partials_of
from zchunked.export.files.locks import open_folder, try_lock
from zchunked.local.paths import is_folder
from zchunked.oci.digest import Digest


class Stage:
    """Made at first use, beside the target; within it where that is a folder. Thread-safe.

    Such a folder may be a mount point, or a shell's working directory, which cannot be renamed.
    What a killed process left is taken over.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.written: set[Digest] = set()
        """Blobs that this process wrote there and verified; other files may be anything."""
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._handle = -1
        self.is_inside = False

    @property
    def folder(self) -> Path:
        """Raises OSError where none can be made."""
        with self._lock:
            if self._folder is None:
                self.is_inside = is_folder(self.target)
                self._folder = self._adopted() or self._made()
            return self._folder

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs" / "sha256"

    def _place(self) -> Path:
        return self.target / "layout" if self.is_inside else self.target

    def _adopted(self) -> Path | None:
        """Take over the first folder of killed processes; drop the others."""
        found: Path | None = None
        for folder in partials_of(self._place()):
            # a file, or no locks: it is unknown whether its process lives
            with suppress(OSError):
                handle = open_folder(folder)
                if not try_lock(handle) or os.fstat(handle).st_uid != os.geteuid():
                    os.close(handle)
                elif found is None:
                    found, self._handle = folder, handle
                else:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(handle)
        return found

    def _made(self) -> Path:
        place = self._place()
        place.parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = partial_name(place)
            folder.mkdir()
            self._handle = open_folder(folder)
            with suppress(OSError):  # not every file system has locks
                if not (try_lock(self._handle) and os.fstat(self._handle).st_nlink):
                    os.close(self._handle)  # another process took it for a dead one's
                    continue
            return folder

    def renamed(self) -> None:
        """The folder has become the target."""
        with self._lock:
            self._folder = None

    def drop(self) -> None:
        """Remove it with all that is in it."""
        with self._lock:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
            self.written.clear()
        self.close()

    def close(self) -> None:
        """Let go of it; what is there may be taken over by the next process."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
            self._folder = None
