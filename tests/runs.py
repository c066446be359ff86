"""When the scripts of tasks with `stats` ran."""

from collections.abc import Iterator

from rhai_tasks.protocol import parse_time

from .conftest import Dispatcher


def spans(dispatcher: Dispatcher, ids: list[str]) -> Iterator[tuple[float, float]]:
    """Yield when each script began and ended."""
    for task_id in ids:
        details = dispatcher.details(task_id)
        assert details["status"] == "completed", details
        began = parse_time(details["startedAt"])
        assert began is not None
        yield began, began + float(details["runSeconds"])


def most_at_once(dispatcher: Dispatcher, ids: list[str]) -> int:
    """Return how many of the scripts ran at once."""
    events = sorted((at, step) for span in spans(dispatcher, ids) for at, step in zip(span, (1, -1), strict=True))
    running, most = 0, 0
    for _, step in events:
        running += step
        most = max(most, running)
    return most
