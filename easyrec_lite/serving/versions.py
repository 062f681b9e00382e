"""The versions of a model in one folder, as TensorFlow Serving wants them: it serves the highest number it sees."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from easyrec_lite.errors import UserError

DESCRIPTION = "description.json"


def versions(export_dir: Path) -> list[Path]:
    """The version folders below `export_dir`, oldest first."""
    found = [path for path in export_dir.glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def next_version(export_dir: Path) -> int:
    """A version number higher than any below `export_dir`, folders taken back by renaming included."""
    numbers = (number for path in export_dir.glob("*") for number in re.findall(r"\d+", path.name))
    return max([int(time.time()), *(int(number) + 1 for number in numbers)])


def description(version: Path) -> dict[str, Any]:
    """What a version says of itself: step, evaluation, columns, features, and the facts it was exported with.

    Raises:
        UserError: it can't be read.
    """
    path = version / "assets" / DESCRIPTION
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def exported_step(version: Path) -> int:
    """The training step of an export.

    Raises:
        UserError: it can't be read.
    """
    try:
        return int(description(version)["step"])
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(version / "assets" / DESCRIPTION, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: found no description of an exported model ({type(error).__name__}: {error}). Put the file back, or"
        " move the folder of the version away."
    )


def keep_newest(export_dir: Path, count: int) -> None:
    """Removes all versions but the newest; 0 keeps all.

    They are renamed first: a server must never see half a version.
    """
    for old in versions(export_dir)[:-count] if count else []:
        trash = old.with_name(f".{old.name}.trash")
        old.rename(trash)
        shutil.rmtree(trash)


def remove_leftovers(export_dir: Path) -> None:
    """Removes what a killed run left half written or half removed."""
    for leftover in (*export_dir.glob(".*.tmp.*"), *export_dir.glob(".*.trash")):
        shutil.rmtree(leftover)
