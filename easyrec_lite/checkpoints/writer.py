"""Write, thin out and clean up the checkpoints of a model directory."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import secrets
import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from easyrec_lite.checkpoints import format as layout
from easyrec_lite.checkpoints._json import canonical, plain
from easyrec_lite.checkpoints.environment import environment as this_environment
from easyrec_lite.checkpoints.errors import CheckpointError
from easyrec_lite.checkpoints.files import Files, PathLike, temporary_files
from easyrec_lite.checkpoints.format import NumpyTensor, Record, Tensor
from easyrec_lite.checkpoints.reader import Checkpoint, checkpoint_paths, checkpoints_dir

CHUNK_BYTES = 8 << 20
_PACKED_BYTES = 1 << 20  # a tensor below this is packed with its like: hundreds of small files would be slow to sync


def save(
    model_dir: PathLike,
    step: int,
    tensors: Sequence[Tensor],
    *,
    state: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    metrics: Mapping[str, float] | None = None,
    config: str = "",
    environment: Mapping[str, Any] | None = None,
    files: Files | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Checkpoint:
    """Write the checkpoint of `step`; it appears under its name only when all of it is on the disk.

    Runs in any thread. The caller sees to it that `tensors` and `arrays` don't change meanwhile.

    Args:
        model_dir: the checkpoint goes to `<model_dir>/checkpoints/step-<12 digits>`.
        step: training steps done so far.
        tensors: all variables of model and optimizers; read `chunk_bytes` at a time.
        state: JSON-able values that resuming needs: position, early stopping, seeds. NaN and Infinity survive;
            tuples come back as lists.
        arrays: small arrays that resuming needs: metric accumulators, statistics.
        metrics: the evaluation at this step, for the listing.
        config: text of the completed config, secrets already replaced by references.
        environment: from `environment(threads)`; by default without thread counts.
        files: the file operations, for tests.
        chunk_bytes: memory to use for reading big tensors.

    Raises:
        CheckpointError: the step has a checkpoint already, or the file system refuses (full, permissions, ...). What
            was written so far is removed.
    """
    files = files or Files()
    target = checkpoints_dir(model_dir) / layout.directory_name(step)
    if target.exists():
        raise CheckpointError(
            f"{target} exists: a checkpoint is never written over. Continue from it, or remove it and the later ones."
        )
    manifest = {
        "format": layout.FORMAT,
        "format_version": layout.FORMAT_VERSION,
        "step": step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "metrics": plain(metrics or {}),
        "state": plain(state or {}),
        "config": {"sha256": config_digest(config), "text": config},
        "environment": plain(environment or this_environment()),
    }
    state_arrays = [NumpyTensor(name, np.asarray(array)) for name, array in (arrays or {}).items()]
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}.tmp")
    needed = sum(_size(tensor) for tensor in [*tensors, *state_arrays])
    with _errors_explained(target, needed):
        files.make_dirs(target.parent)
        try:
            files.make_dir(temporary)
            _write(temporary, manifest, tensors, state_arrays, files, chunk_bytes)
            files.sync_dir(temporary)
            files.rename(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        files.sync_dir(target.parent)
    return Checkpoint(target)


def prune(model_dir: PathLike, keep: int, protect: Collection[int] = (), files: Files | None = None) -> list[int]:
    """Remove all checkpoints but the newest `keep` and the `protect`ed steps; return the steps removed.

    `keep` = 0 keeps all, as in EasyRec's `keep_checkpoint_max`.
    """
    paths = checkpoint_paths(model_dir)
    newest = set(list(paths)[-keep:])  # [-0:] is all of them
    return _remove(paths, [step for step in paths if step not in newest and step not in protect], files)


def discard_after(model_dir: PathLike, step: int, files: Files | None = None) -> list[int]:
    """Remove the checkpoints later than `step`, newest first; return their steps.

    For going back: afterwards `latest` is the checkpoint gone back to, and its future can be written anew.
    """
    paths = checkpoint_paths(model_dir)
    return _remove(paths, [later for later in reversed(paths) if later > step], files)


def clean_up(model_dir: PathLike, files: Files | None = None) -> list[Path]:
    """Remove what killed writers left: half-written and half-removed checkpoints, temporary files of `model_dir`.

    Call it once at the start of a training run, which is the only writer of its model directory.

    Returns:
        The paths removed.
    """
    files = files or Files()
    directory = checkpoints_dir(model_dir)
    leftovers = [path for pattern in (".step-*.tmp", ".step-*.trash") for path in sorted(directory.glob(pattern))]
    temporary = temporary_files(model_dir)
    with _errors_explained(directory):
        for path in leftovers:
            files.remove_tree(path)
        for path in temporary:
            files.remove(path)
    return leftovers + temporary


def config_digest(text: str) -> str:
    """Return the digest by which a checkpoint knows its config: SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _remove(paths: Mapping[int, Path], steps: list[int], files: Files | None) -> list[int]:
    files = files or Files()
    for step in steps:
        path = paths[step]
        trash = path.with_name(f".{path.name}-{secrets.token_hex(4)}.trash")
        with _errors_explained(path):
            files.rename(path, trash)
            # Else a loss of power could undo the rename, but not the removals.
            files.sync_dir(path.parent)
            files.remove_tree(trash)
    return steps


def _write(
    directory: Path,
    manifest: dict[str, Any],
    tensors: Sequence[Tensor],
    arrays: Sequence[NumpyTensor],
    files: Files,
    chunk_bytes: int,
) -> None:
    records: dict[str, list[Record]] = {"tensors": [], "arrays": []}
    with files.create(directory / layout.PACKED) as packed:
        offset = 0
        for kind, index, tensor in _named({"tensors": tensors, "arrays": arrays}):
            if _size(tensor) < _PACKED_BYTES:
                record = _write_record(files, packed, layout.PACKED, offset, tensor, chunk_bytes)
                offset += record.size
            else:
                name = layout.file_name(index, tensor.name)
                with files.create(directory / name) as file:
                    record = _write_record(files, file, name, 0, tensor, chunk_bytes)
                    files.sync(file)
            records[kind].append(record)
        files.sync(packed)
    manifest |= {kind: [record.to_json() for record in found] for kind, found in records.items()}
    manifest["checksum"] = zlib.crc32(canonical(manifest))
    with files.create(directory / layout.MANIFEST) as file:
        files.write(file, json.dumps(manifest, indent=1).encode())
        files.sync(file)


def _named(kinds: Mapping[str, Sequence[Tensor]]) -> Iterator[tuple[str, int, Tensor]]:
    index = 0
    for kind, tensors in kinds.items():
        names: set[str] = set()
        for tensor in tensors:
            if tensor.name in names:
                raise ValueError(f"two {kind} of a checkpoint are named {tensor.name!r}")
            names.add(tensor.name)
            layout.dtype_name(np.dtype(tensor.dtype))  # refuses what cannot be stored
            yield kind, index, tensor
            index += 1


def _write_record(files: Files, file: BinaryIO, name: str, offset: int, tensor: Tensor, chunk_bytes: int) -> Record:
    shape, dtype = tuple(tensor.shape), np.dtype(tensor.dtype)
    header = layout.npy_header(dtype, shape)
    record = Record(tensor.name, dtype, shape, name, offset, len(header) + _size(tensor), 0)
    files.write(file, header)
    crc32 = zlib.crc32(header)
    for start, stop in layout.ranges(record.rows, record.row_bytes, chunk_bytes):
        chunk = np.asarray(tensor.read(start, stop))
        expected = [(stop - start, *shape[1:])] if shape else [(), (1,)]
        if chunk.dtype != dtype or chunk.shape not in expected:
            raise ValueError(
                f"{tensor.name}.read({start}, {stop}): expected {dtype} {expected[0]},"
                f" received {chunk.dtype} {chunk.shape}"
            )
        data = layout.to_bytes(chunk, dtype)
        files.write(file, data)
        crc32 = zlib.crc32(data, crc32)
    return Record(tensor.name, dtype, shape, name, offset, record.size, crc32)


def _size(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize


@contextlib.contextmanager
def _errors_explained(path: Path, needed: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(path)).free
            hint = (
                f"the checkpoint needs {needed:,} bytes and {free:,} are free. "
                "Free some space, or keep fewer checkpoints (train_config.keep_checkpoint_max)."
            )
        elif isinstance(error, PermissionError):
            hint = "Give this user the right to write there, or choose another model_dir."
        else:
            hint = "Check the path and the file system."
        raise CheckpointError(f"{path}: {error.strerror or error} ({error.filename or path}): {hint}") from error


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
