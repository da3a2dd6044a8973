"""The campaign of faults: kills at random moments, full disks, bad input. Prints tables.

    python benchmarks/faults/run.py                          # everything; an hour on two cores
    python benchmarks/faults/run.py --only kills --kills 12  # to see that it works
    python benchmarks/faults/run.py --write docs/faults.md   # also into the documentation

What is found goes to a log, line by line, so that an interrupted campaign goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import kills

PARTS = ("kills", "disk", "inputs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--engines", nargs="+", choices=list(kills.SHARES), default=list(kills.SHARES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "petdos-faults")
    parser.add_argument("--write", type=Path, help="a Markdown page for the tables")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    log = args.folder / "log.jsonl"
    if "kills" in args.only:
        kills.campaign(args.kills, args.engines, args.folder, log)
    print("\n".join(kills.table(kills.read(log))))


if __name__ == "__main__":
    main()
