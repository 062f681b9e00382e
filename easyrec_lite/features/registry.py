"""From a config to features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from easyrec_lite.config import ERROR, ConfigError, Problem
from easyrec_lite.features.base import ColumnTypes, Feature, feature_name
from easyrec_lite.features.combo_feature import ComboFeature
from easyrec_lite.features.expr_feature import ExprFeature
from easyrec_lite.features.id_feature import IdFeature
from easyrec_lite.features.labels import label_problems
from easyrec_lite.features.lookup_feature import LookupFeature
from easyrec_lite.features.raw_feature import RawFeature
from easyrec_lite.features.sequence_feature import SequenceFeature
from easyrec_lite.features.tag_feature import TagFeature
from easyrec_lite.protos import feature_pb2, pipeline_pb2

_Type = feature_pb2.FeatureConfig.FeatureType

FEATURE_TYPES: Mapping[int, type[Feature]] = {
    _Type.IdFeature: IdFeature,
    _Type.RawFeature: RawFeature,
    _Type.TagFeature: TagFeature,
    _Type.ComboFeature: ComboFeature,
    _Type.LookupFeature: LookupFeature,
    _Type.SequenceFeature: SequenceFeature,
    _Type.ExprFeature: ExprFeature,
}


def build_features(config: pipeline_pb2.EasyRecConfig) -> dict[str, Feature]:
    """The features of `config.features` by their effective names, in the order of the config.

    A PassThroughFeature is not among them: its column goes through as it is.

    Raises:
        ConfigError: a feature can't be built; it holds the problems of all of them.
    """
    types = _column_types(config)
    errors = [
        problem for feature in config.features for problem in _problems(feature, types) if problem.severity is ERROR
    ]
    if errors:
        raise ConfigError(errors)
    return {
        feature_name(feature): FEATURE_TYPES[feature.feature_type](feature)
        for feature in config.features
        if feature.feature_type != _Type.PassThroughFeature
    }


def check(config: pipeline_pb2.EasyRecConfig) -> Iterable[Problem]:
    """What is wrong with the features and labels of a config, beyond what the schema says."""
    types = _column_types(config)
    for feature in config.features:
        yield from _problems(feature, types)
    yield from label_problems(config.data_config)


def _problems(feature: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
    if feature.feature_type == _Type.PassThroughFeature:
        return ()
    return FEATURE_TYPES[feature.feature_type].problems(feature, types)


def _column_types(config: pipeline_pb2.EasyRecConfig) -> ColumnTypes:
    return {field.input_name: field.input_type for field in config.data_config.input_fields}
