"""Tell a model what it was trained on, so that it warns where it extrapolates; for models that were exported without their training set.

    python rigidity.py almgsi-lda --data data/almgsi-lda.xyz.xz
    python rigidity.py trio-pbesol --data data/gaas-pbesol.xyz.xz data/lps-pbesol.xyz.xz data/hea-pbesol.xyz.xz

Only the training part of the data counts (``split.py``). The readout beside the model gets the Cholesky factor of the covariance of its
last-layer features and the quantiles of the training set (``petdos_md.models.rigidity``); its predictions, its ensemble and its
fingerprint stay as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from petdos_md import DOSModel
from petdos_md.base.errors import SettingError
from petdos_md.models.files import find_model, readout_path
from petdos_md.models.readout import Readout
from petdos_md.models.rigidity import REGULARIZER
from petdos_md.models.training_set import learn_rigidity, store_rigidity

sys.path.insert(0, str(Path(__file__).resolve().parent))
from prepare import read_data
from script import Parser, run
from split import split_of


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a .pt file, or the name of a shipped model")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="what it was trained on")
    parser.add_argument("--regularizer", type=float, default=REGULARIZER, help="added to F^T F (default: %(default)s)")
    args = parser.parse_args()
    if not args.regularizer > 0:
        parser.error(f"got --regularizer {args.regularizer:g}, expected a positive number")
    for path in args.data:
        if not path.exists():
            parser.error(f"{path}: no such file")
    Readout.load(readout_path(find_model(args.model)))  # where the result goes
    model = DOSModel.load(args.model, device="cpu")
    structures = [a for part in read_data(args.data) for a in part if split_of(a) == "train"]
    if not structures:
        raise SettingError(
            f"{', '.join(map(str, args.data))}: no structures to train on, expected at least one; give other data"
        )
    for atoms in structures:
        model.check(atoms)
    with tqdm(total=len(structures), unit="structure", disable=None) as bar:
        rigidity = learn_rigidity(model, structures, args.regularizer, bar.update)
    store_rigidity(find_model(args.model), rigidity)
    print(
        f"{args.model}: {rigidity.n_structures} training structures, quantiles of their variances {rigidity.quantiles}"
    )
    print(f"of atoms: {', '.join(f'{symbol} {value:.3g}' for symbol, value in rigidity.of_atoms.items())}")


if __name__ == "__main__":
    run(main)
