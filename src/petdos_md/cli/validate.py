"""The commands ``petdos validate`` and ``petdos calibrate``."""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

from ..base.electrons import parse_electrons
from ..models.model import DOSModel
from ..results.plot import plot_calibration, plot_errors, save
from ..validation.calibrate import calibrate_model
from ..validation.references import read_references, read_structures
from ..validation.validate import Validation, format_validation, validate_model
from .arguments import load_model
from .progress import count_bar


def evaluate(args: argparse.Namespace) -> int:
    """Compare, print the tables, write files."""
    model = load_model(args.model, args)
    references = read_references(args.dataset, model, where=args.where, subset=args.subset)
    with count_bar(len(references), "structure") as bar:
        result = validate_model(
            model, references, temperatures_K=args.temperature, symmetry=not args.no_symmetry, progress=bar.update
        )
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    text = format_validation(result)
    print(text)
    paths = [folder / name for name in ("validation.md", "validation.json", "structures.csv")]
    paths[0].write_text(text)
    whole = {"model": result.model, "fingerprint": result.fingerprint, "units": result.units, "all": result.summary()}
    whole["subsets"] = {subset: result.summary(subset) for subset in result.subsets}
    paths[1].write_text(json.dumps(_without_nan(whole), indent=1, allow_nan=False) + "\n")
    _write_structures(result, paths[2])
    if not args.no_plots:
        paths.append(save(plot_errors(result), folder / "errors.png"))
        if result.n_members > 1:
            paths.append(save(plot_calibration(result), folder / "calibration.png"))
    print("written: " + " ".join(map(str, paths)))
    return 0


def calibrate(args: argparse.Namespace) -> int:
    """Fit an ensemble, write a model with it, tell the calibration before and after."""
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
    return 0


def _write_structures(result: Validation, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = ["subset", "atoms", "electrons", "dos_error", "symmetry_error", "shift (eV)"]
        for name, unit in result.units.items():
            header += [f"{name}_reference ({unit})", f"{name} ({unit})", f"{name}_model_std ({unit})"]
        writer.writerow(header)
        for c in result.comparisons:
            numbers = [x for name in result.units for x in c.integrals[name]]
            values = [c.n_electrons, c.error, c.symmetry, c.shift_eV, *numbers]
            writer.writerow([c.subset, c.n_atoms, *(repr(float(x)) for x in values)])


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
