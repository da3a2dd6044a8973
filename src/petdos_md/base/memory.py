"""How much memory of the machine an evaluation may take: a share of what the system, batch systems and containers leave.

>>> free_memory() > 0
True
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SHARE = 0.7
"""Of the memory that is free, what one evaluation may take: others live on the machine, too."""
_NAMES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Limit and use of a control group: of version 2, and of the controller ``memory`` of version 1."""


def free_memory(root: Path = Path("/")) -> float:
    """Bytes that may be taken: a share of what Linux calls available, and of what the control groups of this process still allow.

    :param root: of the file system
    """
    return SHARE * min([_free_of_system(root / "proc/meminfo"), *_free_of_groups(root)])


def _free_of_system(path: Path) -> float:
    """Without a number there is no limit."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return float("inf")
    return min((1024.0 * float(words[1]) for words in lines if words[0] == "MemAvailable:"), default=float("inf"))


def _free_of_groups(root: Path) -> Iterator[float]:
    """What the control groups of this process leave: each holds for all that are inside."""
    try:
        entries = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, group in entries:
        if controllers in _NAMES:
            top = root / "sys/fs/cgroup" / controllers
            inside = top / group.strip("/")
            for folder in (inside, *inside.parents):
                yield _free_of_group(folder, *_NAMES[controllers])
                if folder == top:
                    break


def _free_of_group(folder: Path, limit: str, used: str) -> float:
    """The cache of files, which the kernel gives up first, does not count as used."""
    try:
        allowed, taken = float((folder / limit).read_text()), float((folder / used).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # there is no such group, or no limit ("max")
        return float("inf")
    cache = float(counts.get("total_inactive_file", counts.get("inactive_file", 0)))
    return max(0.0, allowed - taken + cache)
