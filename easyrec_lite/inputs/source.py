"""What the other rooms know of an input."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping

from easyrec_lite.inputs.batch import HasJson, RawBatch
from easyrec_lite.inputs.schema import ColumnSpec


class Source(abc.ABC):
    """Rows in batches, from any position on.

    Every source keeps these promises, whatever it reads; one suite of tests holds all of them to it:

    * `read(start=p)`, for the position p of a batch, yields exactly the rows that followed that batch, in the same
      order and in the same batches, in this process or a later one;
    * without a start it yields the same rows in the same order every time, and every usable row once an epoch;
    * all batches have the columns of `columns`, of the kinds given there, without missing cells;
    * what the user's files are at fault for is raised as InputError.

    A source of finite data ends; a stream needn't.
    """

    @property
    @abc.abstractmethod
    def columns(self) -> Mapping[str, ColumnSpec]:
        """What is read, by name."""

    @abc.abstractmethod
    def read(self, start: HasJson | str | None = None) -> Iterator[RawBatch]:
        """Reads from a position on.

        Args:
            start: A position of this source or its JSON; None means from the beginning.

        Raises:
            InputError: The start doesn't fit the data, a file is damaged, or too many rows are unusable.
        """

    @property
    def num_rows(self) -> int | None:
        """Rows of one epoch, unusable ones included; None where that isn't known without reading them."""
        return None

    def close(self) -> None:  # noqa: B027 - most sources have nothing to end
        """Ends reading, in whatever thread it goes on; for sources that wait for rows."""
