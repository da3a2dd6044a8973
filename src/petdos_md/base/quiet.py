"""Libraries that print a banner while they are imported, or import what is of no use here: nothing that a user of this package could act on.

>>> with quiet(), hidden("nvalchemiops"):                                               # doctest: +SKIP
...     from metatomic_ase import MetatomicCalculator
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep off the screen what is printed, by Python or by native code; after an exception it is shown.

    NVIDIA Warp, which metatomic-ase imports where it is installed, writes about missing drivers past ``sys.stderr``.
    """
    streams = [(sys.stdout, 1), (sys.stderr, 2)]
    for stream, _ in streams:
        stream.flush()
    with tempfile.TemporaryFile() as kept:
        before = [os.dup(number) for _, number in streams]
        for _, number in streams:
            os.dup2(kept.fileno(), number)
        failed = True
        try:
            yield
            failed = False
        finally:
            for (stream, number), old in zip(streams, before, strict=True):
                stream.flush()
                os.dup2(old, number)
                os.close(old)
            if failed:
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let imports of a package fail as if it were not installed, unless it has been imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # which stops an import, says Python's documentation
    try:
        yield
    finally:
        del sys.modules[name]
