"""CSV and its relatives: text files of one row a line, plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import pyarrow as pa

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.inputs.bad_rows import BadRow
from easyrec_lite.inputs.cells import Cells, separator_of, split
from easyrec_lite.inputs.convert import convert
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.paths import Paths, expand, identify
from easyrec_lite.inputs.rows import Block, Rows
from easyrec_lite.inputs.schema import ColumnSpec, Found, resolve
from easyrec_lite.protos import data_pb2

_BLOCK_BYTES = 2 << 20
_MAX_LINE = 64 << 20
_SAMPLE_BYTES = 256 << 10
_BOM = b"\xef\xbb\xbf"
_Type = data_pb2.DatasetConfig


class TextRows(Rows):
    r"""Reads text files whose cells are parted by a separator.

    With a header, columns go by name, and each file may have its own order; without one, input_fields names the
    columns in the order of the file. One line is one row: a cell may be quoted ("a,b", a quote inside is doubled), but
    can't hold a line break, so that damage never reaches beyond its line. A separator of several characters knows no
    quotes. Empty lines are skipped. Undeclared columns get the narrowest of INT64, FLOAT and STRING that fits the
    first rows, where whole numbers with leading zeros or more than 18 digits count as text.

    Args:
        config: The data_config: separator, with_header, input_fields.
        paths: The files; gzip is recognised by content.
        columns: The wanted columns; None means the declared ones, or all.

    Raises:
        ConfigError: A wanted column isn't there, input_fields don't fit the columns of the file, or no names are known.
        InputError: A file isn't there, isn't text, or lacks a column that the first one has.
    """

    def __init__(self, config: data_pb2.DatasetConfig, paths: Paths, columns: Sequence[str] | None = None) -> None:
        self._separator = separator_of(config)
        self._with_header = config.with_header
        files = expand(paths)
        self._headers: list[list[str]] = []
        self._starts: list[int] = []
        for index, file in enumerate(files):
            sample = _sample(file, _SAMPLE_BYTES if not index else 4096)
            start = len(_BOM) if sample.startswith(_BOM) else 0
            names = [field.input_name for field in config.input_fields]
            if config.with_header:
                end = sample.find(b"\n", start) + 1 or len(sample)
                names, start = self._header(file, sample[start:end]), end
            self._headers.append(names)
            self._starts.append(start)
            if not index:
                specs = self._resolve(config, file, sample[start:], names, columns)
            for name in specs:
                if names.count(name) != 1:
                    hint = "all files of an input need the same columns; is with_header right?"
                    found = f"a header {'without' if name not in names else 'that repeats'} column {name!r}"
                    raise InputError(f"{file}:1", found, f"the columns of {files[0]}", hint)
        super().__init__(specs, files, identify(files))

    def blocks(self, file: int, offset: int = 0, line: int = 0) -> Iterator[Block]:
        """Reads one file from a byte of its text on; see `Rows.blocks`."""
        header = self._headers[file]
        wanted = {name: header.index(name) for name in self.specs}
        if not offset:
            offset, line = self._starts[file], 2 if self._with_header else 1
        with _errors(self.names[file]), _open(self.names[file]) as stream:
            stream.seek(offset)
            for data in _whole_lines(stream, self.names[file]):
                cells = split(data, self._separator, len(header), wanted, self.names[file])
                yield self._block(cells, self.names[file], offset, line)
                offset += len(data)
                line += data.count(b"\n")

    def _block(self, cells: Cells, file: str, offset: int, line: int) -> Block:
        bad = [BadRow(file, line + row.line, row.reason, text=cells.text(row.line)) for row in cells.bad]
        return Block(
            cells.columns,
            offset,
            line,
            bad,
            lambda: cells.lines() + line,
            lambda row: cells.text(int(cells.lines()[row])),
        )

    def _header(self, file: str, line: bytes) -> list[str]:
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError(f"{file}:1", "a header that isn't UTF-8", "the names of the columns") from None
        separator = self._separator.decode()
        try:
            parted = next(csv.reader([text], delimiter=separator), []) if len(separator) == 1 else text.split(separator)
        except csv.Error as error:
            hint = "the names of the columns, in a line that ends in LF or CRLF"
            raise InputError(f"{file}:1", f"a header that can't be read ({error})", hint) from None
        if not any(names := [name.strip() for name in parted]):
            raise InputError(f"{file}:1", "an empty line", "the names of the columns, for with_header is true")
        return names

    def _resolve(
        self, config: _Type, file: str, sample: bytes, names: Sequence[str], columns: Sequence[str] | None
    ) -> dict[str, ColumnSpec]:
        if not names:
            wanted = "the columns of the file, in their order"
            hint = "list them, or set with_header: true if the first line names them"
            raise ConfigError([Problem("data_config.input_fields", "no fields, and no header", wanted, hint)])
        cells = split(sample, self._separator, len(names), {name: i for i, name in enumerate(names)}, file)
        if cells.bad and not len(next(iter(cells.columns.values()))):
            where = "the header" if self._with_header else "data_config.input_fields"
            hint = f"check data_config.separator, now {config.separator!r}"
            problem = f"{cells.bad[0].reason.replace('expected', where + ' has')} ({file}, first rows)"
            raise ConfigError([Problem("data_config.input_fields", problem, "as many columns as the file has", hint)])
        return resolve(config, names, columns, lambda name: _infer(name, cells.columns[name]), file)


def _sample(file: str, size: int) -> bytes:
    """The first lines of a file."""
    with _errors(file), _open(file) as stream:
        sample = stream.read(size)
        if len(sample) == size:
            sample += stream.readline(_MAX_LINE)
    if sample[:4] == b"PAR1" or b"\0" in sample[:1024]:
        hint = "for Parquet set data_config.input_type: ParquetInput"
        raise InputError(file, "a binary file", "lines of text", hint)
    return sample


def _infer(name: str, cells: pa.Array) -> Found:
    filled = cells.drop_null()
    whole = re.compile(rb"\s*[+-]?(\d+)\s*")
    digits = [match[1] for cell in filled.to_pylist() if (match := whole.fullmatch(cell))]
    if not len(filled) or any(len(number) > 18 or (number.startswith(b"0") and number != b"0") for number in digits):
        return Found(_Type.STRING)
    for type_ in (_Type.INT64, _Type.FLOAT):
        if convert(filled, ColumnSpec(name, type_, 0))[1] is None:
            return Found(type_)
    return Found(_Type.STRING)


def _whole_lines(stream: IO[bytes], file: str) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(_BLOCK_BYTES):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = chunk[end:]
        else:
            rest += chunk
        if len(rest) > _MAX_LINE:
            raise InputError(file, f"a line of more than {_MAX_LINE >> 20} MiB", "text with one row a line")
    if rest:
        yield rest


def _open(file: str) -> IO[bytes]:
    stream = open(file, "rb")  # noqa: SIM115 - handed to the caller, who closes it
    if stream.peek(2)[:2] != b"\x1f\x8b":
        return stream
    stream.close()
    return io.BufferedReader(gzip.open(file), _BLOCK_BYTES)  # type: ignore[arg-type]


@contextmanager
def _errors(file: str) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise InputError(file, "a gzip file that ends too early", "a whole one", "copy or write it again") from None
    except (OSError, zlib.error) as error:
        raise InputError(file, f"a file that can't be read ({error})", "a text file, plain or gzipped") from None
