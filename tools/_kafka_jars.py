"""Java and the jars of Apache Kafka: fetched once by Maven into a cache, checked, used again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from easyrec_lite.errors import UserError

# The last line of releases that also runs on Java 11; 4.x takes 17 and starts more slowly.
KAFKA_VERSION = "3.9.1"
CACHE_VARIABLE = "EASYREC_LITE_CACHE"
BROKER_VARIABLE = "EASYREC_LITE_KAFKA"

_ELSE = f"Or set {BROKER_VARIABLE}=host:port to use a Kafka broker that already runs."
_MANIFEST = "manifest.json"
_FETCH_SECONDS = 600
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>easyrec_lite</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>ch.qos.reload4j</groupId><artifactId>reload4j</artifactId><version>1.2.25</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


class BrokerError(UserError):
    """The broker can't be had, started or reached; the message says what to do."""


def java() -> str:
    """The `java` to run, from JAVA_HOME or PATH.

    Raises:
        BrokerError: There is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home, "bin"))) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise BrokerError(
            "Apache Kafka needs Java 11 or newer, but no `java` was found in JAVA_HOME or on PATH. Install it "
            f"(Debian and Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install openjdk@17). {_ELSE}"
        )
    return found


def cache_directory() -> Path:
    """Where the jars of this version are kept: below EASYREC_LITE_CACHE, else below the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve() / f"kafka-{KAFKA_VERSION}"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user / "easyrec_lite" / f"kafka-{KAFKA_VERSION}"


def jars() -> Path:
    """The folder of the jars, fetched if it is missing or damaged.

    Raises:
        BrokerError: They aren't there and can't be fetched.
    """
    folder = cache_directory()
    if not _complete(folder):
        _fetch(folder)
    return folder


def _complete(folder: Path) -> bool:
    """True if every jar is there with the content that was fetched."""
    try:
        digests = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(digests) and all(_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(
            f"{folder}: the jars of Apache Kafka {KAFKA_VERSION} aren't there, and Maven, which fetches them, was not "
            f"found on PATH. Install it (Debian and Ubuntu: apt install maven; macOS: brew install maven). {_ELSE}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as scratch:
        project, fetched = Path(scratch, "project"), Path(scratch, "jars")
        project.mkdir()
        (project / "pom.xml").write_text(_POM, encoding="utf-8")
        command = [maven, "-q", "-B", _GOAL, "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        try:
            done = subprocess.run(
                command, cwd=project, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerError(f"{maven} did not fetch Apache Kafka in {_FETCH_SECONDS} seconds. {_ELSE}") from error
        if done.returncode != 0:
            said = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-10:])
            raise BrokerError(
                f"{maven} could not fetch Apache Kafka {KAFKA_VERSION} (exit code {done.returncode}). It said:\n"
                f"{said}\nCheck that this machine reaches the repositories of its Maven settings. {_ELSE}"
            )
        digests = {path.name: _digest(path) for path in sorted(fetched.glob("*.jar"))}
        (fetched / _MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")
        _put_in_place(fetched, folder)


def _put_in_place(fetched: Path, folder: Path) -> None:
    """Renames the fetched folder; whoever fetches at the same time may come first."""
    if folder.exists() and not _complete(folder):
        shutil.rmtree(folder)
    try:
        fetched.rename(folder)
    except OSError:
        if not _complete(folder):
            raise
