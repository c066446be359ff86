"""The server of the web page."""

from contextlib import suppress

import click
import uvicorn

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.settings import Settings

from .app import make_app
from .security import is_loopback


def serve(settings: Settings, *, host: str, port: int, token: str | None, read_only: bool) -> None:
    """Say where the page is, and serve it until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: The address is open to other machines, and no token guards it.
    """
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from other machines: give a --token too, best as RHAI_TASKS_WEB_TOKEN"
        )
    click.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    app = make_app(settings, token=token, read_only=read_only, host=host, port=port)
    server = uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=3, server_header=False)
    )
    app.state.is_stopping = lambda: server.should_exit  # pages that are open would keep it up
    with suppress(KeyboardInterrupt):
        server.run()
