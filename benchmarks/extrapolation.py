"""Whether the extrapolation grade is a good sign: the model's grade beside its true error, inside and outside its training domain.

    python benchmarks/extrapolation.py

DFT of structures that ``almgsi-lda`` was not trained on: the validation and test parts of its data, and
``examples/training/data/outside-lda.xyz.xz`` (``examples/training/dft/outside.py``: compressed, expanded, molten, other crystals, surfaces).
Errors are those of Eq. 8 of the PET-MAD-DOS article (doi 10.1039/D5DD00557D), after the best rigid shift.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from petdos_md import DOSModel
from petdos_md.models.rigidity import FAR_OUTSIDE, OUTSIDE
from petdos_md.physics.dft import dos_target
from petdos_md.validation.metrics import align

TRAINING = Path(__file__).resolve().parents[1] / "examples" / "training"
sys.path[:0] = [str(TRAINING), str(TRAINING / "dft")]

from compute import read_xz  # noqa: E402
from split import split_of  # noqa: E402

UNIT = "eV^-0.5 electrons^-1 state"
EDGES = (0.0, 0.1, 0.3, OUTSIDE, FAR_OUTSIDE, 10.0, np.inf)


class Row(NamedTuple):
    """One structure: grade, error of the DOS and what the ensemble says of it, shift of the axis (eV)."""

    tag: str
    grade: float
    error: float
    spread: float
    shift: float


def compare(model: DOSModel, atoms) -> Row:
    """Model and DFT."""
    sample, step = model.evaluate(atoms), model.grid.step
    dos = model.dos(sample)
    best = align(dos_target(atoms.info["eigenvalues"], atoms.info["kweights"], model.grid), dos, step)
    spread = np.sqrt((model.dos_members(sample).var(axis=0, ddof=1)).sum() * step)
    n = atoms.info["n_electrons"]
    return Row(
        str(atoms.info["tag"]),
        model.extrapolation_grade(sample),
        np.sqrt(best.squared_error) / n,
        spread / n,
        best.shift * step,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="almgsi-lda")
    parser.add_argument("--data", type=Path, default=TRAINING / "data" / "almgsi-lda.xyz.xz", help="its own data")
    parser.add_argument("--outside", type=Path, default=TRAINING / "data" / "outside-lda.xyz.xz")
    args = parser.parse_args()
    model = DOSModel.load(args.model, device="cpu")
    held = [compare(model, a) for a in read_xz(args.data) if split_of(a) != "train"]
    outside = [compare(model, a) for a in read_xz(args.outside)]

    print(
        f"| structure | grade | error of the DOS ({UNIT}) | its model error | shift of the axis (eV) |\n|---|---|---|---|---|"
    )
    for row in outside:
        print(f"| {row.tag} | {row.grade:.2f} | {row.error:.3f} | {row.spread:.3f} | {row.shift:+.2f} |")
    print(
        "\n| grade | structures held back | RMS error of the DOS | others | RMS error of the DOS |\n|---|---|---|---|---|"
    )
    for low, high in itertools.pairwise(EDGES):
        cells = []
        for rows in (held, outside):
            found = [r.error for r in rows if low <= r.grade < high]
            cells += [str(len(found)), f"{np.sqrt(np.mean(np.square(found))):.3f}" if found else "-"]
        print(f"| {low:g} to {high:g} | {' | '.join(cells)} |")
    for name, rows in (("held back", held), ("others", outside), ("all", held + outside)):
        columns = np.array([row[1:] for row in rows])
        rank = spearmanr(columns[:, 0], columns[:, 1]).statistic
        print(f"\nrank correlation of grade and error, {name}: {rank:.2f}", end="")
    typical = np.sqrt(np.mean(np.square([r.error for r in held])))
    far, near = ([r.error for r in held + outside if (r.grade > FAR_OUTSIDE) == side] for side in (True, False))
    print(
        f"\n\nRMS error of structures held back: {typical:.3f}. Far outside: {np.mean(np.array(far) > 1.5 * typical):.0%} of {len(far)} have more "
        f"than 1.5 times that, the smallest is {min(far):.3f}; of the {len(near)} others {np.mean(np.array(near) > 1.5 * typical):.0%} have"
    )


if __name__ == "__main__":
    main()
