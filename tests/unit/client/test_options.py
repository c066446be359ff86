"""Options are typed in one place and explained in another; both name the same."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from rhai_tasks import AsyncClient, Client, TaskSpec
from rhai_tasks.client.base import ClientOptions
from rhai_tasks.client.spec import TaskOptions


def explained(subject: Any) -> dict[str, str]:
    """Return the types of the arguments that a docstring explains, by name."""
    _, _, section = (inspect.getdoc(subject) or "").partition("Args:\n")
    return dict(re.findall(r"^    (\w+) \(([^)]+)\): ", section.partition("\n\n")[0], re.MULTILINE))


def written(options: Any) -> dict[str, str]:
    """Return the types of options as they are written."""
    names = {
        "Any": "Mapping[str, Any] | None",
        "Mapping": "Mapping[str, str] | None",
        "'native'": "Via",
        "'rhai'": "DialectName",
        "SigningKey": "SigningKey | None",
    }
    shown = {
        name: str(hint) if "Literal[" in str(hint) else getattr(hint, "__name__", str(hint))
        for name, hint in options.__annotations__.items()
    }
    return {
        name: next((text for start, text in names.items() if start in hint), hint.rpartition(".")[2])
        for name, hint in shown.items()
    }


def test_submit_explains_each_of_its_options() -> None:
    assert explained(Client.submit) == {"script": "str | ScriptRef", **written(TaskOptions)}


def test_a_client_explains_each_of_its_options() -> None:
    assert explained(Client) == {"url": "str", "retry_timeout": "float", **written(ClientOptions)}


def test_a_spec_has_the_options_of_submit() -> None:
    assert [field.name for field in fields(TaskSpec)] == ["script", *TaskOptions.__annotations__]


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_an_option_that_is_none_is_refused_by_name(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="a client has no option 'circel'"):
        make(circel="circle")


def test_a_submission_with_an_unknown_option_is_refused_by_name() -> None:
    with Client(circle="circle") as app, pytest.raises(TypeError, match="unexpected keyword argument 'dealy'"):
        app.submit("1", dealy=1)  # type: ignore[call-arg]
