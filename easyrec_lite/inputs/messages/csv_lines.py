"""Messages of text: a line is a row, cells stand in the order of data_config.input_fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from easyrec_lite.inputs.cells import split
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.messages.decoder import Cut, Decoder, Part
from easyrec_lite.inputs.schema import ColumnSpec

_BREAKS = b"\r\n"


class CsvDecoder(Decoder):
    """Reads lines as `TextRows` does: one line is one row, and what is wrong with it never reaches beyond it.

    Empty lines are skipped and not counted; a message with nothing else can't be read.

    Args:
        specs: See `Decoder`.
        required: See `Decoder`.
        separator: What parts the cells.
        header: The names of all cells of a line, in order.
    """

    def __init__(
        self,
        specs: Mapping[str, ColumnSpec],
        required: Collection[str] = (),
        limits: Mapping[str, tuple[float, float]] | None = None,
        *,
        separator: bytes,
        header: Sequence[str],
    ) -> None:
        super().__init__(specs, required, limits)
        self._separator, self._width = separator, len(header)
        self._wanted = {name: header.index(name) for name in specs}

    def _cut(self, values: Sequence[bytes | None]) -> Cut:
        cut = Cut()
        texts: list[bytes] = []
        numbers: list[int] = []
        for number, value in enumerate(values):
            if text := (value or b"").strip(_BREAKS):
                texts.append(text)
                numbers.append(number)
            else:
                cut.spoil(number, "no value" if value is None else "an empty message")
        if texts:
            self._lines(texts, np.array(numbers, np.int64), cut)
        return cut

    def _lines(self, texts: Sequence[bytes], numbers: np.ndarray, cut: Cut) -> None:
        try:
            cells = split(b"\n".join(texts), self._separator, self._width, self._wanted, "")
        except InputError:  # no control character is left over to stand for a long separator
            if len(texts) == 1:
                cut.spoil(int(numbers[0]), "text with every control character")
                return
            half = len(texts) // 2
            self._lines(texts[:half], numbers[:half], cut)
            self._lines(texts[half:], numbers[half:], cut)
            return
        spoilt = np.array([line.line for line in cells.bad], np.int64)
        lines = np.sort(np.concatenate([cells.lines(), spoilt]))  # those that are rows, for empty ones are not
        if cells.data.count(b"\n") == len(texts) - 1:
            owner = lines
        else:
            owner = np.repeat(np.arange(len(texts)), [text.count(b"\n") + 1 for text in texts])[lines]
        message, row = numbers[owner], np.arange(len(lines)) - np.searchsorted(owner, owner)
        at = np.searchsorted(lines, cells.lines())
        cut.parts.append(Part(cells.columns, message[at], row[at]))
        for line, place in zip(cells.bad, np.searchsorted(lines, spoilt).tolist(), strict=True):
            cut.spoil(int(message[place]), line.reason, int(row[place]))
