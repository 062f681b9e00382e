"""The reader: the same messages as protobuf's own parser, and every problem with its place."""

import json

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from easyrec_lite.config import ConfigError, load_config, read_config
from easyrec_lite.protos import layer_pb2, pipeline_pb2

EasyRecConfig = pipeline_pb2.EasyRecConfig

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


@st.composite
def _written(draw, descriptor, depth=0):
    """Text of a message in any of the styles that the text format has."""
    if not list(descriptor.fields):
        return ""
    fields = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=4, unique_by=lambda field: field.name))
    parts, oneofs = [], set()
    for field in fields:
        if field.message_type is not None and depth == 5:
            continue
        if field.containing_oneof is not None:
            if field.containing_oneof.name in oneofs:
                continue
            oneofs.add(field.containing_oneof.name)
        count = draw(st.integers(1, 3)) if field.is_repeated else 1
        values = [draw(_value(field, depth)) for _ in range(count)]
        colon = ":" if field.message_type is None or draw(st.booleans()) else ""
        if field.is_repeated and draw(st.booleans()):
            texts = [f"{field.name}{colon} [{', '.join(values)}]"]
        else:
            texts = [f"{field.name}{colon} {value}" for value in values]
        parts += [text + draw(st.sampled_from(["", ",", ";"])) for text in texts]
    return draw(st.sampled_from(["\n", " ", '\n  # a comment } { "\n\t'])).join(parts)


@st.composite
def _value(draw, field, depth):
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry or field.message_type.full_name == "google.protobuf.Struct":
            return "{ }" if field.message_type.full_name == "google.protobuf.Struct" else '{ key: "k" value { } }'
        inner = draw(_written(field.message_type, depth + 1))
        return draw(st.sampled_from(["{{{}\n}}", "<{}\n>"])).format(inner)
    if field.enum_type is not None:
        value = draw(st.sampled_from(list(field.enum_type.values)))
        return draw(st.sampled_from([value.name, str(value.number)]))
    if field.cpp_type in _RANGES:
        number = draw(st.integers(*_RANGES[field.cpp_type]))
        return draw(st.sampled_from([str(number), f"{'-' * (number < 0)}{hex(abs(number))}"]))
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        number = draw(st.floats(width=32, allow_nan=False))
        return draw(st.sampled_from([repr(number), f"{number:g}"]))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw(st.sampled_from(["true", "false", "True", "f", "1"]))
    pieces = draw(st.lists(st.text(max_size=6).filter(_is_utf8), min_size=1, max_size=3))
    quote = draw(st.sampled_from("\"'"))
    return " ".join(quote + _escaped(piece, quote) + quote for piece in pieces)


def _is_utf8(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\r" not in text


def _escaped(text, quote):
    return text.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n").replace("\0", "\\000")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(_written(EasyRecConfig.DESCRIPTOR))
def test_reads_valid_text_as_protobuf_does(text):
    expected = text_format.Parse(text, EasyRecConfig())
    message, _, problems = read_config(text=text)
    assert not problems, (text, problems)
    assert message == expected


_SAMPLE = (
    'model_dir: "a" features { input_names: ["x", "y"] boundaries: [1, 2.5] } '
    "data_config < batch_size: 3 shuffle: true >"
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_agrees_with_protobuf_on_what_is_valid(data):
    positions = data.draw(st.lists(st.integers(0, 60), max_size=2))
    words = _SAMPLE.replace(":", " : ").replace("[", " [ ").replace("]", " ] ").replace(",", " , ").split()
    for position in positions:
        words[position % len(words)] = data.draw(
            st.sampled_from(
                ["", ":", "{", "}", "[", "]", "<", ">", ",", "1", '"t"', "x", "true", "-", "features", "0x1"]
            )
        )
    text = " ".join(words)
    try:
        expected = text_format.Parse(text, EasyRecConfig())
    except text_format.ParseError:
        expected = None
    message, _, problems = read_config(text=text)
    assert bool(problems) == (expected is None), (text, problems)
    assert expected is None or message == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
@example("[:")
def test_any_text_gives_problems_never_another_error(text):
    try:
        _, _, problems = read_config(text=text)
    except ConfigError:
        return
    assert all(problem.line for problem in problems)


@pytest.mark.parametrize(
    ("text", "place", "found", "hint"),
    [
        ('model_dri: "x"', (1, 1), "the unknown field 'model_dri'", "did you mean 'model_dir'?"),
        ("\ndata_config { batch_size: 1.5 }", (2, 27), "1.5", ""),
        ("data_config { batch_size: 32.0 }", (1, 27), "32.0", "write 32"),
        ("data_config { batch_size: -1 }", (1, 27), "-1", ""),
        ("data_config { batch_size: 4294967296 }", (1, 27), "4294967296", ""),
        ('data_config { batch_size: "32" }', (1, 27), '"32"', "write it without quotes"),
        ("data_config { batch_size { } }", (1, 26), "a block", ""),
        ("data_config { batch_size: [1, 2] }", (1, 15), "a list", ""),
        ("data_config { shuffle: yes }", (1, 24), "yes", ""),
        ("data_config { shuffle: 2 }", (1, 24), "2", ""),
        ("model_dir: x", (1, 12), "x", 'write "x"'),
        ("model_dir: 5", (1, 12), "5", 'write "5"'),
        ('model_dir: "x', (1, 12), 'the string "x', "its quote is never closed"),
        ('model_dir: "\\xff"', (1, 12), '"\\xff"', ""),
        ("data_config { input_type: CSVInptu }", (1, 27), "CSVInptu", "did you mean 'CSVInput'?"),
        ('data_config { input_type: "CSVInput" }', (1, 27), '"CSVInput"', "write it without quotes"),
        ("data_config: 5", (1, 14), "5", ""),
        ("model_config { embedding_regularization: 1e99 }", (1, 42), "1e99", ""),
        ('model_dir: "a"\nmodel_dir: "b"', (2, 1), "the field a second time", "the first is at <text>:1:1"),
        ("data_config {}\ndata_config {}", (2, 1), "the field a second time", "the first is at <text>:1:1"),
        ('train_input_path: "a" parquet_train_input: "b"', (1, 23), "parquet_train_input besides train_input_path",
         "the first is at <text>:1:1"),
        ("embedding_dim: 8", (1, 1), "the unknown field 'embedding_dim'", "it is a field of "),
        ("model_dir", (1, 1), "no value after model_dir", ""),
        ('model_dir:\ndata_config { shuffle: true }', (1, 1), "no value after model_dir", ""),
        ('model_dir "x"', (1, 1), "no ':' after model_dir", ""),
        ('data_config { label_fields: ["a" "b", "c" }', (1, 29), "a list of label_fields without its end", ""),
        ("{ }", None, None, None),
        ('5: "x"', (1, 1), "'5'", ""),
        ("data_config {\n  batch_size: 3\n", (1, 13), "the end of the file", ""),
        ('model_dir: "x"\n}\n', (2, 1), "'}'", "it closes nothing: remove it"),
        ("data_config { batch_size: 3 >", (1, 29), "'>'", ""),
    ],
)  # fmt: skip
def test_reports_each_problem_at_its_place(text, place, found, hint):
    _, _, problems = read_config(text=text)
    if place is None:
        assert not problems  # "{ }" is JSON
        return
    (problem,) = problems
    assert (problem.line, problem.column) == place
    assert problem.found == found
    assert problem.hint.startswith(hint)


def test_a_missing_brace_is_reported_once_and_the_rest_is_read():
    text = 'features {\n  input_names: "a"\nfeatures {\n  input_names: "b"\n}\nmodel_dir: "m"\n'
    message, _, problems = read_config(text=text)
    (problem,) = problems
    assert (problem.line, problem.found) == (3, "'features'")
    assert [list(feature.input_names) for feature in message.features] == [["a"], ["b"]]
    assert message.model_dir == "m"


def test_a_stray_brace_is_reported_once_and_the_rest_is_read():
    text = 'features {\n  input_names: "a"\n  }\n  embedding_dim: 4\n}\nmodel_dir: "m"\n'
    message, _, problems = read_config(text=text)
    (problem,) = problems
    assert (problem.line, problem.found) == (3, "'}'")
    assert message.features[0].embedding_dim == 4


def test_reports_all_problems_at_once():
    text = 'model_dri: "x"\ndata_config {\n  batch_size: "a"\n  shufle: true\n}\ntrain_config { num_steps: -5 }'
    _, _, problems = read_config(text=text)
    assert [problem.line for problem in problems] == [1, 3, 4, 6]
    assert problems[1].path == "data_config.batch_size"


def test_paths_of_problems_name_the_canonical_form():
    text = 'feature_config { features { input_names: "user_id" embedding_dim: -1 } }'
    with pytest.raises(ConfigError) as caught:
        load_config(text=text)
    assert "features[user_id].embedding_dim" in [problem.path for problem in caught.value.problems]


def test_deep_nesting_is_a_problem_not_a_crash():
    for text in ("a {" * 5000, "a: [" * 5000, '{"a":' * 5000, '{"a":' * 200 + "1" + "}" * 200):
        with pytest.raises(ConfigError):
            load_config(text=text)


def test_struct_reads_in_three_spellings():
    plain = 'model_config { model_params { params { units: [64, 32] name: "n" on: true inner { a: 1 } } } }'
    message, _, problems = read_config(text=plain)
    assert not problems
    params = message.model_config.model_params.params
    assert json_format.MessageToDict(params) == {"units": [64, 32], "name": "n", "on": True, "inner": {"a": 1}}
    assert read_config(text=text_format.MessageToString(message))[0] == message
    assert read_config(text=json_format.MessageToJson(message, preserving_proto_field_name=True))[0] == message


def test_json_reads_as_json_format_does(tmp_path):
    message = text_format.Parse(
        'model_dir: "m" features { input_names: "a" embedding_dim: 4 hash_bucket_size: 99 boundaries: [1, 2.5] }'
        " data_config { input_type: ParquetInput shuffle: false max_bad_row_share: 0.5 }",
        EasyRecConfig(),
    )
    for preserving in (True, False):
        path = tmp_path / "c.json"
        path.write_text(json_format.MessageToJson(message, preserving_proto_field_name=preserving))
        read, _, problems = read_config(path)
        assert not problems
        assert read == message


@pytest.mark.parametrize(
    ("value", "line", "found"),
    [
        ({"model_dir": "m", "data_confg": {}}, 3, "the unknown field 'data_confg'"),
        ({"model_dir": 5}, 2, "5"),
        ({"data_config": {"batch_size": "many"}}, 3, '"many"'),
        ({"data_config": {"shuffle": 1}}, 3, "1"),
        ({"data_config": {"input_type": "CSV"}}, 3, '"CSV"'),
        ([1], 1, "JSON that is no object"),
    ],
)
def test_json_problems_have_lines(tmp_path, value, line, found):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(value, indent=2))
    _, _, problems = read_config(path)
    assert [(problem.line, problem.found) for problem in problems] == [(line, found)]


def test_broken_json_has_its_line(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{\n "model_dir": "m",\n}')
    _, _, problems = read_config(path)
    assert problems[0].line in (2, 3)  # by Python's version


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "c.config"
    path.write_bytes(b'model_dir: "m"\nfg: "\xff"')
    for name, line in ((path, 2), (tmp_path / "none.config", 1), ("a\0b", 1), (tmp_path, 1)):
        with pytest.raises(ConfigError) as caught:
            load_config(name)
        assert caught.value.problems[0].line == line


def test_bom_and_windows_line_ends(tmp_path):
    path = tmp_path / "c.config"
    path.write_bytes(b'\xef\xbb\xbf# comment\r\nmodel_dir: "m"\r\nmodel_dri: 1\r\n')
    message, _, problems = read_config(path)
    assert message.model_dir == "m"
    assert [problem.line for problem in problems] == [3]


def test_mlp_is_a_superset_of_dnn():
    text = "hidden_units: [1, 2] dropout_ratio: 0.5 activation: 'tf.nn.relu' use_bn: false"
    assert text_format.Parse(text, layer_pb2.MLP()).hidden_units == [1, 2]
