"""``petdos levels``: Fermi level, band gap and DOS at the Fermi level of every frame."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from ..results.folder import check_folder
from .arguments import (
    Commands,
    add_denoise,
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
        "levels",
        "Fermi level, band gap and DOS at the Fermi level of every frame: raw, denoised, and by networks.\n"
        "Writes levels.csv (thermal means with errors), series.csv (frames), levels.nc and levels.png.",
        "  petdos levels run.zarr -o results",
        run,
    )
    add_traces(parser)
    add_results(parser)
    parser.add_argument("--method", choices=("raw", "denoised", "network"), nargs="+", help="only these (default: all)")
    add_denoise(parser, default="auto")
    parser.add_argument(
        "--threshold", type=float, default=0.1, metavar="X", help="states/eV/atom of a gap (default: %(default)s)"
    )
    parser.add_argument("--no-members", action="store_true", help="of the mean prediction only: fast, no model errors")


def run(args: argparse.Namespace) -> int:
    """Read the levels of all frames, print the thermal means, write files."""
    check_traces(args.traces, denoise=args.denoise)
    check_folder(args.output)
    if not 0 <= args.threshold < math.inf:
        raise SettingError(
            f"got --threshold {args.threshold:g}, expected the states/eV/atom below which a gap is, >= 0"
        )
    from ..analysis.levels import frame_levels
    from ..analysis.options import LEVEL_METHODS
    from ..results.report import format_levels
    from .bars import share_bar

    with share_bar("DOS") as show:
        data = frame_levels(
            args.traces,
            args.model,
            denoise=choose_denoising(args.denoise),
            methods=args.method or LEVEL_METHODS,
            temperatures_K=parse_temperatures(joined(args.temperature)),
            burn_in=args.burn_in,
            replicas=args.replica,
            steps=args.steps,
            electronic_range_K=args.electronic_range,
            weights=choose_weights(args.weights),
            members=not args.no_members,
            threshold=args.threshold,
            progress=show,
        )
    paths = _write(data, Path(args.output), plots=not args.no_plots)
    print(format_levels(data))
    print(f"denoised: {data.attrs['denoise']}; networks: {', '.join(data.attrs['networks'])}")
    print("written: " + " ".join(map(str, paths)))
    return 0


def _write(data: xr.Dataset, folder: Path, plots: bool) -> list[Path]:
    from ..results.folder import make_folder
    from ..results.plot import plot_levels, save
    from ..results.tables import to_table, write_csv

    make_folder(folder)
    paths = [folder / "levels.csv", folder / "series.csv", folder / "levels.nc"]
    write_csv(to_table(data, "temperature"), paths[0])
    write_csv(to_table(data, "frame"), paths[1])
    paths[2].unlink(missing_ok=True)  # netCDF would write into an old file that is a link or open elsewhere
    data.to_netcdf(paths[2], engine="netcdf4")
    if plots:
        paths.append(save(plot_levels(data), folder / "levels.png"))
    return paths
