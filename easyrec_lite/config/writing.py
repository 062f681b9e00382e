"""Writing a config, and telling which of its fields may change between a run and its continuation."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator

from google.protobuf import text_format
from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.problems import quote
from easyrec_lite.config.secrets import redact
from easyrec_lite.protos import pipeline_pb2

# Fields that neither the weights nor the position of a run depend on, as regular expressions over their paths.
_FREE = re.compile(
    r"""
    model_dir | eval_input_path | kafka_eval_input | eval_config | stream_config | export_config
    | model_config\.model_name
    | kafka_train_input\.(server | group | offset_info | offset_time | start | start_after_base
        | end_offset_info | end_offset_time | end_at_start | config_global | config_topic | client | max_wait_ms
        | skip_lost | dead_letter_topic)
    | train_config\.(num_steps | save_checkpoints_\w+ | keep_checkpoint_max
        | save_summary_steps | log_step_count_steps | steps_per_call | fine_tune_checkpoint
        | inter_op_parallelism_threads | intra_op_parallelism_threads)
    | data_config\.(num_epochs | prefetch_size | max_bad_row_share | ignore_error)
    | data_config\.input_fields\[.*\]\.(private | side)
    | model_config\..*\.metrics_set
    """,
    re.VERBOSE,
)
_POSITION = re.compile(
    r"train_input_path|kafka_train_input|train_config\.seed|data_config\.(batch_size|shuffle\w*|drop_remainder|input_type|separator|with_header)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class ChangedField:
    """A field that differs between two configs.

    Attributes:
        path: of the field.
        old: its value in the first, as text.
        new: its value in the second.
        allowed: whether a run may go on with the change.
        message: why not.
        of_weights: whether weights that were trained with the old value mean something else under the new one.
    """

    path: str
    old: str
    new: str
    allowed: bool
    message: str = ""
    of_weights: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.old} became {self.new}" + (f"; {self.message}" if self.message else "")


def to_text(message: pipeline_pb2.EasyRecConfig) -> str:
    """The config in protobuf text format, as it is kept in model_dir; secrets only as references.

    A canonical config reads back to an equal one.
    """
    return text_format.MessageToString(redact(message), as_utf8=True)


def digest(message: pipeline_pb2.EasyRecConfig) -> str:
    """The sha256 of everything that must stay the same between a run and its continuation, in hexadecimal.

    Two canonical configs have the same digest if and only if changed_fields finds only changes that are allowed.
    """
    copy = pipeline_pb2.EasyRecConfig()
    copy.CopyFrom(message)
    _clear_free(copy, "")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def changed_fields(old: pipeline_pb2.EasyRecConfig, new: pipeline_pb2.EasyRecConfig) -> list[ChangedField]:
    """The fields in which two canonical configs differ, and whether a run may go on with the change."""
    changes = []
    for path, before, after in _differences(old, new, ""):
        allowed = _is_free(path)
        of_weights = not allowed and not _POSITION.match(path) and not path.startswith("train_config.")
        changes.append(ChangedField(path, before, after, allowed, "" if allowed else _reason(path), of_weights))
    return changes


def _reason(path: str) -> str:
    if _POSITION.match(path):
        why = "the stored position counts rows in the old order"
    else:
        why = "the stored weights were trained with the old value"
    return f"{why}: start in a new model_dir, from the old weights with train_config.fine_tune_checkpoint"


def _is_free(path: str) -> bool:
    """Whether the field, or one around it, may change."""
    match = _FREE.match(path)
    return match is not None and (match.end() == len(path) or path[match.end()] in ".[")


def _clear_free(message: Message, path: str) -> None:
    """Clears what may change, what has no effect, and what only repeats a default."""
    for field, _ in message.ListFields():
        free = _is_free(schema.join(path, field.name)) or schema.support(field)[0] == schema.NO_EFFECT
        if free or schema.has_default(message, field):
            message.ClearField(field.name)
    for child_path, _, child in list(schema.children(message, path)):
        _clear_free(child, child_path)


def _differences(old: Message, new: Message, path: str) -> Iterator[tuple[str, str, str]]:
    for field in schema.fields_of(old):
        if schema.support(field)[0] == schema.NO_EFFECT:
            continue
        where = schema.join(path, field.name)
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.is_repeated:
            if list(before) == list(after) if not schema.is_map(field) else dict(before) == dict(after):
                continue
            if field.message_type is None or schema.is_map(field):
                yield where, quote(before), quote(after)
                continue
            paths = schema.item_paths(where, before)
            if paths != schema.item_paths(where, after):
                yield where, _names(paths), _names(schema.item_paths(where, after))
                continue
            for item_path, mine, other in zip(paths, before, after, strict=True):
                yield from _differences(mine, other, item_path)
        elif field.message_type is not None:
            if old.HasField(field.name) != new.HasField(field.name):
                shown = {True: f"{field.name} {{ ... }}", False: "nothing"}
                yield where, shown[old.HasField(field.name)], shown[new.HasField(field.name)]
            elif schema.is_struct(field):
                if before != after:
                    yield where, quote(before), quote(after)
            elif old.HasField(field.name):
                yield from _differences(before, after, where)
        elif before != after:
            yield where, _shown(field, before), _shown(field, after)


def _shown(field: object, value: object) -> str:
    enum = getattr(field, "enum_type", None)
    return (
        enum.values_by_number[value].name
        if enum is not None
        else quote(value)
        if isinstance(value, str)
        else str(value)
    )


def _names(paths: list[str]) -> str:
    return quote(", ".join(path[path.rfind("[") + 1 : -1] for path in paths) or "nothing")
