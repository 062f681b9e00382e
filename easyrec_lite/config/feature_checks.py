"""Problems of features: fields that are missing or contradict each other, tables shared by unlike features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from easyrec_lite.config import schema
from easyrec_lite.config.expressions import ExpressionError, parse_expression
from easyrec_lite.config.problems import WARNING, Problem, no_effect, one_of, quote
from easyrec_lite.protos import feature_pb2, pipeline_pb2

FeatureConfig = feature_pb2.FeatureConfig

_MAX_ROWS = 2**63 - 1


def check_features(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """Problems of the features of a canonical config."""
    if not config.features:
        yield Problem("features", "no features", "at least one features { ... }")
    wide, deep = _uses(config)
    wide_only = wide - deep
    names: dict[str, str] = {}
    for feature, path in zip(config.features, schema.item_paths("features", config.features), strict=True):
        name = feature.feature_name
        if not feature.input_names:
            yield Problem(f"{path}.input_names", "nothing", "the column that the feature reads")
        if name and name in names:
            hint = "give one of them another feature_name"
            yield Problem(path, f"a second feature named {quote(name)}", "a name of its own", hint)
        names.setdefault(name, path)
        if any(not text for text in feature.input_names):
            yield Problem(f"{path}.input_names", "an empty name", "the name of a column")
        check = _CHECKS.get(feature.feature_type)
        if check is not None:
            yield from check(feature, path, name in wide_only)
        yield from _check_common(feature, path)
    yield from _check_shared_tables(config, wide, deep)


def _uses(config: pipeline_pb2.EasyRecConfig) -> tuple[set[str], set[str]]:
    """Features in WIDE groups, where their vectors have the model's wide_output_dim, and those in other places."""
    model = config.model_config
    wide: set[str] = set()
    deep: set[str] = set()
    for group in model.feature_groups:
        (wide if group.wide_deep == feature_pb2.WIDE else deep).update(group.feature_names)
    nested = (group.sequence_features for group in model.feature_groups)
    for sequences in itertools.chain(model.seq_att_groups, *nested):
        for mapping in sequences.seq_att_map:
            deep.update([*mapping.key, *mapping.hist_seq, *mapping.aux_hist_seq])
    return wide, deep


def gives_ids(feature: FeatureConfig) -> bool:
    """Whether the feature gives ids; else it gives numbers, or nothing to the model."""
    kind = feature.feature_type
    if kind == FeatureConfig.RawFeature or (
        kind == FeatureConfig.SequenceFeature and feature.sub_feature_type == FeatureConfig.RawFeature
    ):
        return bool(feature.boundaries) or (feature.num_buckets > 1 and feature.max_val > feature.min_val)
    return kind not in (FeatureConfig.ExprFeature, FeatureConfig.PassThroughFeature)


def _check_id(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    if len(feature.input_names) > 1:
        yield _inputs(feature, path, "one")
    yield from _check_ids(feature, path, wide_only)


def _check_ids(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    """What every feature of ids needs: rows and a width."""
    sizes = [name for name in ("hash_bucket_size", "vocab_list", "vocab_file", "num_buckets") if getattr(feature, name)]
    if not sizes:
        kind = FeatureConfig.FeatureType.Name(feature.feature_type)
        expected = f"hash_bucket_size, num_buckets, vocab_list or vocab_file: the rows of the table of this {kind}"
        yield Problem(path, "no size of its table", expected)
    elif len(sizes) > 1:
        found = f"{' and '.join(sizes)} together"
        yield Problem(path, found, "one of them", f"{sizes[0]} is used", severity=WARNING)
    for name in ("hash_bucket_size", "num_buckets"):
        if getattr(feature, name) > _MAX_ROWS:
            yield Problem(f"{path}.{name}", str(getattr(feature, name)), f"at most {_MAX_ROWS}")
    yield from _check_width(feature, path, wide_only)
    if len(set(feature.vocab_list)) < len(feature.vocab_list):
        twice = next(word for word in feature.vocab_list if list(feature.vocab_list).count(word) > 1)
        yield Problem(f"{path}.vocab_list", f"{quote(twice)} twice", "each value once")
    if (
        feature.vocab_file
        and not feature.vocab_list
        and not feature.hash_bucket_size
        and not Path(feature.vocab_file).is_file()
    ):
        yield Problem(f"{path}.vocab_file", f"{quote(feature.vocab_file)}, which is no file", "a text file")


def _check_tag(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    if len(feature.input_names) > 2:
        yield _inputs(feature, path, "one, or two: the second for the weights")
    if feature.kv_separator and len(feature.input_names) == 2:
        found = "kv_separator and a second column, which both give weights"
        yield Problem(f"{path}.kv_separator", found, "one of them")
    if feature.kv_separator and feature.kv_separator == feature.separator:
        yield Problem(f"{path}.kv_separator", f"{quote(feature.kv_separator)}, the separator as well", "another one")
    yield from _check_ids(feature, path, wide_only)


def _check_combo(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    count = len(feature.input_names)
    if count < 2:
        yield _inputs(feature, path, "two or more: the columns that are crossed")
    if not feature.hash_bucket_size:
        yield Problem(f"{path}.hash_bucket_size", "nothing", "the rows that the crosses are hashed into")
    yield from _check_width(feature, path, wide_only)
    if feature.combo_input_seps and len(feature.combo_input_seps) != count:
        found = f"{len(feature.combo_input_seps)} separators"
        yield Problem(f"{path}.combo_input_seps", found, f"{count}, one for each column (empty for a single value)")


def _check_lookup(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    if len(feature.input_names) != 2:
        yield _inputs(feature, path, "two: the key and the map")
    if not feature.hash_bucket_size:
        yield Problem(f"{path}.hash_bucket_size", "nothing", "the rows that the values are hashed into")
    yield from _check_width(feature, path, wide_only)


def _check_expression(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    where = f"{path}.expression"
    if not feature.expression:
        yield Problem(where, "nothing", "a formula over input_names")
        return
    yield from _check_formula(feature.expression, tuple(feature.input_names), where)


def _check_formula(text: str, variables: tuple[str, ...], path: str) -> Iterator[Problem]:
    try:
        parse_expression(text, variables)
    except ExpressionError as error:
        yield Problem(path, error.found, error.expected, error.hint)


def _check_width(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    if not feature.embedding_dim and not wide_only:
        yield Problem(f"{path}.embedding_dim", "nothing", "the width of the feature's vectors, such as 16")


def _check_raw(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    if len(feature.input_names) > 1:
        yield _inputs(feature, path, "one")
    yield from _check_numbers(feature, path)
    bucketized = bool(feature.boundaries) or feature.num_buckets > 1
    if bucketized and not feature.embedding_dim and not wide_only:
        yield Problem(f"{path}.embedding_dim", "nothing", "the width of the buckets' vectors, such as 16")


def _check_numbers(feature: FeatureConfig, path: str) -> Iterator[Problem]:
    bounds = list(feature.boundaries)
    if any(left >= right for left, right in itertools.pairwise(bounds)):
        yield Problem(f"{path}.boundaries", "the same bound twice", "each bound once")
    scaled = feature.HasField("min_val") or feature.HasField("max_val")
    if (scaled and feature.max_val < feature.min_val) or (scaled and feature.max_val == feature.min_val != 0):
        found = f"{feature.max_val:g} with min_val {feature.min_val:g}"
        yield Problem(f"{path}.max_val", found, "a number above min_val")
    if feature.num_buckets > 1 and not bounds and not feature.max_val > feature.min_val:
        expected = "min_val and max_val, between which the equal buckets lie"
        yield Problem(f"{path}.num_buckets", "equal buckets without a range", expected)


def _check_sequence(feature: FeatureConfig, path: str, wide_only: bool) -> Iterator[Problem]:
    if len(feature.input_names) > 1:
        yield _inputs(feature, path, "one")
    if feature.sub_feature_type == FeatureConfig.IdFeature:
        yield from _check_ids(feature, path, wide_only)
    elif feature.sub_feature_type == FeatureConfig.RawFeature:
        yield from _check_numbers(feature, path)
    else:
        kind = FeatureConfig.FeatureType.Name(feature.sub_feature_type)
        yield Problem(f"{path}.sub_feature_type", kind, "IdFeature or RawFeature")
    if feature.seq_multi_sep and feature.seq_multi_sep == feature.separator:
        yield Problem(f"{path}.seq_multi_sep", f"{quote(feature.seq_multi_sep)}, the separator as well", "another one")


def _check_common(feature: FeatureConfig, path: str) -> Iterator[Problem]:
    kind = FeatureConfig.FeatureType.Name(feature.feature_type)
    numeric = feature.feature_type == FeatureConfig.RawFeature or (
        feature.feature_type == FeatureConfig.SequenceFeature and feature.sub_feature_type == FeatureConfig.RawFeature
    )
    if feature.HasField("separator") and not feature.separator:
        yield Problem(f"{path}.separator", "empty text", "at least one character")
    if feature.normalizer_fn:
        where = f"{path}.normalizer_fn"
        if not numeric:
            yield Problem(where, f"a formula for a number in a feature of type {kind}", "a RawFeature")
        else:
            yield from _check_formula(feature.normalizer_fn, ("x",), where)
    several_ids = gives_ids(feature) and (kind == "SequenceFeature" or feature.raw_input_dim > 1)
    if feature.combiner in ("max", "min") and (not numeric or several_ids):
        yield Problem(f"{path}.combiner", quote(feature.combiner), "sum, mean or sqrtn: the combiners of ids")
    if feature.embedding_name and not gives_ids(feature):
        yield no_effect(f"{path}.embedding_name", "embedding_name of numbers", "ids: numbers have no table to share")
    reader = _NUMBERS if numeric and kind == _STEPS else kind
    for name, readers in _READERS.items():
        field = schema.field_named(feature, name)
        if field is not None and reader not in readers and not schema.has_default(feature, field):
            yield no_effect(f"{path}.{name}", f"{name} in a feature of type {reader}", one_of(readers))


def _check_shared_tables(config: pipeline_pb2.EasyRecConfig, wide: set[str], deep: set[str]) -> Iterator[Problem]:
    """Features with one table, by an embedding_name or a feature's own name, must agree on it."""
    first: dict[str, tuple[FeatureConfig, str]] = {}
    paths = zip(config.features, schema.item_paths("features", config.features), strict=True)
    tables = [(feature, path) for feature, path in paths if gives_ids(feature)]
    wide_tables = {f"{_table(feature)}_wide" for feature, _ in tables if feature.feature_name in wide}
    for feature, path in tables:
        name = _table(feature)
        if name in wide_tables and feature.feature_name in deep:
            expected = f"another name: that is the table of {quote(name.removesuffix('_wide'))} in WIDE groups"
            yield Problem(path, f"the table {quote(name)}", expected)
        other, other_path = first.setdefault(name, (feature, path))
        for what, read in _TABLE.items():
            mine, theirs = read(feature), read(other)
            if what == "embedding_dim" and not {feature.feature_name, other.feature_name} <= deep:
                continue  # in WIDE groups all are as wide as the model says
            if mine != theirs:
                found = f"{_shown(mine)}, where {other_path} has {_shown(theirs)}"
                expected = f"the same {what}: they share the table {quote(name)}"
                yield Problem(f"{path}.{what}", found, expected)


def _table(feature: FeatureConfig) -> str:
    """The name of the feature's table, as models.layout has it."""
    return feature.embedding_name or feature.feature_name


def _rows(feature: FeatureConfig) -> object:
    if feature.hash_bucket_size:
        return feature.hash_bucket_size
    return tuple(feature.vocab_list) or feature.vocab_file or feature.num_buckets or tuple(feature.boundaries)


_TABLE: dict[str, Callable[[FeatureConfig], object]] = {
    "embedding_dim": lambda feature: feature.embedding_dim,
    "hash_bucket_size": _rows,
    "initializer": lambda feature: feature.initializer.SerializeToString(deterministic=True),
}
_CHECKS: dict[int, Callable[[FeatureConfig, str, bool], Iterator[Problem]]] = {
    FeatureConfig.IdFeature: _check_id,
    FeatureConfig.RawFeature: _check_raw,
    FeatureConfig.TagFeature: _check_tag,
    FeatureConfig.ComboFeature: _check_combo,
    FeatureConfig.LookupFeature: _check_lookup,
    FeatureConfig.SequenceFeature: _check_sequence,
    FeatureConfig.ExprFeature: _check_expression,
}


# A SequenceFeature, and one whose sub_feature_type is RawFeature.
_STEPS, _NUMBERS = "SequenceFeature", "SequenceFeature of numbers"
# Fields that not every feature has a use for, and the types of those that have.
_READERS: dict[str, tuple[str, ...]] = {
    "hash_bucket_size": ("IdFeature", "TagFeature", "ComboFeature", "LookupFeature", _STEPS),
    "num_buckets": ("IdFeature", "TagFeature", _STEPS, "RawFeature", _NUMBERS),
    **dict.fromkeys(["vocab_list", "vocab_file"], ("IdFeature", "TagFeature", _STEPS)),
    **dict.fromkeys(["boundaries", "min_val", "max_val", "raw_input_dim"], ("RawFeature", _NUMBERS)),
    "kv_separator": ("TagFeature", "LookupFeature"),
    "lookup_max_sel_elem_num": ("LookupFeature",),
    **dict.fromkeys(["combo_input_seps", "combo_join_sep"], ("ComboFeature",)),
    "seq_multi_sep": (_STEPS, _NUMBERS, "RawFeature"),
    **dict.fromkeys(["sub_feature_type", "max_seq_len", "sequence_combiner"], (_STEPS, _NUMBERS)),
    "sequence_length": (_NUMBERS,),
    "expression": ("ExprFeature",),
}


def _inputs(feature: FeatureConfig, path: str, expected: str) -> Problem:
    return Problem(f"{path}.input_names", f"{len(feature.input_names)} columns", expected)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return "another one" if value else "none"
    return quote(value) if isinstance(value, str | tuple) else str(value)
