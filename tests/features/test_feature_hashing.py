"""FarmHash and fingerprint crosses against a transcription of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

_MASK = 2**64 - 1
_K0, _K2 = 0xC3A5C85C97CB3127, 0x9AE16A3B2F90404F


def _rotate(value: int, shift: int) -> int:
    return ((value >> shift) | (value << (64 - shift))) & _MASK


def _shift_mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash_len_16(u: int, v: int, mul: int) -> int:
    a = _shift_mix(((u ^ v) * mul) & _MASK)
    return _shift_mix(((v ^ a) * mul) & _MASK) * mul & _MASK


def fingerprint64(text: str) -> int:
    """FarmHash Fingerprint64 of at most 16 bytes."""
    data = text.encode()
    n = len(data)
    word = lambda start, size: int.from_bytes(data[start : start + size], "little")  # noqa: E731
    mul = (_K2 + 2 * n) & _MASK
    if n >= 8:
        a, b = (word(0, 8) + _K2) & _MASK, word(n - 8, 8)
        c = (_rotate(b, 37) * mul + a) & _MASK
        d = ((_rotate(a, 25) + b) * mul) & _MASK
        return _hash_len_16(c, d, mul)
    if n >= 4:
        return _hash_len_16(n + (word(0, 4) << 3), word(n - 4, 4), mul)
    if n:
        y = data[0] + (data[n >> 1] << 8)
        z = n + (data[n - 1] << 2)
        return _shift_mix((y * _K2 & _MASK) ^ (z * _K0 & _MASK)) * _K2 & _MASK
    return _K2


def cross(fingerprints: list[int], buckets: int) -> int:
    """TensorFlow's cross: FingerprintCat64 of the default hash key and each fingerprint in turn."""
    mul, result = 0xC6A4A7935BD1E995, 0xDECAFCAFFE
    for fingerprint in fingerprints:
        cat = result ^ mul
        cat ^= _shift_mix(fingerprint * mul & _MASK) * mul & _MASK
        cat = cat * mul & _MASK
        result = _shift_mix(_shift_mix(cat) * mul & _MASK)
    return result % buckets


WORDS = ["a", "ab", "12", "-1", "hello", "user_42", "12345678", "a longer word", "exactly 16 bytes", "日本"]


# Fingerprint64 % 1,000,000, recorded with TensorFlow 2.21: a change would silently void every trained table.
RECORDED = {"a": 363939, "": 397263, "hello": 800296, "42": 905736}


def test_documented_buckets(build, run):
    # The example of tf.strings.to_hash_bucket_fast's documentation.
    feature = build('input_names: "x" feature_type: IdFeature hash_bucket_size: 3')
    assert run(feature, {"x": ["Hello", "TensorFlow", "2.x"]}) == [0, 2, 2]


def test_recorded_buckets():
    found = tf.strings.to_hash_bucket_fast(list(RECORDED), 1_000_000).numpy().tolist()
    assert dict(zip(RECORDED, found, strict=True)) == RECORDED


@pytest.mark.parametrize("buckets", [7, 1000, 2**40])
def test_hash_is_fingerprint64(build, run, buckets):
    feature = build(f'input_names: "x" feature_type: IdFeature hash_bucket_size: {buckets}')
    assert run(feature, {"x": WORDS}) == [fingerprint64(word) % buckets for word in WORDS]
    assert feature.num_ids == buckets


def test_integers_hash_as_decimal_strings(build, run):
    feature = build('input_names: "x" feature_type: IdFeature hash_bucket_size: 1000')
    numbers = [0, 7, -1, -25, 2**62]
    assert run(feature, {"x": np.array(numbers)}) == run(feature, {"x": [str(number) for number in numbers]})


def test_floats_hash_with_precision(build, run):
    feature = build('input_names: "x" feature_type: IdFeature hash_bucket_size: 1000 precision: 2')
    expected = [fingerprint64(text) % 1000 for text in ("0.50", "-1.00", "3.14")]
    assert run(feature, {"x": [0.5, -1.0, 3.14159]}) == expected


def test_cross_of_strings(build, run):
    feature = build('input_names: "x" input_names: "y" feature_type: ComboFeature hash_bucket_size: 1000')
    expected = [cross([fingerprint64(x), fingerprint64(y)], 1000) for x, y in zip("ab", ["u", ""], strict=True)]
    assert run(feature, {"x": ["a", "b"], "y": ["u", ""]}) == expected


def test_integers_enter_a_cross_as_they_are(build, run):
    text = 'input_names: "x" input_names: "y" input_names: "z" feature_type: ComboFeature hash_bucket_size: 1000'
    expected = [cross([3, fingerprint64("u"), 5], 1000), cross([4, fingerprint64("v"), 6], 1000)]
    assert run(build(text), {"x": [3, 4], "y": ["u", "v"], "z": [5, 6]}) == expected


def test_cross_of_several_values(build, run):
    text = 'input_names: "x" input_names: "y" combo_input_seps: "" combo_input_seps: "|"'
    feature = build(f"{text} feature_type: ComboFeature hash_bucket_size: 1000")
    fp = fingerprint64
    expected = [
        [cross([fp("u"), fp("a")], 1000), cross([fp("v"), fp("a")], 1000)],
        [],
        [cross([fp("w"), fp("c")], 1000)],
    ]
    assert run(feature, {"x": ["a", "b", "c"], "y": ["u|v", "", "|w"]}) == expected


def test_joined_strings(build, run):
    text = 'input_names: "x" input_names: "y" combo_join_sep: "_" feature_type: ComboFeature hash_bucket_size: 1000'
    expected = [fingerprint64("a_1") % 1000, fingerprint64("b_-2") % 1000]
    assert run(build(text), {"x": ["a", "b"], "y": [1, -2]}) == expected


def test_joined_strings_of_several_values(build, run):
    text = 'input_names: "x" input_names: "y" combo_join_sep: "_" combo_input_seps: "" combo_input_seps: "|"'
    feature = build(f"{text} feature_type: ComboFeature hash_bucket_size: 1000")
    expected = [[fingerprint64("u_a") % 1000, fingerprint64("v_a") % 1000], []]
    assert run(feature, {"x": ["a", "b"], "y": ["u|v", ""]}) == expected


def test_floats_in_a_cross_are_text(build, run):
    text = 'input_names: "x" input_names: "y" feature_type: ComboFeature hash_bucket_size: 1000 precision: 1'
    assert run(build(text), {"x": ["a"], "y": [0.25]}) == [cross([fingerprint64("a"), fingerprint64("0.2")], 1000)]
