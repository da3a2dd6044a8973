"""``petdos analyze``: thermal averages of traces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import SettingError
from ..results.folder import check_folder
from .arguments import (
    Commands,
    add_denoise,
    add_path,
    add_results,
    add_traces,
    check_traces,
    choose_denoising,
    choose_weights,
    joined,
    new_command,
    parse_temperatures,
)

if TYPE_CHECKING:
    import xarray as xr


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "analyze",
        "Average traces: density of states, chemical potential, heat capacity, with model and sampling errors.\n"
        "Writes a page, report.html, that needs no other file, report.md, figures, thermo.csv, dos.nc, summary.json and provenance.json.",
        "  petdos analyze run.zarr -o results",
        run,
    )
    add_traces(parser)
    add_results(parser)
    parser.add_argument(
        "--reference", choices=("raw", "fermi"), default="fermi", help="zero of energy (default: %(default)s)"
    )
    parser.add_argument(
        "--error-method",
        choices=("autocorrelation", "blocking"),
        default="autocorrelation",
        help="of sampling errors (default: %(default)s)",
    )
    parser.add_optional_value(
        "--reweight",
        if_bare="all",
        metavar="T1,T2,...",
        help="also reweight all frames with MBAR to each temperature of the traces, or (--reweight=T1,T2,... or "
        "--reweight=FIRST:LAST:STEP) to these, K",
    )
    parser.add_argument(
        "--pressure",
        type=float,
        metavar="GPA",
        help="for --reweight at constant pressure, if the traces do not give it",
    )
    parser.add_argument(
        "--align",
        choices=("average", "frames"),
        default="average",
        help="shift each member's average, or every frame and member, to its Fermi level (default: %(default)s)",
    )
    add_denoise(parser)
    parser.add_argument(
        "--units",
        choices=("cell", "atom", "mol", "kB"),
        help="what extensive quantities refer to, on the screen and in all files (default: eV and eV/K per structure, figures per atom)",
    )
    parser.add_argument(
        "--format",
        default="png",
        metavar="png,pdf,svg",
        help="of the figures beside the page, several joined by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--electronic-temperature",
        nargs="+",
        metavar="T",
        help="of the electrons, K: numbers, or FIRST:LAST:STEP; frames: that of the hot electrons among which the atoms moved",
    )
    _add_two_temperature(parser)
    parser.add_argument("--carriers", action="store_true", help="count electrons and holes of a system with a gap")


def _add_two_temperature(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser,
        "--ttm",
        metavar="FILE",
        help="also write the heat capacity over electronic temperatures (250:20000:250, if not given) for LAMMPS's fix ttm/mod or ttm/cascade, and "
        "as FILE.csv",
    )
    parser.add_argument(
        "--ttm-format",
        choices=("mod", "cascade"),
        default="mod",
        help="of the fix: parameters that are fitted for ttm/mod, or the table (cetab) of ttm/cascade (default: %(default)s)",
    )
    parser.add_argument(
        "--ttm-units", choices=("metal", "real"), default="metal", help="of LAMMPS (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Average, print the table, write files."""
    _check(args)
    targets = [] if args.reweight == "all" else parse_temperatures(args.reweight)
    electronic_temperatures_K = _electronic_temperatures(args)
    formats = args.format.split(",")
    from ..results.report import check_formats, format_table, write_report

    check_formats(formats)
    from ..analysis.analyze import analyze
    from .bars import share_bar

    with share_bar("part") as show:
        result = analyze(
            args.traces,
            args.model,
            temperatures_K=parse_temperatures(joined(args.temperature)),
            reference=args.reference,
            burn_in=args.burn_in,
            error_method=args.error_method,
            align=args.align,
            denoise=choose_denoising(args.denoise),
            replicas=args.replica,
            steps=args.steps,
            electronic_range_K=args.electronic_range,
            weights=choose_weights(args.weights),
            electronic_temperatures_K=electronic_temperatures_K,
            carriers=args.carriers,
            progress=show,
        )
    reweighted = None if targets is None else _reweighted(args, targets)
    paths = write_report(result, args.output, plots=not args.no_plots, normalization=args.units, formats=formats)
    print(format_table(result, args.units))
    if reweighted is not None:
        from ..results.reweighted import format_reweighted, write_reweighted

        paths += write_reweighted(
            reweighted, result, args.output, plots=not args.no_plots, normalization=args.units, formats=formats
        )
        print(format_reweighted(reweighted, result, args.units))
    if args.ttm is not None:
        paths += _write_two_temperature(args, result)
    print("written: " + " ".join(map(str, paths)))
    return 0


def _electronic_temperatures(args: argparse.Namespace) -> list[float] | str | None:
    """As the analysis takes them.

    :raises SettingError: for text that is no temperature
    """
    given = joined(args.electronic_temperature)
    if given == "frames":
        if args.ttm is not None:
            raise SettingError("--ttm needs a ladder of --electronic-temperature, got frames; give FIRST:LAST:STEP")
        return "frames"
    return parse_temperatures(given) or (None if args.ttm is None else parse_temperatures("250:20000:250"))


def _check(args: argparse.Namespace) -> None:
    """Whether the options go together.

    :raises SettingError: if they do not
    """
    check_traces(args.traces, denoise=args.denoise, reweight=args.reweight)
    check_folder(args.output)
    other = (
        args.ttm
        or args.denoise
        or args.weights
        or args.carriers
        or args.electronic_temperature
        or args.align == "frames"
    )
    if args.reweight is not None and other:
        raise SettingError(
            "--reweight averages plain DOS of all frames; leave out --ttm, --denoise, --weights, --carriers, --align frames and the like"
        )
    if args.reweight is not None and (args.steps is not None or args.electronic_range is not None):
        raise SettingError(
            "--reweight takes no --steps and no --electronic-range; leave out the beginning with --burn-in"
        )
    if args.ttm is None and (args.ttm_format, args.ttm_units) != ("mod", "metal"):
        raise SettingError("--ttm-format and --ttm-units are for --ttm; give --ttm FILE, or leave them out")
    if args.pressure is not None and args.reweight is None:
        raise SettingError("--pressure is for --reweight; leave it out, or give both")


def _reweighted(args: argparse.Namespace, targets: list[float]) -> xr.Dataset:
    from ..analysis.mbar import reweighted_estimate

    return reweighted_estimate(
        args.traces,
        targets,
        args.model,
        sampled_temperatures_K=parse_temperatures(joined(args.temperature)),
        burn_in=args.burn_in,
        replicas=args.replica,
        pressure_GPa=args.pressure,
    )


def _write_two_temperature(args: argparse.Namespace, result: Any) -> list[Path]:
    from ..results.two_temperature import HeatCapacityTable

    table, path = HeatCapacityTable.of_analysis(result), Path(args.ttm)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_table(f"{path}.csv")
    if args.ttm_format == "cascade":
        table.write_cascade(path, args.ttm_units)
    else:
        fit = table.write_lammps(path, args.ttm_units)
        print(f"two-temperature model: C_e fitted to {100 * fit.error:.2g} % of its largest value")
    return [path, Path(f"{path}.csv")]
