"""``petdos calibrate``: a new ensemble for a model, fitted on reference structures."""

from __future__ import annotations

import argparse

from .arguments import Commands, add_model, add_path, add_references, new_command


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "calibrate",
        "Give a model an ensemble with correlated channels, fitted on a calibration split, so that errors of integrals come out right.\n"
        "The mean prediction stays exactly what it was, so that traces of the old model can be analyzed with the new one.",
        "  petdos calibrate model.pt mine.xyz.xz --where split=validation --features train.xyz -o calibrated.pt",
        run,
    )
    add_model(parser, device=False)
    add_references(parser)
    add_path(parser, "-o", "--output", required=True, metavar="NAME.pt", help="the model to write")
    parser.add_argument(
        "--members", type=int, default=64, metavar="N", help="size of the ensemble (default: %(default)s)"
    )
    add_path(parser, "--features", metavar="DATASET", help="training structures: what the model has seen")
    parser.add_argument("--features-where", metavar="CONDITION", help="which of them")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random members (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Fit an ensemble, write a model with it, print the calibration before and after."""
    from ..base.electrons import parse_electrons
    from ..models.model import DOSModel
    from ..validation.calibrate import calibrate_model
    from ..validation.references import note_on_electrons, read_references, read_structures
    from .bars import count_bar

    electrons = parse_electrons(args.electrons)
    model = DOSModel.load(args.model, "cpu", electrons=electrons)
    references = read_references(args.dataset, model, where=args.where)
    seen = [] if args.features is None else read_structures(args.features, where=args.features_where)
    with count_bar(None, "structure") as bar:
        report = calibrate_model(
            args.model,
            references,
            args.output,
            features_of=seen,
            n_members=args.members,
            seed=args.seed,
            electrons=electrons,
            progress=bar.update,
        )
    print(report.text())
    if note := note_on_electrons(references, model):
        print(note)
    if not seen:
        print(
            "note: the calibration structures stand for the training set; with that itself (--features DATASET) errors of what resembles it are smaller"
        )
    return 0
