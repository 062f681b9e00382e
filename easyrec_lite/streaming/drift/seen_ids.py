"""Which ids were seen: a bitmap of hashed slots for each feature."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from easyrec_lite.features import Profile
from easyrec_lite.features.hashing import SLOTS, STRIDE

Bits = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_GENERATIONS = 4  # of ids that will be forgotten
_MISSING, _FIRST_BIT = SLOTS // 8, 128  # the byte of slot SLOTS, and its bit
_FULL = 0.98  # share of the slots beyond which new ids can't be told from old ones


class SeenIds:
    """The slots that ids were hashed to, of each feature, eight in a byte: 32 KB a feature, which a cache holds.

    With `n` different ids a new one hits a slot that is taken with probability `taken`, about `n / SLOTS` as long as
    that is small; what is found to be unseen is scaled up by that. From a million ids on it becomes noisy.

    Args:
        features: how many.
        windows: windows from which the ids of each feature are learned.
        half_life: windows after which one counts half; 0 for never. Ids are forgotten after three to four half-lives.

    Attributes:
        bits: `[features, STRIDE / 8]`, as of `np.packbits`; missing ids, of slot SLOTS, are never new.
        left: windows whose ids are still to be learned, before any can be called unseen, `[features]`.
    """

    def __init__(self, features: int, windows: int, half_life: float = 0.0) -> None:
        self.bits: Bytes = np.zeros((features, STRIDE // 8), np.uint8)
        self.bits[:, _MISSING] = _FIRST_BIT
        self.left = np.full(features, windows)
        self._generation = max(1, round(half_life)) if half_life else 0  # windows of one
        self._age = 0
        self._young: Bytes = np.zeros((_GENERATIONS if half_life else 0, *self.bits.shape), np.uint8)
        self._window: Bits | None = None
        self._taken: npt.NDArray[np.float64] | None = None

    def load(self, place: int, profile: Profile, name: str) -> bool:
        """Takes the ids of a feature from a profile; false if it doesn't know them."""
        feature = profile.features.get(name)
        slots = feature.ids.seen_slots() if feature is not None and feature.ids is not None else None
        if slots is None or len(slots) != SLOTS:
            return False
        self.bits[place, :_MISSING], self.left[place] = np.packbits(slots), 0
        self._taken = None
        return True

    def keep(self) -> Bits | None:
        """Where to mark the slots of this window's ids, `[features, STRIDE]`; None where they need not be known."""
        if not self._generation and not (self.left > 0).any():
            return None
        if self._window is None:
            self._window = np.zeros((len(self.bits), STRIDE), np.bool_)
        return self._window

    @property
    def taken(self) -> npt.NDArray[np.float64]:
        """Share of the slots that are taken, `[features]`."""
        if self._taken is None:
            self._taken = np.array([np.unpackbits(bits).mean() for bits in self.bits[:, :_MISSING]])
        return self._taken

    def unseen(self, place: int, share: float) -> float | None:
        """The share of unseen ids, of which `share` was found; None if there is no telling."""
        taken = float(self.taken[place])
        return None if taken > _FULL else min(share / (1.0 - taken), 1.0)

    def end_window(self, breached: Bits) -> None:
        """Learns the ids of the window, but for features whose window was breached."""
        if self._window is not None:
            learn = ((self.left > 0) | bool(self._generation)) & ~breached
            found = np.packbits(self._window[learn], axis=1)
            self.bits[learn] |= found
            if self._generation:
                self._young[0, learn] |= found
            self._window, self._taken = None, None
        self.left = np.maximum(self.left - 1, 0)
        self._age += 1
        if self._generation and self._age % self._generation == 0:
            self._young = np.concatenate([np.zeros_like(self._young[:1]), self._young[:-1]])
            self.bits, self._taken = np.bitwise_or.reduce(self._young), None
            self.bits[:, _MISSING] = _FIRST_BIT

    def drop_window(self) -> None:
        """Forgets the ids since the last window ended."""
        self._window = None

    def relearn(self, place: int, windows: int) -> None:
        """The ids of the next windows are usual too."""
        self.left[place] = windows

    def arrays(self) -> dict[str, np.ndarray]:
        """The state."""
        window = np.zeros((0, STRIDE), np.bool_) if self._window is None else self._window
        return {
            "bits": self.bits.copy(),
            "young": self._young.copy(),
            "window": np.packbits(window, axis=1),
            "left": self.left.copy(),
            "age": np.array(self._age),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave."""
        self.bits, self.left, self._age = np.array(arrays["bits"]), np.array(arrays["left"]), int(arrays["age"])
        self._young = np.array(arrays["young"])
        window = np.unpackbits(np.asarray(arrays["window"]), axis=1, count=STRIDE).astype(np.bool_)
        self._window, self._taken = window if len(window) else None, None


def hits(bits: Bytes, slots: npt.NDArray[np.int64]) -> Bits:
    """Which of the slots, `[N]`, numbered over all features, are taken."""
    found = bits.reshape(-1).take(slots >> 3)
    places = slots.astype(np.uint8)
    places &= 7
    found <<= places
    return found >= 128


def learning_windows(windows: int) -> int:
    """Of so many windows of a reference, those whose ids are learned; the others tell how many are usually unseen."""
    return math.ceil(windows / 2)
