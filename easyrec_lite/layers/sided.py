"""Columns of one matrix kept apart by the side (user or item) that they depend on.

At serving time a request is one user and N items. A layer that is linear in its input can treat the user's columns once
(one row) instead of N times; `Sided` carries what it needs to know and `apply` picks the layer's own way of using it.
Training passes plain tensors, and every layer gives the same numbers for both.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


class Side(enum.Enum):
    """What the rows of a tensor depend on."""

    USER = "user"
    ITEM = "item"
    BOTH = "both"


@dataclass(frozen=True)
class Sided:
    """A matrix [B, D] as column blocks, each of one side.

    Attributes:
        parts: (side, [B, D_i]) in column order. A USER part may have one row where the others have B.

    Raises:
        ValueError: there are no parts, or a part's width is not known statically.
    """

    parts: tuple[tuple[Side, tf.Tensor], ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("Sided needs at least one (side, tensor) part. Received: ().")
        for side, part in self.parts:
            if not part.shape.rank or part.shape[-1] is None:
                raise ValueError(f"The width of a Sided part must be static. Received: {side} with shape {part.shape}.")

    @property
    def width(self) -> int:
        """D, the number of columns over all parts."""
        return sum(int(part.shape[-1]) for _, part in self.parts)

    @property
    def side(self) -> Side:
        """The one side of all parts, or BOTH."""
        sides = {side for side, _ in self.parts}
        return sides.pop() if len(sides) == 1 else Side.BOTH

    @property
    def user_first(self) -> tuple[tuple[Side, tf.Tensor], ...]:
        """The parts, the user's before the others: the order in which sums pass over the items' rows once."""
        return tuple(sorted(self.parts, key=lambda part: part[0] is not Side.USER))

    def num_rows(self) -> tf.Tensor:
        """B as a scalar: the rows of the parts that are not the user's, where there are any."""
        rows = [tf.shape(part)[0] for _, part in self.parts]
        others = [count for (side, _), count in zip(self.parts, rows, strict=True) if side is not Side.USER]
        return tf.reduce_max(tf.stack(others or rows))

    def tensor(self) -> tf.Tensor:
        """[B, D]: one-row user parts tiled, all parts concatenated in column order."""
        if len(self.parts) == 1:
            return self.parts[0][1]
        rows = self.num_rows()
        tiled = [_tile(part, rows) if side is Side.USER else part for side, part in self.parts]
        return tf.concat(tiled, axis=-1)

    def by_columns(self, values: tf.Tensor) -> list[tf.Tensor]:
        """Splits values along axis 0 as the columns are split: [D, ...] -> one [D_i, ...] a part."""
        return tf.split(values, [int(part.shape[-1]) for _, part in self.parts], axis=0)


def _tile(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """[1 or B, D] -> [B, D]."""
    return tf.broadcast_to(x, tf.concat([[rows], tf.shape(x)[1:]], axis=0))


def _same_rows(x: tf.Tensor, y: tf.Tensor) -> bool:
    return x.shape[0] is not None and x.shape[0] == y.shape[0]


def as_tensor(x: tf.Tensor | Sided) -> tf.Tensor:
    """The plain [B, D] tensor of either kind of input."""
    return x.tensor() if isinstance(x, Sided) else x


def concat(xs: Sequence[tf.Tensor | Sided]) -> tf.Tensor | Sided:
    """Concatenates columns: plain if all are plain; otherwise Sided, plain tensors counting as BOTH.

    Neighbours of one side are joined, so that a following matmul has as few parts as possible.
    """
    if not any(isinstance(x, Sided) for x in xs):
        return xs[0] if len(xs) == 1 else tf.concat(list(xs), axis=-1)
    parts: list[tuple[Side, list[tf.Tensor]]] = []
    for x in xs:
        for side, part in x.parts if isinstance(x, Sided) else ((Side.BOTH, x),):
            # Only the item side has B rows by contract: two user parts may differ (1 and B), and are left apart then.
            if parts and parts[-1][0] is side and (side is not Side.USER or _same_rows(parts[-1][1][0], part)):
                parts[-1][1].append(part)
            else:
                parts.append((side, [part]))
    return Sided(tuple((side, group[0] if len(group) == 1 else tf.concat(group, axis=-1)) for side, group in parts))


def apply(layer: Callable[..., Any], x: tf.Tensor | Sided, **kwargs: Any) -> Any:
    """Calls a layer on either kind of input, keeping the sides apart as far as the layer can.

    - a plain tensor: `layer(x)`;
    - parts of one side only: `layer` on that side's rows, the results (any structure of tensors) wrapped as that side;
    - a layer with `call_sided(x, **kwargs)`: that;
    - any other layer: `layer(x.tensor())`.

    Raises:
        ValueError: a layer with `call_sided` has not been built yet. Variables are created, and get their paths, by a
            plain call; call the model once on plain tensors first.
    """
    if not isinstance(x, Sided):
        return layer(x, **kwargs)
    side = x.side
    if side is not Side.BOTH:
        return tf.nest.map_structure(lambda y: Sided(((side, y),)), layer(x.tensor(), **kwargs))
    call_sided = getattr(layer, "call_sided", None)
    if call_sided is None:
        return layer(x.tensor(), **kwargs)
    if not getattr(layer, "built", True):
        raise ValueError(
            f"Layer {getattr(layer, 'name', layer)!r} is not built: "
            "call the model once on plain tensors before Sided ones."
        )
    return call_sided(x, **kwargs)
