"""User states kept inside of the servable: a fixed number of slots in a variable of the SavedModel.

    user's columns ──serialise──▶ key ──hash──▶ slot, fingerprint
    slot ──gather──▶ entry [fingerprint, checksum, time, state...] ──same fingerprint, right checksum, young enough?
                       yes ──▶ the state
                       no  ──▶ compute it, write the entry over what was there

An entry is right or it is not used. The fingerprint has more than 128 bits of hashes that are independent of each
other, so no two users meet in practice; the checksum is over all parts of the entry, so one that was read while
another request wrote it is a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

# Keys of SipHash: any numbers, but always the same.
_SIP_KEYS = ((0x5B1D, 0x9A7F), (0x61C8, 0x8647))
_SIP_BUCKETS = 2**63 - 1
_FINGERPRINT, _CHECKSUM, _TIME, _STATE = 0, 1, 2, 3


@dataclass(frozen=True)
class CacheOptions:
    """How states are kept.

    Attributes:
        slots: entries at most; a new one overwrites what its slot held.
        key: the user's column that an entry is found by; '' for all of the user's columns, so that a user whose
            columns changed is always computed anew.
        max_age: seconds after which an entry is not used; 0 for any age.
    """

    slots: int
    key: str = ""
    max_age: float = 0.0


class UserCache(tf.Module):
    """The slots and their counters.

    Args:
        options: how states are kept.
        dtypes: of the tensors of a state.
    """

    def __init__(self, options: CacheOptions, dtypes: Sequence[tf.DType]) -> None:
        super().__init__(name="user_cache")
        self.options = options
        self._dtypes = tuple(dtypes)
        empty = tf.fill([options.slots, _STATE + len(self._dtypes)], "")
        self.entries = tf.Variable(empty, trainable=False, name="user_cache_entries")
        self.counts = tf.Variable(tf.zeros([3], tf.int64), trainable=False, name="user_cache_counts")

    def __call__(
        self, key: tf.Tensor, compute: Callable[[], Sequence[tf.Tensor]], specs: Sequence[tf.TensorSpec]
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """The state, and how the cache fares.

        Args:
            key: scalar string; see `serialised`.
            compute: makes the state where it is not there.
            specs: of its tensors.

        Returns:
            The state; and int64 `[1]` each: `cache_hits`, `cache_misses`, `cache_overwrites` since the model was
            loaded, and `cache_hit`, 1 where this request was one.
        """
        slot, fingerprint = _hashes(key, self.options.slots)
        now = tf.cast(tf.timestamp() * 1e6, tf.int64)
        entry = tf.gather(self.entries, slot)
        hit = (entry[_FINGERPRINT] == fingerprint) & (entry[_CHECKSUM] == _checksum(entry))
        if self.options.max_age:
            # Only an entry with the right checksum has a number here.
            created = tf.strings.to_number(tf.where(hit, entry[_TIME], "0"), tf.int64)
            hit &= (now >= created) & (now - created <= int(self.options.max_age * 1e6))

        def kept() -> list[tf.Tensor]:
            return [tf.io.parse_tensor(entry[_STATE + i], dtype) for i, dtype in enumerate(self._dtypes)]

        def made() -> list[tf.Tensor]:
            state = [tf.identity(tensor) for tensor in compute()]
            texts = [fingerprint, "", tf.strings.as_string(now), *(tf.io.serialize_tensor(x) for x in state)]
            fresh = tf.stack(texts)
            fresh = tf.tensor_scatter_nd_update(fresh, [[_CHECKSUM]], [_checksum(fresh)])
            tf.raw_ops.ResourceScatterUpdate(resource=self.entries.handle, indices=slot[None], updates=fresh[None])
            return state

        state = tf.cond(hit, kept, made)
        for tensor, spec in zip(state, specs, strict=True):
            tensor.set_shape(spec.shape)
        overwrite = ~hit & (entry[_FINGERPRINT] != "") & (entry[_FINGERPRINT] != fingerprint)
        counts = self.counts.assign_add(tf.cast(tf.stack([hit, ~hit, overwrite]), tf.int64))
        told = dict(zip(("cache_hits", "cache_misses", "cache_overwrites"), tf.split(counts, 3), strict=True))
        return list(state), {**told, "cache_hit": tf.cast(hit[None], tf.int64)}


def serialised(columns: Sequence[tf.Tensor]) -> tf.Tensor:
    """One row of columns `[1]` as a scalar string; different rows give different strings."""
    texts: list[tf.Tensor] = []
    for dtype in sorted({column.dtype for column in columns}, key=lambda dtype: dtype.name):
        cells = tf.concat([column for column in columns if column.dtype == dtype], axis=0)
        if dtype.is_floating:
            cells = tf.bitcast(cells, tf.int32 if dtype == tf.float32 else tf.int64)
        texts.append(cells if dtype == tf.string else tf.strings.as_string(cells))
    every = tf.concat(texts, axis=0)
    lengths = tf.strings.as_string(tf.strings.length(every))
    return tf.strings.reduce_join(tf.strings.join([lengths, every], separator=":"))


def _hashes(key: tf.Tensor, slots: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The slot, and a fingerprint of FarmHash64 and two SipHashes with different keys."""
    farm = tf.strings.to_hash_bucket_fast(key, _SIP_BUCKETS)
    sips = [tf.strings.to_hash_bucket_strong(key, _SIP_BUCKETS, list(keys)) for keys in _SIP_KEYS]
    # The slot's bits are farm's alone: what falls into one slot still differs in all bits of the others.
    return farm % slots, tf.strings.join([tf.strings.as_string(number) for number in (farm, *sips)], separator="-")


def _checksum(entry: tf.Tensor) -> tf.Tensor:
    """Over all parts of an entry but the checksum, their borders included."""
    parts = tf.concat([entry[:_CHECKSUM], entry[_CHECKSUM + 1 :]], axis=0)
    lengths = tf.strings.as_string(tf.strings.length(parts))
    text = tf.strings.reduce_join(tf.concat([lengths, parts], axis=0), separator=",")
    return tf.strings.as_string(tf.strings.to_hash_bucket_fast(text, _SIP_BUCKETS))
