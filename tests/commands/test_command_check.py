"""The check command: all problems at once, and what the first rows show."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from command_runs import EASYREC, Workspace, command, refused

from easyrec_lite._summary import _short


def cells(out: str, title: str) -> dict[str, list[str]]:
    """The rows of a printed table by their first cell."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    rows = {}
    for line in lines[start + 3 :]:
        found = re.split(r"\s{2,}", line.strip())
        if len(found) < 2:
            break
        rows[found[0]] = found[1:]
    return rows


@pytest.mark.parametrize(
    "changes",
    [
        # What can't be read, and what can be but makes no sense.
        {"num_steps: 6": "num_step: 6", "batch_size: 32": 'batch_size: "32"', "num_epochs: 10000": "num_epochs: -1"},
        {"num_buckets: 20": "num_buckets: 0", '"user_id", "tags"': '"user_id", "tag"', 'input: "item"': 'input: "itm"'},
    ],
)
def test_every_problem_at_once(changes: dict[str, str], tmp_path: Path) -> None:
    text = EASYREC
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "x.config"
    path.write_text(text)
    message = refused(command("check", path))
    for new in changes.values():
        line = next(number for number, line in enumerate(text.splitlines(), 1) if new in line)
        assert f"{path}:{line}:" in message, new
    assert "did you mean" in message


def test_the_first_rows(work: Workspace) -> None:
    path = work.path / "train.txt"
    lines = path.read_text().splitlines()
    lines = [";".join([*line.split(";")[:3], "3", *line.split(";")[4:]]) for line in lines]  # age is the same
    lines[4] = "1;cheap;1|2;3;u1;4"
    lines[7] = "1;1.0;1|2"
    for place in range(10, 30):
        lines[place] = f"0;1.0;;3;u{place};{place + 100}"
    path.write_text("\n".join(lines) + "\n")
    run = work.run("check", "--data_config.input_fields[user_id].private=true")
    assert run.code == 0, run.err
    features = cells(run.out, "Features in the first 198 rows")
    past = sum(int(line.split(";")[5]) > 19 for line in lines if line.count(";") == 5 and "cheap" not in line)
    assert features["item_id"] == ["198", "0", f"{past} ({100 * past / 198:.1f} %)"]
    assert features["user_id"] == ["198", "0", "0"]
    findings = run.out[run.out.index("Findings") :]
    assert re.search(r"rows that could not be read +2 of 200", findings)
    assert f"{path}:5: column 'price': 'cheap' is not a finite number" in run.out
    assert f"{path}:8" in run.out
    assert re.search(r"constant column +age", findings)
    assert "u1" not in findings
    first = run.out[run.out.index("First rows") :].splitlines()
    assert "***" in first[3]
    assert not work.model_dir.exists()


@pytest.mark.parametrize(
    ("cell", "text"),
    [(float(np.float32(0.2241)), "0.2241"), (0.2241, "0.2241"), (2.0, "2.0"), (1795451159.5, "1795451159.5"), (7, "7")],
)
def test_numbers_look_as_in_the_file(cell: float, text: str) -> None:
    assert _short(cell) == text


@pytest.mark.parametrize("rows", [1, 50])
def test_so_many_rows(work: Workspace, rows: int) -> None:
    run = work.run("check", "--rows", rows)
    assert run.code == 0, run.err
    assert f"in the first {rows} rows" in run.out
