"""The canonical form: one spelling of everything, written out, with the effective defaults."""

import pytest
from google.protobuf import text_format

from easyrec_lite.config import ConfigError, load_config, to_text
from easyrec_lite.config.binding import Node
from easyrec_lite.config.canonical import canonical_activation, canonicalize, expand_range
from easyrec_lite.config.completion import complete
from easyrec_lite.protos import pipeline_pb2


def _canonical(text):
    config = text_format.Parse(text, pipeline_pb2.EasyRecConfig())
    assert not canonicalize(config, Node())
    return config


def test_samples_load_without_warnings(sample):
    assert load_config(sample).warnings == ()


def test_canonical_form_is_a_fixed_point(sample):
    message = load_config(sample).message
    again = pipeline_pb2.EasyRecConfig()
    again.CopyFrom(message)
    canonicalize(again, Node())
    complete(again)
    assert again == message
    assert load_config(text=to_text(message)).message == message
    assert load_config(message=message).message == message


def test_a_message_is_copied(sample):
    message = load_config(sample).message
    before = message.SerializeToString(deterministic=True)
    load_config(None, ["train_config.num_steps=9"], message=message)
    assert message.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    "holder", ["features {{ {} }}", "feature_configs {{ {} }}", "feature_config {{ features {{ {} }} }}"]
)
def test_three_places_of_features(holder):
    config = _canonical(holder.format('input_names: "a" embedding_dim: 3'))
    (feature,) = config.features
    assert (feature.feature_name, feature.embedding_dim) == ("a", 3)
    assert not config.feature_configs
    assert not config.HasField("feature_config")


def test_features_of_all_places_keep_their_order():
    config = _canonical(
        'feature_config { features { input_names: "c" } } '
        'features { input_names: "a" } feature_configs { input_names: "b" }'
    )
    assert [feature.feature_name for feature in config.features] == ["a", "b", "c"]


def test_parquet_paths():
    config = _canonical('parquet_train_input: "t" parquet_eval_input: "e"')
    assert (config.train_input_path, config.eval_input_path) == ("t", "e")
    assert config.WhichOneof("train_path") == "train_input_path"


def test_expand_range():
    assert expand_range("f[1-3]") == ["f1", "f2", "f3"]
    assert expand_range("f[7-7]") == ["f7"]
    assert expand_range("f") == ["f"]
    assert expand_range("f[a-b]") == ["f[a-b]"]
    assert expand_range("f[3-1]") is None
    assert expand_range("f[0-999999999]") is None


def test_input_fields_are_written_out_only_when_asked():
    text = 'data_config { input_fields { input_name: "f[1-3]" input_type: FLOAT } input_fields { input_name: "g" } %s }'
    config = _canonical(text % "auto_expand_input_fields: true")
    assert [field.input_name for field in config.data_config.input_fields] == ["f1", "f2", "f3", "g"]
    assert config.data_config.input_fields[2].input_type == config.data_config.FLOAT
    assert not config.data_config.auto_expand_input_fields
    assert len(_canonical(text % "").data_config.input_fields) == 2


def test_shared_names_become_features():
    config = _canonical(
        'features { input_names: "a" shared_names: ["b", "f[1-2]"] embedding_dim: 3 } features { input_names: "z" }'
    )
    assert [feature.feature_name for feature in config.features] == ["a", "b", "f1", "f2", "z"]
    assert [list(feature.input_names) for feature in config.features[:2]] == [["a"], ["b"]]
    assert all(feature.embedding_dim == 3 for feature in config.features[:4])
    assert not any(feature.shared_names for feature in config.features)


def test_a_template_without_a_column_disappears():
    config = _canonical('features { shared_names: ["a", "b"] embedding_dim: 3 }')
    assert [feature.feature_name for feature in config.features] == ["a", "b"]


def test_group_names_are_written_out_unless_a_feature_has_that_name():
    text = 'features { feature_name: "%s" } model_config { feature_groups { feature_names: ["x", "f[1-3]", "y"] } }'
    assert list(_canonical(text % "z").model_config.feature_groups[0].feature_names) == ["x", "f1", "f2", "f3", "y"]
    assert list(_canonical(text % "f[1-3]").model_config.feature_groups[0].feature_names) == ["x", "f[1-3]", "y"]


@pytest.mark.parametrize(
    ("written", "canonical"),
    [("tf.nn.relu", "relu"), ("relu", "relu"), ("tf.nn.leaky_relu", "leaky_relu"), ("", "linear"), ("None", "linear"),
     ("tf.keras.activations.swish", "swish"), ("Dice", "dice"), ("nn.relu", "relu"), ("tf.tanh", "tanh")],
)  # fmt: skip
def test_activations(written, canonical):
    assert canonical_activation(written) == canonical


def test_boundaries_are_put_in_order():
    config = _canonical('features { input_names: "a" boundaries: [0.5, -1, 0.1] }')
    assert list(config.features[0].boundaries) == [-1, 0.1, 0.5]


def test_dense_regularization_is_l2():
    deepfm = _canonical(
        "model_config { deepfm { dense_regularization: 0.5 l2_regularization: 0.1 } }"
    ).model_config.deepfm
    assert deepfm.l2_regularization == 0.5
    assert not deepfm.HasField("dense_regularization")


def _completed(text):
    config = _canonical(text)
    complete(config)
    return config


def _mlp(mlp):
    return mlp.activation, mlp.final_activation, mlp.use_final_bn, mlp.use_bias, mlp.use_final_bias


def test_layers_of_classic_models_are_alike():
    tower = "model_config {{ multi_tower {{ towers {{ dnn {{ hidden_units: 4 {} }} }} }} }}"
    expected = {
        "": ("relu", "relu", True, False, False),
        'activation: "tf.nn.gelu"': ("gelu", "gelu", True, False, False),
        "use_bn: false": ("relu", "relu", False, True, True),
        'final_activation: "linear" use_final_bn: false': ("relu", "linear", False, False, True),
        "use_bias: true": ("relu", "relu", True, True, False),
    }
    for text, values in expected.items():
        mlp = _completed(tower.format(text)).model_config.multi_tower.towers[0].dnn
        assert _mlp(mlp) == values
        assert mlp.initializer == "glorot_uniform"


def test_towers_that_end_in_a_vector_or_a_score_end_linear():
    config = _completed(
        "model_config { dssm { user_tower { dnn { hidden_units: 4 } } } "
        'feature_groups { sequence_features { group_name: "s" } } }'
    )
    assert _mlp(config.model_config.dssm.user_tower.dnn) == ("relu", "linear", False, False, True)
    seq_dnn = config.model_config.feature_groups[0].sequence_features[0].seq_dnn
    assert list(seq_dnn.hidden_units) == [128, 64, 32, 1]
    assert _mlp(seq_dnn) == ("relu", "linear", False, False, True)
    din = _completed("model_config { multi_tower { din_towers { dnn { hidden_units: 1 } } } }")
    assert din.model_config.multi_tower.din_towers[0].dnn.final_activation == "linear"


def test_layers_taken_from_keras_keep_their_defaults():
    config = _completed("features { sequence_combiner { text_cnn { mlp { hidden_units: 4 } } } }")
    mlp = config.features[0].sequence_combiner.text_cnn.mlp
    assert (mlp.final_activation, mlp.initializer, mlp.use_bias) == ("linear", "he_uniform", False)
    assert not mlp.HasField("initializer")


def test_labels_in_their_order():
    config = _completed(
        'data_config { label_fields: ["y", "z"] } model_config { dbmtl { task_towers {} task_towers {} } }'
    )
    assert [tower.label_name for tower in config.model_config.dbmtl.task_towers] == ["y", "z"]
    single = _completed('data_config { label_fields: ["y", "z"] } model_config { multi_tower {} }')
    assert single.model_config.label_name == "y"


def test_too_large_a_range_is_a_problem_with_a_place(base_text):
    text = base_text.replace('feature_names: ["a", "b", "n"]', 'feature_names: ["a", "b", "n", "f[9-1]"]')
    with pytest.raises(ConfigError) as caught:
        load_config(text=text)
    assert next((problem.path, problem.line) for problem in caught.value.problems) == (
        "model_config.feature_groups[all].feature_names",
        26,
    )


def test_overrides_are_completed_too(base_text):
    config = load_config(text=base_text, overrides=["model_config.multi_tower.final_dnn.use_bn=false"])
    assert config.message.model_config.multi_tower.final_dnn.use_final_bn is False
