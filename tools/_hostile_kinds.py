"""Kinds of requests that a server must survive: what they have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tools._serving_probe import Outcome, Probe

Send = Callable[[Probe, np.random.Generator], Outcome]

MILLION = 1_000_000


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: "grpc" or "rest", and what is wrong.
        send: sends one.
        expected: the statuses that are right.
    """

    name: str
    send: Send
    expected: frozenset[str]


class Kinds(list[Kind]):
    """Kinds, in the order in which they are declared."""

    def add(self, name: str, *expected: str) -> Callable[[Send], Send]:
        """Declares what a function sends."""

        def declare(send: Send) -> Send:
            self.append(Kind(name, send, frozenset(expected)))
            return send

        return declare


def input_name(probe: Probe, rng: np.random.Generator) -> str:
    """One of the model's inputs."""
    return str(rng.choice(sorted(probe.signature.inputs)))


def word(rng: np.random.Generator, repeat: int = 1) -> str:
    """A name that nothing has."""
    return "".join(chr(97 + number) for number in rng.integers(0, 26, 12)) * repeat
