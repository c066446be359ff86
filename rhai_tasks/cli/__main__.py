"""`python -m rhai_tasks.cli`."""

from . import main

main()
