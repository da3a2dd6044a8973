"""Which was loaded first, LAMMPS or torch? LAMMPS exports a BLAS of its own, to which a torch that comes second binds.

To be imported before anything that imports torch.

>>> LAMMPS_WAS_FIRST
False
"""

from __future__ import annotations

import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")
LAMMPS_WAS_FIRST = "torch" not in sys.modules and _MAPS.exists() and "liblammps" in _MAPS.read_text()
