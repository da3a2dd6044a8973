"""Numbers with their errors as text.

>>> with_errors([0.09518, 0.0033, 5e-6])
'0.0952 ± 0.0033 ± 5e-06'
>>> with_errors([0.02390, 0.00056, 0.00002]), with_errors([float("nan"), float("nan")])
('0.02390 ± 0.00056 ± 2e-05', '?')
>>> two_digits(0.3), two_digits(12.3), two_digits(102.1)
('0.30', '12', '102')
>>> with_named_errors([0.09518, 0.0033, float("nan")])
'0.0952 ± 0.0033 (model)'
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def two_digits(x: float) -> str:
    """Two significant digits, zeros at the end included: ``0.30``, ``12``; ``102`` of what is larger."""
    return f"{x:.0f}" if 99.5 <= x < 1e5 else f"{x:#.2g}".rstrip(".")


def counted(n: int, noun: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def with_errors(numbers: Sequence[float]) -> str:
    """A value and its errors, to two digits of the larger error; a smaller one is never shown as zero, below 1e-4 as ``2e-05``."""
    value, *errors = numbers
    if math.isnan(value):
        return "?"
    known = [e for e in errors if math.isfinite(e) and e > 0]
    scale = max(known, default=0.01 * abs(value))
    if not math.isfinite(value) or scale == 0:
        return " ± ".join([f"{value:g}", *("?" if math.isnan(e) else f"{e:g}" for e in errors)])
    digits = max(0, 1 - math.floor(math.log10(scale)))
    if digits > 6:
        return " ± ".join([f"{value:.3e}", *("?" if math.isnan(e) else f"{e:.1e}" for e in errors)])

    def shown(e: float) -> str:
        text = f"{e:.{digits}f}"
        return "?" if math.isnan(e) else f"{e:.0e}" if 0 < e < 1e-4 <= scale or e > 0 == float(text) else text

    return " ± ".join([f"{value:.{digits}f}", *map(shown, errors)])


def with_named_errors(numbers: Sequence[float], sampling: str = "sampling") -> str:
    """A value with its model and its sampling error, each named; one that is not known is left out."""
    value, *errors = with_errors(numbers).split(" ± ")
    named = zip(errors, ("model", sampling), strict=False)
    return value + "".join(f" ± {error} ({name})" for error, name in named if error != "?")
