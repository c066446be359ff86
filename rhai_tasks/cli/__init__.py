"""Which commands does `rhai-tasks` have?

Arguments in, exit status out.
"""

from . import queues, rules, scripts, services, tasks  # they add their commands to the group
from .group import main

__all__ = ["main", "queues", "rules", "scripts", "services", "tasks"]
