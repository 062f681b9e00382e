"""Which rows of which variable a lookup reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from easyrec_lite.embeddings.requests import Concat, Request
from easyrec_lite.embeddings.tables import TableSpec
from easyrec_lite.features import Ids


class Lookup(NamedTuple):
    """The ids of a feature as rows of a variable: id i is row offset + i."""

    feature: str
    offset: int
    rows: int


class Bucket:
    """The tables of one width, one after the other in one variable behind row 0, which stands for "missing".

    Attributes:
        dim: the width.
        key: name of the variable.
        tables: in the order of the variable.
        offsets: first row of each table, by name.
        rows: of the variable.
        dense: lookups of single-valued features, once each.
        bags: lookups of multi-valued features, once each.
    """

    def __init__(self, dim: int, tables: Sequence[TableSpec], requests: Sequence[Request]) -> None:
        self.dim = dim
        self.key = f"dim{dim}"
        # Features in the order in which requests name them, in every bucket: so the wide and the deep tables of the
        # same features have the same rows, whatever the order of the two groups, and share one plan.
        order = {feature: place for place, feature in enumerate(_features(requests))}
        first: dict[str, int] = {}
        for request in requests:
            for feature, name in _pairs(request):
                first.setdefault(name, order[feature])
        self.tables = tuple(sorted(tables, key=lambda table: first.get(table.name, len(order))))
        self.offsets: dict[str, int] = {}
        self.rows = 1
        for table in self.tables:
            self.offsets[table.name] = self.rows
            self.rows += table.rows
        sizes = {table.name: table.rows for table in self.tables}

        def lookups(single: bool) -> tuple[Lookup, ...]:
            found = {
                Lookup(feature, self.offsets[name], sizes[name])
                for request in requests
                if isinstance(request, Concat) is single
                for feature, name in _pairs(request)
                if name in sizes
            }
            return tuple(sorted(found, key=lambda lookup: (order[lookup.feature], lookup.offset)))

        self.dense = lookups(single=True)
        self.bags = lookups(single=False)

    @property
    def row_dtype(self) -> tf.DType:
        """The type of row numbers: the smaller, the faster they are deduplicated."""
        return tf.int32 if self.rows <= tf.int32.max else tf.int64

    @property
    def space(self) -> tuple[object, ...]:
        """Equal for buckets whose lookups give the same row numbers for any batch."""
        return self.row_dtype, self.dense, self.bags

    def dense_place(self, feature: str, table: str) -> int:
        """The row of a single-valued lookup in the first part of `row_numbers`."""
        return self._place(self.dense, feature, table)

    def bag_place(self, feature: str, table: str) -> int:
        """The place of a multi-valued lookup among the bags of `row_numbers`."""
        return self._place(self.bags, feature, table)

    def _place(self, lookups: tuple[Lookup, ...], feature: str, table: str) -> int:
        offset = self.offsets[table]
        return next(i for i, lookup in enumerate(lookups) if (lookup.feature, lookup.offset) == (feature, offset))

    def row_numbers(self, encoded: Mapping[str, Ids]) -> list[tf.Tensor]:
        """Row numbers in the variable: first the single-valued matrix `[F, B]` (if any), then each bag `[N]`."""
        matrix = [self._matrix(encoded, self.dense)] if self.dense else []
        return matrix + [self._rows(encoded[bag.feature].ids.flat_values, bag.offset, bag.rows) for bag in self.bags]

    def rows_of(self, request: Request, encoded: Mapping[str, Ids]) -> tf.Tensor:
        """Row numbers of one request: the matrix `[B, F]` of a Concat, all values `[N]` of any other."""
        sizes = {table.name: table.rows for table in self.tables}
        if not isinstance(request, Concat):
            ids = encoded[request.feature].ids.flat_values
            return self._rows(ids, self.offsets[request.table], sizes[request.table])
        lookups = [Lookup(feature, self.offsets[name], sizes[name]) for feature, name in _pairs(request)]
        return tf.transpose(self._matrix(encoded, lookups))

    def _matrix(self, encoded: Mapping[str, Ids], lookups: Sequence[Lookup]) -> tf.Tensor:
        # A feature in each row: so they are stacked by copying each as a whole, and ids of one table are neighbours.
        ids = tf.stack([encoded[lookup.feature].ids for lookup in lookups])
        return self._rows(ids, [[lookup.offset] for lookup in lookups], [[lookup.rows] for lookup in lookups])

    def _rows(self, ids: tf.Tensor, offset: int | list[list[int]], rows: int | list[list[int]]) -> tf.Tensor:
        dtype = self.row_dtype
        unsigned = tf.uint32 if dtype == tf.int32 else tf.uint64
        ids = tf.cast(ids, dtype)
        # As an unsigned number -1 is past every table: one comparison finds both kinds of ids that have no row.
        inside = tf.bitcast(ids, unsigned) < tf.constant(rows, unsigned)
        return tf.where(inside, ids + tf.constant(offset, dtype), tf.zeros([], dtype))


def _pairs(request: Request) -> list[tuple[str, str]]:
    """(feature, table) of each lookup of a request."""
    if isinstance(request, Concat):
        return list(zip(request.features, request.tables, strict=True))
    return [(request.feature, request.table)]


def _features(requests: Sequence[Request]) -> list[str]:
    return list(dict.fromkeys(feature for request in requests for feature, _ in _pairs(request)))
