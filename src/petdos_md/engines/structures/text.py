"""Lines of a text file: compressed or not, from a disk or a pipe, with whatever line ends.

>>> import io
>>> lines = Lines(io.BytesIO(b"\\xef\\xbb\\xbf2\\r\\nAl 0 0 1.5D+00"), "a.xyz")
>>> lines.next(), without_d_exponents(lines.next()), lines.next(), lines.unfinished
('2', 'Al 0 0 1.5E+00', None, True)
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import zlib
from pathlib import Path
from typing import IO

from ...base.errors import SettingError

_D_EXPONENT = re.compile(r"(?<=[\d.])[dD](?=[+-]?\d)")
_MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError)


class FrameError(SettingError):
    """A frame that cannot be read; those before it were.

    :param where: the file
    :param number: of the frame, from 0
    :param problem: what is wrong, in words
    """

    def __init__(self, where: object, number: int, problem: str) -> None:
        super().__init__(f"{where}: frame {number} {problem}")
        self.number = number


class Lines:
    """The lines of a stream without their ends.

    Attributes: ``number`` (of the last line, from 1), ``unfinished`` (whether the file ended in a line without an end), ``damage``
    (why it ended, if not as a file does).

    :param stream: bytes
    :param where: the file, for messages
    :raises SettingError: if the text is no UTF-8 or ASCII
    """

    def __init__(self, stream: IO[bytes], where: object) -> None:
        self._stream, self.where = stream, where
        self.number = 0
        self.unfinished = False
        self.damage = ""
        self._pushed: str | None = None

    def next(self) -> str | None:
        """The next line, None at the end."""
        if self._pushed is not None:
            line, self._pushed = self._pushed, None
            return line
        raw = self._read()
        if not raw:
            return None
        self.number += 1
        if self.number == 1:
            if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise SettingError(f"{self.where}: text in UTF-16; convert it to UTF-8, as by `iconv -t UTF-8`")
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        self.unfinished = not raw.endswith(b"\n")
        return raw.decode(errors="replace").rstrip("\r\n")

    def push_back(self, line: str | None) -> None:
        """Let the next call of :meth:`next` return this line once more."""
        self._pushed = line

    def next_with_words(self) -> str | None:
        """The next line that is not blank."""
        while (line := self.next()) is not None and not line.strip():
            pass
        return line

    def _read(self) -> bytes:
        try:
            return self._stream.readline()
        except _DAMAGED as error:
            self.damage = f"the compressed file is damaged: {str(error) or type(error).__name__}"
        except OSError as error:
            if error.errno is not None:
                raise
            self.damage = f"the compressed file is damaged: {error}"
        return b""


def open_bytes(path: Path) -> io.BufferedReader:
    """The content of a file or pipe, decompressed (gzip, bzip2, xz, by their first bytes), with ``peek``.

    :raises SettingError: if there is none, or it may not be read
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115  # closed with what is returned
    except IsADirectoryError:
        raise SettingError(f"{path}: is a folder; give a file") from None
    except FileNotFoundError:
        raise SettingError(f"{path}: no such file; give a structure or trajectory") from None
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror}; change its permissions or copy it") from None
    start = raw.peek(8)
    for magic, opener in _MAGIC.items():
        if start.startswith(magic):
            return io.BufferedReader(opener(raw))  # type: ignore[operator,arg-type]
    return raw


def first_bytes(stream: io.BufferedReader, where: object) -> bytes:
    """Some kilobytes of the beginning of a stream, which stay in it.

    :raises SettingError: if there are none, or they cannot be decompressed
    """
    try:
        start = stream.peek(4096)
    except (*_DAMAGED, OSError) as error:
        raise SettingError(
            f"{where}: the compressed file is damaged: {str(error) or type(error).__name__}; restore it from a copy"
        ) from None
    if not start.strip():
        raise SettingError(f"{where}: the file is empty, expected a structure; give another file")
    return start


def is_regular(path: Path) -> bool:
    """Whether a file can be read more than once, as a pipe cannot."""
    return os.path.isfile(path)


def without_d_exponents(text: str) -> str:
    """Numbers of Fortran (``1.0D-03``) as everybody else writes them."""
    return _D_EXPONENT.sub("E", text)
