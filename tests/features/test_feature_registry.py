"""Configs to features, and what is said about bad ones."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from easyrec_lite.config import WARNING, ConfigError
from easyrec_lite.features import FEATURE_TYPES, build_features, check
from easyrec_lite.protos import feature_pb2, pipeline_pb2


def config_of(*features: str, data: str = "") -> pipeline_pb2.EasyRecConfig:
    text = f"data_config {{ {data} }}" + "".join(f"features {{ {feature} }}" for feature in features)
    return text_format.Parse(text, pipeline_pb2.EasyRecConfig())


def test_every_type_of_the_language_is_known():
    types = set(feature_pb2.FeatureConfig.FeatureType.values())
    assert types - set(FEATURE_TYPES) == {feature_pb2.FeatureConfig.PassThroughFeature}


def test_names_and_order():
    config = config_of(
        'input_names: "b" feature_type: RawFeature',
        'feature_name: "a2" input_names: "a" feature_type: IdFeature num_buckets: 3',
        'input_names: "session" feature_type: PassThroughFeature',
    )
    features = build_features(config)
    assert list(features) == ["b", "a2"]
    assert [feature.name for feature in features.values()] == ["b", "a2"]
    assert features["a2"].inputs == ("a",)
    assert not list(check(config))


@pytest.mark.parametrize(
    ("feature", "path"),
    [
        ('input_names: "x" feature_type: IdFeature', "features[x]"),
        ('feature_name: "f" feature_type: IdFeature num_buckets: 2', "features[f].input_names"),
        ('input_names: "x" input_names: "y" feature_type: IdFeature num_buckets: 2', "features[x].input_names"),
        ('input_names: "price" feature_type: IdFeature hash_bucket_size: 2', "features[price].precision"),
        ('input_names: "x" feature_type: IdFeature vocab_list: "a" vocab_list: "a"', "features[x].vocab_list"),
        ('input_names: "x" feature_type: IdFeature vocab_file: "/no/such/file"', "features[x].vocab_file"),
        (
            'input_names: "x" input_names: "y" feature_type: TagFeature num_buckets: 2 kv_separator: ":"',
            "features[x].kv_separator",
        ),
        ('input_names: "x" feature_type: TagFeature num_buckets: 2 combiner: "max"', "features[x].combiner"),
        ('input_names: "x" feature_type: TagFeature num_buckets: 2 separator: ""', "features[x].separator"),
        ('input_names: "x" feature_type: ComboFeature hash_bucket_size: 2', "features[x].input_names"),
        ('input_names: "x" input_names: "y" feature_type: ComboFeature', "features[x].hash_bucket_size"),
        (
            'input_names: "x" input_names: "y" feature_type: ComboFeature hash_bucket_size: 9 combo_input_seps: "|"',
            "features[x].combo_input_seps",
        ),
        (
            'input_names: "x" input_names: "price" feature_type: ComboFeature hash_bucket_size: 9',
            "features[x].precision",
        ),
        ('input_names: "x" feature_type: RawFeature boundaries: [1, 1]', "features[x].boundaries"),
        ('input_names: "x" feature_type: RawFeature min_val: 3 max_val: 2', "features[x].max_val"),
        ('input_names: "x" feature_type: RawFeature normalizer_fn: "open(x)"', "features[x].normalizer_fn"),
        (
            'input_names: "x" feature_type: SequenceFeature sub_feature_type: TagFeature num_buckets: 2',
            "features[x].sub_feature_type",
        ),
        (
            'input_names: "x" feature_type: SequenceFeature sub_feature_type: RawFeature raw_input_dim: 2',
            "features[x].seq_multi_sep",
        ),
        ('input_names: "x" input_names: "y" feature_type: ExprFeature expression: "x + z"', "features[x].expression"),
        ('input_names: "x" input_names: "y" feature_type: LookupFeature', "features[x].hash_bucket_size"),
    ],
)
def test_problems(feature, path):
    config = config_of(feature, data='input_fields { input_name: "price" input_type: DOUBLE }')
    problems = list(check(config))
    assert [problem.path for problem in problems] == [path]
    assert all(problem.found and problem.expected for problem in problems)
    with pytest.raises(ConfigError):
        build_features(config)


def test_all_problems_at_once():
    bad = 'input_names: "x" feature_type: IdFeature'
    with pytest.raises(ConfigError) as error:
        build_features(config_of(bad, 'input_names: "y" feature_type: RawFeature boundaries: [2, 1]', bad))
    assert [problem.path for problem in error.value.problems] == [
        "features[x]",
        "features[y].boundaries",
        "features[x]",
    ]


def test_a_warning_stops_nothing():
    config = config_of('input_names: "x" feature_type: RawFeature num_buckets: 5')
    (problem,) = check(config)
    assert (problem.path, problem.severity) == ("features[x].num_buckets", WARNING)
    assert build_features(config)["x"].num_ids is None
