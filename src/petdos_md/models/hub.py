"""Files from the Hugging Face Hub, and where what is made of them is kept.

>>> path = download("lab-cosmo/upet", "models/pet-mad-s-v1.0.2.ckpt", "get it by hand")          # doctest: +SKIP

huggingface_hub keeps the downloads, resumes them, and draws a bar where there is a terminal. What is made of them, at the first use of a name, lies in
``$XDG_CACHE_HOME/petdos-md`` (``~/.cache/petdos-md``).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..base.errors import ModelError
from ..base.locks import FileLock


def download(repository: str, name: str, by_hand: str, endpoint: str | None = None) -> Path:
    """A file of a repository, from the cache of huggingface_hub where it is there.

    :param by_hand: what a user without a network can do, the end of the error message
    :param endpoint: of the Hub, or of a mirror
    :raises ModelError: if it is not there and cannot be downloaded
    """
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError:
        raise ModelError(f"the download needs huggingface_hub: pip install huggingface_hub; or {by_hand}") from None
    report_errors_once()
    arguments: dict[str, Any] = {} if endpoint is None else {"endpoint": endpoint}
    try:
        return Path(hf_hub_download(repository, name, **arguments))
    except Exception as error:  # of the library, its HTTP client, or the disk
        raise ModelError(f"{name} of {repository} cannot be downloaded ({first_line(error)}); {by_hand}") from None


def report_errors_once() -> None:
    """Let huggingface_hub not warn of each attempt that fails: the last one is an error, and that is reported."""
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def cache_root(cache: str | os.PathLike[str] | None = None) -> Path:
    """The folder for what is made at first use.

    :param cache: another one
    """
    return Path(cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "petdos-md")


def made_once(folder: Path, file: str, make: Callable[[Path], object], what: str) -> Path:
    """A file that is made at the first call and kept; of several processes one makes it, and nothing is left of one that failed.

    :param folder: of the file and what belongs to it; its parent is made where it is not there
    :param make: called with the path to write to, in a folder that becomes ``folder`` when it returns
    :param what: for the line that a terminal shows meanwhile
    """
    if (folder / file).is_file():
        return folder / file
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if not (folder / file).is_file():
            draft = folder.parent / f".{folder.name}.partial"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            if sys.stderr.isatty():
                print(f"{what}: fetched and exported once, then kept in {folder}", file=sys.stderr, flush=True)
            try:
                make(draft / file)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder / file
