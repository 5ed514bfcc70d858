"""Start one command and measure it. Small: a child's peak memory is at least its parent's.

Run as `python -I -S launch.py RESULT TIMEOUT ARGV…`; RESULT gets a line of JSON. Imports nothing of
ours.
"""

import json
import os
import resource
import signal
import sys
import time


def main() -> None:
    """Memory is that of the command's largest process; CPU is of all that were waited for."""
    result, timeout, argv = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    busy, began = _busy(), time.monotonic()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.execvp(argv[0], argv)
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.alarm(timeout)
    _, status, _ = os.wait4(child, 0)
    wall = time.monotonic() - began
    signal.alarm(0)
    busy = _busy() - busy
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime
    row = {
        "code": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": cpu,
        "others": max(0.0, busy - cpu),
        "peak": spent.ru_maxrss * 1024,
    }
    with open(result, "w", encoding="utf-8") as file:  # noqa: PTH123 -- pathlib would be half of the memory
        json.dump(row, file)


def _busy() -> float:
    """CPU seconds that this machine's cores were busy, or stolen, since its start."""
    with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123
        user, nice, system, _idle, _waiting, *rest = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
