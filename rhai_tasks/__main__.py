"""`python -m rhai_tasks`: the command `rhai-tasks`."""

from rhai_tasks.cli import main

main(prog_name="python -m rhai_tasks")
