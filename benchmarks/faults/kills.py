"""SIGKILL at random moments: is every flushed sample kept, none there twice, and the end that of an undisturbed run?

A *chain* is one run that is killed, resumed, killed again ... and at last allowed to finish. Just before a kill, a reader notes
the samples in the trace: these were flushed, and each must be there after the kill and at the end, unchanged.

A run goes on from its newest state. Samples of later steps, which a flush by the clock may have written, are dropped then and taken again: these
are not promised to a reader in between, but must be there at the end.

Nothing is waited for without a limit. A run that makes no progress for so long hangs: that is counted, and it is killed and resumed.
Of i-PI a client may be killed alone, or stopped (SIGSTOP), so that it is there and does not answer; another client is started in
its place, as one is for a client that ended by itself.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from runs import DEATH_S, Processes, Run, descendants, kill, make_runs

from petdos_md.traces.trace import Trace

KILLS_PER_CHAIN = 10
HANGS_CPU_S, HANGS_S = 90.0, 300.0
"""A run hangs that writes no sample while it computes for so long, or at all for so long. On a busy machine, the clock alone says nothing."""
CHAIN_S = 7200.0
"""A chain that is not over by then is given up, and counts as incomplete."""
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
    kills = in_the_middle = lost = hangs = 0
    given_up = time.monotonic() + CHAIN_S
    processes = run.start(where)
    victim_alone = False
    try:
        while time.monotonic() < given_up:
            ended = wait_for_moment(run, where, processes, rng, length_s, last=kills >= n_kills)
            if isinstance(ended, int):
                if ended != 0:
                    raise RuntimeError(f"{engine}, chain {chain}: ended with status {ended}, see {where / 'log'}")
                break
            hangs += ended == "hangs"
            before, _ = samples(run.trace(where))
            lost += missing(flushed, before, run.tolerance) if not victim_alone else 0
            victim_alone = strike(run, where, processes, rng, all_of_them=ended == "hangs")
            kills += 1
            after, _ = samples(run.trace(where))
            lost += missing(before, after, 0.0)
            in_the_middle += 0 < len(before) < run.n_samples
            flushed = after
            if not victim_alone:
                if run.is_over(where):
                    break
                step = run.resumes_at(where)
                flushed = {key: row for key, row in flushed.items() if key[1] <= step}
                processes = run.start(where)
    finally:
        end(processes.everyone())
    final, duplicates = samples(run.trace(where))
    lost += missing(flushed, final, run.tolerance)
    shutil.rmtree(where)
    return {
        "kind": "kills",
        "engine": engine,
        "chain": chain,
        "kills": kills,
        "in_the_middle": in_the_middle,
        "hangs": hangs,
        "samples": len(final),
        "lost": lost,
        "duplicates": duplicates,
        "complete": final.keys() == reference.keys() and len(final) == run.n_samples,
        "deviation": largest_deviation(final, reference),
        "tolerance": run.tolerance,
    }


def wait_for_moment(
    run: Run, folder: Path, processes: Processes, rng: random.Random, length_s: float, last: bool
) -> int | str:
    """Until the moment to strike comes ("strike"), the run hangs ("hangs"), or it is over (its status).

    Some moments are while the program starts, most at work: at a random number of samples from here to the end.

    :param last: whether nothing is to strike any more
    """
    trace = run.trace(folder)
    moment, goal = float("inf"), run.n_samples + 1
    if not last and rng.random() < 0.3:
        moment = time.monotonic() + rng.uniform(0.3, length_s / 2)
    elif not last:
        now = rows(trace)
        goal = rng.randint(now + 1, max(now + 1, round(now + 0.4 * (run.n_samples - now))))
    there, since, used = rows(trace), time.monotonic(), cpu_seconds(processes)
    while time.monotonic() < moment:
        status = processes.main.poll()
        if status is not None:
            return status
        found = rows(trace)
        if found >= goal:
            time.sleep(rng.uniform(0.0, 0.05))
            status = processes.main.poll()
            return "strike" if status is None else status
        if found != there:
            there, since, used = found, time.monotonic(), cpu_seconds(processes)
        waited_s = time.monotonic() - since
        if waited_s > HANGS_S or (waited_s > HANGS_CPU_S and cpu_seconds(processes) - used > HANGS_CPU_S):
            return "hangs"
        for index, helper in enumerate(processes.helpers):
            if helper.poll() is not None:
                run.replace(folder, processes, index)
        time.sleep(0.01)
    return "strike"


def runs_in(folder: Path, pid: int) -> bool:
    """Whether a process is there still, and is one of this run."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == folder.resolve()
    except OSError:
        return False


def cpu_seconds(processes: Processes) -> float:
    """What the run has computed for, those of its processes that have ended left out."""
    ticks = 0
    for process in processes.everyone():
        for pid in descendants(process.pid):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # gone meanwhile
                continue
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def strike(run: Run, folder: Path, processes: Processes, rng: random.Random, all_of_them: bool) -> bool:
    """Kill something; whether the run goes on without being resumed (a client of i-PI is replaced).

    Of a run of several ranks, in one of three cases a single rank: MPI then ends the others.
    """
    if processes.helpers and not all_of_them and rng.random() < 0.33:
        index = rng.randrange(len(processes.helpers))
        victim = processes.helpers[index]
        if rng.random() < 0.5:
            for pid in descendants(victim.pid):
                os.kill(pid, signal.SIGSTOP)
            processes.hung.append(victim)
        else:
            end([victim])
        run.replace(folder, processes, index)
        return True
    pids = [pid for process in processes.everyone() for pid in descendants(process.pid)]
    ranks = [pid for pid in pids if "mpirun" in commands(pids[:1]) and commands([pid]).endswith("lmp")]
    if len(ranks) > 1 and rng.random() < 0.33:
        kill([rng.choice(ranks)])
        deadline = time.monotonic() + 30
        while processes.main.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    end(processes.everyone())
    # The program of a rank whose script was killed is nobody's child any more.
    kill([pid for pid in pids if runs_in(folder, pid)])
    return False


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill processes with all that they started, unless they have ended."""
    kill([pid for process in processes if process.poll() is None for pid in descendants(process.pid)])
    for process in processes:
        process.wait(timeout=DEATH_S)


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
        try:
            status = wait_for_moment(run, where, processes, random.Random(), 0.0, last=True)
        finally:
            end(processes.everyone())
        seconds = time.monotonic() - start
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
    yield "| engine | kills | in the middle | runs | hang | flushed samples lost | duplicates | incomplete | deviation | promised |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for engine, name in names.items():
        mine = [r for r in records if r["kind"] == "kills" and r["engine"] == engine]
        if mine:
            sums = {key: sum(r[key] for r in mine) for key in ("kills", "in_the_middle", "hangs", "lost", "duplicates")}
            incomplete = sum(not r["complete"] for r in mine)
            worst, promised = max(r["deviation"] for r in mine), mine[0]["tolerance"]
            yield (
                f"| {name} | {sums['kills']} | {sums['in_the_middle']} | {len(mine)} | {sums['hangs']} | {sums['lost']} | {sums['duplicates']} | "
                f"{incomplete} | {worst:.1e} | {f'<= {promised:g}' if promised else '0, bit by bit'} |"
            )
