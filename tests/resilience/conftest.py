"""A folder for tests that sync to the disk thousands of times."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def swift() -> Iterator[Path]:
    """In memory where the machine has such a file system.

    A sync costs 6 ms on a disk, and what it does there is not what these tests are about.
    """
    is_there = os.access(MEMORY, os.W_OK)
    with tempfile.TemporaryDirectory(
        prefix="zpull-", dir=MEMORY if is_there else None, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
