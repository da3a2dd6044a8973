"""SIGKILL at random moments: is every flushed sample kept, none there twice, and the end that of an undisturbed run?

A *chain* is one run that is killed, resumed, killed again ... and at last allowed to finish. Just before a kill, a reader notes
the samples in the trace: these were flushed, and each must be there after the kill and at the end, unchanged.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from runs import Processes, Run, descendants, kill, make_runs

from petdos_md.traces.trace import Trace

KILLS_PER_CHAIN = 10
Samples = dict[tuple[int, int], np.ndarray]
SHARES = {"ase": 0.3, "lammps": 0.2, "lammps-2-ranks": 0.2, "i-pi": 0.3}
"""Of all kills."""


def campaign(n_kills: int, engines: list[str], folder: Path, log: Path) -> None:
    """Chains until every engine has had its share of the kills; those in ``log`` count."""
    runs = make_runs()
    for engine in engines:
        wanted = round(SHARES[engine] * n_kills)
        done = [record for record in read(log) if record["kind"] == "kills" and record["engine"] == engine]
        killed = sum(record["kills"] for record in done)
        chain = len(done)
        while killed < wanted:
            record = one_chain(engine, runs[engine], folder, chain, min(KILLS_PER_CHAIN, wanted - killed))
            with open(log, "a") as file:
                file.write(json.dumps(record) + "\n")
            killed, chain = killed + record["kills"], chain + 1
            print(f"{engine}: {killed} of {wanted} kills; {json.dumps(record)}", flush=True)


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def one_chain(engine: str, run: Run, folder: Path, chain: int, n_kills: int) -> dict[str, Any]:
    """One run with kills; what was found."""
    rng = random.Random(f"{engine} {chain}")
    reference, length_s = undisturbed(engine, run, folder)
    where = fresh(folder / f"{engine}-{chain}")
    run.prepare(where)
    flushed: Samples = {}
    kills = in_the_middle = lost = 0
    processes = run.start(where)
    victim_alone = False
    try:
        while True:
            # Some while the program starts, most at work: at a random number of samples from here to the end.
            if kills >= n_kills:
                ended = wait_for_end(processes, 600)
            elif rng.random() < 0.3:
                ended = wait_for_end(processes, rng.uniform(0.3, length_s / 2))
            else:
                now = rows(run.trace(where))
                goal = rng.randint(now + 1, max(now + 1, round(now + 0.4 * (run.n_samples - now))))
                ended = wait_for_end(processes, 600, lambda g=goal: rows(run.trace(where)) >= g)
                time.sleep(rng.uniform(0.0, 0.05))
            if ended is not None:
                if ended != 0:
                    raise RuntimeError(f"{engine}, chain {chain}: ended with status {ended}, see {where / 'log'}")
                break
            if kills >= n_kills:
                raise RuntimeError(f"{engine}, chain {chain}: does not end, see {where / 'log'}")
            before, _ = samples(run.trace(where))
            lost += missing(flushed, before, run.tolerance) if not victim_alone else 0
            victim_alone = strike(run, where, processes, rng)
            kills += 1
            after, _ = samples(run.trace(where))
            lost += missing(before, after, 0.0)
            in_the_middle += 0 < len(before) < run.n_samples
            flushed = after
            if not victim_alone:
                if run.is_over(where):
                    break
                processes = run.start(where)
    finally:
        kill([pid for process in (processes.main, *processes.helpers) for pid in descendants(process.pid)])
        for process in (processes.main, *processes.helpers):
            process.wait()
    final, duplicates = samples(run.trace(where))
    lost += missing(flushed, final, run.tolerance)
    shutil.rmtree(where)
    return {
        "kind": "kills",
        "engine": engine,
        "chain": chain,
        "kills": kills,
        "in_the_middle": in_the_middle,
        "samples": len(final),
        "lost": lost,
        "duplicates": duplicates,
        "complete": final.keys() == reference.keys() and len(final) == run.n_samples,
        "deviation": largest_deviation(final, reference),
        "tolerance": run.tolerance,
    }


def strike(run: Run, folder: Path, processes: Processes, rng: random.Random) -> bool:
    """Kill something; whether the run goes on without being resumed (a client of i-PI is replaced).

    Of a run of several ranks, in one of three cases a single rank: MPI then ends the others.
    """
    if processes.helpers and rng.random() < 0.33:
        index = rng.randrange(len(processes.helpers))
        kill(descendants(processes.helpers[index].pid))
        processes.helpers[index].wait()
        run.replace(folder, processes, index)
        return True
    everyone = [pid for process in (processes.main, *processes.helpers) for pid in descendants(process.pid)]
    ranks = [pid for pid in everyone if "mpirun" in commands(everyone[:1]) and commands([pid]).endswith("lmp")]
    if len(ranks) > 1 and rng.random() < 0.33:
        kill([rng.choice(ranks)])
        deadline = time.monotonic() + 30
        while processes.main.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    kill(everyone)
    for process in (processes.main, *processes.helpers):
        process.wait()
    return False


def commands(pids: list[int]) -> str:
    """Names of the programs of some processes."""
    names = []
    for pid in pids:
        try:
            names.append(
                os.path.basename(Path(f"/proc/{pid}/exe").resolve())
                + " "
                + Path(f"/proc/{pid}/comm").read_text().strip()
            )
        except OSError:
            continue
    return " ".join(names)


def wait_for_end(processes: Processes, seconds: float, reached: Callable[[], bool] = lambda: False) -> int | None:
    """The status of the main process, None if it still runs after so many seconds or when something is reached."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not reached():
        status = processes.main.poll()
        if status is not None:
            return status
        time.sleep(0.01)
    return processes.main.poll()


def rows(path: Path) -> int:
    """Samples that are committed, read from one small file."""
    try:
        return int(json.loads((path / "features" / "zarr.json").read_text())["shape"][0])
    except (OSError, ValueError):  # not there yet
        return 0


def undisturbed(engine: str, run: Run, folder: Path) -> tuple[Samples, float]:
    """Samples of a run without kills, and how long it takes; run once for a campaign."""
    where = folder / f"{engine}-undisturbed"
    if not (where / "seconds").exists():
        fresh(where)
        run.prepare(where)
        start = time.monotonic()
        processes = run.start(where)
        status = processes.main.wait()
        seconds = time.monotonic() - start
        kill([pid for process in processes.helpers for pid in descendants(process.pid)])
        if status != 0:
            raise RuntimeError(f"{engine}: ended with status {status}, see {where / 'log'}")
        (where / "seconds").write_text(str(seconds))
    found, _ = samples(run.trace(where))
    if len(found) != run.n_samples:
        raise RuntimeError(f"{engine}: an undisturbed run has {len(found)} samples, expected {run.n_samples}")
    return found, float((where / "seconds").read_text())


def samples(path: Path) -> tuple[Samples, int]:
    """Every sample of a trace (features and labels) by replica and step, and how many are there more than once."""
    if not (path / "zarr.json").exists():
        return {}, 0
    trace = Trace.open(path, "r")
    keys = list(zip(trace.replica.tolist(), trace.step.tolist(), strict=True))
    labels = np.stack([trace.temperature_K, trace.potential_energy_eV, trace.volume_A3], axis=1)[: len(keys)]
    rows = (
        np.concatenate([np.asarray(trace.features[: len(keys)], dtype=float), labels], axis=1)
        if keys
        else np.empty((0, 0))
    )
    return dict(zip(keys, rows, strict=True)), len(keys) - len(set(keys))


def missing(promised: Samples, found: Samples, tolerance: float) -> int:
    """Samples that are gone or have changed.

    A run that was resumed at an older state may take samples again, equal within its tolerance.
    """
    return sum(key not in found or not close(row, found[key], tolerance) for key, row in promised.items())


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return bool(np.array_equal(a, b) if tolerance == 0 else np.abs(a - b).max() <= tolerance * np.abs(a).max())


def largest_deviation(found: Samples, reference: Samples) -> float:
    """Relative to the largest number of a sample."""
    common = found.keys() & reference.keys()
    return max((float(np.abs(found[k] - reference[k]).max() / np.abs(reference[k]).max()) for k in common), default=0.0)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table, one for each engine."""
    names = {
        "ase": "ASE, `petdos md`",
        "lammps": "LAMMPS, 1 rank",
        "lammps-2-ranks": "LAMMPS, 2 ranks",
        "i-pi": "i-PI, 2 socket clients",
    }
    yield "| engine | kills | in the middle | runs | flushed samples lost | duplicates | incomplete | deviation | promised |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for engine, name in names.items():
        mine = [r for r in records if r["kind"] == "kills" and r["engine"] == engine]
        if mine:
            sums = {key: sum(r[key] for r in mine) for key in ("kills", "in_the_middle", "lost", "duplicates")}
            incomplete = sum(not r["complete"] for r in mine)
            worst, promised = max(r["deviation"] for r in mine), mine[0]["tolerance"]
            yield (
                f"| {name} | {sums['kills']} | {sums['in_the_middle']} | {len(mine)} | {sums['lost']} | {sums['duplicates']} | "
                f"{incomplete} | {worst:.1e} | {f'<= {promised:g}' if promised else '0, bit by bit'} |"
            )
