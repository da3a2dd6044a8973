"""Density-functional reference of hot electrons: free energies, forces and stresses at several electronic temperatures.

Every structure is computed cold (the cold smearing of the training data, on a dense mesh) and with Fermi-Dirac occupations at
each electronic temperature, where the energy that Quantum ESPRESSO prints is the free energy U - T S. With ``--phonons`` one atom of
a cubic cell of diamond silicon is displaced, whose forces give the phonons at Gamma and X. Finished calculations are kept, so that the
same command goes on where it stopped::

    python dft.py ../training/data/almgsi-lda.xyz.xz -o dft.xyz --index 103 93 243 213 113 393 --phonons
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.espresso import write_espresso_in

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training" / "dft"))
from compute import PSEUDOPOTENTIALS, mesh, read_xz

COLD_K = 0.0
"""Label of the ground state: cold smearing of 0.01 Ry."""
REACH_KT = 10.0
"""Bands reach so many kT above the Fermi level: occupations of 5e-5."""
DISPLACEMENT_A = 0.04
"""Of the atom in the phonon cells."""


def n_bands(atoms: Atoms, temperature_K: float) -> int:
    """Bands up to REACH_KT above the Fermi level, by the free-electron count N(E) ~ E^1.5."""
    electrons = sum(PSEUDOPOTENTIALS[symbol][1] for symbol in atoms.symbols)
    radius = (3 * np.pi**2 * electrons / atoms.get_volume()) ** (1 / 3)
    fermi = units.Hartree * units.Bohr**2 * radius**2 / 2
    ratio = (1 + REACH_KT * units.kB * temperature_K / fermi) ** 1.5
    return int(np.ceil(electrons / 2 * max(1.2, ratio))) + 6


def namelists(args: argparse.Namespace, atoms: Atoms, temperature_K: float, folder: Path, again: bool) -> dict:
    """Input of pw.x; ``again`` starts from the density in the folder."""
    cold = temperature_K == COLD_K
    return {
        "control": {
            "calculation": "scf",
            "outdir": str(folder),
            "pseudo_dir": str(args.pseudo_dir),
            "tprnfor": True,
            "tstress": True,
            "disk_io": "low",
        },
        "system": {
            "ecutwfc": 20.0,
            "occupations": "smearing",
            "smearing": "cold" if cold else "fermi-dirac",
            "degauss": 0.01 if cold else units.kB * temperature_K / units.Rydberg,
            "nbnd": n_bands(atoms, temperature_K),
            "nosym": not atoms.info.get("phonon", False),
        },
        "electrons": {
            "conv_thr": 1e-9 if atoms.info.get("phonon") else 1e-8,
            **({"startingpot": "file"} if again else {}),
        },
    }


def run_pw(args: argparse.Namespace, atoms: Atoms, temperature_K: float, folder: Path, again: bool) -> Atoms:
    """One self-consistent calculation; the energy is the free energy of the electrons at this temperature."""
    source, output = folder / "scf.in", folder / "scf.out"
    spacing = args.spacing_cold if temperature_K == COLD_K else args.spacing_hot
    with open(source, "w") as handle:
        write_espresso_in(
            handle,
            atoms,
            input_data=namelists(args, atoms, temperature_K, folder, again),
            pseudopotentials={s: PSEUDOPOTENTIALS[s][0] for s in set(atoms.symbols)},
            kpts=mesh(atoms, spacing),
        )
    with open(output, "w") as handle:
        done = subprocess.run(
            [args.pw, "-in", str(source)], stdout=handle, stderr=subprocess.STDOUT, cwd=folder,
            env=dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
        )  # fmt: skip
    text = output.read_text()
    if done.returncode != 0 or "JOB DONE" not in text or "convergence NOT achieved" in text:
        raise RuntimeError(f"pw.x failed, see the end of its output:\n{text[-1500:]}")
    found = ase.io.read(output, format="espresso-out")
    minus_TS = [line for line in text.splitlines() if "smearing contrib. (-TS)" in line]
    result = atoms.copy()
    result.info = {
        **atoms.info,
        "electronic_temperature_K": temperature_K,
        "minus_TS_eV": float(minus_TS[-1].split("=")[1].split()[0]) * units.Rydberg,
        "fermi_level_eV": found.calc.get_fermi_level(),
        "mesh": " ".join(map(str, mesh(atoms, spacing))),
        "bands": n_bands(atoms, temperature_K),
    }
    result.calc = SinglePointCalculator(
        result, energy=found.get_potential_energy(), forces=found.get_forces(), stress=found.get_stress(voigt=False)
    )
    return result


def structures(args: argparse.Namespace) -> list[Atoms]:
    """Those of the data set that were asked for, and the displaced cells."""
    by_index = {int(a.info["index"]): a for a in read_xz(args.structures)}
    found = []
    for index in args.index:
        atoms = by_index[index].copy()
        atoms.info = {"name": f"{index:05d}", "tag": by_index[index].info["tag"]}
        found.append(atoms)
    if args.phonons:
        atoms = bulk("Si", "diamond", a=args.lattice, cubic=True)
        atoms.positions[0, 0] += DISPLACEMENT_A
        atoms.info = {"name": "phonon", "tag": "phonon-Si", "phonon": True}
        found.insert(min(2, len(found)), atoms)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("structures", type=Path, help="data set with an 'index' per structure (.xyz.xz)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="extended XYZ to write")
    parser.add_argument("--index", type=int, nargs="*", default=[], help="structures, in the order of computation")
    parser.add_argument("--phonons", action="store_true", help="also a displaced atom in diamond silicon")
    parser.add_argument("--lattice", type=float, default=5.39, help="of the silicon of --phonons, angstrom")
    parser.add_argument("--temperature", type=float, nargs="+", default=[5000.0, 10000.0, 20000.0], help="K")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of the finished calculations")
    parser.add_argument("--spacing-cold", type=float, default=0.2, help="of the mesh of the ground state, 1/angstrom")
    parser.add_argument("--spacing-hot", type=float, default=0.3, help="of the meshes of hot electrons, 1/angstrom")
    parser.add_argument("--pw", default="pw.x")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for atoms in structures(args):
        with tempfile.TemporaryDirectory(prefix="petdos-dft-") as scratch:
            again = False
            for temperature_K in (*sorted(args.temperature, reverse=True), COLD_K):
                target = args.work / f"{atoms.info['name']}-{temperature_K:.0f}.xyz"
                if target.exists():
                    continue
                result = run_pw(args, atoms, temperature_K, Path(scratch), again)
                again = True
                partial = target.with_suffix(".part")
                ase.io.write(partial, result, format="extxyz")
                partial.rename(target)
                print(target.name, f"{result.get_potential_energy():.5f} eV", flush=True)
    done = [ase.io.read(path, format="extxyz") for path in sorted(args.work.glob("*.xyz"))]
    ase.io.write(args.output, done, format="extxyz")


if __name__ == "__main__":
    main()
