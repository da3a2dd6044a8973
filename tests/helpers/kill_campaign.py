"""Run a ``petdos`` command, kill it at random moments, resume it until it ends, into one trace after another; tell what was seen on the way.

    python kill_campaign.py FOLDER SEED N_KILLS LONGEST_S petdos-arguments...

Each try is a process of its own, forked from one that has imported everything, so that a try takes no longer than the run
itself. Most kills are to hit a run at work, not one that is loading its model; chance decides how many traces (0.zarr, 1.zarr, ...) are
needed for that. Prints a line of JSON: the number of kills, of those that hit while samples were there and the run was not over, and of traces.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import petdos_md.analysis.analyze
import petdos_md.engines.md
import petdos_md.engines.rerun
import petdos_md.results.report  # noqa: F401
from petdos_md.cli import main as cli
from petdos_md.traces.trace import Trace


def rows(path: str | Path) -> dict[tuple[int, int], bytes]:
    """All samples of a trace by replica and step; fails if one is there twice."""
    if not os.path.exists(path):
        return {}
    trace = Trace.open(path, "r")
    keys = list(zip(trace.replica.tolist(), trace.step.tolist(), strict=True))
    assert len(set(keys)) == len(keys), f"steps twice in {keys}"
    features = np.asarray(trace.features)
    labels = [
        trace.temperature_K,
        trace.kinetic_temperature_K,
        trace.potential_energy_eV,
        trace.volume_A3,
        trace.time_fs,
    ]
    return {
        key: features[i].tobytes() + np.array([column[i] for column in labels]).tobytes() for i, key in enumerate(keys)
    }


def attempt(arguments: list[str], log: Path, trace: Path, kill_after_s: float | None, at_work: bool) -> int | None:
    """One process; its exit status, None if it was killed.

    ``at_work``: the time counts from the moment at which something was written, not from the start.
    """
    before = touched(trace)
    child = os.fork()
    if child == 0:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        status = 99
        with contextlib.suppress(BaseException):
            status = cli.main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if kill_after_s is not None:
        # Until the moment comes, look whether the run is over.
        end = math.inf if at_work else time.monotonic() + kill_after_s
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if end == math.inf and touched(trace) != before:
                end = time.monotonic() + kill_after_s
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if status == -signal.SIGKILL else status


def touched(trace: Path) -> int:
    """Changes when something is written to a trace."""
    return sum(os.stat(path).st_mtime_ns for path in (trace, *trace.glob("*/c")) if path.exists())


def chain(rng: random.Random, max_kills: int, longest_s: float, trace: Path, arguments: list[str]) -> tuple[int, int]:
    """Tries until one ends: kills, and those with samples on the disk."""
    log = trace.with_suffix(".log")
    kills = in_the_middle = 0
    seen: dict[tuple[int, int], bytes] = {}
    while True:
        delay = rng.uniform(0.0, longest_s) if kills < max_kills else None
        status = attempt([*arguments, "-o", str(trace)], log, trace, delay, at_work=rng.random() < 0.75)
        now = rows(trace)
        lost = [key for key, row in seen.items() if now.get(key) != row]
        assert not lost, f"samples lost or changed after kill {kills}: {lost}"
        if status is not None:
            assert status == 0, f"status {status}: {log.read_text()[-2000:]}"
            return kills, in_the_middle
        kills += 1
        in_the_middle += len(now) > 0
        seen = now


def main() -> None:
    folder, seed, n_kills, longest_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    rng = random.Random(seed)
    kills = middle = number = 0
    while (kills < n_kills or middle < n_kills // 3) and kills < 10 * n_kills:
        found = chain(rng, min(n_kills, 12), longest_s, folder / f"{number}.zarr", sys.argv[5:])
        kills, middle, number = kills + found[0], middle + found[1], number + 1
    print(json.dumps({"kills": kills, "in_the_middle": middle, "traces": number}))


if __name__ == "__main__":
    main()
