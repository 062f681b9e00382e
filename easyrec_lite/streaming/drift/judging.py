"""When a measurement is a breach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from easyrec_lite.streaming.drift.checks import CHECKS, Setting
from easyrec_lite.streaming.drift.types import Measurement

# Checks that are breached on one side only: above, or below, the reference.
_SIDES = {"unseen_rate": 1, "duplicates": 1, "partition_silent": -1, "auc_fall": -1}


class Judge:
    """Knows the thresholds.

    Args:
        settings: of the checks.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self.settings = settings

    def watches(self, check: str, subject: str) -> bool:
        """Whether a subject is watched."""
        return self.settings[check].watches(subject)

    def is_unlikely(self, check: str, sigmas: float) -> bool:
        """Whether so many standard errors are enough for a breach."""
        return sigmas > self.settings[check].sigmas

    def __call__(
        self, check: str, subject: str, value: float, reference: float, sigmas: float, distance: float | None = None
    ) -> Measurement:
        """A measurement.

        Args:
            check: name of the check.
            subject: what was measured.
            value: what was found.
            reference: what is usual.
            sigmas: standard errors between them.
            distance: between them, in the unit of the threshold, where the check itself can't tell.
        """
        setting = self.settings[check]
        threshold = setting.threshold
        if distance is None:
            distance = CHECKS[check].distance(value, reference)
        breached = CHECKS[check].too_far(distance, threshold) and self.is_unlikely(check, sigmas)
        if (value - reference) * _SIDES.get(check, 0) < 0:
            breached = False
        return Measurement(check, subject, value, reference, threshold, sigmas, breached)


def first_breach(attempts: Sequence[Measurement]) -> int:
    """Which of several measurements of one thing counts: the first that is breached, else the first."""
    return next((place for place, found in enumerate(attempts) if found.breached), 0)
