"""Problems of names that refer to something: columns, features, groups, metrics, the model's class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from easyrec_lite.config import schema
from easyrec_lite.config.feature_checks import gives_ids
from easyrec_lite.config.problems import WARNING, Problem, did_you_mean, no_effect, one_of, quote
from easyrec_lite.protos import data_pb2, eval_pb2, feature_pb2, loss_pb2, model_match_pb2, pipeline_pb2

_TEXT_INPUTS = (
    data_pb2.DatasetConfig.CSVInput,
    data_pb2.DatasetConfig.CSVInputV2,
    data_pb2.DatasetConfig.CSVInputEx,
)
_NUMBERS_HINT = "numbers are not implemented here yet; boundaries make ids of them"
# Which model classes take which member of EasyRecModel's oneof.
MODEL_CLASSES: dict[str, tuple[str, ...]] = {
    "wide_and_deep": ("WideAndDeep",),
    "deepfm": ("DeepFM",),
    "multi_tower": ("MultiTower", "MultiTowerDIN", "MultiTowerBST"),
    "fm": ("FM",),
    "dcn": ("DCN",),
    "autoint": ("AutoInt",),
    "dlrm": ("DLRM",),
    "cmbf": ("CMBF",),
    "uniter": ("Uniter",),
    "multi_tower_recall": ("MultiTowerRecall",),
    "dssm": ("DSSM",),
    "mind": ("MIND",),
    "dropoutnet": ("DropoutNet",),
    "metric_learning": ("CoMetricLearningI2I",),
    "pdn": ("PDN",),
    "dssm_senet": ("DSSM_SENet",),
    "dat": ("DAT",),
    "mmoe": ("MMoE",),
    "esmm": ("ESMM",),
    "dbmtl": ("DBMTL",),
    "simple_multi_task": ("SimpleMultiTask",),
    "ple": ("PLE",),
    "rocket_launching": ("RocketLaunching",),
}


def check_references(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """Problems of the names in a canonical config."""
    yield from _check_columns(config)
    yield from _check_labels(config)
    yield from _check_groups(config)
    yield from _check_model(config)
    yield from _check_exporter(config)


def known_columns(config: pipeline_pb2.EasyRecConfig) -> set[str] | None:
    """All columns of the input, where the config names them (text without a header); else None."""
    data = config.data_config
    if data.input_type not in _TEXT_INPUTS or data.with_header:
        return None
    return {field.input_name for field in data.input_fields}


def _check_columns(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    data = config.data_config
    seen: set[str] = set()
    for field, path in zip(
        data.input_fields, schema.item_paths("data_config.input_fields", data.input_fields), strict=True
    ):
        if field.input_name in seen:
            yield Problem(path, f"a second column named {quote(field.input_name)}", "a name of its own")
        seen.add(field.input_name)
    if data.HasField("separator") and not data.separator:
        yield Problem("data_config.separator", "empty text", "at least one character")
    columns = known_columns(config)
    if columns is None:
        return
    if not columns:
        expected = "a block for each column, in the order of the file; or with_header: true"
        yield Problem("data_config.input_fields", "no columns", expected)
        return
    for path, name in _column_references(config):
        if name not in columns:
            expected = "one of data_config.input_fields"
            yield Problem(path, f"the unknown column {quote(name)}", expected, did_you_mean(name, columns))


def _column_references(config: pipeline_pb2.EasyRecConfig) -> Iterator[tuple[str, str]]:
    """Every field that names a column, as (path, name)."""
    data = config.data_config
    for index, name in enumerate(data.label_fields):
        yield f"data_config.label_fields[{index}]", name
    for field in ("sample_weight", "event_time_field"):
        if getattr(data, field):
            yield f"data_config.{field}", getattr(data, field)
    for feature, path in zip(config.features, schema.item_paths("features", config.features), strict=True):
        for index, name in enumerate(feature.input_names):
            yield f"{path}.input_names[{index}]", name
    for path, message in schema.walk(config):
        if isinstance(message, eval_pb2.GAUC) and message.uid_field:
            yield f"{path}.uid_field", message.uid_field
        elif isinstance(message, model_match_pb2.DSSM) and message.item_id:
            yield f"{path}.item_id", message.item_id
        elif isinstance(message, eval_pb2.SessionAUC) and message.session_id_field:
            yield f"{path}.session_id_field", message.session_id_field


def _check_labels(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    labels, model = list(config.data_config.label_fields), config.model_config
    if not labels and model.loss_type != loss_pb2.SOFTMAX_CROSS_ENTROPY:
        yield Problem("data_config.label_fields", "no labels", "the column of the label")
        return
    references = [("model_config.label_name", model.label_name)]
    for path, message in schema.walk(config):
        if message.DESCRIPTOR.name == "BayesTaskTower":
            indicator = message.task_space_indicator_label  # type: ignore[attr-defined]
            references.append((f"{path}.label_name", message.label_name))  # type: ignore[attr-defined]
            references.append((f"{path}.task_space_indicator_label", indicator))
            if not message.label_name:  # type: ignore[attr-defined]
                yield Problem(f"{path}.label_name", "nothing", "one of data_config.label_fields", _labels(labels))
    for path, name in references:
        if name and name not in labels:
            hint = did_you_mean(name, labels) or _labels(labels)
            yield Problem(path, f"the unknown label {quote(name)}", "one of data_config.label_fields", hint)


def _labels(labels: list[str]) -> str:
    return f"they are {', '.join(labels)}" if labels else ""


def _check_groups(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    features = {feature.feature_name: feature for feature in config.features}
    used: set[str] = set()
    model = config.model_config
    groups = model.feature_groups
    if not groups:
        yield Problem("model_config.feature_groups", "no groups", "at least one feature_groups { ... }")
    names: set[str] = set()
    for group, path in zip(groups, schema.item_paths("model_config.feature_groups", groups), strict=True):
        if not group.group_name:
            yield Problem(f"{path}.group_name", "nothing", "the name by which the model asks for the group")
        elif group.group_name in names:
            yield Problem(path, f"a second group named {quote(group.group_name)}", "a name of its own")
        names.add(group.group_name)
        if not group.feature_names and not group.sequence_features:
            yield Problem(f"{path}.feature_names", "no features", "at least one")
        yield from _check_names(f"{path}.feature_names", group.feature_names, features)
        used.update(group.feature_names)
        for index, name in enumerate(group.feature_names):
            if list(group.feature_names).index(name) < index:
                yield Problem(f"{path}.feature_names[{index}]", f"{quote(name)} a second time", "it once")
            elif name in features:
                yield from _check_member(features[name], f"{path}.feature_names[{index}]")
        for sequences, sequences_path in zip(
            group.sequence_features,
            schema.item_paths(f"{path}.sequence_features", group.sequence_features),
            strict=True,
        ):
            yield from _check_sequences(sequences, sequences_path, features, set(group.feature_names), used)
        yield from _check_attention_names(group, path, features)
    histories: set[str] = set()
    for sequences, path in zip(
        model.seq_att_groups, schema.item_paths("model_config.seq_att_groups", model.seq_att_groups), strict=True
    ):
        if not sequences.group_name:
            yield Problem(f"{path}.group_name", "nothing", "the name by which a din_tower asks for the group")
        elif sequences.group_name in histories:
            yield Problem(path, f"a second group named {quote(sequences.group_name)}", "a name of its own")
        histories.add(sequences.group_name)
        yield from _check_sequences(sequences, path, features, None, used)
        if sequences.HasField("seq_dnn") and not sequences.HasField("self_attention"):
            expected = "these layers in the dnn of the din_tower that reads the group"
            yield no_effect(f"{path}.seq_dnn", "seq_dnn in seq_att_groups", expected)
        if not sequences.need_key_feature:
            expected = "it in the sequence_features of a group: din_towers pass the key on"
            yield no_effect(f"{path}.need_key_feature", "need_key_feature: false in seq_att_groups", expected)
    for feature, path in zip(config.features, schema.item_paths("features", config.features), strict=True):
        passes = feature.feature_type == feature_pb2.FeatureConfig.PassThroughFeature
        if feature.feature_name not in used and not passes:
            yield Problem(path, "a feature in no group", "", "the model does not see it", severity=WARNING)


def _check_attention_names(
    group: feature_pb2.FeatureGroupConfig, path: str, features: dict[str, feature_pb2.FeatureConfig]
) -> Iterator[Problem]:
    """Attention of one name in one group has one network, so that it has to be described alike."""
    first: dict[str, tuple[bytes, bytes, int]] = {}
    for sequences, where in zip(
        group.sequence_features, schema.item_paths(f"{path}.sequence_features", group.sequence_features), strict=True
    ):
        for place, mapping in enumerate(sequences.seq_att_map):
            steps = [*mapping.hist_seq, *mapping.aux_hist_seq]
            name = sequences.group_name or "_".join(mapping.hist_seq)
            name = name if len(sequences.seq_att_map) == 1 else f"{name}_{place}"
            network = (
                sequences.seq_dnn.SerializeToString(deterministic=True),
                sequences.self_attention.SerializeToString(deterministic=True),
                sum(features[step].embedding_dim for step in steps if step in features),
            )
            if first.setdefault(name, network) != network:
                expected = "a group_name of its own, or the same layers and widths: one name is one network"
                yield Problem(where, f"another attention named {quote(name)}", expected)


def _check_member(feature: feature_pb2.FeatureConfig, path: str) -> Iterator[Problem]:
    """Whether a group can have the feature among its feature_names."""
    name, kind = quote(feature.feature_name), feature.feature_type
    if kind == feature_pb2.FeatureConfig.PassThroughFeature:
        hint = "its column goes to metrics as it is"
        yield Problem(path, f"{name}, a PassThroughFeature", "a feature of ids or numbers", hint)
    if kind != feature_pb2.FeatureConfig.SequenceFeature:
        return
    if not gives_ids(feature):
        yield Problem(path, f"the sequence of numbers {name}", "a sequence of ids", _NUMBERS_HINT)
    elif not feature.HasField("sequence_combiner"):
        expected = "a sequence_combiner in the feature, or the sequence in sequence_features"
        yield Problem(path, f"the sequence {name}", expected)


def _check_names(path: str, names: Iterable[str], features: Iterable[str]) -> Iterator[Problem]:
    known = set(features)
    for index, name in enumerate(names):
        if name not in known:
            hint = did_you_mean(name, known)
            yield Problem(f"{path}[{index}]", f"the unknown feature {quote(name)}", "the name of a feature", hint)


def _check_sequences(
    sequences: feature_pb2.SeqAttGroupConfig,
    path: str,
    features: dict[str, feature_pb2.FeatureConfig],
    group: set[str] | None,
    used: set[str],
) -> Iterator[Problem]:
    encoded = sequences.HasField("self_attention")
    if encoded:
        yield from _check_self_attention(sequences, path, features, group is not None)
    if not sequences.seq_att_map:
        expected = 'seq_att_map { hist_seq: "..." }' if encoded else 'seq_att_map { key: "..." hist_seq: "..." }'
        yield Problem(f"{path}.seq_att_map", "nothing", expected)
    for index, mapping in enumerate(sequences.seq_att_map):
        where = f"{path}.seq_att_map[{index}]"
        used.update([*mapping.key, *mapping.hist_seq, *mapping.aux_hist_seq])
        yield from _check_names(f"{where}.key", mapping.key, features)
        yield from _check_names(f"{where}.hist_seq", mapping.hist_seq, features)
        yield from _check_names(f"{where}.aux_hist_seq", mapping.aux_hist_seq, features)
        for name in ("hist_seq",) if encoded else ("key", "hist_seq"):
            if not getattr(mapping, name):
                yield Problem(f"{where}.{name}", "nothing", "the name of a feature")
        for field in ("hist_seq", "aux_hist_seq"):
            for number, name in enumerate(getattr(mapping, field)):
                if name in features and features[name].feature_type != feature_pb2.FeatureConfig.SequenceFeature:
                    kind = feature_pb2.FeatureConfig.FeatureType.Name(features[name].feature_type)
                    yield Problem(f"{where}.{field}[{number}]", f"{quote(name)}, a {kind}", "a SequenceFeature")
                elif name in features and not gives_ids(features[name]):
                    found = f"{quote(name)}, whose steps are numbers"
                    yield Problem(f"{where}.{field}[{number}]", found, "a sequence of ids", _NUMBERS_HINT)
        for number, name in enumerate(mapping.key):
            if not encoded and name in features and not gives_ids(features[name]):
                kind = feature_pb2.FeatureConfig.FeatureType.Name(features[name].feature_type)
                found = f"{quote(name)}, a {kind} that gives no ids"
                yield Problem(f"{where}.key[{number}]", found, "a feature of ids", _NUMBERS_HINT)
        if group is not None and not encoded and not sequences.allow_key_search:
            for number, name in enumerate(mapping.key):
                if name in features and name not in group:
                    expected = "a feature of the group, or allow_key_search: true"
                    yield Problem(f"{where}.key[{number}]", f"{quote(name)}, which is not in the group", expected)
        history = [*mapping.hist_seq, *mapping.aux_hist_seq]
        if not encoded and {*mapping.key, *history} <= set(features):
            key = sum(features[name].embedding_dim for name in mapping.key)
            steps = sum(features[name].embedding_dim for name in history)
            if key != steps and all(features[name].embedding_dim for name in [*mapping.key, *history]):
                found = f"a key of width {key} and steps of width {steps}"
                yield Problem(where, found, "equal widths: the sums of embedding_dim")


def _check_self_attention(
    sequences: feature_pb2.SeqAttGroupConfig, path: str, features: dict[str, feature_pb2.FeatureConfig], grouped: bool
) -> Iterator[Problem]:
    if not grouped:
        expected = "it in the sequence_features of a group: din_towers attend with a candidate"
        yield Problem(f"{path}.self_attention", "self_attention in seq_att_groups", expected)
    if sequences.HasField("seq_dnn"):
        hint = "self_attention compares no candidate with the steps"
        yield Problem(f"{path}.seq_dnn", "seq_dnn beside self_attention", "one of the two", hint)
    heads = sequences.self_attention.heads
    for index, mapping in enumerate(sequences.seq_att_map):
        if mapping.key:
            hint = "self_attention does not see the candidate; name its features in feature_names"
            found = ", ".join(quote(name) for name in mapping.key)
            yield Problem(f"{path}.seq_att_map[{index}].key", found, "no key", hint)
        names = [*mapping.hist_seq, *mapping.aux_hist_seq]
        if not heads or not set(names) <= set(features):
            continue
        width = sum(features[name].embedding_dim for name in names)
        if width % heads:
            found = f"{heads} heads for the steps of seq_att_map[{index}], which are {width} wide"
            expected = "a divisor of the width: of the sum of embedding_dim"
            yield Problem(f"{path}.self_attention.heads", found, expected)


def _check_model(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    model = config.model_config
    member = model.WhichOneof("model")
    known = [name for names in MODEL_CLASSES.values() for name in names]
    path = "model_config.model_class"
    if member in MODEL_CLASSES and model.model_class and model.model_class not in MODEL_CLASSES[member]:
        expected = f"{one_of(MODEL_CLASSES[member])}: the config holds {member} {{ ... }}"
        hint = did_you_mean(model.model_class, MODEL_CLASSES[member])
        yield Problem(path, quote(model.model_class), expected, hint)
    elif member not in MODEL_CLASSES and model.model_class in known and not model.HasField("backbone"):
        needed = next(name for name, classes in MODEL_CLASSES.items() if model.model_class in classes)
        yield Problem(f"model_config.{needed}", "nothing", f"{needed} {{ ... }}, the parameters of {model.model_class}")
    groups = [group.group_name for group in model.feature_groups]
    sequences = [group.group_name for group in model.seq_att_groups]
    for name, candidates, where in (("towers", groups, "feature_groups"), ("din_towers", sequences, "seq_att_groups")):
        towers = getattr(model.multi_tower, name)
        for tower, tower_path in zip(
            towers, schema.item_paths(f"model_config.multi_tower.{name}", towers), strict=True
        ):
            if tower.input and tower.input not in candidates:
                hint = did_you_mean(tower.input, candidates)
                yield Problem(f"{tower_path}.input", f"the unknown group {quote(tower.input)}", f"one of {where}", hint)


def metric_names(config: pipeline_pb2.EasyRecConfig) -> set[str]:
    """The names under which an evaluation reports its metrics, as best_exporter_metric uses them."""
    default = [_name_of(metric) for metric in config.eval_config.metrics_set]
    towers = config.model_config.dbmtl.task_towers
    if not towers:
        return set(default) or {"auc", "mean_squared_error"}
    names: set[str] = set()
    for tower in towers:
        own = [_name_of(metric) for metric in tower.metrics_set] or default or ["auc", "mean_squared_error"]
        names |= {f"{name}_{tower.tower_name}" for name in own}
    return names


def _name_of(metric: eval_pb2.EvalMetrics) -> str:
    kind = metric.WhichOneof("metric") or ""
    return f"recall@{metric.recall_at_topk.topk}" if kind == "recall_at_topk" else kind


def _check_exporter(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    export = config.export_config
    if export.exporter_type != "best" and not export.enable_early_stop:
        return
    name, names = export.best_exporter_metric, metric_names(config)
    if name not in names and not name.startswith("loss"):
        expected = one_of(sorted(names))
        path = "export_config.best_exporter_metric"
        yield Problem(path, f"the unknown metric {quote(name)}", expected, did_you_mean(name, names))
    if config.WhichOneof("eval_path") is None:
        found = "no files to evaluate on"
        yield Problem("eval_input_path", found, "files: the best export and the early stop compare evaluations")
