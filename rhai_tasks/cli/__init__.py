"""Which commands does `rhai-tasks` have?

Arguments in, exit status out.
"""

from . import (
    again,
    api_keys,
    bulk,
    keys,
    lists,
    policy,
    profile,
    queues,
    rules,
    script_tests,
    scripts,
    services,
    stored,
    tail,
    tasks,
    waiting,
)  # they add their commands to the group
from .group import main

__all__ = [
    "again",
    "api_keys",
    "bulk",
    "keys",
    "lists",
    "main",
    "policy",
    "profile",
    "queues",
    "rules",
    "script_tests",
    "scripts",
    "services",
    "stored",
    "tail",
    "tasks",
    "waiting",
]
