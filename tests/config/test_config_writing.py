"""Writing, digests, changed fields, secrets."""

import pytest

from easyrec_lite.config import (
    ConfigError,
    changed_fields,
    digest,
    is_reference,
    load_config,
    redact,
    resolve_secret,
    to_text,
)
from easyrec_lite.protos import pipeline_pb2


def _load(text, *overrides):
    return load_config(text=text, overrides=overrides).message


def test_written_text_reads_back_equal(sample):
    message = load_config(sample).message
    assert load_config(text=to_text(message)).message == message


def test_non_ascii_text_stays_readable(base_text):
    message = _load(base_text, "model_dir=/数据/m")
    assert "数据" in to_text(message)


FREE = [
    "train_config.num_steps=99",
    "train_config.save_checkpoints_steps=5",
    "train_config.save_checkpoints_secs=5",
    "train_config.keep_checkpoint_max=5",
    "train_config.log_step_count_steps=5",
    "train_config.save_summary_steps=5",
    "data_config.num_epochs=3",
    "data_config.prefetch_size=3",
    "data_config.ignore_error=true",
    "eval_config.num_examples=5",
    "eval_config.metrics_set=[{ logloss {} }]",
    "export_config.exporter_type=none",
    "model_dir=n",
    "eval_input_path=other.csv",
    "data_config.input_fields[a].side=USER",
    "train_config.sync_replicas=false",
]
FIXED = [
    "train_config.seed=5",
    "data_config.batch_size=5",
    "data_config.shuffle=false",
    "data_config.shuffle_window=5",
    "train_input_path=other.csv",
    "features[a].embedding_dim=16",
    "features[a].hash_bucket_size=16",
    "model_config.embedding_regularization=0.5",
    "model_config.multi_tower.final_dnn.hidden_units=[4, 2]",
    "train_config.optimizer_config[0].adam_optimizer.beta1=0.5",
    "train_config.optimizer_config[0]={ adagrad_optimizer { learning_rate { constant_learning_rate {} } } }",
    "data_config.input_fields[a].default_val=x",
]


@pytest.mark.parametrize("override", FREE)
def test_what_may_change(base_text, override):
    old, new = (
        _load(base_text),
        _load(base_text, override, "features[s].embedding_dim=8", "features[a].embedding_dim=8"),
    )
    assert digest(old) == digest(new)
    assert all(change.allowed for change in changed_fields(old, new))
    if "sync_replicas" not in override:
        (change,) = {change.path.split("[")[0].split(".")[0] for change in changed_fields(old, new)}
        assert override.startswith(change)


@pytest.mark.parametrize("override", FIXED)
def test_what_may_not_change(base_text, override):
    more = ["features[s].embedding_dim=16"] if override == "features[a].embedding_dim=16" else []
    old, new = _load(base_text), _load(base_text, override, *more)
    assert digest(old) != digest(new)
    changes = [change for change in changed_fields(old, new) if not change.allowed]
    assert changes
    assert all("fine_tune_checkpoint" in change.message for change in changes)
    assert override.split("=")[0].startswith(changes[0].path) or changes[0].path.startswith(override.split("=")[0])


def test_a_written_default_is_no_change(base_text):
    old, new = _load(base_text), _load(base_text, "data_config.batch_size=32", "data_config.shuffle=true")
    assert digest(old) == digest(new)
    assert changed_fields(old, new) == []


def test_added_and_removed_features_are_named(base_text):
    old = _load(base_text)
    new = pipeline_pb2.EasyRecConfig()
    new.CopyFrom(old)
    new.features.add(feature_name="z")
    (change,) = changed_fields(old, new)
    assert change.path == "features"
    assert "z" in change.new
    assert not change.allowed


def test_changes_say_what_became_what(base_text):
    (change,) = changed_fields(_load(base_text), _load(base_text, "data_config.batch_size=64"))
    assert str(change).startswith("data_config.batch_size: 32 became 64; the stored position counts rows")


def test_references():
    assert is_reference("env:NAME")
    assert is_reference("file:/a/b c")
    assert not is_reference("hunter2")
    assert not is_reference("env:")
    assert not is_reference("env:a b")


def test_resolve(tmp_path, monkeypatch):
    monkeypatch.setenv("ER_SECRET", "from env")
    (tmp_path / "s").write_text("from file\n")
    assert resolve_secret("env:ER_SECRET") == "from env"
    assert resolve_secret(f"file:{tmp_path / 's'}") == "from file"
    for reference in ("env:ER_NO_SUCH", f"file:{tmp_path / 'none'}", "hunter2"):
        with pytest.raises(ConfigError) as caught:
            resolve_secret(reference, "a.b")
        assert caught.value.problems[0].path == "a.b"
        assert "hunter2" not in str(caught.value)


def test_redact():
    config = pipeline_pb2.EasyRecConfig()
    config.datahub_train_input.akId = "env:ID"
    config.datahub_train_input.akSecret = "hunter2"
    config.kafka_eval_input.config_global.extend(
        ["session.timeout.ms=5", "sasl.password=hunter2", "ssl.key.password=env:K"]
    )
    safe = redact(config)
    assert (safe.datahub_train_input.akId, safe.datahub_train_input.akSecret) == ("env:ID", "env:AKSECRET")
    assert list(safe.kafka_eval_input.config_global) == [
        "session.timeout.ms=5",
        "sasl.password=env:SASL_PASSWORD",
        "ssl.key.password=env:K",
    ]
    assert config.datahub_train_input.akSecret == "hunter2"
    assert "hunter2" not in to_text(config)
