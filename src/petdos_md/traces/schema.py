"""The schema of a trace: its arrays, their zarr v3 metadata, and how metadata files are read and replaced.

>>> array_metadata("step", n_features=1026)["data_type"]
'int64'
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import TraceError
from ..base.fixes import FULL, fix_for

SCHEMA = "petdos-trace"
SCHEMA_VERSION = 2

COLUMNS: dict[str, tuple[str, str, str]] = {
    "step": ("int64", "", "molecular dynamics step; (replica, step) is unique"),
    "replica": ("int32", "", "ensemble slot or simulation that the frame was taken from"),
    "time_fs": ("float64", "fs", "simulated time"),
    "temperature_K": ("float64", "K", "temperature of the ensemble"),
    "kinetic_temperature_K": ("float64", "K", "temperature from the velocities"),
    "potential_energy_eV": ("float64", "eV", "potential energy of the interatomic potential"),
    "volume_A3": ("float64", "angstrom^3", "cell volume, NaN unless periodic in three directions"),
    "n_atoms": ("int64", "", "number of atoms"),
    "n_electrons": ("float64", "", "number of valence electrons"),
    "weight": ("float64", "", "statistical weight of the frame"),
    "electronic_temperature_K": ("float64", "K", "temperature of hot electrons, NaN for cold ones"),
}
"""One-dimensional arrays of a trace: data type, unit, description."""
OPTIONAL = ("electronic_temperature_K",)
"""Columns that a trace has from the first sample on that has a number there. Without one, that of the metadata of the same name holds for
all samples, and NaN if there is none."""

# The number of samples is the smallest shape. Features are committed last when growing and first when shrinking, so that their
# shape is the smallest at every moment, and alone gives the length.
ARRAYS = (*COLUMNS, "features")

FEATURES_DTYPES = ("float32", "float64")
"""Data types that features may have: the precision of the model."""

COLUMN_CHUNK_ROWS = 1024
FEATURES_CHUNK_ROWS = 64
FEATURES_CHUNK_BYTES = 1 << 19
COLUMN_CHUNKS, FEATURES_CHUNKS = 8, 100
"""Files of an array of a trace whose length is known when it is made."""
SYNC_THREADS = 12

_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}]
_KEYS = {"name": "default", "configuration": {"separator": "/"}}

datasync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


@dataclass
class Array:
    """One array: where it is, and its length as committed on disk."""

    folder: Path
    dtype: np.dtype
    metadata: dict[str, Any]

    @property
    def n(self) -> int:
        return int(self.metadata["shape"][0])

    @property
    def item_shape(self) -> tuple[int, ...]:
        return tuple(self.metadata["shape"][1:])

    @property
    def chunk_rows(self) -> int:
        return int(self.metadata["chunk_grid"]["configuration"]["chunk_shape"][0])

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize * np.prod(self.item_shape, dtype=int))

    def chunk(self, index: int) -> Path:
        return self.folder.joinpath("c", str(index), *["0"] * len(self.item_shape))


def array_folder(name: str, version: int) -> str:
    """The folder of an array in a trace of some format version."""
    return "psi" if name == "features" and version == 1 else name


def upgraded(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a trace of format version 1 by their present names; those of the present version as they are."""
    if attributes.get("schema_version") != 1:
        return attributes
    known = _renamed(attributes)
    model = dict(known["model"]) if isinstance(known.get("model"), dict) else {}
    if "n_psi" in model:
        model["n_features"] = model.pop("n_psi")
    if model.get("kind") == "folded":
        model["kind"] = "separated"
    return {**known, "model": model}


def group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def array_metadata(name: str, n_features: int, features_dtype: str = "float32", n_rows: int = 0) -> dict[str, Any]:
    """The metadata of an array without rows.

    :param n_rows: how many there will be, if that is known: chunks are then so long that there are few files
    """
    chunk_rows = max(COLUMN_CHUNK_ROWS, -(-n_rows // COLUMN_CHUNKS))
    if name == "features":
        dtype, unit, description, item, axes = (
            features_dtype,
            "",
            "features that the DOS is linear in",
            [n_features],
            ["feature"],
        )
        chunk_rows = FEATURES_CHUNK_ROWS
        while chunk_rows > 8 and chunk_rows * n_features * np.dtype(features_dtype).itemsize > FEATURES_CHUNK_BYTES:
            chunk_rows //= 2
        chunk_rows = max(chunk_rows, -(-n_rows // FEATURES_CHUNKS))
    else:
        (dtype, unit, description), item, axes = COLUMNS[name], [], []
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [0, *item],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk_rows, *item]}},
        "chunk_key_encoding": _KEYS,
        "fill_value": 0 if dtype.startswith("int") else "NaN",
        "codecs": _CODECS,
        "dimension_names": ["sample", *axes],
        "attributes": {"description": description, **({"units": unit} if unit else {})},
    }


def read_array(path: Path, name: str, version: int = SCHEMA_VERSION) -> Array:
    folder = array_folder(name, version)
    data = read_json(path / folder / "zarr.json", path)
    dtypes = FEATURES_DTYPES if name == "features" else (COLUMNS[name][0],)
    try:
        shape, chunks = data["shape"], data["chunk_grid"]["configuration"]["chunk_shape"]
        valid = (
            data["zarr_format"] == 3
            and data["node_type"] == "array"
            and data["data_type"] in dtypes
            and data["chunk_grid"]["name"] == "regular"
            and data["chunk_key_encoding"] == _KEYS
            and data["codecs"] == _CODECS
            and not data.get("storage_transformers")
            and len(shape) == len(chunks) == (2 if name == "features" else 1)
            and all(isinstance(size, int) and size >= 0 for size in shape)
            and isinstance(chunks[0], int)
            and chunks[0] > 0
            and shape[1:] == chunks[1:]
        )
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise damaged(
            path, f"{folder}/zarr.json is not that of an uncompressed {' or '.join(dtypes)} array of the trace format"
        )
    return Array(path / folder, np.dtype(data["data_type"]).newbyteorder("<"), data)


def read_json(file: Path, path: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if not path.exists():
            raise TraceError(f"{path}: no such trace; check the path") from None
        raise TraceError(
            f"{path}: not a trace ({file.relative_to(path)} is missing); give the path of a trace"
        ) from None
    except ValueError:
        raise damaged(path, f"{file.relative_to(path)} is not valid JSON") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot read {file.relative_to(path)}: {error.strerror}; {fix_for(error)}") from None


def damaged(path: Path, what: str) -> TraceError:
    return TraceError(f"{path}: damaged or foreign trace: {what}; restore it from a copy or write to another path")


def replace_json(file: Path, data: dict[str, Any], fsync: bool) -> None:
    replace_files({file: json_bytes(data)}, fsync)


def json_bytes(data: dict[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False).encode()


def replace_files(contents: dict[Path, bytes], fsync: bool) -> None:
    """Write whole files so that every reader finds the old or the new content of each; they change in the order given."""
    # One name for each: what a killed writer leaves is used again.
    drafts = {file: file.with_name(f".{file.name}.partial") for file in contents}
    try:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(open(draft, "wb")) for draft in drafts.values()]
            for out, data in zip(opened, contents.values(), strict=True):
                out.write(data)
                out.flush()
            if fsync:
                sync_files([out.fileno() for out in opened])
        for file, draft in drafts.items():
            os.replace(draft, file)
    except BaseException as error:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        if len(contents) == 1 or not (isinstance(error, OSError) and error.errno in FULL):
            raise
        # A disk with little room may still hold one draft at a time, each of which takes the place of its file.
        for file, data in contents.items():
            replace_files({file: data}, fsync)


def sync_files(descriptors: list[int]) -> None:
    """Wait until the disk has all of some open files; at once, because a journaling file system then writes its journal once.

    :raises OSError: if that fails for one of them
    """
    waiting = list(descriptors)
    errors: list[OSError] = []

    def work() -> None:
        while True:
            try:
                datasync(waiting.pop())
            except IndexError:
                return
            except OSError as error:
                errors.append(error)

    helpers = [threading.Thread(target=work) for _ in range(min(len(descriptors), SYNC_THREADS) - 1)]
    started = []
    for helper in helpers:
        try:
            helper.start()
        except RuntimeError:  # no new threads: at the end of the interpreter, or at the limit of this user
            break
        started.append(helper)
    work()
    for helper in started:
        helper.join()
    if errors:
        raise errors[0]


def _renamed(attributes: dict[str, Any]) -> dict[str, Any]:
    """What format 1 called otherwise, of a trace and of the sources that it was merged from."""
    known = {key.replace("refused", "skipped"): value for key, value in attributes.items()}
    if isinstance(known.get("engine"), str):
        known["engine"] = ", ".join("rerun" if name == "eval" else name for name in known["engine"].split(", "))
    if isinstance(known.get("sources"), list):
        known["sources"] = [_renamed(source) for source in known["sources"]]
    return known
