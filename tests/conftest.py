"""What every test runs under; no fixtures here: they live beside the tests that use them."""

from __future__ import annotations

import gc
import os

import pytest

pytest_plugins = ["kafka_fixtures"]

# Read by TensorFlow and Keras when they are imported, so set before any test module is.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# The same everywhere: the order of a parallel sum, and with it the last bits of a result, depends on the threads.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI", "").lower() == "true":
        config.pluginmanager.register(NoSkips(), "no_skips")


def pytest_sessionfinish(session: pytest.Session) -> None:
    # pytest's end collects all that TensorFlow keeps, five times; a worker that takes so long is interrupted.
    if hasattr(session.config, "workerinput"):
        gc.freeze()


class NoSkips:
    """Fails the run if a test, or a whole file, was skipped: in CI nothing that a test needs may be missing."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._add(report)

    def _add(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        # The longrepr of a skip is (file, line, reason).
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self.skipped.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped, which CI=true makes a failure", red=True)
            terminalreporter.write_line("\n".join(self.skipped))
