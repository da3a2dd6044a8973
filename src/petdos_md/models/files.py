"""Files of models: where they are, what is in them, and what they can run on.

>>> find_model("almgsi-lda").name
'almgsi-lda.pt'
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import ModelError

if TYPE_CHECKING:  # where a file is can be said without torch, which takes seconds to import
    import torch
    from metatomic.torch import AtomisticModel
from ..base.shipped import MODELS

PUBLISHED = "pet-mad-dos"
"""A model that is known by name and not shipped, see :func:`petdos_md.models.pet_mad_dos.cached_model`."""


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in MODELS.glob("*.pt"))


def find_model(path: str | Path) -> Path:
    """The file meant by a path or by the name of a model that is shipped, or that is published and fetched at first use.

    :raises ModelError: if there is none, or it cannot be fetched
    """
    if Path(path).is_file():
        return Path(path)
    if str(path) in shipped_models():
        return MODELS / f"{path}.pt"
    if str(path) == PUBLISHED:
        from .pet_mad_dos import cached_model

        return cached_model()
    shipped = ", ".join(shipped_models()) or "none"
    raise ModelError(
        f"{path}: no such file and no shipped model; give the path of a .pt, or one that is shipped: {shipped}"
    )


def readout_path(path: Path) -> Path:
    """Where the readout of a model with separate readout lies."""
    return path.with_name(path.stem + ".readout.safetensors")


def as_written() -> AbstractContextManager[None]:
    """Execute TorchScript programs as they are written.

    Otherwise they are recompiled whenever the number of neighbors changes, which costs more than it gains, and the last digits
    of results depend on how often a program has run.
    """
    import torch

    return torch.jit.optimized_execution(False)


def load_file(path: Path) -> AtomisticModel:
    """Read a metatomic model.

    :raises ModelError: if the file is something else
    """
    if not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path}: truncated or not a model file; expected a .pt written by `petdos export` or `mtt export`"
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any("/code/" in name for name in names):
        if any(name.endswith("data.pkl") for name in names):
            raise ModelError(
                f"{path}: is a training checkpoint, not a model; run `petdos export {path} -o NAME.pt` first"
            )
        raise ModelError(
            f"{path}: a zip archive but no model; expected a .pt written by `petdos export` or `mtt export`"
        )
    from metatomic.torch import load_atomistic_model

    try:
        return load_atomistic_model(path)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{path}: not a metatomic model ({reason}); write it with `petdos export` or `mtt export`"
        ) from None


def choose_device(device: str | torch.device | None, supported: Sequence[str]) -> torch.device:
    """The device asked for, or the first that the model prefers and the machine has.

    :raises ModelError: if the one asked for is not usable
    """
    import torch
    from metatomic.torch import pick_device

    try:
        return torch.device(pick_device(list(supported), None if device is None else str(device)))
    except RuntimeError as error:
        if "invalid device" in str(error):
            raise ModelError(f"got device {str(device)!r}, expected cpu or cuda (or cuda:0, cuda:1, ...)") from None
        usable = [kind for kind in supported if kind == "cpu" or (kind == "cuda" and torch.cuda.is_available())]
        missing = "this machine has none" if str(device).split(":")[0] in supported else "this model does not run on it"
        raise ModelError(f"got device {str(device)!r}, but {missing}; expected one of: {', '.join(usable)}") from None


def dos_output(names: list[str], where: str) -> str:
    """The one DOS output among the names of all outputs.

    :raises ModelError: if there is none, or several
    """
    candidates = [n for n in names if n.removeprefix("mtt::").split("/")[0] == "dos"]
    if len(candidates) != 1:
        raise ModelError(
            f"{where}: expected one DOS output (mtt::dos), its outputs are: {', '.join(sorted(names)) or 'none'}"
        )
    return candidates[0]


def display_path(path: Path) -> str:
    """A shipped model goes by its name, so that a trace opens on another machine."""
    return path.stem if path.parent == MODELS else str(path.resolve())
