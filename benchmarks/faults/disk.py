"""A full disk: does a run end with one line, is what was flushed whole, and does it go on when there is room again?

Each case is a run on a small tmpfs that has too little room; "no space left on device" comes from the kernel. After it, the file system
is made larger, and the run goes on as the documentation says. Mounting needs the right to do so: be root, or run under ``unshare -rm``.

What is on the small file system: ``trace``, the trace alone, or ``all``, everything that the run writes. ``room in time`` means that
the room comes back while the run still goes on: it must need no resuming.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills import Samples, end, fresh, largest_deviation, missing, read, rows, samples, undisturbed
from runs import AseRun, IpiRun, LammpsRun, PetdosIpiRun, Run

NO_SPACE = "No space left on device"
PAGE = 4096
PLENTY = 64 << 20
TIMEOUT_S = 900.0
WARNINGS = ("WARNING: ", "!W!")
_PLACE = re.compile(r"\(\w+\.cpp:\d+\)")
FRACTIONS = (0.2, 0.45, 0.7, 0.95)
"""Of the room that the run needs."""
START = 0.3
"""With less, not even the trace can be made."""


@dataclass(frozen=True)
class Case:
    """One kind of run: its name, how it is started, and that of the undisturbed run whose samples it must reproduce."""

    name: str
    engine: str
    run: type[Run]
    where: str
    in_time: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        command = "petdos-" * (self.run is PetdosIpiRun)
        return f"{command}{self.engine}-{self.where}{'-in-time' * self.in_time}"

    @property
    def shown(self) -> str:
        what = "everything" if self.where == "all" else "the trace"
        return f"{what}, room in time" if self.in_time else what

    def plain(self) -> Run:
        """On an ordinary disk, as it was run without faults."""
        return self.run(**{"ranks": self.arguments["ranks"]} if self.arguments else {})

    def make(self) -> Run:
        """On the small disk."""
        run = self.run(**self.arguments)
        run.output = "run.zarr" if self.where == "all" else "disk/run.zarr"
        return run


def _cases() -> Iterator[Case]:
    yield Case("ASE, `petdos md`", "ase", AseRun, "all")
    for ranks, engine in ((1, "lammps"), (2, "lammps-2-ranks")):
        name, known = f"LAMMPS, {ranks} rank{'s' * (ranks > 1)}", {"ranks": ranks}
        yield Case(name, engine, LammpsRun, "trace", arguments=known)
        yield Case(name, engine, LammpsRun, "all", arguments=known)
        # A restart file must not claim samples that are not on disk, so a run that writes some ends at once.
        yield Case(name, engine, LammpsRun, "trace", True, {**known, "restart": ""})
    for name, kind in (("i-PI, 2 socket clients", IpiRun), ("`petdos ipi`, 2 socket clients", PetdosIpiRun)):
        for where, in_time in (("trace", False), ("all", False), ("trace", True)):
            yield Case(name, "i-pi", kind, where, in_time)


CASES = tuple(_cases())


class Disk:
    """A tmpfs of some bytes.

    :raises RuntimeError: if it cannot be mounted
    """

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        _mount("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))

    def resize(self, size: int) -> None:
        _mount("mount", "-o", f"remount,size={size}", str(self.path))

    def used(self) -> int:
        status = os.statvfs(self.path)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def remove(self) -> None:
        _mount("umount", "--lazy", str(self.path))

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _mount(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{done.stderr.strip()}; be root, or run this under `unshare -rm`")


def campaign(folder: Path, log: Path, engines: list[str]) -> None:
    """All cases that are not in ``log`` yet."""
    known = {(record["key"], record["fraction"]) for record in read(log)}
    for case in CASES:
        for fraction in FRACTIONS:
            if case.engine not in engines or (case.key, fraction) in known or (case.in_time and fraction < START):
                continue
            record = one_case(case, fraction, folder)
            with open(log, "a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)


def one_case(case: Case, fraction: float, folder: Path) -> dict[str, Any]:
    """A run on a disk with a part of the room that it needs, and again on one with enough; what was found."""
    run = case.make()
    reference, _ = undisturbed(case.engine, case.plain(), folder)
    needed = room(case, folder)
    with small(case, run, folder) as (where, log, disk):
        disk.resize(disk.used() + round(fraction * needed / PAGE) * PAGE)

        def watch() -> None:
            if case.in_time and NO_SPACE in log.read_text(errors="replace"):
                disk.resize(PLENTY)

        status, seen = watched(run, where, watch)
        said = log.read_text(errors="replace")
        kept, _ = samples(run.trace(where))
        lost = missing(seen, kept, 0.0)
        disk.resize(PLENTY)
        resumed = 0
        if len(kept) < run.n_samples:
            run.up_to = min(
                map(float, re.findall(r"resuming from a checkpoint up to step (\d+)", said)), default=math.inf
            )
            again, _ = watched(run, where)
            if again != 0:
                raise RuntimeError(f"{case.key}, {fraction}: does not go on (status {again}), see {log}")
            resumed = 1
        final, duplicates = samples(run.trace(where))
    lost += missing(kept, final, run.tolerance)
    lines = [_PLACE.sub("", line).strip() for line in said.splitlines() if NO_SPACE in line]
    errors = [line for line in lines if not line.startswith(WARNINGS)]
    stock = case.run is IpiRun
    if status is None:
        problem = "hangs"
    elif "Traceback" in said and not stock:
        problem = "traceback"
    elif case.in_time and (status != 0 or resumed or not lines):
        problem = "did not go on by itself"
    elif not case.in_time and not stock and (status == 0 or len(errors) != 1):
        problem = f"status {status}, {len(errors)} lines"
    elif not lines:
        problem = "no message"
    else:
        problem = ""
    return {
        "kind": "disk",
        "key": case.key,
        "fraction": fraction,
        "status": status,
        "problem": problem,
        "lines": lines,
        "kept": len(kept),
        "resumed": resumed,
        "lost": lost,
        "duplicates": duplicates,
        "complete": final.keys() == reference.keys() and len(final) == run.n_samples,
        "deviation": largest_deviation(final, reference),
        "tolerance": run.tolerance,
    }


@contextmanager
def small(case: Case, run: Run, folder: Path) -> Iterator[tuple[Path, Path, Disk]]:
    """A folder with what the run needs, its log (elsewhere, it must not be cut off), and the disk, which is large still."""
    where, log = fresh(folder / f"disk-{case.key}"), folder / f"disk-{case.key}.log"
    log.write_text("")
    with Disk(where if case.where == "all" else where / "disk", PLENTY) as disk:
        (where / "log").symlink_to(log)
        run.prepare(where)
        yield where, log, disk


def room(case: Case, folder: Path) -> int:
    """Bytes that a run needs on the disk; measured once for a campaign."""
    file = folder / f"disk-{case.key}.room"
    if not file.exists():
        run = case.make()
        with small(case, run, folder) as (where, log, disk):
            before = disk.used()
            status, _ = watched(run, where)
            if status != 0:
                raise RuntimeError(f"{case.key}: ended with status {status}, see {log}")
            file.write_text(str(disk.used() - before))
    return int(file.read_text())


def watched(run: Run, folder: Path, each: Callable[[], object] = lambda: None) -> tuple[int | None, Samples]:
    """The exit status of a run (None: it hung), and the samples that a reader saw last."""
    processes = run.start(folder)
    seen: Samples = {}
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while (status := processes.main.poll()) is None and time.monotonic() < deadline:
            if rows(run.trace(folder)) != len(seen):
                seen, _ = samples(run.trace(folder))
            each()
            for index, helper in enumerate(processes.helpers):
                if helper.poll() is not None and processes.main.poll() is None:
                    run.replace(folder, processes, index)
            time.sleep(0.05)
    finally:
        end(processes.everyone())
    return status, seen


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of two Markdown tables: what was found, and what was said."""
    found = [(case, [r for r in records if r["key"] == case.key]) for case in CASES]
    yield "| engine | on the full disk | runs | resumed | wrong | flushed samples lost | duplicates | incomplete | deviation | promised |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for case, mine in found:
        if mine:
            sums = {key: sum(r[key] for r in mine) for key in ("resumed", "lost", "duplicates")}
            wrong = [r["problem"] for r in mine if r["problem"]]
            shown = f"{len(wrong)} ({'; '.join(sorted(set(wrong)))})" if wrong else "0"
            incomplete = sum(not r["complete"] for r in mine)
            worst, promised = max(r["deviation"] for r in mine), mine[0]["tolerance"]
            yield (
                f"| {case.name} | {case.shown} | {len(mine)} | {sums['resumed']} | {shown} | "
                f"{sums['lost']} | {sums['duplicates']} | {incomplete} | {worst:.1e} | "
                f"{f'<= {promised:g}' if promised else '0, bit by bit'} |"
            )
    yield ""
    yield "| engine | on the full disk | exit | what is said | other warnings |"
    yield "|---|---|---|---|---|"
    for case, mine in found:
        if mine:
            shown = max(mine, key=lambda r: (r["kept"] > 0, len(r["lines"])))
            warnings = [line for line in shown["lines"] if line.startswith(WARNINGS)]
            errors = [line for line in shown["lines"] if line.startswith(("petdos: error: ", "ERROR: "))]
            said = (errors or warnings)[0]
            others = [line for line in warnings if line != said]
            yield f"| {case.name} | {case.shown} | {shown['status']} | {said} | {len(others) or ''} |"
