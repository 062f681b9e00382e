"""Each feature type on rows computed by hand."""

from __future__ import annotations

import pytest
import tensorflow as tf
from test_feature_hashing import fingerprint64

from easyrec_lite.config import ConfigError


def bucket(text: str, buckets: int = 100) -> int:
    return fingerprint64(text) % buckets


class TestIdFeature:
    def test_empty_string_is_missing(self, build, run):
        feature = build('input_names: "x" feature_type: IdFeature hash_bucket_size: 100')
        assert run(feature, {"x": ["a", "", "b"]}) == [bucket("a"), -1, bucket("b")]

    @pytest.mark.parametrize(
        ("column", "ids", "unknown"),
        [
            ([3, -1, -2, 9, 10], [3, -1, 0, 9, 0], 2),
            (["3", "", "-1", "10", "x", "2.0", "+4"], [3, -1, -1, 0, -1, -1, 4], 3),
        ],
    )
    def test_num_buckets(self, build, run, column, ids, unknown):
        feature = build('input_names: "x" feature_type: IdFeature num_buckets: 10')
        assert run(feature, {"x": column}) == ids
        assert feature.num_ids == 10
        assert feature.count_unknown({"x": tf.constant(column)}).numpy() == unknown

    def test_vocabulary(self, build, run):
        feature = build('input_names: "x" feature_type: IdFeature vocab_list: "red" vocab_list: "blue"')
        assert run(feature, {"x": ["blue", "", "green", "red"]}) == [1, -1, 0, 0]
        assert feature.num_ids == 2
        assert feature.count_unknown({"x": tf.constant(["blue", "", "green"])}).numpy() == 1

    def test_vocabulary_file(self, build, run, tmp_path):
        path = tmp_path / "words.txt"
        path.write_text("7\n12\nzwölf\n\n")
        feature = build(f'input_names: "x" feature_type: IdFeature vocab_file: "{path}"')
        assert feature.num_ids == 3
        assert run(feature, {"x": ["zwölf", "7", "12"]}) == [2, 0, 1]
        assert run(feature, {"x": [12, 7, 13]}) == [1, 0, 0]

    def test_hash_goes_before_vocabulary_before_buckets(self, build):
        text = 'input_names: "x" feature_type: IdFeature num_buckets: 5 vocab_list: "a"'
        assert build(text).num_ids == 1
        assert build(text + " hash_bucket_size: 9").num_ids == 9

    def test_lists_are_refused(self, build):
        feature = build('input_names: "x" feature_type: IdFeature num_buckets: 10')
        with pytest.raises(ConfigError, match="TagFeature"):
            feature.encode({"x": tf.ragged.constant([[1, 2], []])})


class TestTagFeature:
    def test_tokens(self, build, run):
        feature = build('input_names: "x" feature_type: TagFeature hash_bucket_size: 100')
        found = run(feature, {"x": ["a|b||a", "", "c|", "|"]})
        assert found == [[bucket("a"), bucket("b"), bucket("a")], [], [bucket("c")], []]
        assert not feature.weighted

    def test_unreadable_tokens_are_left_out(self, build, run):
        feature = build('input_names: "x" feature_type: TagFeature num_buckets: 10 separator: ","')
        assert run(feature, {"x": ["1,x,11,2", "y"]}) == [[1, 0, 2], []]
        assert feature.count_unknown({"x": tf.constant(["1,x,11,2", "y"])}).numpy() == 3

    def test_weights_in_tokens(self, build, run):
        feature = build('input_names: "x" feature_type: TagFeature num_buckets: 10 kv_separator: ":"')
        ids, weights = run(feature, {"x": ["1:0.5|2|x:3|4:y", "", "5:-1e1"]})
        assert ids == [[1, 2, 4], [], [5]]
        assert weights == [[0.5, 1.0, 0.0], [], [-10.0]]
        assert feature.weighted

    def test_weights_in_a_second_column(self, build, run):
        feature = build('input_names: "x" input_names: "w" feature_type: TagFeature num_buckets: 10')
        ids, weights = run(feature, {"x": ["1|2", "3", "", "4|5", "6"], "w": ["0.5|2", "1|1", "3", "", "7"]})
        assert ids == [[1, 2], [3], [], [4, 5], [6]]
        assert weights == [[0.5, 2.0], [0.0], [], [0.0, 0.0], [7.0]]

    def test_no_weight_in_a_whole_batch(self, build, run):
        feature = build('input_names: "x" input_names: "w" feature_type: TagFeature num_buckets: 10')
        assert run(feature, {"x": ["1", ""], "w": ["", ""]}) == ([[1], []], [[0.0], []])

    def test_list_columns(self, build, run):
        feature = build('input_names: "x" input_names: "w" feature_type: TagFeature num_buckets: 10')
        assert run(feature, {"x": [[1, 2], [3]], "w": [[0.5, 1.0], [2.0]]}) == ([[1, 2], [3]], [[0.5, 1.0], [2.0]])

    def test_single_integers(self, build, run):
        feature = build('input_names: "x" feature_type: TagFeature num_buckets: 10')
        assert run(feature, {"x": [4, 12]}) == [[4], [0]]


class TestRawFeature:
    def test_numbers(self, build, run):
        feature = build('input_names: "x" feature_type: RawFeature embedding_dim: 8')
        assert run(feature, {"x": [1.5, float("nan"), float("inf")]}) == [[1.5], [0.0], [0.0]]
        assert run(feature, {"x": [3, -4]}) == [[3.0], [-4.0]]
        strings = ["1.5", "-2e2", ".5", "7.", "", "x", "1,5", "nan", "1e99"]
        assert run(feature, {"x": strings}) == [[1.5], [-200.0], [0.5], [7.0], [0], [0], [0], [0], [0]]
        assert feature.count_unknown({"x": tf.constant(strings)}).numpy() == 4
        assert (feature.num_ids, feature.width, feature.projected) == (None, 1, True)

    def test_vector(self, build, run):
        feature = build('input_names: "x" feature_type: RawFeature raw_input_dim: 3')
        assert run(feature, {"x": ["1|2|3|4", "", "5||6"]}) == [[1, 2, 3], [0, 0, 0], [5, 0, 6]]
        assert run(feature, {"x": [[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]}) == [[1, 2, 0], [3, 4, 5]]
        assert feature.width == 3

    @pytest.mark.parametrize(
        ("combiner", "expected"),
        [("sum", [4, 2]), ("mean", [2, 1]), ("max", [3, 2]), ("min", [1, 0])],
    )
    def test_several_vectors(self, build, run, combiner, expected):
        text = 'input_names: "x" feature_type: RawFeature raw_input_dim: 2 seq_multi_sep: ";"'
        feature = build(f'{text} combiner: "{combiner}"')
        assert run(feature, {"x": ["1|2;3", "", "-5|-6"]}) == [expected, [0, 0], [-5, -6]]

    def test_scale_is_not_clipped(self, build, run):
        feature = build('input_names: "x" feature_type: RawFeature min_val: 10 max_val: 20')
        assert run(feature, {"x": [10.0, 15.0, 30.0, 5.0]}) == [[0.0], [0.5], [2.0], [-0.5]]

    def test_boundaries(self, build, run):
        feature = build('input_names: "x" feature_type: RawFeature boundaries: [0, 1.5, 7]')
        assert run(feature, {"x": [-1.0, 0.0, 1.0, 1.5, 7.0, 8.0]}) == [0, 1, 1, 2, 3, 3]
        assert (feature.num_ids, feature.projected) == (4, False)

    def test_boundaries_of_a_vector(self, build, run):
        feature = build('input_names: "x" feature_type: RawFeature raw_input_dim: 2 boundaries: [0, 1]')
        assert run(feature, {"x": ["-1|-1", "0.5|2"]}) == [[0, 3], [1, 5]]
        assert feature.num_ids == 6

    def test_buckets_of_equal_width(self, build, run):
        feature = build('input_names: "x" feature_type: RawFeature num_buckets: 4 min_val: 0 max_val: 8')
        assert run(feature, {"x": [-1.0, 0.0, 1.9, 2.0, 7.9, 9.0]}) == [0, 1, 1, 2, 4, 4]
        assert feature.num_ids == 5

    def test_single_numbers_are_no_vector(self, build):
        feature = build('input_names: "x" feature_type: RawFeature raw_input_dim: 3')
        with pytest.raises(ConfigError, match=r"features\[x\]\.raw_input_dim"):
            feature.encode({"x": tf.constant([1.0, 2.0, 3.0])})

    @pytest.mark.parametrize(
        ("formula", "expected"),
        [
            ("lambda x: tf.math.log(x + 1)", [0.0, 0.6931472, 0.0]),
            ("clip(x, -0.5, 0.5)", [0.0, 0.5, -0.5]),
            ("x > 0 and x < 2", [0.0, 1.0, 0.0]),
            ("(x > 0) * 3 - 1", [-1.0, 2.0, -1.0]),
            ("sqrt(x)", [0.0, 1.0, 0.0]),
            ("2", [2.0, 2.0, 2.0]),
        ],
    )
    def test_normalizer(self, build, run, formula, expected):
        feature = build(f'input_names: "x" feature_type: RawFeature normalizer_fn: "{formula}"')
        assert run(feature, {"x": [0.0, 1.0, -1.0]}) == [[pytest.approx(number)] for number in expected]


class TestExprFeature:
    def test_formula(self, build, run):
        text = 'feature_name: "ctr" input_names: "clicks" input_names: "views" feature_type: ExprFeature'
        feature = build(f'{text} expression: "(clicks + 1) / (views + 10)"')
        assert run(feature, {"clicks": [4, 0], "views": ["10", "x"]}) == [[0.25], [pytest.approx(0.1)]]
        assert run(build(f'{text} expression: "clicks / views"'), {"clicks": [4, 0], "views": [0, 1]}) == [[0], [0]]
        assert (feature.width, feature.num_ids) == (1, None)

    def test_large_integers_keep_their_digits(self, build, run):
        text = 'input_names: "now" input_names: "then" feature_type: ExprFeature expression: "now - then"'
        columns = {"now": [1_700_000_003], "then": ["1700000000"]}
        assert run(build(text), columns) == [[3.0]]


class TestSequenceFeature:
    def test_steps(self, build, run):
        feature = build('input_names: "x" feature_type: SequenceFeature hash_bucket_size: 100')
        assert run(feature, {"x": ["a|b", "", "a||b"]}) == [
            [bucket("a"), bucket("b")],
            [],
            [bucket("a"), bucket(""), bucket("b")],
        ]
        assert feature.is_sequence

    def test_long_separator(self, build, run):
        feature = build('input_names: "x" feature_type: SequenceFeature num_buckets: 10 separator: "::"')
        assert run(feature, {"x": ["1::2", "", "3:4", "5::::6"]}) == [[1, 2], [], [-1], [5, -1, 6]]

    def test_first_steps_are_kept(self, build, run):
        feature = build('input_names: "x" feature_type: SequenceFeature num_buckets: 10 max_seq_len: 2')
        assert run(feature, {"x": ["1|2|3", "4", "", "5|6"]}) == [[1, 2], [4], [], [5, 6]]
        assert run(feature, {"x": [[1, 2, 3], [], [12]]}) == [[1, 2], [], [0]]

    def test_steps_of_several_values(self, build, run):
        text = 'input_names: "x" feature_type: SequenceFeature num_buckets: 10 seq_multi_sep: ";" max_seq_len: 2'
        assert run(build(text), {"x": ["1;2|3|4", "", "|5"]}) == [[[1, 2], [3]], [], [[], [5]]]
        assert run(build(text), {"x": [[[1, 2], [3], [4]], []]}) == [[[1, 2], [3]], []]

    def test_numbers(self, build, run):
        text = 'input_names: "x" feature_type: SequenceFeature sub_feature_type: RawFeature max_val: 10'
        assert run(build(text), {"x": ["1|x|5", "", "10"]}) == [[[pytest.approx(0.1)], [0.0], [0.5]], [], [[1.0]]]
        assert build(text).width == 1

    def test_sequence_length_limits_numbers(self, build, run):
        text = 'input_names: "x" feature_type: SequenceFeature sub_feature_type: RawFeature sequence_length: 2'
        assert run(build(text), {"x": ["1|2|3", "4"]}) == [[[1.0], [2.0]], [[4.0]]]
        assert run(build(text), {"x": [[1.0, 2.0, 3.0], []]}) == [[[1.0], [2.0]], []]

    def test_vectors(self, build, run):
        text = 'input_names: "x" feature_type: SequenceFeature sub_feature_type: RawFeature raw_input_dim: 2'
        assert run(build(text + ' seq_multi_sep: ";"'), {"x": ["1;2|3", "", "4;5;6"]}) == [
            [[1, 2], [3, 0]],
            [],
            [[4, 5]],
        ]

    def test_buckets(self, build, run):
        text = 'input_names: "x" feature_type: SequenceFeature sub_feature_type: RawFeature boundaries: [1, 2]'
        assert run(build(text), {"x": ["0|1|2", "", "x"]}) == [[0, 1, 2], [], [0]]
        assert build(text).num_ids == 3


class TestLookupFeature:
    def test_values_under_the_key(self, build, run):
        text = 'input_names: "k" input_names: "m" feature_type: LookupFeature hash_bucket_size: 100'
        columns = {"k": ["b", "a", "z", ""], "m": ["a:1|b:2|b:3", "a:4", "a:1", ""]}
        assert run(build(text), columns) == [[bucket("2"), bucket("3")], [bucket("4")], [], []]
        limited = build(text + " lookup_max_sel_elem_num: 1")
        assert run(limited, columns) == [[bucket("2")], [bucket("4")], [], []]
