"""Where a result comes from: traces with their hashes, model, versions, settings; ``provenance.json``.

>>> record = provenance(result)                                            # doctest: +SKIP
>>> record["traces"][0]["sha256"], record["model"]["fingerprint"]          # doctest: +SKIP

The hash of a trace is SHA-256 over its columns and features in the order of the rows, as numbers, whatever files they lie in: a copy, or
the same samples in chunks of another size, have the same hash. So that an analysis does not read everything twice, of features above
:data:`WHOLE` bytes only those of the first and the last samples count, and files of a model above that are not hashed: its fingerprint is that of all weights.
"sha256_of" says which it was.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..base.errors import ModelError, PetdosError
from ..models.files import find_model, readout_path
from ..traces.schema import COLUMNS, OPTIONAL
from ..traces.trace import Trace

WHOLE = 1 << 26
"""Bytes up to which features of a trace and files of a model are hashed as a whole."""
_ROWS = 4096
_SETTINGS = (
    "align",
    "burn_in",
    "burn_in_found",
    "denoise",
    "error_method",
    "transform",
    "energy_reference",
    "value",
    "normalization",
)


def provenance(result: xr.Dataset, command: list[str] | None = None) -> dict[str, Any]:
    """What there is to know, as JSON values; what is no longer there is null.

    :param result: of :func:`petdos_md.analyze`
    :param command: the words of the command that asked for it; those of this process if None
    """
    attributes = result.attrs
    return {
        "@context": "https://schema.org",
        "@type": "Dataset",
        "name": "thermal-average electronic density of states and electronic heat capacity",
        "dateCreated": datetime.now(UTC).isoformat(timespec="seconds"),
        "creator": {"@type": "SoftwareApplication", "name": "petdos-md", "version": _version(attributes)},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else command,
        "platform": platform.platform(),
        "versions": [str(v) for v in np.atleast_1d(attributes.get("versions", []))],
        "settings": {name: _plain(attributes[name]) for name in _SETTINGS if name in attributes},
        "model": _model(attributes),
        "traces": [describe_trace(str(path)) for path in np.atleast_1d(attributes.get("sources", []))],
        "notes": [str(note) for note in np.atleast_1d(attributes.get("notes", []))],
    }


def describe_trace(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A trace in the record: its samples, engine, settings and hash."""
    try:
        trace = Trace.open(path, "r")
    except PetdosError as error:
        return {"path": str(path), "sha256": None, "missing": str(error)}
    known = trace.attributes
    return {
        "path": str(path),
        "sha256": trace_hash(trace, WHOLE),
        "sha256_of": f"columns and features{'' if _is_small(trace, WHOLE) else f' of the first and the last {_ROWS} samples'}",
        "n_samples": len(trace),
        "n_skipped": trace.n_skipped,
        "created": known.get("created"),
        "engine": known["engine"],
        "timestep_fs": known["timestep_fs"],
        "versions": known.get("versions", {}),
        "metadata": known["metadata"],
        **({"sources": known["sources"]} if "sources" in known else {}),
    }


def trace_hash(trace: Trace, whole: int | None = None) -> str:
    """SHA-256 of the samples, hexadecimal.

    :param whole: bytes of features above which only those of the first and the last 4096 samples count; no limit if None
    """
    digest = hashlib.sha256()
    for name in COLUMNS:
        values = np.ascontiguousarray(getattr(trace, name))
        if name not in OPTIONAL or not np.isnan(values).all():
            digest.update(name.encode() + values.tobytes())
    starts = range(0, len(trace), _ROWS) if _is_small(trace, whole) else (0, len(trace) - _ROWS)
    for start in starts:
        digest.update(trace.features[start : start + _ROWS].tobytes())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_small(trace: Trace, whole: int | None) -> bool:
    """Whether all features are hashed."""
    n_bytes = len(trace) * trace.model.n_features * np.dtype(trace.model.dtype).itemsize
    return whole is None or n_bytes <= whole or len(trace) <= 2 * _ROWS


def _model(attributes: dict[str, Any]) -> dict[str, Any]:
    known = {name: attributes.get(f"model_{name}") for name in ("fingerprint", "kind", "path")}
    files: dict[str, str] = {}
    try:
        found = find_model(str(known["path"]))
        there = [path for path in (found, readout_path(found)) if path.is_file()]
        files = {path.name: file_hash(path) for path in there if path.stat().st_size <= WHOLE}
    except ModelError:  # a trace outlives its model
        pass
    return {"name": attributes.get("model"), **known, "sha256": files or None, **_other_readout(attributes)}


def _other_readout(attributes: dict[str, Any]) -> dict[str, Any]:
    """What made DOS of the samples where it is not the model that sampled, but one refined or calibrated of it."""
    if "readout_fingerprint" not in attributes:
        return {}
    path = Path(str(attributes["readout_path"]))
    digest = file_hash(path) if path.is_file() and path.stat().st_size <= WHOLE else None
    return {"readout": {"fingerprint": attributes["readout_fingerprint"], "path": str(path), "sha256": digest}}


def _version(attributes: dict[str, Any]) -> str:
    versions = [str(v) for v in np.atleast_1d(attributes.get("versions", []))]
    return next((v.split()[-1] for v in versions if v.startswith("petdos-md ")), "unknown")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
