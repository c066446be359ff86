"""A tree as one sees it through its port."""

import re
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Worker, wait_until

ADDRESS = ("--metrics-address", "127.0.0.1:0")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""


def parse(text: str) -> Samples:
    """Read what /metrics says."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Observed:
    """The port of a worker or bridge that was started with `ADDRESS`."""

    def __init__(self, worker: Worker) -> None:
        def port() -> str | None:
            found = re.search(r"are at http://127.0.0.1:(\d+)", worker.text())
            return found[1] if found else None

        self.worker = worker
        self.address = f"127.0.0.1:{wait_until(port, what='the port')}"

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body."""
        try:
            with urlopen(f"http://{self.address}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def is_ready(self) -> bool:
        return self.get("/readyz") == (200, "ok\n")

    def samples(self) -> Samples:
        """Scrape."""
        status, body = self.get("/metrics")
        assert status == 200, body
        return parse(body)

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((name, frozenset(labels.items())))

    def await_value(self, value: float, name: str, **labels: str) -> None:
        """Wait for a metric to come to a value; what a process counts shows within a second."""
        wait_until(lambda: self.value(name, **labels) == value, what=f"{name}{labels} to be {value}")


Start = Callable[..., Any]
