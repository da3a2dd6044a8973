"""``petdos validate``: a model against reference structures."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..results.folder import check_folder
from .arguments import Commands, add_model, add_references, add_results, load_model, new_command

if TYPE_CHECKING:
    from ..validation.validate import Validation


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "validate",
        "Compare a model with reference structures: error of the DOS, symmetry error, and whether model errors are right.\n"
        "Structures carry `dos`, or `eigenvalues` and `kweights`, in their info. Writes tables and figures.",
        "  petdos validate almgsi-lda examples/training/data/almgsi-lda.xyz.xz --where index%10=3 -o validation",
        run,
    )
    add_model(parser)
    add_references(parser)
    add_results(parser)
    parser.add_argument("--subset", metavar="KEY", help="key in info that names the subset (default: subset or tag)")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[300.0, 1000.0, 3000.0], metavar="T", help="of mu and C_el, K"
    )
    parser.add_argument("--no-symmetry", action="store_true", help="leave out the 38 rotations of each structure")


def run(args: argparse.Namespace) -> int:
    """Compare, print the tables, write files."""
    from ..validation.references import note_on_electrons, read_references
    from ..validation.validate import format_validation, validate_model
    from .bars import count_bar

    check_folder(args.output)
    model = load_model(args.model, args)
    references = read_references(args.dataset, model, where=args.where, subset=args.subset)
    with count_bar(len(references), "structure") as bar:
        result = validate_model(
            model, references, temperatures_K=args.temperature, symmetry=not args.no_symmetry, progress=bar.update
        )
    text = format_validation(result)
    print(text)
    if note := note_on_electrons(references, model):
        print(note)
    paths = _write(result, text, Path(args.output), plots=not args.no_plots)
    print("written: " + " ".join(map(str, paths)))
    return 0


def _write(result: Validation, text: str, folder: Path, plots: bool) -> list[Path]:
    from ..results.folder import make_folder
    from ..results.plot import plot_calibration, plot_errors, save

    make_folder(folder)
    paths = [folder / name for name in ("validation.md", "structures.csv")]
    paths[0].write_text(text)
    _write_structures(result, paths[1])
    if plots:
        paths.append(save(plot_errors(result), folder / "errors.png"))
        if result.n_members > 1:
            paths.append(save(plot_calibration(result), folder / "calibration.png"))
    whole = {"model": result.model, "fingerprint": result.fingerprint, "units": result.units, "all": result.summary()}
    whole["subsets"] = {subset: result.summary(subset) for subset in result.subsets}
    paths.append(folder / "validation.json")  # the last: where it is, all is
    paths[-1].write_text(json.dumps(_without_nan(whole), indent=1, allow_nan=False) + "\n")
    return paths


def _write_structures(result: Validation, path: Path) -> None:
    """One row per structure; units in the header."""
    import pandas as pd

    from ..results.tables import write_csv

    rows = []
    for c in result.comparisons:
        row: dict[str, Any] = {"subset": c.subset, "atoms": c.n_atoms, "electrons": float(c.n_electrons)}
        row |= {"dos_error": float(c.error), "symmetry_error": float(c.symmetry), "shift (eV)": float(c.shift_eV)}
        row |= {"extrapolation_grade": float(c.extrapolation_grade)} if result.is_graded else {}
        for name, unit in result.units.items():
            headers = (f"{name}_reference ({unit})", f"{name} ({unit})", f"{name}_model_std ({unit})")
            row |= dict(zip(headers, map(float, c.integrals[name]), strict=True))
        rows.append(row)
    write_csv(pd.DataFrame(rows), path)


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: null says that a number is not known."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
