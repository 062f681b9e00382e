"""What can be said of each field by itself: support, required fields, ranges, names that must be one of a few."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.binding import Node
from easyrec_lite.config.problems import ERROR, WARNING, Problem, did_you_mean, no_effect, one_of, quote
from easyrec_lite.config.targets import route
from easyrec_lite.protos import layer_pb2, pipeline_pb2, train_pb2

ACTIVATIONS = (
    "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "prelu", "dice", "tanh", "sigmoid", "softplus",
    "linear",
)  # fmt: skip
INITIALIZERS = (
    "he_uniform", "he_normal", "glorot_uniform", "glorot_normal", "lecun_uniform", "lecun_normal", "random_normal",
    "random_uniform", "truncated_normal", "orthogonal", "zeros", "ones", "identity",
)  # fmt: skip
_REDUCTIONS = ("mean", "mean_by_sample_num", "mean_by_positive_num")
_CHOICES: dict[str, tuple[str, ...]] = {
    "FeatureConfig.combiner": ("sum", "mean", "sqrtn", "max", "min"),
    "ExportConfig.exporter_type": ("final", "latest", "best", "none"),
    "GAUC.reduction": _REDUCTIONS,
    "SessionAUC.reduction": _REDUCTIONS,
    "MLP.initializer": INITIALIZERS,
    "MLP.activation": ACTIVATIONS,
    "MLP.final_activation": ACTIVATIONS,
    "TextCNN.activation": ACTIVATIONS,
}

_Range = tuple[Callable[[float], bool], str]
_POSITIVE: _Range = (lambda value: value > 0, "a number above 0")
_NOT_NEGATIVE: _Range = (lambda value: value >= 0, "0 or more")
_SHARE: _Range = (lambda value: 0 <= value <= 1, "a share from 0 to 1")
_BELOW_ONE: _Range = (lambda value: 0 <= value < 1, "a number from 0 to below 1")
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(
        [
            "AUC.num_thresholds", "ConstantLearningRate.learning_rate", "CosineDecayLearningRate.learning_rate_base",
            "CosineDecayLearningRate.total_steps", "DSSM.temperature", "DatasetConfig.batch_size",
            "DatasetConfig.shuffle_window", "DatasetConfig.prefetch_size", "DeepFM.wide_output_dim",
            "ExponentialDecayLearningRate.decay_factor", "ExponentialDecayLearningRate.decay_steps",
            "ExponentialDecayLearningRate.initial_learning_rate", "ExportConfig.exports_to_keep",
            "ExportConfig.max_check_steps", "FeatureConfig.max_seq_len", "FeatureConfig.raw_input_dim",
            "FeatureConfig.sequence_length", "MLP.hidden_units",
            "ManualStepLearningRate.LearningRateSchedule.learning_rate",
            "ManualStepLearningRate.initial_learning_rate", "PolyDecayLearningRate.learning_rate_base",
            "PolyDecayLearningRate.power", "PolyDecayLearningRate.total_steps", "RecallAtTopK.topk",
            "RandomNormalInitializer.stddev", "SelfAttention.heads", "SelfAttention.hidden_units",
            "SelfAttention.layers", "TextCNN.filter_sizes", "TextCNN.num_filters",
            "TextCNN.pad_sequence_length",
            "TrainConfig.log_step_count_steps", "TrainConfig.save_checkpoints_secs",
            "TrainConfig.save_summary_steps", "TransformerLearningRate.hidden_size",
            "TransformerLearningRate.learning_rate_base", "TransformerLearningRate.step_scaling_rate",
            "TransformerLearningRate.warmup_steps", "TruncatedNormalInitializer.stddev",
        ],
        _POSITIVE,
    ),
    **dict.fromkeys(
        [
            "BayesTaskTower.in_task_space_weight", "BayesTaskTower.out_task_space_weight", "BayesTaskTower.weight",
            "CosineDecayLearningRate.warmup_learning_rate", "DatasetConfig.shuffle_buffer_size",
            "EasyRecModel.embedding_regularization", "ExponentialDecayLearningRate.burnin_learning_rate",
            "ExponentialDecayLearningRate.min_learning_rate", "Optimizer.embedding_learning_rate_multiplier",
            "PolyDecayLearningRate.end_learning_rate", "TrainConfig.gradient_clipping_by_norm",
            "TrainConfig.inter_op_parallelism_threads", "TrainConfig.intra_op_parallelism_threads",
            "AdagradOptimizer.initial_accumulator_value",
        ],
        _NOT_NEGATIVE,
    ),
    "DatasetConfig.max_bad_row_share": _SHARE,
    "MLP.dropout_ratio": _BELOW_ONE,
    "SelfAttention.dropout_ratio": _BELOW_ONE,
}  # fmt: skip
# The same in whatever message they stand.
_RANGES_BY_NAME: dict[str, _Range] = {
    "beta1": _BELOW_ONE,
    "beta2": _BELOW_ONE,
    "epsilon": _POSITIVE,
    "l2_regularization": _NOT_NEGATIVE,
}


def check_fields(config: pipeline_pb2.EasyRecConfig, root: Node) -> Iterator[Problem]:
    """Problems of single fields, all over a canonical config."""
    for path, message in schema.walk(config):
        yield from _check_required(config, message, path, root)
        for field, value in message.ListFields():
            where = schema.join(path, field.name)
            if schema.has_default(message, field):
                continue
            problem = _unsupported(field, where)
            if problem is not None:
                yield problem
                continue
            values = list(value) if field.is_repeated and not schema.is_map(field) else [value]
            for index, item in enumerate(values):
                item_path = f"{where}[{index}]" if field.is_repeated else where
                yield from _check_value(message, field, item, item_path)


def _check_required(config: Message, message: Message, path: str, root: Node) -> Iterator[Problem]:
    missing = [
        field
        for field in schema.fields_of(message)
        if schema.is_required(field)
        and schema.is_missing(message, field)
        and schema.support(field)[0] == schema.SUPPORTED
    ]
    if not missing:
        return
    node = _node(config, root, path)
    for field in missing:
        # A value that was written but could not be read has been reported already.
        written = node is not None and (field.name in node.misspelt or field.name in node.children)
        if field.has_presence and message.HasField(field.name):
            yield Problem(schema.join(path, field.name), "empty text", "a name")
        elif not written:
            yield Problem(
                schema.join(path, field.name), "nothing", schema.describe_type(field), "the field is required"
            )


def _node(config: Message, root: Node, path: str) -> Node | None:
    node: Node | None = root
    for name, index in route(config, path) if path else []:
        node = node.child(name, index) if node is not None else None
    return node


def _unsupported(field: FieldDescriptor, path: str) -> Problem | None:
    support, advice = schema.support(field)
    return _support_problem(support, advice, field.name, path)


def _support_problem(support: int, advice: str, name: str, path: str) -> Problem | None:
    if support == schema.PLANNED:
        return Problem(path, f"{name}, which is not implemented yet", "", advice or "leave it out")
    if support == schema.PLATFORM:
        advice = advice or "leave it out"
        return Problem(path, f"{name}, which belongs to a cloud platform", "", advice)
    if support == schema.NO_EFFECT:
        advice = advice or "it can be left out"
        return Problem(path, f"{name}, which has no effect here", "", advice, severity=WARNING)
    return None


def _check_value(message: Message, field: FieldDescriptor, value: object, path: str) -> Iterator[Problem]:
    if field.enum_type is not None and isinstance(value, int):
        chosen = field.enum_type.values_by_number[value]
        support, advice = schema.value_support(chosen)
        problem = _support_problem(support, advice, chosen.name, path)
        if problem is not None:
            yield problem
        return
    kind = message.DESCRIPTOR.full_name.removeprefix("easyrec_lite.")
    choices = _CHOICES.get(f"{kind}.{field.name}")
    if choices is not None and isinstance(value, str) and value not in choices:
        yield Problem(path, quote(value), one_of(choices), did_you_mean(value, choices))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            yield Problem(path, str(value), "a finite number")
            return
        allowed = _RANGES.get(f"{kind}.{field.name}") or _RANGES_BY_NAME.get(field.name)
        if allowed is not None and not allowed[0](value):
            yield Problem(path, _number(value), allowed[1])


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.7g}"


def check_mlp(message: Message, path: str) -> Iterator[Problem]:
    """Problems of the lists of an MLP."""
    units, dropout = message.hidden_units, message.dropout_ratio  # type: ignore[attr-defined]
    if not units:
        yield Problem(f"{path}.hidden_units", "nothing", "the units of each layer, as [256, 128]")
    elif len(dropout) not in (0, 1, len(units)):
        yield Problem(f"{path}.dropout_ratio", f"{len(dropout)} numbers", f"one, or {len(units)}: one for each layer")


def _check_scores(mlp: layer_pb2.MLP, path: str) -> Iterator[Problem]:
    """The networks that score the steps of a history end in one linear unit, whatever they say."""
    for field, linear in (("final_activation", "linear"), ("use_final_bn", False)):
        value = getattr(mlp, field)
        if mlp.HasField(field) and value != linear:  # type: ignore[arg-type]
            yield no_effect(f"{path}.{field}", f"{field} of a network that scores steps", "nothing: scores are linear")


def check_blocks(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """Problems between the fields of one block: layers, optimizers, learning rates."""
    for path, message in schema.walk(config):
        match message.DESCRIPTOR.name:
            case "MLP":
                yield from check_mlp(message, path)
            case "DINTower" | "SeqAttGroupConfig":
                name = "dnn" if message.DESCRIPTOR.name == "DINTower" else "seq_dnn"
                if message.HasField(name):
                    yield from _check_scores(getattr(message, name), f"{path}.{name}")
            case "TextCNN":
                sizes, filters = message.filter_sizes, message.num_filters  # type: ignore[attr-defined]
                if not sizes or len(sizes) != len(filters):
                    expected = "as many as num_filters, at least one"
                    yield Problem(f"{path}.filter_sizes", f"{len(sizes)} for {len(filters)} num_filters", expected)
                steps = message.pad_sequence_length  # type: ignore[attr-defined]
                for place, size in enumerate(sizes):
                    if size > steps:
                        expected = f"at most pad_sequence_length, {steps}"
                        yield Problem(f"{path}.filter_sizes[{place}]", str(size), expected)
            case "LearningRate":
                yield from _one_member(
                    message, path, "learning_rate", "constant_learning_rate { learning_rate: 0.001 }"
                )
            case "AdamOptimizer" | "LazyAdamOptimizer" | "AdagradOptimizer":
                if not message.HasField("learning_rate"):
                    expected = "learning_rate { constant_learning_rate { learning_rate: 0.001 } }"
                    yield Problem(f"{path}.learning_rate", "nothing", expected)
            case "Optimizer":
                yield from _one_member(message, path, "optimizer", "adam_optimizer { ... }")
            case "EvalMetrics":
                yield from _one_member(message, path, "metric", "a metric such as auc {}")
            case "Initializer":
                yield from _one_member(
                    message, path, "initializer_oneof", "truncated_normal_initializer { stddev: 0.01 }"
                )
            case "SequenceCombiner":
                yield from _one_member(message, path, "combiner", "attention {} or text_cnn { ... }")
            case "ManualStepLearningRate":
                steps = [item.step for item in message.schedule]  # type: ignore[attr-defined]
                if not steps or sorted(set(steps)) != steps:
                    yield Problem(f"{path}.schedule", f"the steps {steps}", "at least one step, in ascending order")
            case "CosineDecayLearningRate":
                if message.warmup_steps + message.hold_base_rate_steps >= message.total_steps:  # type: ignore[attr-defined]
                    expected = "more than warmup_steps + hold_base_rate_steps"
                    yield Problem(f"{path}.total_steps", str(message.total_steps), expected)  # type: ignore[attr-defined]
    train = config.train_config
    if len(train.optimizer_config) not in (1, 2):
        expected = "one, or two: the first for the embedding tables, the second for the rest"
        hint = (
            "optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.001 } } } }"
        )
        count = len(train.optimizer_config)
        yield Problem("train_config.optimizer_config", f"{count or 'no'} optimizers", expected, "" if count else hint)
    yield from _check_dead(train)
    if not train.num_steps and not config.data_config.num_epochs and not config.HasField("kafka_train_input"):
        found = "neither num_steps nor data_config.num_epochs"
        yield Problem("train_config.num_steps", found, "one of them: the training would never end", severity=WARNING)


def _check_dead(train: train_pb2.TrainConfig) -> Iterator[Problem]:
    """Fields of the training that only have an effect beside others."""
    for name in ("fine_tune_ckpt_var_map", "force_restore_shape_compatible"):
        if getattr(train, name) and not train.fine_tune_checkpoint:
            yield no_effect(f"train_config.{name}", f"{name} without fine_tune_checkpoint", "both")
    expected = "it in the first optimizer, that of the embedding tables"
    for place, optimizer in list(enumerate(train.optimizer_config))[1:]:
        path = f"train_config.optimizer_config[{place}]"
        multiplier = "embedding_learning_rate_multiplier"
        if optimizer.HasField(multiplier) and getattr(optimizer, multiplier) != 1:
            yield no_effect(f"{path}.{multiplier}", f"{multiplier} of the dense layers", expected)
        kind = optimizer.WhichOneof("optimizer") or ""
        if kind and getattr(getattr(optimizer, kind), "dense_decay", False):
            yield no_effect(f"{path}.{kind}.dense_decay", "dense_decay of the dense layers", expected)


def _one_member(message: Message, path: str, oneof: str, expected: str) -> Iterator[Problem]:
    if message.WhichOneof(oneof) is None:
        yield Problem(path, "an empty block", expected, severity=ERROR)
