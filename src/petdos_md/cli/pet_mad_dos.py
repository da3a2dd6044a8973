"""``petdos export pet-mad-dos``."""

from __future__ import annotations

import argparse

from ..base.errors import SettingError
from ..models.pet_mad_dos import NAME, export_pet_mad_dos


def export_published(args: argparse.Namespace) -> int:
    """Fetch and separate the published model, tell what was used and written."""
    given = {"--electrons": args.electrons, "--grid-start": args.grid_start}
    for option, value in given.items():
        if value is not None:
            raise SettingError(f"{option} is known of {NAME}; leave it out")
    report = export_pet_mad_dos(args.output or f"{NAME}.pt", files=args.files, llpr=args.llpr)
    for path, digest in report.hashes.items():
        print(f"{path.name}: sha256 {digest}")
    done = report.export
    print(f"{done.backbone}: {done.n_last_layer} features, {done.n_channels} energies, {done.n_members} members")
    print(f"{done.readout} {' '.join(map(str, report.networks))}: keep them beside the model")
    print(f"largest deviation from the checkpoint: DOS {done.dos_deviation:.1e}, members {done.ensemble_deviation:.1e}")
    return 0
