"""The folder that results are written into.

>>> check_folder("results")
PosixPath('results')
"""

from __future__ import annotations

from pathlib import Path

from ..base.errors import SettingError


def check_folder(folder: str | Path) -> Path:
    """The path, if results may be written there; it need not exist.

    :raises SettingError: if it is a trace or lies in one, whose readers would stumble over strange files, or is a file
    """
    path = Path(folder)
    for place in (path.absolute(), *path.absolute().parents):
        if (place / "zarr.json").is_file():
            raise SettingError(
                f"{folder}: {'is a trace' if place == path.absolute() else f'lies in the trace {place}'}; give another folder for results"
            )
        if place.exists() and not place.is_dir():
            raise SettingError(f"{folder}: {place} is a file, expected a folder for results")
    return path


def make_folder(folder: str | Path) -> Path:
    """Make the folder if it is not there.

    :raises SettingError: as :func:`check_folder`
    """
    path = check_folder(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path
