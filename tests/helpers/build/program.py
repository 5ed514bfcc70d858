"""A program that needs nothing else in its image, so that a container made from it can run."""

from __future__ import annotations

import platform
import struct

_CODE = bytes.fromhex(
    "b802000000"  # mov $2, %eax: open
    "488d3d33000000"  # lea path(%rip), %rdi
    "31f60f05"  # xor %esi, %esi; syscall
    "89c731c0"  # mov %eax, %edi; xor %eax, %eax: read
    "4881ec001000004889e6"  # sub $4096, %rsp; mov %rsp, %rsi
    "ba001000000f05"  # mov $4096, %edx; syscall
    "89c2b801000000"  # mov %eax, %edx; mov $1, %eax: write
    "bf010000004889e60f05"  # mov $1, %edi; mov %rsp, %rsi; syscall
    "b83c00000031ff0f05"  # mov $60, %eax: exit; xor %edi, %edi; syscall
)
_BASE = 0x400000
_HEADERS = 64 + 56

RUNS_HERE = platform.machine() == "x86_64"


def show(path: str = "/etc/version") -> bytes:
    """An x86-64 ELF executable that prints the file of this name, up to 4 KiB of it."""
    code = _CODE + path.encode() + b"\0"
    size = _HEADERS + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    return header + segment + code
