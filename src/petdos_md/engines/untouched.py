"""Commands that fail before their first sample leave nothing behind that stands in the way of the same command, put right.

>>> with untouched("run.zarr", "run.zarr.state"):                               # doctest: +SKIP
...     run_md(...)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..base.errors import TraceError
from ..traces.trace import Trace


@contextmanager
def untouched(trace: str | os.PathLike[str], *beside: str | os.PathLike[str]) -> Iterator[None]:
    """If what is done within fails, remove what it made: the trace, folders or files beside it, and folders made for them.

    Nothing is removed if the trace has a sample or a count of skipped frames, and nothing that was there before.

    :param beside: removed with the trace
    """
    paths = [Path(os.path.abspath(os.path.expanduser(path))) for path in (trace, *beside)]
    new = [path for path in paths if not os.path.lexists(path)]
    parents = [folder for path in new for folder in path.parents if not folder.exists()]
    try:
        yield
    except BaseException:
        if paths[0] in new and _is_empty(paths[0]):
            for path in new:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            for folder in sorted(set(parents), key=lambda p: -len(p.parts)):
                with suppress(OSError):
                    folder.rmdir()
        raise


def _is_empty(path: Path) -> bool:
    if not os.path.lexists(path):
        return True
    try:
        trace = Trace.open(path, "r")
    except TraceError:
        return False  # not ours to remove
    return len(trace) == 0 and trace.n_skipped == 0
