"""Kafka topics as a source: exact positions, the same batches again after a restart, bounded memory."""

from easyrec_lite.inputs.kafka.opening import open_kafka
from easyrec_lite.inputs.kafka.position import Place, StreamPosition
from easyrec_lite.inputs.kafka.settings import Settings
from easyrec_lite.inputs.kafka.source import KafkaSource

__all__ = ["KafkaSource", "Place", "Settings", "StreamPosition", "open_kafka"]
