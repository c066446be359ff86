import pickle

import pytest

from rhai_tasks import current_task
from rhai_tasks.errors import (
    NoCurrentTask,
    QueueFull,
    RhaiError,
    RhaiTasksError,
    ScriptError,
    ServerUnavailable,
    TaskCancelled,
    TaskError,
    TaskExists,
    TaskNotFound,
    TaskTimeout,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TaskNotFound("t"), "task 't' has no details: never submitted, deleted, or expired"),
        (TaskExists("t"), "task 't' exists already"),
        (QueueFull("k", 3), "no more than 3 task(s) of caller 'k' may wait: submit again when some have begun"),
        (QueueFull(None, 3), "no more than 3 task(s) of the circle may wait: submit again when some have begun"),
        (TaskTimeout("t", 1.5), "task 't' not ended within 1.5 s"),
        (TaskTimeout("t", 2, 3), "task 't' and 3 more not ended within 2 s"),
        (TaskCancelled("t"), "task 't' was cancelled"),
        (ScriptError("t", "Runtime error: 1 (line 1, position 2)"), "Runtime error: 1 (line 1, position 2)"),
        (ServerUnavailable("gone"), "gone"),
    ],
)
def test_errors_say_what_was_wrong_and_go_to_other_processes(error: RhaiTasksError, text: str) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert str(error) == str(copy) == text
    assert vars(copy) == vars(error)
    assert type(copy) is type(error)


@pytest.mark.parametrize(
    ("text", "line", "column", "frames"),
    [
        ("Syntax error: x (line 3, position 5)", 3, 5, ()),
        ("The worker process died 3 times with this task; it is not tried again", None, None, ()),
        (
            "Runtime error: (line 9, position 9) (line 2, position 13)\n"
            "in call to function 'g' (line 1, position 11)\nin call to function 'f' (line 3, position 2)",
            2,
            13,
            (("g", 1, 11), ("f", 3, 2)),
        ),
    ],
)
def test_a_scripts_error_says_where(
    text: str, line: int | None, column: int | None, frames: tuple[tuple[str, int, int], ...]
) -> None:
    error = ScriptError("t", text)

    assert (error.line, error.column, error.frames) == (line, column, frames)
    assert isinstance(error, RhaiError)


def test_timeouts_and_missing_tasks_are_pythons_own_too() -> None:
    assert issubclass(TaskTimeout, TimeoutError)
    assert issubclass(TaskNotFound, LookupError)
    assert issubclass(ServerUnavailable, ConnectionError)
    assert issubclass(TaskCancelled, TaskError)


def test_no_task_runs_outside_of_a_worker() -> None:
    with pytest.raises(NoCurrentTask, match="no task runs here"):
        current_task()
