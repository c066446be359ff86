"""Where the output of scripts goes by default: to the logger `rhai_tasks.script`."""

import logging

script_logger = logging.getLogger("rhai_tasks.script")


def log_debug(text: str, source: str | None, line: int | None, column: int | None) -> None:
    """Log a script's `debug(...)` at level debug, with its place in the script."""
    script_logger.debug("%s%s:%s: %s", f"{source}:" if source else "", line, column, text)
