"""`python -m easyrec_lite.serve` as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from server_models import NAME, Client, publish, wait_for

from easyrec_lite import serve


def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, one: Path) -> None:
    publish(one, tmp_path, 1)
    command = [sys.executable, "-m", "easyrec_lite.serve", "--model_dir", str(tmp_path), "--model_name", NAME]
    process = subprocess.Popen(
        [*command, "--grpc_port", "0", "--rest_port", "0", "--version_label", "stable=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "gRPC at" in line)
        found = re.fullmatch(
            r"\d\d:\d\d:\d\d model 'tiny': gRPC at (\S+:\d+), REST at http://(\S+:\d+)/v1/models/tiny\n", line
        )
        assert found, line
        client = Client(found[1], found[2])
        wait_for(client, {1})
        assert client.predict({"x": np.float32([3])}, signature="one", label="stable")[1]["y"].tolist() == [3]
        client.close()
        for _ in range(2):  # as `timeout` does it
            process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    lines = [line.partition(" ")[2] for line in rest.splitlines()]
    assert lines[0] == "version 1: warmed up by 2 requests"
    assert lines[2:] == [
        "version 1: serves",
        "stopping: requests that were taken are answered",
        "version 1: freed",
        "stopped",
    ]


def test_a_directory_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--model_dir", str(tmp_path / "nowhere"), "--grpc_port", "0", "--rest_port", "0"]) == 2
    assert "nowhere: found no directory; expected the parent of version folders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model_dir"),
        (["--grpc_port", "70000"], "found '70000'; expected a port, 0 to 65535"),
        (["--poll_seconds", "0"], "found '0'; expected seconds above 0"),
        (["--max_request_mb", "4096"], "found '4096'; expected a whole number from 1 to 1024"),
        (["--version_label", "stable"], "found 'stable'; expected LABEL=N"),
        (["--max_rows", "0"], "found '0'; expected a whole number of at least 1"),
        (["--max_waiting", "-1"], "expected"),
    ],
)
def test_flags_that_are_wrong(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.main([*(["--model_dir", "x"] if flags else []), *flags])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
