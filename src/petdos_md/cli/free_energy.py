"""``petdos free-energy``: electronic free energies over volumes, for phonopy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from .arguments import Commands, add_dos, add_path, joined, load_model, new_command, parse_temperatures
from .reading import add_reading, interpretation

if TYPE_CHECKING:
    from ..analysis.free_energy import VolumePoint
    from ..models.model import DOSModel


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "free-energy",
        "Electronic free energies F(V, T) of structures or traces at several volumes, for phonopy's quasi-harmonic run.\n"
        "Writes e-v.dat, fe-v.dat and free_energy.csv (with model errors).",
        "  petdos free-energy V1.cif V2.cif V3.cif V4.cif V5.cif --dos almgsi-lda --potential almgsi-lda \\\n"
        "      --temperature 0:1000:10 -o qha",
        run,
    )
    add_path(parser, "sources", nargs="+", metavar="STRUCTURE|TRACE", help="one for each volume")
    add_dos(parser)
    add_path(
        parser,
        "--potential",
        metavar="P",
        help="for the static energies: emt, a shipped model, one of upet (pet-mad-s, ...), or a metatomic model (.pt)",
    )
    add_path(parser, "--energies", metavar="FILE", help="static energies in its last column, a row for each source, eV")
    parser.add_argument(
        "--temperature",
        required=True,
        nargs="+",
        metavar="T",
        help="K: numbers, or FIRST:LAST:STEP; 0 may be the first",
    )
    parser.add_argument(
        "--atoms",
        type=int,
        metavar="N",
        help="atoms of the cell that phonopy counts for (default: of the first source)",
    )
    add_path(parser, "-o", "--output", required=True, metavar="OUT", folder=True, help="folder for the files")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, integrate, write."""
    temperatures = parse_temperatures(joined(args.temperature), zero=True) or []
    if args.atoms is not None and args.atoms < 1:
        raise SettingError(f"got --atoms {args.atoms}, expected at least 1")
    if (args.energies is None) == (args.potential is None):
        raise SettingError("give static energies of all volumes, either by --potential or by --energies")
    from ..analysis.free_energy import free_energies
    from ..results.folder import check_folder
    from ..results.phonopy_files import write_phonopy

    check_folder(args.output)
    given = _read_energies(args.energies, len(args.sources)) if args.energies else [float("nan")] * len(args.sources)
    is_trace = [(Path(source) / "zarr.json").is_file() for source in args.sources]
    if any(is_trace) and args.potential:
        raise SettingError(
            "a trace is an average over moving atoms and has no static energy; give --energies in place of --potential"
        )
    if not all(is_trace) and not args.dos:
        raise SettingError("structures need a model; give --dos")
    model = load_model(args.dos, args) if args.dos else None
    points = []
    for source, energy, trace in zip(args.sources, given, is_trace, strict=True):
        points.append(_of_trace(source, energy, args.dos) if trace else _of_structure(source, energy, model, args))
    data = free_energies(points, temperatures, args.atoms)
    paths = write_phonopy(data, args.output)
    last = data.isel(temperature=-1)
    print(f"F_el(V, {temperatures[-1]:g} K) - F_el(V, 0), eV of {data.attrs['n_atoms']} atoms (± model)")
    for volume, change, std, name in zip(
        last["volume"].values,
        last["free_energy_change"].values,
        last["free_energy_change_model_std"].values,
        last["source"].values,
        strict=True,
    ):
        print(f"  {volume:12.4f} A^3  {change:12.6f} ± {std:.6f}  {name}")
    print("written: " + " ".join(map(str, paths)))
    print(f"next: phonopy-qha --efe {paths[1]} {paths[0]} thermal_properties.yaml-...  (in the order of these volumes)")
    return 0


def _read_energies(path: str, n: int) -> list[float]:
    """The last column of a file; ``#`` begins a comment."""
    import numpy as np

    try:
        rows = np.atleast_2d(np.loadtxt(path))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{path}: not a table of numbers ({error}); give a row for each volume, energies (eV) last"
        ) from None
    if len(rows) != n:
        raise SettingError(
            f"{path}: {len(rows)} rows for {n} volumes, expected one for each, in the order of the sources"
        )
    return [float(x) for x in rows[:, -1]]


def _of_structure(source: str, energy: float, model: DOSModel | None, args: argparse.Namespace) -> VolumePoint:
    import numpy as np

    from ..analysis.free_energy import VolumePoint
    from ..engines.potentials import Potential
    from ..engines.structures.files import read_structure

    assert model is not None
    atoms = read_structure(source, interpretation(args), args.format)
    model.check(atoms)
    sample = model.evaluate(atoms)
    if args.potential:
        atoms.calc = Potential.find(args.potential, model).calculator()
        energy = float(atoms.get_potential_energy())
    dos = model.dos(sample)[None]
    if model.readout.n_members:
        dos = np.concatenate([dos, model.readout.members(sample.features)])
    return VolumePoint(source, sample.volume_A3, len(atoms), model.n_electrons(atoms), model.grid.energies, dos, energy)


def _of_trace(source: str, energy: float, model: str | None) -> VolumePoint:
    """The thermal-average DOS of a trace of one temperature."""
    import numpy as np

    from ..analysis.analyze import analyze
    from ..analysis.free_energy import VolumePoint

    result = analyze(source, model, reference="raw", keep_members=True)
    if result.sizes["temperature"] > 1:
        raise SettingError(
            f"{source}: has {result.sizes['temperature']} temperatures; give a trace of one for each volume"
        )
    at = result.isel(temperature=0)
    own = at["dos"].values[None]
    dos = np.concatenate([own, at["dos_members"].values]) if "dos_members" in at else own
    return VolumePoint(
        source, float(at["volume"]), int(at["n_atoms"]), float(at["electrons"]), at["energy"].values, dos, energy
    )
