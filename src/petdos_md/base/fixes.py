"""What a user can do about an error of the operating system; the LAMMPS plugin says the same (``files.cpp``).

>>> fix_for(OSError(28, "No space left on device"))
'free space on that disk'
"""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
_TAKEN = (errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY)


def fix_for(error: OSError) -> str:
    """A few words for the end of a message."""
    if error.errno in FULL:
        return "free space on that disk"
    if error.errno in _PATH:
        return "check that path and its rights"
    if error.errno in _TAKEN:
        return "give another path"
    return "check that path, its rights and its disk"
