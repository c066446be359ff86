"""The server of the web page."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import click
import uvicorn

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.log import capture_stderr, configure_logging
from rhai_tasks.settings import Settings

from .app import make_app
from .security import is_loopback


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    token: str | None,
    read_only: bool,
    proxies: Sequence[str],
    has_api: bool = False,
) -> None:
    """Print the address of the page, and serve it until SIGINT or SIGTERM.

    `proxies` are the addresses of proxies whose X-Forwarded-For is trusted. `has_api` serves the HTTP API, too.

    Raises:
        ConfigurationError: The address is open to other machines without a token; or it cannot be bound.
    """
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host!a} can be reached from other machines: give a --token too, best as RHAI_TASKS_WEB_TOKEN"
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"--host {host!a} with --port {port}: cannot listen there: {getattr(error, 'strerror', None) or error}"
        ) from error
    click.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    configure_logging(os.environ.get("RUST_LOG"))  # uvicorn's own logging would wait for the reader of stderr
    capture_stderr()
    app = make_app(settings, token=token, read_only=read_only, host=host, port=port, has_api=has_api)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=[*proxies],
            log_level="warning",
            timeout_graceful_shutdown=3,
            server_header=False,
        )
    )
    app.state.is_stopping = lambda: server.should_exit  # live pages would keep it running
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
