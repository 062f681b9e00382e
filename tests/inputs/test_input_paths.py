from __future__ import annotations

from pathlib import Path

import pytest
from input_rows import data_config, to_lists

from easyrec_lite.config import ConfigError
from easyrec_lite.inputs import InputError, open_source
from easyrec_lite.inputs.paths import expand, identify
from easyrec_lite.protos import data_pb2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv", "_SUCCESS", ".hidden.csv", "sub/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{len(name)},1,{name}\n")
    (tmp_path / "empty.csv").touch()
    return tmp_path


def names(files: list[str]) -> list[str]:
    return [Path(file).name for file in files]


def test_patterns_lists_and_empty_files(folder: Path) -> None:
    assert names(expand(f"{folder}/*")) == ["a.csv", "b.csv"]
    assert names(expand(f"{folder}/b.csv, {folder}/a.csv")) == ["b.csv", "a.csv"]
    assert names(expand([folder / "b.csv", f"{folder}/sub/*"])) == ["b.csv", "c.csv"]
    assert names(expand(f"{folder}/**/*.csv")) == ["a.csv", "b.csv", "c.csv"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "nope.csv",
            r"nope.csv: found no such file; expected a file that can be read. .* holds .hidden.csv, _SUCCESS, a.csv",
        ),
        ("nope/x.csv", r"The folder .*nope isn't there either"),
        ("*.parquet", r"found a pattern that matches no file"),
        ("sub", r"sub: found a folder; expected .* Name the files: .*sub/\*"),
        ("empty.csv", "empty.csv: found an empty file"),
    ],
)
def test_paths_that_can_not_be_read(folder: Path, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand(str(folder / path))
    with pytest.raises(InputError, match="the input path: found nothing"):
        expand(" , ")


def test_identity_survives_a_move_but_no_change(folder: Path, tmp_path: Path) -> None:
    files = expand(f"{folder}/*.csv")
    before = identify(files)
    (moved := tmp_path / "moved").mkdir()
    for file in files:
        (moved / Path(file).name).write_bytes(Path(file).read_bytes())
    assert identify(expand(f"{moved}/*.csv")) == before
    assert identify(files[::-1]) != before
    (moved / "a.csv").write_text("12345,1,a.csv\n")
    assert identify(expand(f"{moved}/*.csv")) != before


def test_formats_that_are_not_files(folder: Path) -> None:
    config = data_config(input_type="HiveInput")
    with pytest.raises(
        ConfigError, match=r"data_config.input_type: found HiveInput, expected for files, one of CSVInput"
    ):
        open_source(config, folder / "a.csv")


def test_an_unset_input_type_goes_by_the_ending(folder: Path) -> None:
    config = data_config(shuffle=False)
    assert [to_lists(batch)["word"] for batch in open_source(config, f"{folder}/*.csv").read()] == [["a.csv", "b.csv"]]


def test_no_column_to_read(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no column to read"):
        open_source(data_pb2.DatasetConfig(with_header=True), folder / "a.csv", columns=[])


def test_files_without_a_usable_row_do_not_repeat_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n\n")
    with pytest.raises(InputError, match="no usable row in any file"):
        list(open_source(data_config(), tmp_path / "a.csv", epochs=None).read())


@pytest.mark.parametrize("option", ["batch_size", "epochs"])
def test_sizes_are_checked(folder: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least 1. Received: 0"):
        open_source(data_config(), folder / "a.csv", **{option: 0})  # type: ignore[arg-type]
