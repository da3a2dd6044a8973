"""Does the potential hold? 10 ps of NVT dynamics at 300 K and at 1.2 times melting, as a table.

    python stability.py outputs/almgsi-lda/almgsi-lda.pt --jobs 2

Every finished run is kept (``--output``), so that the command goes on where it stopped. A run counts as stable if it ended, the
mean temperature of its second half is within 10 % of the requested one, no two atoms ever came closer than 0.7 times the nearest
neighbor distance of the crystal, and a crystal at 300 K still is one (root mean square displacement below a quarter of that
distance).
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.neighborlist import neighbor_list
from tqdm import tqdm

from petdos_md import DOSModel
from petdos_md.base.errors import ModelError, PetdosError, SettingError
from petdos_md.models.files import find_model

sys.path.insert(0, str(Path(__file__).resolve().parent))
from script import Parser, run, whole

MELTING_K = {"Al": 933.0, "Mg": 923.0, "Si": 1687.0, "Mg2Si": 1358.0, "Al48Mg16": 880.0}
"""Melting points; of the alloy the liquidus."""


def structure(name: str) -> Atoms:
    """A crystal of about 64 atoms at the lattice constant of the experiment at room temperature."""
    if name == "Al":
        return bulk("Al", "fcc", a=4.05) * (4, 4, 4)
    if name == "Mg":
        return bulk("Mg", "hcp", a=3.21, c=5.21) * (4, 4, 2)
    if name == "Si":
        return bulk("Si", "diamond", a=5.43, cubic=True) * (2, 2, 2)
    if name == "Mg2Si":
        return bulk("SiMg2", "fluorite", a=6.35) * (3, 3, 2)
    if name == "Al48Mg16":
        atoms = make_supercell(bulk("Al", "fcc", a=4.15), 4 * np.eye(3))
        chosen = np.random.default_rng(0).permutation(len(atoms))[:16]
        atoms.symbols[chosen] = "Mg"
        return atoms
    raise ValueError(f"no structure named {name}")


def simulate(
    model_path: str, name: str, temperature_K: float, time_ps: float, timestep_fs: float, seed: int
) -> dict[str, Any]:
    """One simulation; returns what the table shows."""
    from petdos_md.ase import DOSCalculator

    # ASE's thermostat holds the center of mass in a way that is exact to one part in the number of atoms, and says so each time.
    warnings.filterwarnings("ignore", message="The implementation of `fixcm=True`", category=FutureWarning)
    rng = np.random.default_rng([seed, round(temperature_K)])
    atoms = structure(name)
    nearest = neighbor_list("d", atoms, 4.0).min()
    if temperature_K > 0.5 * MELTING_K[name]:
        atoms.set_cell(atoms.cell[:] * 1.02, scale_atoms=True)  # about the thermal expansion
    atoms.calc = DOSCalculator(DOSModel.load(model_path, device="cpu"))
    thermalize_momenta(atoms, temperature_K, rng=rng)
    dynamics = Langevin(atoms, timestep_fs * units.fs, temperature_K=temperature_K, friction=0.01 / units.fs, rng=rng)
    start = atoms.get_positions()
    steps = round(1000 * time_ps / timestep_fs)
    temperatures, energies, closest = [], [], np.inf
    radii = np.arange(1.5, 6.0, 0.05)
    histogram = np.zeros(len(radii) - 1)
    for step in range(0, steps, 25):
        dynamics.run(min(25, steps - step))
        temperature = atoms.get_temperature()
        distances = neighbor_list("d", atoms, 6.0)
        closest = min(closest, distances.min())
        temperatures.append(temperature)
        energies.append(atoms.get_potential_energy() / len(atoms))
        if not np.isfinite(temperature) or temperature > 10 * temperature_K or closest < 0.5 * nearest:
            break
        if step > steps / 2:
            histogram += np.histogram(distances, radii)[0]
    half = temperatures[len(temperatures) // 2 :]
    moved = atoms.get_positions() - start
    moved -= moved.mean(axis=0)
    rms = float(np.sqrt((moved**2).sum(axis=1).mean()))
    rdf = histogram / (4 * np.pi * (radii[:-1] + 0.025) ** 2)
    mean = float(np.mean(half))
    wrong = {
        f"ended after {dynamics.nsteps} of {steps} steps": dynamics.nsteps < steps,
        f"mean temperature of the second half {mean:.0f} K, not within 10 %": not abs(mean / temperature_K - 1) < 0.1,
        f"two atoms came as close as {closest:.2f} A, below 0.7 of the crystal's {nearest:.2f} A": not closest
        > 0.7 * nearest,
        f"atoms moved by {rms:.2f} A, a quarter of {nearest:.2f} A or more": temperature_K <= 300
        and not rms < 0.25 * nearest,
    }
    faults = [what for what, is_so in wrong.items() if is_so]
    return {
        "name": name,
        "atoms": len(atoms),
        "wanted_K": temperature_K,
        "time_ps": dynamics.nsteps * timestep_fs / 1000,
        "mean_K": mean,
        "closest_A": float(closest),
        "nearest_crystal_A": float(nearest),
        "rdf_peak_A": float(radii[int(np.argmax(rdf))] + 0.025) if histogram.any() else float("nan"),
        "displacement_A": rms,
        "faults": faults,
        "energy_drift_meV": 1000 * float(np.mean(energies[-20:]) - np.mean(energies[len(energies) // 2 :][:20])),
        "stable": not faults,
    }


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path, help="model written by `petdos export`, or the name of a shipped model")
    parser.add_argument("-o", "--output", type=Path, help="JSON of the finished runs, by default beside the model")
    parser.add_argument("--systems", nargs="+", choices=list(MELTING_K), default=list(MELTING_K), metavar="SYSTEM",
                        help=f"of {', '.join(MELTING_K)} (default: all)")  # fmt: skip
    parser.add_argument("--time-ps", type=float, default=10.0)
    parser.add_argument("--timestep-fs", type=float, default=2.0)
    parser.add_argument("--jobs", type=int, default=1, help="simulations at a time, one thread each")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f"got --jobs {args.jobs}, expected 1 or more")
    if args.seed < 0:
        parser.error(f"got --seed {args.seed}, expected 0 or more")
    if not 0 < args.timestep_fs <= 1000 * args.time_ps < np.inf:
        parser.error(
            f"got --time-ps {args.time_ps:g} and --timestep-fs {args.timestep_fs:g}, expected a time of one step or more"
        )
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = {"model": check_model(args.model, args.systems), "timestep_fs": args.timestep_fs, "seed": args.seed}
    output = args.output or args.model.with_name("stability.json")
    done = finished(output, settings)
    jobs = {}
    for name in args.systems:
        for temperature in (300.0, round(1.2 * MELTING_K[name])):
            key = f"{name} {temperature:.0f} K {args.time_ps:g} ps"
            if key not in done:
                jobs[key] = (str(args.model), name, float(temperature), args.time_ps, args.timestep_fs, args.seed)
    print(f"{len(jobs)} simulations of {args.time_ps:g} ps, {args.jobs} at a time; {len(done)} in {output}", flush=True)
    failed = simulate_all(jobs, args.jobs, done, output, settings)
    print(format_table(done))
    sys.exit(failed)


def check_model(path: Path, systems: list[str]) -> str:
    """The fingerprint of the model.

    :raises ModelError: if there is none, or it has no energies or elements of the systems
    """
    model = DOSModel.load(find_model(path), device="cpu")
    if not model.has_energy:
        raise ModelError(f"{path}: has no energies and so no forces; expected a model of both heads")
    unknown = [name for name in systems if not set(structure(name).numbers) <= set(model.atomic_types)]
    if unknown:
        raise ModelError(f"{path}: does not know the elements of {', '.join(unknown)}; give others with --systems")
    return str(model.info.fingerprint)


def finished(output: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Results of an earlier call.

    :raises SettingError: if the file is something else, or was made with another model, time step or seed
    """
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        return {}
    try:
        done = dict(json.loads(output.read_text()))
        other = sorted(
            {name for row in done.values() for name in settings if row.get(name, settings[name]) != settings[name]}
        )
    except (ValueError, TypeError, AttributeError):
        raise SettingError(f"{output}: holds no finished runs of this script; give another --output") from None
    if other:
        raise SettingError(
            f"{output}: was made with another {', '.join(other)}; give another --output, or those of before"
        )
    return done


def simulate_all(
    jobs: dict[str, tuple[Any, ...]],
    n_jobs: int,
    done: dict[str, dict[str, Any]],
    output: Path,
    settings: dict[str, Any],
) -> bool:
    """Run the jobs and keep each result in ``done`` and in the file as it comes; returns whether one failed."""
    failed = False
    # Fresh processes: torch does not bear to be forked once it has run. Ctrl-C ends them without a word, if it ends this one.
    stop = signal.SIG_IGN if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIG_DFL
    processes = concurrent.futures.ProcessPoolExecutor(
        n_jobs, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, stop)
    )
    with processes as pool, tqdm(total=len(jobs), unit="simulation", disable=None) as bar:
        running = {pool.submit(simulate, *job): key for key, job in jobs.items()}
        try:
            for future in as_completed(running, bar):
                key = running[future]
                bar.update()
                if isinstance(future.exception(), PetdosError):
                    failed = True
                    tqdm.write(f"{key}: {future.exception()}", file=sys.stderr)
                    continue
                done[key] = future.result() | settings
                with whole(output) as partial:
                    partial.write_text(json.dumps(done, indent=1))
                tqdm.write(
                    f"{key}: {'; '.join(['NOT STABLE', *done[key]['faults']]) if done[key]['faults'] else 'stable'}"
                )
                sys.stdout.flush()
        except BrokenProcessPool:
            raise SettingError(
                f"a simulation was killed, perhaps for want of memory; the same command goes on, with fewer --jobs than {n_jobs}"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failed


def as_completed(running: Iterable[Future[Any]], bar: tqdm[NoReturn]) -> Iterator[Future[Any]]:
    """Jobs as they end; until then the clock of the bar goes on."""
    waiting = set(running)
    while waiting:
        ended, waiting = concurrent.futures.wait(waiting, 1.0, concurrent.futures.FIRST_COMPLETED)
        bar.refresh()
        yield from ended


def format_table(done: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| system | atoms | T (K) | time (ps) | mean T (K) | closest pair (A) | first RDF peak (A) | RMS displacement (A) | stable |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in done.values():
        lines.append(
            f"| {r['name']} | {r['atoms']} | {r['wanted_K']:.0f} | {r['time_ps']:g} | {r['mean_K']:.0f} | {r['closest_A']:.2f} | "
            f"{r['rdf_peak_A']:.2f} | {r['displacement_A']:.2f} | {'yes' if r['stable'] else 'NO'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
