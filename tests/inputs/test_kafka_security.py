"""Both clients over TLS, with a password, against a real broker that lets nobody else in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from kafka import KafkaProducer

from easyrec_lite.inputs import InputError
from easyrec_lite.inputs.kafka.opening import library as find_library
from easyrec_lite.inputs.kafka.settings import Settings
from easyrec_lite.protos import data_pb2
from tools._kafka_server import free_ports
from tools.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow]
PASSWORD = "correct horse"
USER = "reader"
TOPIC = "secured"
CLIENTS = {"kafka-python": data_pb2.KafkaServer.KAFKA_PYTHON, "confluent": data_pb2.KafkaServer.CONFLUENT}


@dataclasses.dataclass(frozen=True)
class Secured:
    """A broker with a secured listener.

    Attributes:
        address: the secured listener.
        authority: file of the certificate that signed the broker's.
        stranger: file of another authority.
        client: file of the key and certificate of a client.
    """

    address: str
    authority: Path
    stranger: Path
    client: Path


def write_identity(path: Path, identity: trustme.LeafCert) -> None:
    """Key and certificates; Java reads keys by PKCS #8 only."""
    key = serialization.load_pem_private_key(identity.private_key_pem.bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*form) + b"".join(blob.bytes() for blob in identity.cert_chain_pems))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    stranger.cert_pem.write_to_path(folder / "stranger.pem")
    write_identity(folder / "broker.pem", authority.issue_cert("127.0.0.1", "localhost"))
    write_identity(folder / "client.pem", authority.issue_cert("client"))
    (port,) = free_ports(1)
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:{{port}},SECURED://127.0.0.1:{port},CONTROLLER://127.0.0.1:{{controller_port}}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{{port}},SECURED://127.0.0.1:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURED:SASL_SSL",
        "listener.name.secured.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secured.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
        "listener.name.secured.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "authority.pem"),
    }
    with KafkaBroker(tmp_path_factory.mktemp("kafka"), settings=settings) as broker:
        broker.create_topic(TOPIC, 1)
        with closing(KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer:
            producer.send(TOPIC, b"1\n2").get(30)
        yield Secured(f"127.0.0.1:{port}", folder / "authority.pem", folder / "stranger.pem", folder / "client.pem")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> int:
    return CLIENTS[request.param]


def settings_of(secured: Secured, client: int, authority: Path, *edits: str) -> Settings:
    server = data_pb2.KafkaServer(server=secured.address, topic=TOPIC, group="g", client=client)
    options = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": authority,
        "ssl.certificate.location": secured.client,
        "ssl.key.location": secured.client,
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": "env:TEST_KAFKA_PASSWORD",
    } | dict(edit.split("=") for edit in edits)
    server.config_global.extend(f"{key}={value}" for key, value in options.items())
    return Settings.from_config(server)


def read(settings: Settings) -> list[bytes | None]:
    with closing(find_library(settings).connect(settings, 30.0)) as connected:
        connected.assign({0: 0})
        for _ in range(100):
            if fetched := connected.poll(0.2):
                return list(fetched[0].values)
    return []


def test_reads_over_tls_with_a_password(secured: Secured, client: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KAFKA_PASSWORD", PASSWORD)
    assert read(settings_of(secured, client, secured.authority)) == [b"1\n2"]


def test_a_wrong_password_is_an_error_that_keeps_it(
    secured: Secured, client: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_KAFKA_PASSWORD", "battery staple")
    with pytest.raises(InputError, match=r"(?i)authenticat") as caught:
        read(settings_of(secured, client, secured.authority))
    assert "config_global" in str(caught.value)
    assert "battery" not in str(caught.value) + caplog.text


def test_a_broker_that_another_authority_signed_is_not_trusted(
    secured: Secured, client: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KAFKA_PASSWORD", PASSWORD)
    with pytest.raises(InputError, match=r"(?i)certificate") as caught:
        read(settings_of(secured, client, secured.stranger))
    assert "config_global" in str(caught.value)
