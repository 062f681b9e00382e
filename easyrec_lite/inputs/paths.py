"""From what a config calls a path to the files it means."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence

from easyrec_lite.inputs.errors import InputError, MissingFilesError
from easyrec_lite.inputs.position import Identity

_LOG = logging.getLogger(__name__)
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def expand(paths: Paths) -> list[str]:
    """Lists the files that paths, patterns and comma lists of them mean: as given, the files of a pattern sorted.

    Of a pattern's files, those whose name starts with `.` or `_` are left out (Spark's `_SUCCESS`), and so are empty
    ones beside others.

    Raises:
        InputError: A file that isn't there, a pattern without files, a folder, or nothing but empty files.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    parts = [part.strip() for path in given for part in os.fspath(path).split(",")]
    files: list[str] = []
    for part in filter(None, parts):
        files += _files(part)
    if not files:
        raise InputError("the input path", "nothing", "a file, a pattern such as data/*.csv, or a comma list of these")
    filled = [file for file in files if os.path.getsize(file)]
    if not filled:
        raise InputError(files[0], "an empty file", "rows to read")
    for file in sorted(set(files) - set(filled)):
        _LOG.warning("%s is empty and left out", file)
    return filled


def identify(files: Sequence[str]) -> Identity:
    """The identity of files: their names below their common folder, so that the folder may move, and their sizes."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    names = [os.path.relpath(os.path.abspath(file), folder) for file in files]
    return Identity.of(names, [os.path.getsize(file) for file in files])


def _files(path: str) -> list[str]:
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        hint = f"name the files: {os.path.join(path, '*')}"
        raise InputError(path, "a folder", "a file, or a pattern that matches files", hint)
    if not glob.has_magic(path):
        raise MissingFilesError(path, "no such file", "a file that can be read", _neighbours(path))
    names = sorted(glob.glob(path, recursive=True))
    files = [name for name in names if os.path.isfile(name) and os.path.basename(name)[0] not in "._"]
    if not files:
        raise MissingFilesError(path, "a pattern that matches no file", "at least one file", _neighbours(path))
    return files


def _neighbours(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if glob.has_magic(folder):
        return ""
    if not os.path.isdir(folder):
        return f"the folder {folder} isn't there either"
    names = sorted(os.listdir(folder))[:5]
    return f"{folder} holds " + (", ".join(names) + (", ..." if len(names) == 5 else "") if names else "nothing")
