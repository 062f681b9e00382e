import concurrent.futures
import itertools
import json
import math
import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import DefaultPartitioner
from kafka_messages import COLUMNS, make_rows, plain, read

from easyrec_lite.errors import UserError
from tools._kafka_damage import HUGE_BYTES, Damager, Mixture
from tools._kafka_formats import FORMATS, Format, varint
from tools._kafka_rows import Files, Packer, Spreader
from tools.kafka_replay import main, replay


@pytest.fixture(scope="module")
def rows():
    return make_rows(3000)


@pytest.fixture(scope="module")
def data(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(rows.slice(0, 1700), folder / "part-0.parquet", row_group_size=600)
    pq.write_table(rows.slice(1700), folder / "part-1.parquet")
    return str(folder / "*.parquet")


# Formats.


def test_csv_by_hand():
    table = pa.table(
        {
            "n": [1, None],
            "s": ['say "a,b"', "é"],
            "f": pa.array([27.03, math.nan], pa.float32()),
            "l": [[3, 4], None],
            "t": [["x", "y,z"], []],
            "b": [True, False],
        }
    )
    lines = ['1,"say ""a,b""",27.03,3|4,"x|y,z",true', ",é,,,,false"]
    assert [message.decode() for message in Format("csv").messages(table)] == lines
    assert Format("csv", 5).messages(table) == ["\n".join(lines).encode()]
    assert Format("csv", 1, "\t", ";").messages(table.select(["n", "l"])) == [b"1\t3;4", b"\t"]
    assert Format("csv", 1, "\x01\x02").messages(table.select(["n", "s"]))[0] == b'1\x01\x02say "a,b"'


@pytest.mark.parametrize(
    ("separator", "cell", "said"), [(",", "a\nb", "can't hold a line's end"), ("::", "a::b", "holds the separator")]
)
def test_csv_cells_that_have_no_spelling(separator, cell, said):
    with pytest.raises(UserError, match=said):
        Format("csv", separator=separator).messages(pa.table({"s": [cell]}))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.none() | TEXT, st.none() | st.lists(TEXT, max_size=3)), min_size=1, max_size=4))
def test_json_of_any_text(cells):
    texts, lists = zip(*cells, strict=True)
    table = pa.table({"text": pa.array(texts, pa.string()), 'a "list"': pa.array(lists, pa.list_(pa.string()))})
    assert [json.loads(message) for message in Format("json").messages(table)] == table.to_pylist()


def test_json_of_numbers_that_json_lacks():
    table = pa.table({"f": [1.5, math.nan, math.inf, None]})
    assert json.loads(Format("json", 9).messages(table)[0]) == [{"f": 1.5}, {"f": None}, {"f": None}, {"f": None}]


@pytest.mark.parametrize(("name", "per_message"), [(name, n) for name in FORMATS for n in (1, 7)])
def test_formats_round_trip(rows, name, per_message):
    table = rows.slice(11, 100)
    messages = Format(name, per_message).messages(table)
    sizes = [len(read(name, per_message, message)) for message in messages]
    assert sizes == [per_message] * (100 // per_message) + [100 % per_message] * (per_message > 1)
    found = [row for message in messages for row in read(name, per_message, message)]
    assert found == [plain(row) for row in table.to_pylist()]


def test_varint_by_hand():
    assert [varint(number) for number in (0, 1, 127, 128, 300)] == [b"\0", b"\x01", b"\x7f", b"\x80\x01", b"\xac\x02"]


@pytest.mark.parametrize(("name", "size"), [("xml", 1), ("csv", 0)])
def test_unknown_formats(name, size):
    with pytest.raises(UserError, match="expected"):
        Format(name, size)


# Damage.


@pytest.mark.parametrize("per_message", [1, 7])
@pytest.mark.parametrize("name", FORMATS)
def test_no_damaged_message_can_be_read(rows, name, per_message):
    damager = Damager(Format(name, per_message), "clk")
    assert len(damager.kinds) == 15
    sound = Format(name, per_message).messages(rows.slice(0, 1))[0]
    assert len(read(name, per_message, sound)) == 1
    made = {}
    for kind in damager.kinds:
        for at in range(40):  # whatever the row
            message = damager.make(kind, rows.slice(at, 1), np.random.default_rng(at))
            assert message != sound
            with pytest.raises((Exception, AssertionError)):
                read(name, per_message, message)
        made[kind] = message
    assert made["null"] is None
    assert made["empty"] == b""
    assert len(made["huge"]) > HUGE_BYTES
    assert len(set(made.values())) == 15


def test_mixture_is_exact_even_and_seeded(rows):
    def mixed(seed, chunk):
        mixture = Mixture(Damager(Format("json"), "clk"), COLUMNS, 150, 100, 900, [1, 0, 2], "event_time", seed)
        parts = range(100, 1000, chunk)
        return [message for at in parts for message in mixture.add(rows.slice(at, min(chunk, 1000 - at)))]

    messages = mixed(1, 900)
    assert messages == mixed(1, 37)
    assert messages != mixed(2, 900)
    assert Counter(Counter(message.kind for message in messages).values()) == {10: 15}
    assert Counter(message.partition for message in messages).keys() == {0, 2}
    assert len({message.row for message in messages}) == 150
    times = rows["event_time"].to_pylist()
    assert all(message.timestamp_ms == times[message.row] * 1000 for message in messages)


# Rows and their partitions.


def test_files_are_read_in_order(rows, data):
    files = Files(data)
    assert files.rows == 3000
    for skip, count in ((0, 3000), (0, 5), (1650, 100), (1700, 1300), (2999, 1), (10, 0)):
        found = [row for chunk in files.chunks(["row"], skip, count) for row in chunk["row"].to_pylist()]
        assert found == list(range(skip, skip + count))
    assert Files(data.rsplit("/", 1)[0]).rows == 3000


def test_files_that_are_not_there_or_differ(tmp_path, data):
    with pytest.raises(UserError, match=r"no Parquet file matches"):
        Files(str(tmp_path / "*.parquet"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"b": [1]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b.parquet: expected the columns of .*a.parquet. Different: \['a', 'b'\]"):
        Files(str(tmp_path))
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(UserError, match="not Parquet"):
        Files(str(tmp_path / "a.parquet"))


def test_key_goes_where_kafka_clients_send_it(rows):
    class TwelvePartitions:
        topics = staticmethod(lambda: {"t"})
        partitions_for_topic = available_partitions_for_topic = staticmethod(lambda topic: set(range(12)))

    expected = [
        DefaultPartitioner().partition("t", None, str(user).encode(), None, None, TwelvePartitions)
        for user in rows["user_id"].to_pylist()
    ]
    found = Spreader(12, 1, "user_id", None, 1).partitions(rows, 0)
    assert found.tolist() == expected


def test_weights_and_turns_go_by_whole_messages(rows):
    weighted = Spreader(4, 10, None, [6, 3, 1, 0], 5).partitions(rows, 0)
    assert (weighted.reshape(-1, 10) == weighted[::10, None]).all()
    assert np.bincount(weighted, minlength=4) / 3000 == pytest.approx([0.6, 0.3, 0.1, 0], abs=0.08)
    again = np.concatenate(
        [Spreader(4, 10, None, [6, 3, 1, 0], 5).partitions(rows.slice(at, 13), at) for at in (0, 13)]
    )
    assert again.tolist() == weighted[:26].tolist()
    assert Spreader(3, 2, None, None, 1).partitions(rows.slice(0, 8), 4).tolist() == [2, 2, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("weights", [[1], [1, -1, 1], [0, 0, 0]])
def test_weights_that_make_no_sense(weights):
    with pytest.raises(UserError, match="weights: expected 3 numbers"):
        Spreader(3, 1, None, weights, 1)


@pytest.mark.parametrize("chunk", [1, 50, 3000])
def test_messages_hold_every_row_once_in_the_order_of_their_partition(rows, chunk):
    packer = Packer(Format("json", 10), COLUMNS, Spreader(3, 10, "user_id", None, 1), "user_id", "event_time", 0)
    table = rows.slice(0, 400)
    messages = [message for at in range(0, 400, chunk) for message in packer.add(table.slice(at, chunk))]
    assert all(message.rows == 10 for message in messages)
    messages += (rest := packer.rest())
    assert all(message.rows < 10 for message in rest)
    times = rows["event_time"].to_pylist()
    seen: dict[int, list[int]] = {}
    for message in messages:
        numbers = [row["row"] for row in json.loads(message.value)]
        assert (message.row, message.timestamp_ms, message.key) == (numbers[-1], times[numbers[-1]] * 1000, None)
        seen.setdefault(message.partition, []).extend(numbers)
    assert sorted(itertools.chain(*seen.values())) == list(range(400))
    assert all(numbers == sorted(numbers) for numbers in seen.values())


def test_event_times_may_be_timestamps_but_not_missing():
    def times(values):
        table = pa.table({"t": values, "a": [1] * len(values)})
        packer = Packer(Format("csv"), ["a"], Spreader(1, 1, None, None, 1), None, "t", 0)
        return [message.timestamp_ms for message in packer.add(table)]

    assert times(pa.array([1_500_000, 2_000_000], pa.timestamp("us"))) == [1500, 2000]
    with pytest.raises(UserError, match="1 of 2 cells are missing"):
        times(pa.array([1, None]))
    with pytest.raises(UserError, match="expected seconds since 1970"):
        times(pa.array(["today"]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"columns": ["nope"]}, "no column 'nope'. Columns there: user_id"),
        ({"event_time_field": "when"}, "no column 'when'"),
        ({"malformed": 0.1, "label": "buy"}, "label 'buy'"),
        ({"rate": 0}, "rate: expected more than 0"),
        ({"malformed": -1}, "expected at least 0"),
    ],
)
def test_wrong_arguments(data, arguments, said):
    with pytest.raises(UserError, match=said):
        replay("127.0.0.1:1", "t", data, **arguments)


def test_command_line_needs_a_broker(monkeypatch, capsys):
    monkeypatch.delenv("EASYREC_LITE_KAFKA", raising=False)
    assert main(["--topic", "t", "--data", "x"]) == 2
    assert "expected host:port" in capsys.readouterr().err


# Against a broker.


def consume(bootstrap, topic, count):
    """Messages per partition, in order."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        places = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        found: dict[int, list] = {place.partition: [] for place in places}
        deadline = time.monotonic() + 30
        while sum(map(len, found.values())) < count:
            assert time.monotonic() < deadline, {partition: len(records) for partition, records in found.items()}
            for place, records in consumer.poll(timeout_ms=500).items():
                found[place.partition] += records
        return found
    finally:
        consumer.close()


@pytest.mark.broker
@pytest.mark.parametrize(("name", "per_message"), [("csv", 1), ("json", 1), ("arrow", 100), ("tfexample", 20)])
def test_topic_holds_the_rows_and_the_damage_of_the_manifest(
    kafka, make_topic, rows, data, name, per_message, tmp_path
):
    topic = make_topic(3)
    malformed = 0.01 if per_message == 1 else 0.5
    sent = replay(
        kafka.bootstrap, topic, data, name, rows_per_message=per_message, key="user_id", malformed=malformed, seed=3
    )
    assert sent.rows == 3000
    assert len(sent.damaged) == pytest.approx(malformed * 3000 / per_message, abs=1)
    assert {at: (p.first_offset, p.last_offset + 1) for at, p in sent.partitions.items()} == kafka.offsets(topic)
    found = consume(kafka.bootstrap, topic, sent.messages + len(sent.damaged))
    damaged = {(one.partition, one.offset): one for one in sent.damaged}
    assert set(Counter(one.kind for one in sent.damaged)) == set(Damager(Format(name), "clk").kinds)
    got = []
    times = rows["event_time"].to_pylist()
    for partition, records in found.items():
        order = []
        for record in records:
            if (partition, record.offset) in damaged:
                length = damaged.pop((partition, record.offset)).bytes
                assert len(record.value or b"") == length
                continue
            here = read(name, per_message, record.value)
            assert record.timestamp == times[here[-1]["row"]] * 1000
            assert record.key == (str(here[0]["user_id"]).encode() if per_message == 1 else None)
            order += here
        assert [row["row"] for row in order] == sorted(row["row"] for row in order)
        assert len(order) == sent.partitions[partition].rows
        got += order
    assert not damaged
    assert sorted(got, key=lambda row: row["row"]) == [plain(row) for row in rows.to_pylist()]
    sent.write(tmp_path / "manifest.json")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["topic_id"] == kafka.topic_id(topic)
    assert len(manifest["damaged"]) == len(sent.damaged)


@pytest.mark.broker
def test_a_replay_is_continued_and_a_partition_falls_silent(kafka, make_topic, data):
    topic = make_topic(2)
    replay(kafka.bootstrap, topic, data, "json", rows=100, columns=["row"], weights=[1, 1])
    quiet = kafka.offsets(topic)[1]
    sent = replay(kafka.bootstrap, topic, data, "json", rows=50, skip_rows=100, columns=["row"], weights=[1, 0])
    assert (sent.rows, sent.partitions[1].first_offset) == (50, None)
    assert kafka.offsets(topic)[1] == quiet
    found = consume(kafka.bootstrap, topic, 150)
    assert sorted(json.loads(record.value)["row"] for part in found.values() for record in part) == list(range(150))


@pytest.mark.broker
def test_rate_and_command_line(kafka, data, tmp_path, capsys):
    topic = f"test-command-{time.time_ns()}"
    arguments = ["--broker", kafka.bootstrap, "--topic", topic, "--data", data, "--columns", "clk,row"]
    arguments += ["--rows", "300", "--rate", "600", "--partitions", "2", "--manifest", str(tmp_path / "m.json")]
    arguments += ["--malformed", "0.05", "--event_time_field", ""]
    try:
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert "300 rows in 300 messages" in said
        assert "other_format" in said
        manifest = json.loads((tmp_path / "m.json").read_text())
        assert manifest["columns"] == ["clk", "row"]
        assert manifest["seconds"] >= 299 / 600
        now = time.time() * 1000
        found = consume(kafka.bootstrap, topic, 315)
        assert all(abs(record.timestamp - now) < 60_000 for records in found.values() for record in records)
        assert main([*arguments, "--partitions", "3"]) == 2
        assert "expected 3 partitions. Found: 2" in capsys.readouterr().err
    finally:
        kafka.delete_topic(topic)


@pytest.mark.broker
def test_a_broker_killed_meanwhile_costs_no_row(own_kafka, data):
    address = own_kafka.bootstrap
    own_kafka.create_topic("now", 2)
    own_kafka.create_topic("then", 2)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        ways = {"now": None, "then": "event_time"}  # of today, and older than what a broker remembers of producers
        sending = {
            topic: pool.submit(replay, address, topic, data, "json", columns=["row"], rate=1500, event_time_field=field)
            for topic, field in ways.items()
        }
        deadline = time.monotonic() + 30
        for topic in ways:
            while sum(end for _, end in own_kafka.offsets(topic).values()) < 300:
                assert time.monotonic() < deadline
        own_kafka.kill()
        own_kafka.start()
        sent = {topic: future.result(90) for topic, future in sending.items()}
    for topic, result in sent.items():
        surplus = sum(partition.surplus for partition in result.partitions.values())
        found = consume(address, topic, 3000 + surplus)
        rows = [[json.loads(record.value)["row"] for record in records] for records in found.values()]
        assert sorted(itertools.chain(*map(set, rows))) == list(range(3000))
        assert sum(map(len, rows)) == 3000 + surplus
        if topic == "now":
            assert surplus == 0
            assert all(numbers == sorted(numbers) for numbers in rows)
