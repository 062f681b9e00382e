"""Configs as Python objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from notebook_rows import CONFIG

import easyrec_lite as er
from easyrec_lite.protos import feature_pb2


@pytest.fixture
def config() -> er.Config:
    return er.load_config(text=CONFIG, name="base")


def test_values_by_path(config: er.Config) -> None:
    assert config["features[item].embedding_dim"] == 4
    assert config["features[*].embedding_dim"] == [4] * 6
    assert config["features[num_buckets=20].embedding_name"] == ["item", "item"]
    assert config["features[item].feature_type"] == "IdFeature"
    assert config["data_config.label_fields"] == ["click"]
    assert config["model_config.multi_tower.towers[0].dnn.hidden_units[0]"] == 16
    with pytest.raises(er.ConfigError, match="did you mean 'item'"):
        config["features[itme].embedding_dim"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("features[item].embedding_dim", 8, 8),
        ("features[item].embedding_dim", np.int64(8), 8),
        ("train_config.seed", 7, 7),
        ("data_config.shuffle", False, False),
        ("features[word].feature_type", "TagFeature", "TagFeature"),
        ("features[word].separator", "=", "="),
        ("features[word].separator", "[", "["),
        ("features[word].separator", '"', '"'),
        ("features[word].separator", "\x01", "\x01"),
        ("features[word].separator", "ü ", "ü "),
        ("train_input_path", "a b/*.csv", "a b/*.csv"),
        ("model_config.multi_tower.towers[0].dnn.hidden_units", [32, 16], [32, 16]),
        ("data_config.label_fields", ["a b", "[c"], ["a b", "[c"]),
        ("model_config.embedding_regularization", 1e-6, pytest.approx(1e-6)),
    ],
)
def test_values_are_set_as_they_are(config: er.Config, path: str, value: object, expected: object) -> None:
    config[path] = value
    assert config[path] == expected
    again = er.load_config(text=CONFIG, edits=[]).copy()
    again.edit(*config.edits)  # as a command would be told
    assert again == config


def test_blocks(config: er.Config) -> None:
    config["features[item].initializer"] = {"random_normal_initializer": {"mean": 1.0, "stddev": 0.5}}
    assert config["features[item].initializer.random_normal_initializer.mean"] == 1.0
    block = feature_pb2.Initializer()
    block.constant_initializer.consts.append(2.0)
    config["features[item].initializer"] = block
    assert config["features[item].initializer"] == block
    with pytest.raises(er.ConfigError, match="Initializer"):
        config["features[item].initializer"] = {"nonsense": 1}


def test_a_wrong_edit_changes_nothing(config: er.Config) -> None:
    before = config.copy()
    with pytest.raises(er.ConfigError, match="found many"):
        config.edit("features[item].embedding_dim=8", "features[user].embedding_dim=many")
    assert config == before
    assert config.edits == []


def test_check_tells_all_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "x.config"
    path.write_text(CONFIG)
    config = er.load_config(path)
    assert len(config.check()) == 0
    assert not config.check()
    config["model_config.feature_groups[all].feature_names[1]"] = "itme"
    del config.message.features[2].input_names[:]
    problems = config.check()
    assert len(problems.errors) >= 2
    frame = problems.frame
    assert list(frame.columns) == ["severity", "place", "path", "found", "expected", "hint"]
    assert frame["path"].str.contains("feature_names").any()
    assert frame["place"].str.startswith("override").any()
    assert frame["place"].str.startswith(str(path)).any()
    with pytest.raises(er.ConfigError) as raised:
        er.Experiment(config).train(progress=False)
    assert len(raised.value.problems) == len(problems)


def test_differences_copies_and_files(config: er.Config, tmp_path: Path) -> None:
    other = config.copy("wide")
    other["features[user].embedding_dim"] = 16
    assert config["features[user].embedding_dim"] == 4
    frame = config.diff(other)
    assert frame.to_dict("records") == [{"path": "features[user].embedding_dim", "base": "4", "wide": "16"}]
    path = other.save(tmp_path / "new" / "wide.config")
    assert er.load_config(path) == other
    assert er.load_config(path).name == "wide"


def test_text_paths_and_objects_are_configs(config: er.Config, tmp_path: Path) -> None:
    path = config.save(tmp_path / "a.config")
    for given in (CONFIG, path, str(path), config):
        assert er.Experiment(given).config == config
    with pytest.raises(er.ConfigError, match="no readable file"):
        er.Experiment("nowhere.config")
