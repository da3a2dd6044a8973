"""The campaign of faults: kills at random moments, full disks, bad input. Prints tables.

    python benchmarks/faults/run.py                          # everything; two hours on two cores
    python benchmarks/faults/run.py --only kills --kills 12  # to see that it works
    python benchmarks/faults/run.py --write docs/faults.md   # also into the documentation

What is found goes to a log, line by line, so that an interrupted campaign goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import disk
import inputs
import kills

PARTS = ("kills", "disk", "inputs")
INTRODUCTION = """
What happens when something goes wrong; the tables are what `python benchmarks/faults/run.py --write docs/faults.md` found.

*Kills*: a run is killed with SIGKILL at a random moment, resumed as the page of its engine says, and killed again, until it ends. What a
reader saw in the trace before a kill must be there after it (but for samples of steps after the state from which the run goes on, which are
taken again); at the end, the samples are compared with those of a run that
nobody disturbed. Of i-PI in a third of the cases one client is killed alone, or stopped so that it hangs: i-PI, which has a `timeout`
in its `ffsocket`, must go on with another one. A run *hangs* that computes for a minute and a half without writing a sample.

*Full disk*: the trace, or everything that a run writes, is on a tmpfs (a file system in memory) with too little room: 20, 45, 70 and 95 %
of what the run needs. The run must say so in one line that says what to do, and end; with *room in time*, the tmpfs is made larger at the
first warning, and the run must go on by itself. What a reader saw must be there after it. Then there is room, the run is resumed as
the page of its engine says, and its samples are compared in the same way. i-PI warns at every checkpoint and ends after ten failures in a
row; where its own files are on the full disk, the stock program ends at once, with a traceback. Its exit status is always 0 otherwise.

*Bad input*: every command and engine must refuse it with one line and an exit status that is not 0; Python and stock i-PI show a
traceback above that line. What becomes of odd structures and trajectories, kind by kind, is in the [table of kinds](input.md#kinds-of-input-and-what-happens).
"""


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that what runs is ended, too
    log = args.folder / "log.jsonl"
    if "kills" in args.only:
        kills.campaign(args.kills, args.engines, args.folder, log)
    if "disk" in args.only:
        disk.campaign(args.folder, args.folder / "disk.jsonl", args.engines)
    if "inputs" in args.only:
        with open(args.folder / "inputs.jsonl", "w") as file:
            for record in inputs.check_inputs(args.folder / "inputs"):
                file.write(json.dumps(record) + "\n")
                print(record["input"], record["problem"] or "refused", sep=": ", flush=True)
    text = page(args.folder)
    print(text)
    if args.write:
        args.write.write_text(text)


def page(folder: Path) -> str:
    """What was found so far, as Markdown."""
    parts = {
        "Kills": ("kills", kills.table(kills.read(folder / "log.jsonl"))),
        "Full disk": ("disk", disk.table(kills.read(folder / "disk.jsonl"))),
        "Bad input": ("inputs", inputs.table(kills.read(folder / "inputs.jsonl"))),
    }
    parts = {
        name: (part, [re.sub(rf"{re.escape(str(folder.resolve()))}/[^/ ]+/", "", line) for line in table])
        for name, (part, table) in parts.items()
    }
    lines = ["# Faults", "", *INTRODUCTION.strip().splitlines()]
    for title, (part, table) in parts.items():
        lines += ["", f"## {title}", "", f"`python benchmarks/faults/run.py --only {part}`", "", *table]
    return "\n".join(lines).replace(f"{folder / 'inputs'}{os.sep}", "") + "\n"


if __name__ == "__main__":
    main()
