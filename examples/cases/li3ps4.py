"""Three phases of Li3PS4 at 400 K and zero pressure: thermal-average DOS, as in Fig. 6 of the PET-MAD-DOS article.

    python li3ps4.py                                 # hours; stop it, kill it: the same command goes on
    python li3ps4.py --quick                         # a minute, to see that it works
    python li3ps4.py --dos general=trio-pbesol bespoke=lps.pt lora=lps-lora-100.pt
    python li3ps4.py --potential pet-mad.pt --dos pet-mad-dos.pt   # with downloaded models

Cells are those of the training data: gamma (Pmn2_1), beta (Pnma, Li on the sites that are full), alpha (Cmcm, Li in voids, a random
decoration). NPT (Langevin, 100 fs; isotropic, 500 fs), 4 fs a step. Writes a trace for each phase and model, the frames, four of each phase for a
check by DFT, and ``li3ps4.png``.
"""

from __future__ import annotations

from functools import partial

from ase import Atoms
from common import Phase, of_data, parser, run_phases

from petdos_md.engines.md import MDSettings

REPEATS = {"alpha": (2, 2, 1), "beta": (1, 1, 2), "gamma": (1, 2, 2)}
"""To 64 atoms, of cells with 16, 32 and 16."""


def cell(kind: str, quick: bool) -> Atoms:
    """Of the structures of a phase in the training data, the coldest."""
    return of_data("lps", kind, 0.0) * ((1, 1, 1) if quick else REPEATS[kind])


def main() -> None:
    args = parser(__doc__ or "", "li3ps4").parse_args()
    steps = args.steps or (16 if args.quick else 5000)
    settings = MDSettings(
        temperatures_K=(400.0,), steps=steps, every=2 if args.quick else 10, timestep_fs=4, ensemble="npt", seed=17,
        barostat_fs=500, equilibrate=steps // 4, checkpoint_every=50,
    )  # fmt: skip
    phases = [Phase(f"{kind} 400", partial(cell, kind, args.quick), 400.0) for kind in REPEATS]
    run_phases(args, phases, settings, "li3ps4.png", (-16.0, 7.0))


if __name__ == "__main__":
    main()
