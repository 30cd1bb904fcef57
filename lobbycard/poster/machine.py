"""Which processor this is, and how many there are: speeds that were measured on one say nothing about another."""

import os
import platform
from contextlib import suppress
from pathlib import Path


def cpu_name() -> str:
    """The processor's own name, such as `Intel(R) Xeon(R) Platinum 8481C`, or what the system calls it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many processors this process may use, hyper-threads counted."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
