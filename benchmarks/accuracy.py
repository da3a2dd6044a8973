"""How exact the results are: each step of the way from structure to heat capacity against an independent one.

    python benchmarks/accuracy.py

Oracles: metatrain and metatomic (export), upet (networks, denoising), mpmath (Fermi-Dirac integrals), loops over every frame and
member (averages), Python (LAMMPS). Deviations are the largest, relative to the largest number compared. ``petdos validate``
says how good the *model* is. Needs metatrain, upet, mpmath and the LAMMPS plugin.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import ase.build
import ase.io
import mpmath
import numpy as np
import torch

from petdos_md import DOSModel, Trace, analyze, thermo
from petdos_md.base.grid import EnergyGrid
from petdos_md.base.quiet import quiet
from petdos_md.models.export import export_model
from petdos_md.models.testing import PET_MAD_DOS_SIZE, PET_MAD_SYMBOLS, write_checkpoints
from petdos_md.physics.denoise import Denoise
from petdos_md.physics.networks import DOSNetwork, Network

K_B = 1.380649e-23 / 1.602176634e-19  # eV/K, exact by the SI


def deviation(found: np.ndarray | float, expected: np.ndarray | float) -> float:
    """Largest absolute difference over the largest absolute value expected."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def print_row(what: str, oracle: str, found: float, promised: str) -> None:
    print(f"| {what} | {oracle} | {found:.1e} | {promised} |", flush=True)


def exported_model(folder: Path, n_members: int) -> None:
    """A network of the size of PET-MAD-DOS: six kinds of structures, from a single atom to a slab."""
    with contextlib.redirect_stdout(io.StringIO()):
        pet, llpr = write_checkpoints(
            folder, PET_MAD_DOS_SIZE, n_members=n_members, symbols=PET_MAD_SYMBOLS, n_channels=4806
        )
        report = export_model(pet, folder / "exported.pt", llpr=llpr, grid_start=-159.6456)
    print_row(
        "DOS of the exported model", "metatrain's export of the same checkpoint", report.dos_deviation, "<= 1e-05"
    )
    print_row(f"its members ({n_members})", "metatrain's LLPR ensemble", report.ensemble_deviation, "<= 1e-05")


def chunks_and_lammps(model: DOSModel, folder: Path) -> None:
    """A rod of 1536 atoms, longer than chunk and halo, in chunks and in LAMMPS with one and two ranks."""
    import petdos_md.lammps  # noqa: F401  torch before LAMMPS

    from lammps_scaling import BIN, measure  # isort: skip

    atoms = ase.build.bulk("Al", a=4.05, cubic=True) * (2, 2, 96)
    atoms.rattle(0.1, seed=1)
    whole = model.evaluate(atoms).features
    print_row(
        "1536 atoms in chunks of 300",
        "one evaluation of all",
        deviation(model.evaluate(atoms, max_atoms_per_chunk=300).features, whole),
        "<= 1e-05",
    )
    ase.io.write(folder / "rod.data", atoms, format="lammps-data", masses=True)
    (folder / "in.rod").write_text(
        "units metal\nread_data rod.data\npair_style zero 4.0\npair_coeff * *\nfix md all nve\n"
        "compute dos all petdos almgsi-lda Al output features\nfix obs all petdos 1 dos ${trace} temp 300\n"
        "variable start timer\nrun 0\nvariable stop timer\nprint 'seconds $(v_stop-v_start)'\n"
    )
    for ranks in (1, 2):
        command = [str(BIN / "lmp"), "-in", "in.rod", "-log", "none", "-var", "trace", f"{ranks}.zarr"]
        measure(command if ranks == 1 else [str(BIN / "mpirun"), "-np", str(ranks), *command], folder)
        features = np.asarray(Trace.open(folder / f"{ranks}.zarr", "r").features)[0]
        print_row(
            f"`lmp`, {ranks} rank{'s' * (ranks > 1)}, 1536 atoms", "Python", deviation(features, whole), "<= 1e-05"
        )


def averages(model: DOSModel, folder: Path) -> None:
    """A run of 12 frames: DOS and heat capacity per member against loops over frames and members (weights are float32)."""
    rng = np.random.default_rng(0)
    path, frames = folder / "run.zarr", []
    with Trace.open(path, model=model) as trace:
        for step in range(12):
            atoms = ase.build.bulk("Al", a=4.05, cubic=True) * (2, 1, 1)
            atoms.positions += rng.normal(0, 0.2, atoms.positions.shape)
            sample = model.evaluate(atoms)
            trace.append(replace(sample, step=step, temperature_K=900.0))
            frames.append(model.readout.members(sample.features.astype(np.float64)))
    result = analyze(path, reference="raw", keep_members=True)
    mean = np.mean(frames, axis=0)
    args = model.grid.energies, mean, model.n_electrons(atoms), 900.0
    print_row(
        "thermal-average DOS, per member",
        "loop over frames and members",
        deviation(result.dos_members.values[0], mean),
        "<= 1e-05",
    )
    found = result.heat_capacity_member_mean.item()
    print_row("its heat capacity", "the same loop", deviation(found, thermo.heat_capacity(*args).mean()), "<= 1e-06")


def integrals() -> None:
    """A band with a step and a peak at 10 to 50 000 K: mu and C_el against mpmath, the DOS being linear between channels."""
    energies = np.linspace(-12.0, 12.0, 121)
    dos = np.sqrt(np.clip(energies + 10, 0, None)) + 3 * np.exp(-((energies - 1.0) ** 2)) * (energies > 0)
    worst_mu = worst_c = 0.0
    with mpmath.workdps(25):
        for t in (10.0, 300.0, 3000.0, 50000.0):
            mu = float(thermo.chemical_potential(energies, dos, 40.0, t))
            n, k0, k1, k2 = (exact(energies, dos, mu, t, weight) for weight in ("f", 0, 1, 2))
            worst_mu = max(worst_mu, abs(float((n - 40) / k0)))
            found = float(thermo.heat_capacity(energies, dos, 40.0, t))
            worst_c = max(worst_c, deviation(found, float((k2 - k1**2 / k0) / t)))
    print_row("mu, 10 to 50 000 K (eV)", "mpmath, 25 digits", worst_mu, "<= 1e-09")
    print_row("C_el, 10 to 50 000 K", "mpmath, 25 digits", worst_c, "<= 1e-08")


def exact(energies: np.ndarray, dos: np.ndarray, mu: float, temperature_K: float, weight: int | str) -> mpmath.mpf:
    """int g f dE, or int g (E - mu)^weight (-df/dE) dE."""
    kt, level, total = mpmath.mpf(K_B) * temperature_K, mpmath.mpf(mu), mpmath.mpf(0)
    for i in range(len(energies) - 1):
        a, b, g_a, g_b = (mpmath.mpf(float(v)) for v in (energies[i], energies[i + 1], dos[i], dos[i + 1]))
        if (weight != "f" or a > level) and min(abs(a - level), abs(b - level)) > 70 * kt and not a < level < b:
            continue

        def integrand(
            e: mpmath.mpf, a: mpmath.mpf = a, b: mpmath.mpf = b, g_a: mpmath.mpf = g_a, g_b: mpmath.mpf = g_b
        ):
            x, g = (e - level) / kt, g_a + (g_b - g_a) * (e - a) / (b - a)
            if weight == "f":
                return g / (1 + mpmath.exp(x))
            return g * (e - level) ** weight / (kt * (2 + mpmath.exp(x) + mpmath.exp(-x)))

        cuts = [level + k * kt for k in (-60, -30, -15, -8, -4, 0, 4, 8, 15, 30, 60)]
        total += mpmath.quad(integrand, [a, *(c for c in cuts if a < c < b), b])
    return total


def networks_and_denoising() -> None:
    """Against upet's module and formulas with the same weights."""
    with quiet():
        from upet.ase.dos._models import CNNModel

    torch.manual_seed(0)
    grid = EnergyGrid(-159.6456, 0.05, 4806)
    network, peer = Network(DOSNetwork(grid.n), grid, "gap"), CNNModel().eval()
    peer.load_state_dict(network.module.state_dict())
    dos = 8 * np.random.default_rng(0).random((40, grid.n))
    with torch.inference_mode():
        expected = peer(torch.as_tensor(dos / 8, dtype=torch.float32)[:, None])[:, 0].numpy()
    print_row(
        "networks, 40 DOS",
        "upet's module on the same weights",
        deviation(network(dos, 8), np.maximum(expected, 0)),
        "<= 1e-05",
    )
    energies = np.linspace(-12.0, 12.0, 481)
    dos = 4 * (np.exp(-((energies + 3) ** 2)) + np.exp(-((energies - 3) ** 2))) + 0.1 * np.sin(7 * energies)
    clean = Denoise(energies, 4, 6.0)(dos.copy()[None, None], slice(0, 1))[0, 0]
    level = float(thermo.fermi_level(energies, dos, 6.0))
    print_row(
        "denoised DOS",
        "Eqs. 11 to 16 channel by channel",
        deviation(clean, denoised(energies, dos, level, 6.0, 4)),
        "<= 1e-04",
    )


def denoised(energies: np.ndarray, dos: np.ndarray, level: float, n_electrons: float, n_atoms: int) -> np.ndarray:
    """Eqs. 11 to 16 written out."""
    step = energies[1] - energies[0]
    reach = int(4 * 0.3 / step)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / 0.3) ** 2)
    mirrored = np.r_[dos[1 : reach + 1][::-1], dos, dos[-reach - 1 : -1][::-1]]
    smooth = np.array([kernel @ mirrored[i : i + 2 * reach + 1] for i in range(len(dos))]) / kernel.sum() / n_atoms
    thresholded = dos / (1 + np.exp(-100 * (smooth - 0.1)))
    inside = energies < level
    g = np.r_[thresholded[inside], np.interp(level, energies, thresholded)]
    return thresholded * n_electrons / np.trapezoid(g, np.r_[energies[inside], level])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, default=128)
    args = parser.parse_args()
    print("| result | against | deviation | promised |\n|---|---|---|---|")
    model = DOSModel.load("almgsi-lda", "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        integrals()
        averages(model, folder)
        networks_and_denoising()
        chunks_and_lammps(model, folder)
        exported_model(folder, args.members)


if __name__ == "__main__":
    main()
