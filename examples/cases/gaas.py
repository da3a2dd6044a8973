"""Ga, GaAs and As, solid and liquid: thermal-average DOS at constant volume, as in Fig. 6 of the PET-MAD-DOS article.

    python gaas.py                                   # hours; stop it, kill it: the same command goes on
    python gaas.py --quick                           # a minute, to see that it works
    python gaas.py --dos general=trio-pbesol bespoke=gaas.pt lora=gaas-lora-100.pt
    python gaas.py --potential pet-mad.pt --dos pet-mad-dos.pt   # with downloaded models

The crystals are those of experiment. The liquids begin with molten cells of the training data, repeated: give them time to forget that. NVT (Langevin, 100 fs), 4 fs
a step. Writes a trace for each phase and model, the frames, four of each phase for a check by DFT, and ``gaas.png``.
"""

from __future__ import annotations

import ase.build
from ase import Atoms
from ase.spacegroup import crystal
from common import Phase, of_data, parser, run_phases

from petdos_md.engines.md import MDSettings


def gallium(repeat: tuple[int, int, int]) -> Atoms:
    """The alpha phase, 8 atoms a cell."""
    cell = [4.519, 7.657, 4.526, 90, 90, 90]
    return crystal("Ga", [(0, 0.1539, 0.0810)], spacegroup=64, cellpar=cell) * repeat


def arsenide(repeat: tuple[int, int, int]) -> Atoms:
    """Zincblende, 8 atoms a cell."""
    return ase.build.bulk("GaAs", "zincblende", a=5.653, cubic=True) * repeat


def arsenic(repeat: tuple[int, int, int]) -> Atoms:
    """The grey form, 6 atoms a hexagonal cell."""
    return crystal("As", [(0, 0, 0.227)], spacegroup=166, cellpar=[3.760, 3.760, 10.548, 90, 90, 120]) * repeat


def phases(quick: bool) -> list[Phase]:
    """Cells of 8 atoms, or of 64 to 72."""
    n = (1, 1, 1) if quick else (2, 2, 2)

    def liquid(kind: str, temperature_K: float) -> Atoms:
        return of_data("gaas", kind, temperature_K, n_atoms=8) * n

    return [
        Phase("Ga 150", lambda: gallium(n), 150.0),
        Phase("GaAs 750", lambda: arsenide(n), 750.0),
        Phase("As 550", lambda: arsenic((1, 1, 1) if quick else (4, 3, 1)), 550.0),
        Phase("Ga 450", lambda: liquid("Ga-liq", 450.0), 450.0),
        Phase("GaAs 2250", lambda: liquid("GaAs-liq", 2250.0), 2250.0),
        Phase("As 1650", lambda: liquid("As-liq", 1650.0), 1650.0),
    ]


def main() -> None:
    args = parser(__doc__ or "", "gaas").parse_args()
    steps = args.steps or (20 if args.quick else 5000)
    settings = MDSettings(
        temperatures_K=(300.0,), steps=steps, every=2 if args.quick else 10, timestep_fs=4, seed=17, checkpoint_every=50
    )
    run_phases(args, phases(args.quick), settings, "gaas.png", (-16.0, 5.0))


if __name__ == "__main__":
    main()
