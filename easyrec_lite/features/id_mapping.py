"""Values to ids: by hash, by vocabulary, or as they are.

Priority where a config gives several: `hash_bucket_size`, `vocab_list`, `vocab_file`, `num_buckets`.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.features.base import ColumnTypes, feature_path
from easyrec_lite.features.text import as_text, parse_integers
from easyrec_lite.protos import data_pb2, feature_pb2

_INT64_MAX = 2**63 - 1
_FLOATS = (data_pb2.DatasetConfig.FLOAT, data_pb2.DatasetConfig.DOUBLE)


class IdMapping(tf.Module, abc.ABC):
    """A function from values to ids 0 .. num_ids-1.

    Attributes:
        num_ids: number of ids.
        kind: equal for mappings that `joined` can put together; None where there is no gain in it.
    """

    num_ids: int

    @property
    def kind(self) -> Hashable:
        """See the class."""
        return None

    @classmethod
    def joined(cls, mappings: Sequence[Self]) -> IdMapping:
        """The mapping of a matrix whose row i `mappings[i]` would map, all of one kind."""
        return mappings[0]

    @abc.abstractmethod
    def tokens(self, values: tf.Tensor) -> tf.Tensor:
        """Ids (int64) of tokens, of any shape; -1 for one that can't be read."""

    def cells(self, values: tf.Tensor) -> tf.Tensor:
        """Ids (int64) of single values, where '' is missing: -1."""
        ids = self.tokens(values)
        if values.dtype != tf.string:
            return ids
        return tf.where(tf.equal(values, ""), tf.constant(-1, tf.int64), ids)

    def unknown(self, values: tf.Tensor) -> tf.Tensor:
        """Which values (bool) are given but have no id of their own."""
        return tf.zeros_like(values, tf.bool)


class HashBuckets(IdMapping):
    """FarmHash Fingerprint64 of the string, modulo the number of buckets.

    Integers are hashed as decimal strings, so a column gives the same ids whether it is read as int64 or as string;
    that is why the integer -1 is a value like any other here.

    Args:
        num_ids: number of buckets.
        precision: digits after the point of floats.
        path: the feature's path, for errors.
    """

    def __init__(self, num_ids: int, precision: int = -1, path: str = "") -> None:
        super().__init__(name="hash_buckets")
        self.num_ids = num_ids
        self._precision = precision
        self._path = path

    @property
    def kind(self) -> Hashable:
        """See IdMapping."""
        return type(self), self.num_ids, self._precision

    def tokens(self, values: tf.Tensor) -> tf.Tensor:
        """See IdMapping."""
        return tf.strings.to_hash_bucket_fast(self.text(values), self.num_ids)

    def text(self, values: tf.Tensor) -> tf.Tensor:
        """The strings that are hashed.

        Raises:
            ConfigError: floats without precision.
        """
        if values.dtype.is_floating and self._precision <= 0:
            raise ConfigError([_precision_problem(self._path)])
        return as_text(values, self._precision)


class Vocabulary(IdMapping):
    """The place of a word in a list of distinct words.

    A word outside of it gets id 0, the first word's, as in EasyRec: its tables have exactly one row a word, and models
    trained there rely on it. Give the list a first word for everything unknown.

    Args:
        words: the vocabulary; it becomes part of an exported graph, without asset files.
    """

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(name="vocabulary")
        self.num_ids = len(words)
        places = tf.range(len(words), dtype=tf.int64)
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(list(words), tf.string), places)
        self._table = tf.lookup.StaticHashTable(initializer, default_value=-1)

    def tokens(self, values: tf.Tensor) -> tf.Tensor:
        """See IdMapping."""
        return tf.maximum(self._table.lookup(as_text(values)), 0)

    def unknown(self, values: tf.Tensor) -> tf.Tensor:
        """See IdMapping."""
        text = as_text(values)
        return tf.not_equal(text, "") & (self._table.lookup(text) < 0)


class Buckets(IdMapping):
    """Integers as they are; outside 0 .. num_ids-1 the id is 0, as in EasyRec.

    A string that is no integer has no id (-1), and so has the integer -1 where a column holds one value a row.

    Args:
        num_ids: number of ids.
        limits: numbers of ids by row, for a matrix of columns; one for all if empty.
    """

    def __init__(self, num_ids: int, limits: Sequence[int] = ()) -> None:
        super().__init__(name="buckets")
        self.num_ids = num_ids
        self._limits = np.reshape(np.array(limits, np.int64), [-1, 1]) if limits else num_ids

    @property
    def kind(self) -> Hashable:
        """See IdMapping."""
        return type(self)

    @classmethod
    def joined(cls, mappings: Sequence[Self]) -> IdMapping:
        """See IdMapping."""
        limits = [mapping.num_ids for mapping in mappings]
        return Buckets(max(limits), limits)

    def tokens(self, values: tf.Tensor) -> tf.Tensor:
        """See IdMapping."""
        numbers, valid = parse_integers(values)
        ids = tf.where(self._inside(numbers), numbers, 0)
        return ids if valid is None else tf.where(valid, ids, -1)

    def cells(self, values: tf.Tensor) -> tf.Tensor:
        """See IdMapping."""
        numbers, valid = parse_integers(values)
        given = tf.not_equal(numbers, -1)
        if valid is not None:
            given &= valid
        return tf.where(given, tf.where(self._inside(numbers), numbers, 0), -1)

    def unknown(self, values: tf.Tensor) -> tf.Tensor:
        """See IdMapping."""
        numbers, valid = parse_integers(values)
        outside = ~self._inside(numbers)
        if valid is None:
            return outside & tf.not_equal(numbers, -1)
        return tf.not_equal(values, "") & (~valid | (outside & tf.not_equal(numbers, -1)))

    def _inside(self, numbers: tf.Tensor) -> tf.Tensor:
        return (numbers >= 0) & (numbers < self._limits)


def id_mapping(config: feature_pb2.FeatureConfig) -> IdMapping:
    """The mapping that a feature's config asks for.

    Raises:
        ConfigError: none is given.
    """
    if config.hash_bucket_size:
        return HashBuckets(config.hash_bucket_size, config.precision, feature_path(config))
    if config.vocab_list:
        return Vocabulary(config.vocab_list)
    if config.vocab_file:
        return Vocabulary(read_vocabulary(config.vocab_file))
    if config.num_buckets:
        return Buckets(config.num_buckets)
    raise ConfigError([_missing_problem(feature_path(config))])


def read_vocabulary(path: str) -> list[str]:
    """Words of a file, one a line: line n is id n. Blank lines at the end do not count."""
    with tf.io.gfile.GFile(path) as file:
        return file.read().rstrip().splitlines()


def mapping_problems(config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
    """What is wrong with the fields that `id_mapping` reads."""
    path = feature_path(config)
    if config.hash_bucket_size:
        if config.hash_bucket_size > _INT64_MAX:
            yield Problem(f"{path}.hash_bucket_size", str(config.hash_bucket_size), f"at most {_INT64_MAX}")
        is_combo = config.feature_type == feature_pb2.FeatureConfig.ComboFeature
        hashed = config.input_names if is_combo else config.input_names[:1]
        if config.precision <= 0 and any(types.get(name) in _FLOATS for name in hashed):
            yield _precision_problem(path)
    elif config.vocab_list:
        yield from _vocabulary_problems(f"{path}.vocab_list", config.vocab_list)
    elif config.vocab_file:
        try:
            words = read_vocabulary(config.vocab_file)
        except (OSError, tf.errors.OpError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            yield Problem(f"{path}.vocab_file", f"{config.vocab_file} ({reason})", "a readable UTF-8 file")
        else:
            yield from _vocabulary_problems(f"{path}.vocab_file", words)
    elif not config.num_buckets:
        yield _missing_problem(path)
    elif config.num_buckets > _INT64_MAX:
        yield Problem(f"{path}.num_buckets", str(config.num_buckets), f"at most {_INT64_MAX}")


def _vocabulary_problems(path: str, words: Sequence[str]) -> Iterable[Problem]:
    if not words:
        yield Problem(path, "no words", "one word a line")
    repeated = [word for word, count in Counter(words).items() if count > 1]
    if repeated:
        yield Problem(path, f"{', '.join(repeated[:5])} more than once", "distinct words", "remove the repetitions")


def _missing_problem(path: str) -> Problem:
    expected = "one of hash_bucket_size, vocab_list, vocab_file, num_buckets"
    return Problem(path, "none of them", expected, "hash_bucket_size suits ids that are not known beforehand")


def _precision_problem(path: str) -> Problem:
    return Problem(
        f"{path}.precision",
        "not set, while the column holds floats",
        "the number of digits after the point, above 0",
        "floats are hashed as text, with a fixed number of digits; or use a RawFeature with boundaries",
    )
