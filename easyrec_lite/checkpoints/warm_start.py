"""Start a model from the tensors of another one's checkpoint, by names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from easyrec_lite.checkpoints.errors import CheckpointError
from easyrec_lite.checkpoints.files import PathLike
from easyrec_lite.checkpoints.format import Record, Tensor, ranges
from easyrec_lite.checkpoints.reader import CHUNK_BYTES, Checkpoint


@dataclass
class WarmStart:
    """What a warm start did; `str()` of it is for people.

    Attributes:
        restored: tensors of the model that have the checkpoint's values.
        resized: (name, shape in the checkpoint, shape in the model) of those that were cropped or padded.
        mismatched: the same of those that were left alone because their shapes differ.
        missing: tensors of the model that the checkpoint does not hold; they keep their initial values.
        unused: tensors of the checkpoint that the model does not have.
    """

    restored: list[str] = field(default_factory=list)
    resized: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.restored)} tensors restored"]
        lines += [f"cropped or padded: {name}: {list(old)} to {list(new)}" for name, old, new in self.resized]
        lines += [f"shapes differ: {name}: {list(old)} there, {list(new)} here" for name, old, new in self.mismatched]
        lines += [f"not in the checkpoint: {name}" for name in self.missing]
        lines += [f"not in the model: {name}" for name in self.unused]
        return "\n".join(lines)


def warm_start(
    checkpoint: Checkpoint,
    tensors: Sequence[Tensor],
    name_map: Mapping[str, str] | None = None,
    *,
    crop_or_pad: bool = False,
) -> WarmStart:
    """Give `tensors` the values that `checkpoint` has for their names.

    Args:
        checkpoint: where to read from.
        tensors: the model's; those without a counterpart of the same shape keep their values.
        name_map: name in the model to name in the checkpoint, where they differ (`fine_tune_ckpt_var_map`).
        crop_or_pad: also take tensors of other shapes but equal rank: what is too long is cut off, what is too short
            is filled with zeros (`force_restore_shape_compatible`).

    Raises:
        CheckpointError: `name_map` names what does not exist (all at once), or nothing fits.
    """
    name_map = name_map or {}
    _check_names(checkpoint, tensors, name_map)
    there = set(checkpoint.names())
    report = WarmStart()
    for tensor in tensors:
        name = name_map.get(tensor.name, tensor.name)
        if name not in there:
            report.missing.append(tensor.name)
            continue
        record, shape = checkpoint.record(name), tuple(tensor.shape)
        is_compatible = len(record.shape) == len(shape) and np.can_cast(record.dtype, tensor.dtype, "same_kind")
        if not is_compatible or (record.shape != shape and not crop_or_pad):
            report.mismatched.append((tensor.name, record.shape, shape))
            continue
        _copy(checkpoint, record, tensor)
        report.restored.append(tensor.name)
        if record.shape != shape:
            report.resized.append((tensor.name, record.shape, shape))
    used = {name_map.get(name, name) for name in report.restored}
    report.unused = [name for name in checkpoint.names() if name not in used]
    if not report.restored:
        raise CheckpointError(
            f"nothing of {checkpoint.path} fits this model: it holds {_some(checkpoint.names())}, and the model has"
            f" {_some([tensor.name for tensor in tensors])}. Map the names by train_config.fine_tune_ckpt_var_map,"
            " or allow other shapes by train_config.force_restore_shape_compatible."
        )
    return report


def read_name_map(path: PathLike) -> dict[str, str]:
    """Read a file of lines `name_in_model name_in_checkpoint`, separated by white space; # starts a comment.

    Raises:
        CheckpointError: the file cannot be read, or a line has not two names (file and line are named).
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"fine_tune_ckpt_var_map: {path} cannot be read: {error}") from error
    wrong = [f"{path}:{n}: found {len(names)} names" for n, names in enumerate(lines, 1) if len(names) not in (0, 2)]
    if wrong:
        raise CheckpointError("\n".join(wrong) + "\nExpected two a line: name_in_model name_in_checkpoint.")
    return dict(names for names in lines if names)


def _copy(checkpoint: Checkpoint, record: Record, tensor: Tensor) -> None:
    shape = tuple(tensor.shape)
    if record.shape == shape:
        for start, values in checkpoint.chunks(record.name):
            tensor.write(start, values.astype(tensor.dtype, copy=False))
        return
    common = tuple(slice(0, min(old, new)) for old, new in zip(record.shape[1:], shape[1:], strict=True))
    for start, values in checkpoint.chunks(record.name):  # to the end even when cropping, for the checksum
        rows = min(len(values), shape[0] - start)
        if rows > 0:
            padded = np.zeros((rows, *shape[1:]), tensor.dtype)
            padded[(slice(None), *common)] = values[(slice(0, rows), *common)]
            tensor.write(start, padded)
    row_bytes = int(np.prod(shape[1:])) * np.dtype(tensor.dtype).itemsize
    for start, stop in ranges(shape[0] - record.shape[0], row_bytes, CHUNK_BYTES):
        tensor.write(record.shape[0] + start, np.zeros((stop - start, *shape[1:]), tensor.dtype))


def _check_names(checkpoint: Checkpoint, tensors: Sequence[Tensor], name_map: Mapping[str, str]) -> None:
    here, there = [tensor.name for tensor in tensors], checkpoint.names()
    problems = [_unknown(name, here, "the model") for name in name_map if name not in here]
    problems += [_unknown(name, there, "the checkpoint") for name in name_map.values() if name not in there]
    if problems:
        raise CheckpointError("fine_tune_ckpt_var_map names what does not exist:\n  " + "\n  ".join(problems))


def _unknown(name: str, names: list[str], place: str) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"{name} is not in {place}" + (f"; did you mean {close[0]}?" if close else "")


def _some(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
