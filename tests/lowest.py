"""Print the lowest version of each dependency that pyproject.toml allows, as NAME==VERSION; `make test-lowest` installs these.

    python tests/lowest.py [EXTRA ...] > lowest.txt

torch is left out: the lowest one that the index offers for a processor alone is not the lowest that is allowed, and older
ones bring several GB of CUDA libraries. Its bound is the one of metatomic-torch, which is built and tested against it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = {"torch"}


def lowest(requirements: list[str]) -> list[str]:
    """``NAME==VERSION`` of each requirement that has a lower bound.

    >>> lowest(["ase>=3.29", "torch>=2.3", "vesin>=0.6,<0.7", "metatrain==2026.4.1"])
    ['ase==3.29', 'vesin==0.6', 'metatrain==2026.4.1']
    """
    found = []
    for requirement in requirements:
        parts = re.fullmatch(r"([\w-]+)(?:\[.*\])?(?:>=|==)([\w.]+)(?:,.*)?", requirement)
        if parts is None:
            raise SystemExit(f"{requirement!r} names no lowest version; write NAME>=VERSION in pyproject.toml")
        if parts[1] not in LEFT_OUT:
            found.append(f"{parts[1]}=={parts[2]}")
    return found


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = [text for extra in sys.argv[1:] for text in project["optional-dependencies"][extra]]
    print("\n".join(lowest(project["dependencies"] + extras)))
