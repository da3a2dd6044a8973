"""Traces as observers open them: a newer observer of this process takes over, and a restart drops what it will take again.

>>> trace = open_trace("run.zarr", model=model, engine="ase")               # doctest: +SKIP
>>> drop_later_samples(trace, replica=0, step=1200)                         # doctest: +SKIP
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any

from ..base.errors import TraceError
from ..base.sample import Sample
from ..traces.trace import Trace

logger = logging.getLogger(__name__)

_OPENED: weakref.WeakValueDictionary[str, Trace] = weakref.WeakValueDictionary()
"""By their real paths."""
TAKEN_OVER = "a newer observer of this process writes it; for several at once, open one Trace and give it to all"


def open_trace(path: str | os.PathLike[str], **settings: Any) -> Trace:
    """Open a trace for an observer of this process, as :meth:`petdos_md.traces.trace.Trace.open`.

    The trace of an earlier observer on the same path is closed, with all its samples on disk: a cell of a notebook that is run again
    leaves the old dynamics and the old observer behind, each kept alive by the other.

    :raises TraceError: as ``Trace.open``, or if samples of the earlier observer cannot be written
    """
    place = os.path.realpath(os.path.expanduser(path))
    earlier = _OPENED.get(place)
    if earlier is not None:
        earlier.close(TAKEN_OVER)
    trace = Trace.open(path, **settings)
    _OPENED[place] = trace
    return trace


def check_electrons(trace: Trace | str | os.PathLike[str], electronic_temperature_K: Any) -> None:
    """Whether electrons of a simulation are as hot as those of the trace that it is to go on with.

    :param electronic_temperature_K: as in metadata; None for cold electrons
    :raises TraceError: if one of both has hot electrons and the other has not
    """
    if not isinstance(trace, Trace):
        if not os.path.isdir(trace):
            return
        trace = Trace.open(trace, "r")
    there = trace.attributes["metadata"].get("electronic_temperature_K")
    if len(trace) and (there is None) != (electronic_temperature_K is None):
        raise TraceError(
            f"{trace.path}: trace of another simulation: it has {_electrons(there)}, got {_electrons(electronic_temperature_K)}; write to another path"
        )


def _electrons(temperature_K: Any) -> str:
    if temperature_K is None:
        return "cold electrons"
    return f"electrons at {temperature_K:g} K" if isinstance(temperature_K, float | int) else "hot electrons"


def step_of_new_start(trace: Trace, last: Sample, stride: int) -> int:
    """The step of the first frame of a simulation that starts anew behind the last sample of its replica; says so.

    :param stride: steps between samples
    """
    assert last.step is not None  # a trace has numbered it
    step = last.step + stride
    logger.warning(
        "%s: the first frame is not the last one sampled of replica %d and follows as step %d; for another simulation give another path "
        "or replica",
        trace.path,
        last.replica,
        step,
    )
    return step


def drop_later_samples(trace: Trace, replica: int, step: int) -> int:
    """Drop the samples of a replica after the step that its simulation goes on from, and say so; returns how many.

    :raises TraceError: if the trace cannot be written
    """
    last = trace.last_step(replica)
    if last is None or last <= step:
        return 0
    n = trace.truncate(step, replica)
    logger.warning(
        "%s: the simulation goes on from step %d; %d samples of replica %d after it are dropped, to be taken again",
        trace.path,
        step,
        n,
        replica,
    )
    return n
