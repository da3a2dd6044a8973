"""Bars in a terminal for work that takes a while; nothing elsewhere.

>>> with share_bar("part") as show:                                            # doctest: +SKIP
...     analyze("run.zarr", progress=show)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


def count_bar(total: int | None, unit: str) -> Any:
    """A plain bar for things that are counted."""
    return tqdm(total=total, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True, file=sys.stderr)


@contextmanager
def share_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that reports how much is done of how much; yields what is to be called with the two."""
    with count_bar(None, unit) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
