"""Find, check and restore checkpoints."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from easyrec_lite.checkpoints import format as layout
from easyrec_lite.checkpoints._json import canonical
from easyrec_lite.checkpoints.errors import CheckpointError
from easyrec_lite.checkpoints.files import PathLike
from easyrec_lite.checkpoints.format import Record, Tensor

CHUNK_BYTES = 8 << 20


class Checkpoint:
    """A checkpoint on disk. Making one reads the manifest only, which also is all that a listing needs.

    Args:
        path: the directory of one checkpoint. `find` also takes a model directory.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or of a format that this version does not know.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = _read_manifest(self.path)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r})"

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.manifest["step"])

    @property
    def state(self) -> dict[str, Any]:
        """The JSON-able state that was saved."""
        return dict(self.manifest["state"])

    @property
    def metrics(self) -> dict[str, float]:
        """The evaluation at this step, empty if there was none."""
        return dict(self.manifest["metrics"])

    @property
    def config(self) -> str:
        """Text of the completed config."""
        return str(self.manifest["config"]["text"])

    @property
    def config_digest(self) -> str:
        """Digest of `config`, as `config_digest` computes it."""
        return str(self.manifest["config"]["sha256"])

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, processor and thread counts of the writer; compare with `environment_changes`."""
        return dict(self.manifest["environment"])

    @property
    def size(self) -> int:
        """Bytes of all tensors on disk."""
        return sum(record.size for record in (*self._tensors.values(), *self._arrays.values()))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest that two checkpoints share if, and but for chance only if, all their tensors are equal."""
        told = [[record.name, str(record.dtype), list(record.shape), record.crc32] for record in self._tensors.values()]
        return hashlib.sha256(canonical(told)).hexdigest()

    def names(self) -> list[str]:
        """Return the names of the tensors, in the order saved."""
        return list(self._tensors)

    def record(self, name: str) -> Record:
        """Return shape, dtype and place of a tensor; CheckpointError if there is none of that name."""
        if name not in self._tensors:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}.{_did_you_mean(name, self._tensors)}")
        return self._tensors[name]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows `start` to `stop` of a tensor; all of it, with its checksum checked, by default.

        Returns:
            [stop - start, ...], or [] for a scalar.
        """
        record = self.record(name)
        stop = record.rows if stop is None else min(stop, record.rows)
        start = min(start, stop)
        if (start, stop) == (0, record.rows):
            return self._read_all(record)
        with self._open(record) as file:
            file.seek(record.data_offset + start * record.row_bytes)
            data = self._take(file, (stop - start) * record.row_bytes, record)
        return layout.from_bytes(data, record.dtype, (stop - start, *record.shape[1:]))

    def chunks(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (start, rows from there on) through a tensor; the checksum is checked at the end.

        Raises:
            CheckpointError: after the last chunk, if the checksum does not match.
        """
        yield from self._chunks(self.record(name), chunk_bytes)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the small arrays of the state."""
        return {name: self._read_all(record) for name, record in self._arrays.items()}

    def restore(self, tensors: Sequence[Tensor], *, strict: bool = True) -> None:
        """Write the values into `tensors`, all of which must be here with the same shape and dtype.

        Args:
            tensors: where to write to.
            strict: the checkpoint must hold nothing else. Without it, evaluation and export leave the optimizers out.

        Raises:
            CheckpointError: names, shapes or dtypes differ (all differences at once, before anything is written), or
                a checksum does not match (after some of `tensors` are written).
        """
        problems = self._mismatches(tensors, strict)
        if problems:
            raise CheckpointError(
                f"{self.path} (step {self.step}) does not fit this model:\n  "
                + "\n  ".join(problems)
                + "\nContinue with the config of the checkpoint (it is in its manifest.json), use another model_dir, or"
                " take what fits by train_config.fine_tune_checkpoint."
            )
        for tensor in tensors:
            for start, values in self._chunks(self._tensors[tensor.name]):
                tensor.write(start, values)

    def verify(self) -> None:
        """Read everything and compare checksums.

        Raises:
            CheckpointError: names every damaged file and tensor.
        """
        problems = []
        for record in (*self._tensors.values(), *self._arrays.values()):
            try:
                for _ in self._chunks(record):
                    pass
            except CheckpointError as error:
                problems.append(str(error))
        if problems:
            raise CheckpointError("\n".join(problems))

    @functools.cached_property
    def _tensors(self) -> dict[str, Record]:
        return self._records("tensors")

    @functools.cached_property
    def _arrays(self) -> dict[str, Record]:
        return self._records("arrays")

    def _records(self, kind: str) -> dict[str, Record]:
        try:
            return {values["name"]: Record.from_json(values) for values in self.manifest[kind]}
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path / layout.MANIFEST}: {kind}: {error}. {_DAMAGED}") from error

    def _mismatches(self, tensors: Sequence[Tensor], strict: bool) -> list[str]:
        problems = []
        wanted = {tensor.name for tensor in tensors}
        unexpected = [name for name in self._tensors if name not in wanted]
        for tensor in tensors:
            found = self._tensors.get(tensor.name)
            if found is None:
                hint = _did_you_mean(tensor.name, unexpected)
                problems.append(f"missing: {tensor.name} {_kind(tensor)} is not in the checkpoint.{hint}")
            elif (found.shape, found.dtype) != (tuple(tensor.shape), tensor.dtype):
                problems.append(f"different: {tensor.name} is {_kind(found)} there and {_kind(tensor)} in the model.")
        if strict:
            problems += [f"unexpected: {name} {_kind(self._tensors[name])} is not in the model." for name in unexpected]
        return problems

    def _read_all(self, record: Record) -> np.ndarray:
        parts = [values for _, values in self._chunks(record)]
        if not parts:
            return np.empty(record.shape, record.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _chunks(self, record: Record, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, np.ndarray]]:
        with self._open(record) as file:
            file.seek(record.offset)
            crc32 = zlib.crc32(self._take(file, record.data_offset - record.offset, record))
            for start, stop in layout.ranges(record.rows, record.row_bytes, chunk_bytes):
                data = self._take(file, (stop - start) * record.row_bytes, record)
                crc32 = zlib.crc32(data, crc32)
                shape = (stop - start, *record.shape[1:]) if record.shape else ()
                yield start, layout.from_bytes(data, record.dtype, shape)
        if crc32 != record.crc32:
            raise CheckpointError(
                f"{self.path / record.file}: tensor {record.name}: checksum {crc32:08x}, expected {record.crc32:08x}."
                f" {_DAMAGED}"
            )

    def _open(self, record: Record) -> BinaryIO:
        try:
            return open(self.path / record.file, "rb")
        except OSError as error:
            raise CheckpointError(f"{self.path / record.file}: {error.strerror}. {_DAMAGED}") from error

    def _take(self, file: BinaryIO, size: int, record: Record) -> bytearray:
        data = bytearray(size)
        if file.readinto(data) != size:  # type: ignore[attr-defined]
            raise CheckpointError(
                f"{self.path / record.file}: ends inside of tensor {record.name}, which needs"
                f" {record.offset + record.size:,} bytes. {_DAMAGED}"
            )
        return data


def checkpoints_dir(model_dir: PathLike) -> Path:
    """Return where the checkpoints of a model directory lie."""
    return Path(model_dir) / "checkpoints"


def checkpoint_paths(model_dir: PathLike) -> dict[int, Path]:
    """Return the checkpoints of a model directory by step, oldest first, without opening them."""
    directory = checkpoints_dir(model_dir)
    if not directory.is_dir():
        return {}
    steps = {layout.step_of(path.name): path for path in directory.iterdir()}
    return {step: steps[step] for step in sorted(step for step in steps if step is not None)}


def list_checkpoints(model_dir: PathLike) -> list[Checkpoint]:
    """Return the checkpoints of a model directory, oldest first; CheckpointError if one is damaged."""
    return [Checkpoint(path) for path in checkpoint_paths(model_dir).values()]


def latest(model_dir: PathLike) -> Checkpoint | None:
    """Return the newest checkpoint of a model directory, None if there is none yet.

    Raises:
        CheckpointError: the newest one is damaged. Falling back in silence would lose training unnoticed.
    """
    paths = list(checkpoint_paths(model_dir).values())
    return Checkpoint(paths[-1]) if paths else None


def find(path: PathLike) -> Checkpoint:
    """Return the checkpoint at `path`: a checkpoint, or the newest of a model directory or its `checkpoints`.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if not (path / layout.MANIFEST).exists():
        found = latest(path) or (latest(path.parent) if path.name == "checkpoints" else None)
        if found is not None:
            return found
    return Checkpoint(path)


_DAMAGED = "The checkpoint is damaged: take another one, or a copy of this one, and remove its directory."


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / layout.MANIFEST
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        found = "it has no manifest.json" if path.exists() else "there is nothing of that name"
        raise CheckpointError(
            f"{path} is not a checkpoint of easyrec_lite: {found}. Expected a model_dir, or a directory such as"
            f" <model_dir>/checkpoints/{layout.directory_name(1000)}."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON ({error}). {_DAMAGED}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != layout.FORMAT:
        raise CheckpointError(f"{file} is not the manifest of a checkpoint of easyrec_lite.")
    version = manifest.get("format_version")
    if isinstance(version, int) and version > layout.FORMAT_VERSION:  # what else it may be, the checksum tells
        raise CheckpointError(
            f"{path} has format {version} and this version of easyrec_lite reads up to"
            f" {layout.FORMAT_VERSION}: install easyrec_lite {_writer(manifest)} or newer."
        )
    expected = manifest.pop("checksum", None)
    if zlib.crc32(canonical(manifest)) != expected:
        raise CheckpointError(f"{file}: checksum does not match. {_DAMAGED}")
    return manifest


def _writer(manifest: Mapping[str, Any]) -> str:
    environment = manifest.get("environment")
    return str(environment.get("easyrec_lite", "")) if isinstance(environment, dict) else ""


def _kind(tensor: Tensor | Record) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"


def _did_you_mean(name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
