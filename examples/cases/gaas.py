"""Ga, GaAs and As, solid and liquid: thermal-average DOS at constant volume, as in Fig. 6 of the PET-MAD-DOS article.

    python gaas.py                                   # hours; stop it, kill it: the same command goes on
    python gaas.py --quick                           # a minute, to see that it works
    python gaas.py --dos general=trio-pbesol bespoke=gaas.pt lora=gaas-lora-100.pt
    python gaas.py --potential pet-mad.pt --dos pet-mad-dos.pt   # with downloaded models

The crystals are those of experiment. The liquids are made of them at the density of the melt and molten first. NVT (Langevin, 100 fs), 4 fs
a step. Writes a trace for each phase and model, the frames, four of each phase for a check by DFT, and ``gaas.png``.
"""

from __future__ import annotations

import ase.build
from ase import Atoms
from ase.spacegroup import crystal
from common import Phase, chosen, draw, find_potential, load_models, parser, sample

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
    """Cells of 8 atoms, or of 64 to 72. Volumes of the melts relative to the crystals are those measured near melting, expanded."""
    small = (1, 1, 1)
    cells = {
        "Ga": lambda: gallium(small if quick else (2, 2, 2)),
        "GaAs": lambda: arsenide(small if quick else (2, 2, 2)),
        "As": lambda: arsenic(small if quick else (4, 3, 1)),
    }
    return [
        Phase("Ga 150", cells["Ga"], 150.0),
        Phase("GaAs 750", cells["GaAs"], 750.0),
        Phase("As 550", cells["As"], 550.0),
        Phase("Ga 450", cells["Ga"], 450.0, melt_K=1500.0, scale=0.98),
        Phase("GaAs 2250", cells["GaAs"], 2250.0, melt_K=3500.0, scale=0.97),
        Phase("As 1650", cells["As"], 1650.0, melt_K=3500.0, scale=1.12),
    ]


def main() -> None:
    args = parser(__doc__ or "", "gaas").parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    models = load_models(args.dos)
    potential = find_potential(args.potential, next(iter(models.values())))
    steps = args.steps or (20 if args.quick else 5000)
    settings = MDSettings(
        temperatures_K=(300.0,), steps=steps, every=2 if args.quick else 10, timestep_fs=4, seed=17, checkpoint_every=50
    )
    melting = args.melting or (10 if args.quick else 500)
    results = {}
    for phase in chosen(phases(args.quick), args.only):
        found = sample(phase, potential, models, args.output, settings, melting=melting)
        results[f"{phase.name} K"] = found
    if not args.only:
        draw(results, args.output / "gaas.png", (-16.0, 5.0))


if __name__ == "__main__":
    main()
