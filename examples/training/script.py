"""What the scripts of this folder share: one line for an error of input, and results that are whole or absent.

>>> with whole(Path("model.ckpt")) as partial:                                    # doctest: +SKIP
...     torch.save(checkpoint, partial)
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from petdos_md.base.errors import PetdosError
from petdos_md.models.export import beside


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def run(main: Callable[[], None]) -> None:
    """Call ``main``. What a user can mend ends it with one line and status 1, Ctrl-C with one line and status 130."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
    except (PetdosError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which gets that name at the end."""
    with beside(path) as partial:
        yield partial
        partial.replace(path)
