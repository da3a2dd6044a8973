"""What the cases share: options, potentials, dynamics sampled with several models, and frames for a check by DFT."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
import xarray as xr
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io.trajectory import Trajectory
from tqdm import tqdm

import petdos_md as pm
from petdos_md.engines.md import MDSettings, Simulation, run_md
from petdos_md.engines.potentials import Potential
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.results.plot import plot_side_by_side, save
from petdos_md.results.report import format_table
from petdos_md.validation.references import read_structures

DATA = Path(__file__).resolve().parents[1] / "training" / "data"
CHECKED = 4
"""Frames of every phase that are written for a check by DFT."""


@dataclass(frozen=True)
class Phase:
    """One simulation.

    :param name: of files and panels
    :param make: the structure that it starts from
    :param temperature_K: of the ensemble
    """

    name: str
    make: Callable[[], Atoms]
    temperature_K: float

    @property
    def file(self) -> str:
        """The beginning of the names of its files."""
        return self.name.replace(" ", "-").replace(",", "")


def parser(description: str, output: str) -> argparse.ArgumentParser:
    """The options of all cases."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--potential", default="chgnet", metavar="P", help="moves the atoms: chgnet (pip install chgnet), a shipped model, or "
        "the path of a metatomic model (.pt), as PET-MAD (default: %(default)s)")  # fmt: skip
    found.add_argument("--dos", nargs="+", default=["general=trio-pbesol"], metavar="LABEL=MODEL",
        help="models of the DOS, names or paths; the first samples on the fly (default: %(default)s)")  # fmt: skip
    found.add_argument("--device", default="cpu", help="of chgnet, as cuda (default: %(default)s)")
    found.add_argument("--steps", type=int, metavar="N", help="of each simulation, after equilibration")
    found.add_argument(
        "--only",
        nargs="+",
        metavar="PHASE",
        help="some of the phases, as their files are named: one process for each uses more cores",
    )
    found.add_argument("--quick", action="store_true", help="small cells and a few steps, to see that it works")
    found.add_argument(
        "-o", "--output", type=Path, default=Path("outputs") / output, metavar="FOLDER", help="default: %(default)s"
    )
    return found


def find_potential(name: str, model: pm.DOSModel | None = None, device: str = "cpu") -> Potential:
    """The potential of a name: all that ``petdos md --potential`` takes, and ``chgnet``."""
    if name != "chgnet":
        return Potential.find(name, model)
    return Potential.wrap(chgnet(device), "chgnet")


def chgnet(device: str = "cpu") -> Calculator:
    """CHGNet (DOI 10.1038/s42256-023-00716-3) of PyPI, whose weights are in its wheel, as an ASE calculator."""
    try:
        from chgnet_calculator import OnePassCHGNet
    except ModuleNotFoundError:
        sys.exit("chgnet is not installed; pip install 'petdos-md[cases]', or give another --potential")
    return OnePassCHGNet(device)


def chosen(phases: list[Phase], only: list[str] | None) -> list[Phase]:
    """All phases, or those that are named."""
    unknown = set(only or ()) - {p.file for p in phases}
    if unknown:
        sys.exit(f"no phase {', '.join(sorted(unknown))}; there are {', '.join(p.file for p in phases)}")
    return [p for p in phases if not only or p.file in only]


def load_models(given: list[str]) -> dict[str, pm.DOSModel]:
    """``LABEL=MODEL`` as loaded models; a name or path alone is its own label."""
    pairs = [item.split("=", 1) if "=" in item else [Path(item).stem, item] for item in given]
    return {label: pm.DOSModel.load(path) for label, path in pairs}


def sample(
    phase: Phase, potential: Potential, models: dict[str, pm.DOSModel], folder: Path, settings: MDSettings
) -> dict[str, xr.Dataset]:
    """The average DOS of a phase by every model that knows its elements, after what is left of the dynamics.

    The first model samples on the fly; the others are evaluated on the stored frames, also those that are named in a later call.
    """
    trajectory, done = folder / f"{phase.file}.traj", folder / f"{phase.file}.done"
    begun = sampled_by(phase, folder)
    mine = {label: m for label, m in models.items() if knows(m, phase.make())}
    if not mine:
        sys.exit(f"{phase.name}: none of the models knows its elements; give another --dos")
    first = next(iter(mine))
    if not done.exists() or int(done.read_text()) < settings.steps:
        if begun not in (None, first):
            sys.exit(f"{phase.name}: was begun with the model {begun}; give it first until the dynamics are complete")
        with tqdm(desc=phase.name, unit="step", disable=None, mininterval=2) as bar:

            def show(simulation: Simulation) -> None:
                bar.total = simulation.steps_total
                bar.update(simulation.steps_done - bar.n)

            run_md(
                phase.make(), potential, mine[first], folder / f"{phase.file}.{first}.zarr",
                replace(settings, temperatures_K=(phase.temperature_K,)), resume=True, trajectory=trajectory, progress=show,
            )  # fmt: skip
        done.write_text(f"{settings.steps}\n")
    results = {}
    for label, model in mine.items():
        trace = folder / f"{phase.file}.{label}.zarr"
        if label != sampled_by(phase, folder):
            rerun_trajectory(model, trajectory, trace, resume=True)
        results[label] = pm.analyze(trace, model, reference="fermi")
        print(f"\n{phase.name} K, {label}\n{format_table(results[label])}", flush=True)
    return results


def run_phases(
    args: argparse.Namespace,
    phases: list[Phase],
    settings: MDSettings,
    figure: str,
    energies: tuple[float, float],
) -> None:
    """Sample the phases that are chosen and, if those are all, draw them.

    :param args: of :func:`parser`
    :param settings: of every phase, but for its temperature
    :param figure: its name, in the folder of the output
    :param energies: that it shows (eV)
    """
    args.output.mkdir(parents=True, exist_ok=True)
    models = load_models(args.dos)
    potential = find_potential(args.potential, next(iter(models.values())), args.device)
    results = {
        f"{phase.name} K": sample(phase, potential, models, args.output, settings)
        for phase in chosen(phases, args.only)
    }
    write_checked(phases, args.output)
    if not args.only:
        draw(results, args.output / figure, energies)


def sampled_by(phase: Phase, folder: Path) -> str | None:
    """Label of the model that samples the dynamics of a phase on the fly, None before they begin."""
    states = [p.name for p in folder.glob(f"{phase.file}.*.zarr.state")]
    return states[0].removeprefix(f"{phase.file}.").removesuffix(".zarr.state") if states else None


def knows(model: pm.DOSModel, atoms: Atoms) -> bool:
    """Whether a model was made for all elements of a structure."""
    return set(map(int, atoms.numbers)) <= set(model.atomic_types)


def of_data(name: str, kind: str, temperature_K: float, n_atoms: int | None = None) -> Atoms:
    """Of the structures of a kind in the training data, the one from the nearest temperature.

    :param name: of the data set: ``gaas``, ``lps`` or ``hea``
    :param n_atoms: of the structure, if it matters
    """
    found = [a for a in read_structures(DATA / f"{name}-structures.xyz.xz") if n_atoms in (None, len(a))]

    def distance(atoms: Atoms) -> float:
        of_kind, _, temperature = str(atoms.info["tag"]).rpartition("-")
        return abs(float(temperature.removesuffix("K")) - temperature_K) if of_kind == kind else np.inf

    atoms = min(found, key=distance)
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def write_checked(phases: list[Phase], folder: Path) -> None:
    """Evenly spaced frames of the phases that have any, as input of ``training/dft/compute.py``: ``check.xyz``."""
    picked: list[Atoms] = []
    for first, phase in enumerate(phases):
        file = folder / f"{phase.file}.traj"
        if not file.exists():
            continue
        with Trajectory(file) as frames:
            numbers = np.linspace(0, len(frames) - 1, CHECKED + 1).round().astype(int)[1:].tolist()
            for index, number in enumerate(numbers, start=first * CHECKED):
                frame = frames[number]
                atoms = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=True)
                atoms.info = {"index": index, "tag": f"{phase.name} K", "frame": number}
                picked.append(atoms)
    ase.io.write(folder / "check.xyz", picked, format="extxyz")


def draw(phases: dict[str, dict[str, xr.Dataset]], file: Path, energies: tuple[float, float]) -> None:
    """One panel per phase, one line per model, both errors."""
    figure = plot_side_by_side(phases, energy_range=energies)
    print(f"\nfigure: {save(figure, file)}")
