"""``petdos export``: a fast model of a checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from .arguments import Commands, add_path, new_command

if TYPE_CHECKING:
    from ase import Atoms

    from ..models.export import ExportReport

PUBLISHED = "pet-mad-dos"


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "export",
        "Make a fast model of a metatrain checkpoint: NAME.pt and NAME.readout.safetensors.\n"
        "For pet-mad-dos, the published universal model, checkpoint and networks are downloaded.\n"
        "The result is compared with the checkpoint's own model; nothing is written if they differ.",
        "  petdos export model.ckpt --llpr llpr.ckpt --electrons Al=3,Mg=2,Si=4 --grid-start -20 -o almgsi.pt\n"
        "  petdos export pet-mad-dos",
        run,
    )
    add = parser.add_argument
    help_checkpoint = "of metatrain's PET, or LLPR around it; or pet-mad-dos, the published one"
    add_path(parser, "checkpoint", metavar="CKPT", help=help_checkpoint)
    help_files = "where the files of pet-mad-dos are, instead of a download"
    add_path(parser, "--files", metavar="FOLDER", folder=True, help=help_files)
    add_path(parser, "--llpr", metavar="CKPT", help="LLPR checkpoint of the same network, for the ensemble")
    help_output = "required, except for pet-mad-dos (pet-mad-dos.pt)"
    add_path(parser, "-o", "--output", metavar="NAME.pt", help=help_output)
    add("--electrons", metavar="Al=3,...", help="valence electrons of each element's pseudopotential")
    add("--grid-start", type=float, metavar="EV", help="first energy of the DOS, eV; required, except for pet-mad-dos")
    add("--grid-step", type=float, default=0.05, metavar="EV", help="spacing, eV (default: %(default)s)")
    add("--target", default="mtt::dos", metavar="T", help="the DOS in the checkpoint (default: %(default)s)")
    help_training = (
        "structures that it was trained on (any file that ASE reads), so that it warns where it extrapolates"
    )
    add_path(parser, "--training-set", metavar="FILE", help=help_training)
    help_validation = (
        "others with energies, so that a potential knows how uncertain its energies are (with --training-set)"
    )
    add_path(parser, "--validation-set", metavar="FILE", help=help_validation)
    add("--name", help="name of the model, as shown to people (default: that of the file)")
    add("--description", default="", help="one sentence for the model's metadata")


def run(args: argparse.Namespace) -> int:
    """Export, print what was written and how far it is from the checkpoint."""
    from ..base.electrons import parse_electrons

    electrons = parse_electrons(args.electrons)
    try:
        import metatrain  # noqa: F401
    except ModuleNotFoundError:
        raise SettingError("export needs metatrain; install it with: pip install 'petdos-md[train]'") from None
    if args.checkpoint == PUBLISHED:
        return _export_published(args)
    needed = {"-o NAME.pt": args.output, "--grid-start EV, the first energy of its DOS": args.grid_start}
    missing = [option for option, value in needed.items() if value is None]
    if not os.path.isfile(args.checkpoint):
        raise SettingError(
            f"{args.checkpoint}: no such checkpoint; give the path of a .ckpt that `mtt train` wrote, or {PUBLISHED}"
        )
    if missing:
        raise SettingError(f"{args.checkpoint}: give {' and '.join(missing)}")
    if args.validation_set is not None and args.training_set is None:
        raise SettingError("--validation-set needs --training-set as well; give both, or none")
    if args.files is not None:
        raise SettingError(f"{args.checkpoint}: --files is for {PUBLISHED} only; leave it out")
    from ..models.export import export_model

    report = export_model(
        args.checkpoint,
        args.output,
        llpr=args.llpr,
        grid_start=args.grid_start,
        grid_step=args.grid_step,
        electrons=electrons,
        target=args.target,
        name=args.name,
        description=args.description,
        training=_structures(args.training_set),
        validation=_structures(args.validation_set),
    )
    _print_report(report, f"{report.readout}: keep it beside the model")
    if electrons is None:
        print("valence electrons are not known: results will need --electrons", file=sys.stderr)
    return 0


def _structures(path: str | None) -> list[Atoms]:
    if path is None:
        return []
    from ..engines.structures.files import read_frames

    return [atoms for _, atoms in read_frames(path)]


def _export_published(args: argparse.Namespace) -> int:
    known = {
        "--electrons": args.electrons,
        "--grid-start": args.grid_start,
        "--training-set": args.training_set,
        "--validation-set": args.validation_set,
    }
    for option, value in known.items():
        if value is not None:
            raise SettingError(f"{option} is known of {PUBLISHED}; leave it out")
    from ..models.pet_mad_dos import export_pet_mad_dos

    report = export_pet_mad_dos(args.output or f"{PUBLISHED}.pt", files=args.files, llpr=args.llpr)
    for path, digest in report.hashes.items():
        print(f"{path.name}: sha256 {digest}")
    written = " ".join(map(str, (report.export.readout, *report.networks)))
    _print_report(report.export, f"{written}: keep them beside the model")
    return 0


def _print_report(report: ExportReport, beside: str) -> None:
    counts = f"{report.n_last_layer} features, {report.n_channels} energies, {report.n_members} members"
    deviations = f"DOS {report.dos_deviation:.1e}, members {report.ensemble_deviation:.1e}"
    print(f"{report.backbone}: {counts}")
    print(beside)
    print(f"largest deviation from the checkpoint: {deviations}")
