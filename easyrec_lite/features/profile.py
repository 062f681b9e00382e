"""What training data looked like: the result of `Statistics`, and its JSON."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from easyrec_lite.features.hashing import SLOTS

FORMAT = "easyrec_lite.profile/1"
# Probabilities of the quantiles in a NumberProfile.
QUANTILE_GRID = tuple(percent / 100 for percent in range(101))


@dataclass(frozen=True)
class NumberProfile:
    """A column of numbers.

    Attributes:
        count: how many numbers; of a sequence, those of all steps.
        mean: their mean.
        std: standard deviation, of the numbers themselves.
        min: exact.
        max: exact.
        quantiles: at 0 %, 1 %, ..., 100 % of the rows (see `sketches.RowSample` for their error; the first and the last
            are exact); of a sequence, those of one random step a row. Empty if there was no number.
    """

    count: int
    mean: float
    std: float
    min: float
    max: float
    quantiles: list[float]


@dataclass(frozen=True)
class IdProfile:
    """A column of ids.

    Attributes:
        count: how many ids, missing ones left out.
        distinct: how many different ones, estimated.
        histogram: how many fell into each of the 1024 hashed buckets. The hash is fixed, so histograms of different
            runs can be compared.
        lengths: number of ids a row, or of steps in a sequence; None where each row has one.
        seen: which of the `sketches.SLOTS` slots that ids are hashed to were hit: bits, zlib, base64. None in files of
            before there was this.
        cycle: of every fourth id, the histogram in 64 buckets (16 of the others each) of each hour of the day, then
            of each day of the week; None if times are not known.
    """

    count: int
    distinct: int
    histogram: list[int]
    lengths: NumberProfile | None = None
    seen: str | None = None
    cycle: list[list[int]] | None = None

    def seen_slots(self) -> npt.NDArray[np.bool_] | None:
        """`seen` as `[SLOTS]`."""
        if self.seen is None:
            return None
        packed = np.frombuffer(zlib.decompress(base64.b64decode(self.seen)), np.uint8)
        return np.unpackbits(packed, count=SLOTS).astype(np.bool_)


def pack_slots(slots: npt.NDArray[np.bool_]) -> str:
    """Which slots were hit, as text."""
    return base64.b64encode(zlib.compress(np.packbits(slots).tobytes(), 6)).decode("ascii")


@dataclass(frozen=True)
class FeatureProfile:
    """One feature.

    Attributes:
        missing: rows without a value: an empty cell, no tag, no step.
        unknown: values that are given but mean nothing (`Feature.count_unknown`); None if they were not counted.
        ids: for a feature of ids.
        numbers: for a numeric feature, one for each of its numbers, at most 16.
        cycle: rows without a value in each hour of the day, then on each day of the week; None if times or rows are
            not known. Of missing numbers a batch says only how many there are: they are shared out among its hours,
            and not known if more than a tenth of them are in batches that span more than six.
    """

    missing: int
    unknown: int | None = None
    ids: IdProfile | None = None
    numbers: list[NumberProfile] = field(default_factory=list)
    cycle: list[int] | None = None


@dataclass(frozen=True)
class LabelProfile:
    """One label.

    Attributes:
        count: how many values.
        mean: of a 0/1 label the rate of positives.
        std: standard deviation.
        cycle: sum of the values in each hour of the day, then on each day of the week; None if times are not known.
    """

    count: int
    mean: float
    std: float
    cycle: list[float] | None = None


@dataclass(frozen=True)
class Profile:
    """All the columns.

    The JSON has the same fields: `{"format": "easyrec_lite.profile/1", "rows": ..., "first_event": ...,
    "last_event": ..., "labels": {name: {...}}, "features": {name: {...}}}`.

    A drift monitor compares two of them: the population stability index over `ids.histogram`, or over bins between
    `numbers[i].quantiles`; shares of `missing` and `unknown` in `rows`; `labels[...].mean`.

    Attributes:
        rows: how many rows.
        first_event: least event time, in seconds since 1970 (UTC); None where there is none.
        last_event: greatest event time.
        labels: by name.
        features: by name.
        cycle: rows in each hour of the day (UTC), then on each day of the week (from Thursday, as 1970-01-01 was);
            None if times are not known. With those of labels and features it says what is usual at that time of the
            day and of the week.
    """

    rows: int
    first_event: float | None
    last_event: float | None
    labels: dict[str, LabelProfile]
    features: dict[str, FeatureProfile]
    cycle: list[int] | None = None

    def to_json(self) -> str:
        """This profile as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile that `to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        content = json.loads(text)
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        if found != FORMAT:
            raise ValueError(f"Not a profile of training data. Received: format {found!r}; expected {FORMAT!r}.")
        return cls(
            rows=content["rows"],
            first_event=content["first_event"],
            last_event=content["last_event"],
            labels={name: LabelProfile(**label) for name, label in content["labels"].items()},
            features={name: _feature(feature) for name, feature in content["features"].items()},
            cycle=content.get("cycle"),
        )


def _feature(content: dict[str, Any]) -> FeatureProfile:
    ids = content["ids"]
    if ids is not None:
        lengths = ids["lengths"]
        ids = IdProfile(**{**ids, "lengths": lengths and NumberProfile(**lengths)})
    numbers = [NumberProfile(**number) for number in content["numbers"]]
    return FeatureProfile(content["missing"], content["unknown"], ids, numbers, content.get("cycle"))
