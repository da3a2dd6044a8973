"""When to end a simulation because its error is small enough.

Whoever looks at an error again and again, and stops at the first small one, stops at an underestimate. The rule here looks
on a geometric schedule, and believes only errors that are reliable:

>>> rng = np.random.default_rng(1)
>>> rule = FixedWidthStop(target_error=0.02)
>>> samples, stopped = [], False
>>> while not stopped:
...     samples.append(5.0 + rng.normal())
...     if rule.due(len(samples)):
...         estimate = standard_error(np.array(samples))
...         stopped = rule.met(float(estimate.error), float(np.mean(samples)), bool(estimate.reliable))
>>> len(samples), round(float(1 / np.sqrt(len(samples)) / 5.0), 3)       # the true error, relative to the mean
(80, 0.022)

Fixed-width stopping: P. W. Glynn, W. Whitt, Ann. Appl. Probab. 2 (1992) 180, 10.1214/aoap/1177005777; J. M. Flegal, G. L.
Jones, Ann. Stat. 38 (2010) 1034, 10.1214/09-AOS735, for the errors that it may use.
"""

from __future__ import annotations

import math

import numpy as np  # noqa: F401 - of the example

from ..base.errors import SettingError
from .statistics import standard_error  # noqa: F401 - of the example


class FixedWidthStop:
    """Decides when a relative error has come down to its target. It keeps no state: a restarted run decides as an unbroken one.

    :param target_error: standard error relative to the value
    :param min_samples: of the first look
    :param growth: of the number of samples from one look to the next, which are 8 samples apart at least: errors fall
        slowly, and every look is one more chance to be wrong
    :raises SettingError: if one of these makes no sense
    """

    def __init__(self, target_error: float, min_samples: int = 32, growth: float = 1.1) -> None:
        if not 0 < target_error < math.inf or min_samples < 1 or not 1 < growth < math.inf:
            raise SettingError(
                f"got target_error={target_error}, min_samples={min_samples}, growth={growth}; expected a positive "
                "target error, at least one sample and a growth above 1"
            )
        self.target_error, self.min_samples, self.growth = target_error, min_samples, growth

    def due(self, n_samples: int) -> bool:
        """Whether this is a number of samples to look at the error at."""
        look = self.min_samples
        while look < n_samples:
            look = max(look + 8, math.ceil(self.growth * look))
        return look == n_samples

    def met(self, error: float, value: float, reliable: bool) -> bool:
        """Whether to stop.

        :param error: standard error of ``value``, in its units; NaN if it is unknown
        :param reliable: as :attr:`petdos_md.analysis.statistics.ErrorEstimate.reliable`
        """
        return bool(reliable and error <= self.target_error * abs(value))
