"""The memory that a process came to hold, as the kernel counts it.

Alone in a memory control group (version 1 or 2) a process is charged for its page cache too, and the group's peak is
the figure that a limit is about. Otherwise the peak is the process's own resident set, and the page cache is not known:
the machine's is shared with everybody.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from edge.budget import peak_resident_bytes

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUP, PROCESS = "control group", "process"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes."""

    peak_bytes: int
    page_cache_bytes: int | None  # at this moment; None where it cannot be told from others'
    source: str  # GROUP or PROCESS


def footprint() -> Footprint:
    """Of this process so far."""
    for group in _groups(OWN_GROUPS.read_text()) if OWN_GROUPS.exists() else []:
        figures = _group_figures(group)
        if figures is not None:
            return figures
    return Footprint(peak_resident_bytes(), None, PROCESS)


def _groups(lines: str) -> list[Path]:
    """Directories of the groups that may control memory, from the lines of OWN_GROUPS."""
    places = [line.split(":", 2)[1:] for line in lines.splitlines()]
    return [
        CGROUPS / controllers / place.lstrip("/")
        for controllers, place in places
        if not controllers or "memory" in controllers.split(",")
    ]


def _group_figures(group: Path) -> Footprint | None:
    """None unless this process is alone in the group and the group counts memory."""
    try:
        if (group / "cgroup.procs").read_text().split() != [str(os.getpid())]:
            return None
        is_v1 = (group / "memory.max_usage_in_bytes").exists()
        peak = int((group / ("memory.max_usage_in_bytes" if is_v1 else "memory.peak")).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Shared memory (of our own anonymous mappings) is counted as cache too, and is none.
        cache = int(stat["cache" if is_v1 else "file"]) - int(stat["shmem"])
    except (OSError, KeyError):
        return None
    return Footprint(peak, cache, GROUP)
