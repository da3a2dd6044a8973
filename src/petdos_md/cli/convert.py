"""``petdos convert``: a trace for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..base.errors import SettingError
from .arguments import Commands, add_path, new_command

ENDINGS = (".nc", ".zarr", ".csv")


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "convert",
        "Write a trace for other programs: netCDF or a zarr store that say everything about themselves, or the DOS as CSV.\n"
        "In a .nc or .zarr, readout @ features is the DOS of a frame: xarray.open_dataset needs nothing of ours.",
        "  petdos convert run.zarr -o run.nc\n  petdos convert run.zarr -o dos.csv",
        run,
    )
    add_path(parser, "trace", metavar="X.zarr", folder=True, help="the trace")
    add_path(parser, "--model", metavar="M", help="the model, if it is no longer where the trace says")
    parser.add_argument("--members", action="store_true", help="with the weights of the ensemble, in .nc and .zarr")
    add_path(parser, "-o", "--output", required=True, metavar="OUT", help="ends in .nc, .zarr or .csv; must not exist")


def run(args: argparse.Namespace) -> int:
    """Convert."""
    output = Path(args.output)
    if output.suffix not in ENDINGS:
        raise SettingError(f"{output}: expected an output that ends in {', '.join(ENDINGS)}")
    if output.exists():
        raise SettingError(f"{output}: exists already; give another output, or remove it")
    from ..results.exports import dos_table, trace_dataset, write_dataset

    if output.suffix == ".csv":
        from ..analysis.analyze import analyze
        from ..results.tables import write_csv

        table = dos_table(analyze(args.trace, args.model, reference="fermi"))
        write_csv(table, output, 8)
        print(f"{output}: DOS at {len(table)} energies relative to the Fermi level, with both errors")
        return 0
    data = trace_dataset(args.trace, args.model, members=args.members)
    write_dataset(data, output)
    what = "DOS = readout @ features" if "readout" in data.coords else "without a readout: the model is not there"
    print(f"{output}: {data.sizes['sample']} samples, {what}")
    return 0
