"""Numbers read back from what Matplotlib has drawn."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PolyCollection


def band(collection: PolyCollection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, lower and upper edge of a filled band."""
    vertices = collection.get_paths()[0].vertices
    x = np.unique(vertices[:, 0])
    edges = [vertices[vertices[:, 0] == value, 1] for value in x]
    return x, np.array([e.min() for e in edges]), np.array([e.max() for e in edges])
