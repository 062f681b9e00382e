"""File operations whose order can be watched, and files that appear whole or not at all.

What survives a loss of power is only what was fsynced: the bytes of a file by an fsync of the file, its name by an
fsync of the directory. Everything here follows write, fsync, rename, fsync of the parent, and goes through `Files`,
so that tests can record the order and kill the process at any one operation.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from easyrec_lite.checkpoints._json import plain

PathLike = str | os.PathLike[str]

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp\..+")


class Files:
    """The file operations that change something on disk.

    Args:
        on_call: called with (operation, path) just before each operation, with the method's name as the operation.
    """

    def __init__(self, on_call: Callable[[str, Path], None] | None = None) -> None:
        self._on_call = on_call

    def _call(self, operation: str, path: PathLike) -> Path:
        path = Path(path)
        if self._on_call is not None:
            self._on_call(operation, path)
        return path

    def make_dir(self, path: PathLike) -> None:
        """Make one directory; its parent exists."""
        os.mkdir(self._call("make_dir", path))

    def create(self, path: PathLike) -> BinaryIO:
        """Open a new file for writing, unbuffered; the caller closes it."""
        # Unbuffered: a full disk then fails in `write`, where it is reported, not in some later flush.
        return open(self._call("create", path), "xb", buffering=0)  # type: ignore[return-value]

    def append(self, path: PathLike) -> BinaryIO:
        """Open a file, made if need be, for writing at its end, unbuffered; the caller closes it."""
        return open(self._call("append", path), "ab+", buffering=0)  # type: ignore[return-value]

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` to a file from `create` or `append`."""
        self._call("write", file.name)
        view = memoryview(data)
        while view:  # the system writes at most 2 GiB a call
            view = view[file.write(view) :]

    def sync(self, file: BinaryIO) -> None:
        """Return when the bytes of the file are on the disk."""
        self._call("sync", file.name)
        os.fsync(file.fileno())

    def sync_dir(self, path: PathLike) -> None:
        """Return when the names in the directory are on the disk."""
        descriptor = os.open(self._call("sync_dir", path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:  # some network file systems know no fsync of directories
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)

    def rename(self, source: PathLike, target: PathLike) -> None:
        """Rename within one directory; a file of the new name is replaced."""
        os.replace(self._call("rename", source), target)

    def remove(self, path: PathLike) -> None:
        """Remove a file."""
        os.unlink(self._call("remove", path))

    def remove_dir(self, path: PathLike) -> None:
        """Remove an empty directory."""
        os.rmdir(self._call("remove_dir", path))

    def make_dirs(self, path: PathLike) -> None:
        """Make a directory and its missing parents, each fsynced into its parent."""
        path = Path(path).absolute()
        if not path.is_dir():
            self.make_dirs(path.parent)
            with contextlib.suppress(FileExistsError):
                self.make_dir(path)
            self.sync_dir(path.parent)

    def remove_tree(self, path: PathLike) -> None:
        """Remove a directory and all that is in it."""
        for entry in sorted(Path(path).iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                self.remove_tree(entry)
            else:
                self.remove(entry)
        self.remove_dir(path)


@contextlib.contextmanager
def atomic_path(path: PathLike, files: Files | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it gets its name when the block ends well, and goes if not.

    For files that others write (a Parquet writer, say) and of any size. Missing parent directories are made.
    """
    files = files or Files()
    path = Path(path)
    files.make_dirs(path.parent)
    # The name ends as the final one does: some writers choose format and compression by it.
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            files.sync(file)
        files.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    files.sync_dir(path.parent)


@contextlib.contextmanager
def atomic_directory(path: PathLike, files: Files | None = None) -> Iterator[Path]:
    """Give a temporary directory beside `path`; it gets its name, with all that is in it, when the block ends well.

    For directories that others write (a SavedModel, say). `path` must not exist.
    """
    files = files or Files()
    path = Path(path)
    files.make_dirs(path.parent)
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        files.make_dir(temporary)
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            if entry.is_dir():
                files.sync_dir(entry)
            else:
                with open(entry, "rb+") as file:
                    files.sync(file)
        files.sync_dir(temporary)
        files.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.sync_dir(path.parent)


def atomic_write_bytes(path: PathLike, data: bytes, files: Files | None = None) -> None:
    """Write a file that others see either as it was before or with all of `data`."""
    files = files or Files()
    with atomic_path(path, files) as temporary, files.create(temporary) as file:
        files.write(file, data)


def atomic_write_text(path: PathLike, text: str, files: Files | None = None) -> None:
    """`atomic_write_bytes` of `text` as UTF-8."""
    atomic_write_bytes(path, text.encode(), files)


def atomic_write_json(path: PathLike, value: object, files: Files | None = None) -> None:
    """`atomic_write_bytes` of `value` as indented standard JSON; NaN and Infinity become null."""
    text = json.dumps(plain(value, finite=True), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_bytes(path, (text + "\n").encode(), files)


def temporary_files(directory: PathLike) -> list[Path]:
    """Return the temporary files that killed atomic writes left in `directory`."""
    paths = sorted(Path(directory).glob(".*.tmp.*"))
    return [path for path in paths if _TEMPORARY.fullmatch(path.name) and path.is_file()]
