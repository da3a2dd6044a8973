"""``petdos refine``: the last layer of a model, updated with new reference structures."""

from __future__ import annotations

import argparse

from .arguments import Commands, add_model, add_path, new_command


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "refine",
        "Teach a model new reference structures without training: its last layer is updated in closed form, members included.\n"
        "The network stays, so that traces of the old model can be analyzed with the new one.",
        "  petdos refine trio-pbesol --data melt.xyz --where split=train --test melt.xyz --test-where split=test -o refined.pt",
        run,
    )
    add_model(parser, device=False)
    help_data = "new structures (any files that ASE reads, also compressed)"
    add_path(parser, "--data", nargs="+", required=True, metavar="FILE", help=help_data)
    parser.add_argument("--where", metavar="CONDITION", help="only those with key=value or key%%number=value in info")
    add_path(parser, "--test", nargs="+", default=[], metavar="FILE", help="others, for errors before and after")
    parser.add_argument("--test-where", metavar="CONDITION", help="which of them")
    add_path(parser, "-o", "--output", required=True, metavar="NAME.pt", help="the model to write")
    help_weight = (
        "what a new structure counts, in training structures; more forgets what was learned (default: %(default)g)"
    )
    parser.add_argument("--weight", type=float, default=1.0, metavar="W", help=help_weight)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random members (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Update, write, print errors before and after."""
    from ..base.electrons import parse_electrons
    from ..models.model import DOSModel
    from ..validation.references import note_on_electrons, read_references
    from ..validation.refine import refine_model
    from .bars import count_bar

    electrons = parse_electrons(args.electrons)
    model = DOSModel.load(args.model, "cpu", electrons=electrons)
    references = [r for path in args.data for r in read_references(path, model, where=args.where)]
    test = [r for path in args.test for r in read_references(path, model, where=args.test_where)]
    with count_bar(len(references) + len(test), "structure") as bar:
        report = refine_model(
            args.model,
            references,
            args.output,
            test=test,
            weight=args.weight,
            seed=args.seed,
            electrons=electrons,
            progress=bar.update,
        )
    print(report.text())
    if note := note_on_electrons([*references, *test], model):
        print(note)
    return 0
