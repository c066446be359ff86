"""Commands around running processes: health, the web page, the demo."""

import ipaddress
import sys

import click
from setproctitle import getproctitle, setproctitle

from rhai_tasks.options import ENVIRONMENT_PREFIX, WholeNumber, secret
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo

from .group import FAILED, main


@main.command()
@click.option(
    "--address",
    envvar=f"{ENVIRONMENT_PREFIX}_METRICS_ADDRESS",
    show_envvar=True,
    required=True,
    metavar="HOST:PORT",
    help="The --metrics-address of the worker or bridge.",
)
@click.option("--live", is_flag=True, help="Ask only whether its processes live, not whether they can work now.")
def health(address: str, live: bool) -> None:
    """Ask a worker or bridge whether it is ready.

    If it is not ready, the status is 1, and a line names the missing items.
    """
    from rhai_tasks.observe.monitor import ask  # noqa: PLC0415  (no other command needs it)

    well, answer = ask(address, "/livez" if live else "/readyz")
    echo("; ".join(answer.splitlines()), err=not well)
    if not well:
        sys.exit(FAILED)


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not an IPv4 or IPv6 address.") from error


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="Address to listen on.")
@click.option("--port", default=8020, show_default=True, show_envvar=True, type=WholeNumber(1, 65535), help="TCP port.")
@click.option(
    "--token",
    show_envvar=True,
    callback=secret,
    metavar="TEXT",
    help="Token for logins; required if other machines can reach the page.",
)
@click.option("--read-only", is_flag=True, show_envvar=True, help="Show everything, and change nothing.")
@click.option("--api", is_flag=True, show_envvar=True, help="Serve the HTTP API at /v1, too (docs/http-api.md).")
@click.option(
    "--proxy",
    multiple=True,
    show_envvar=True,
    type=_address,
    metavar="ADDRESS",
    help="Proxy before the page, whose X-Forwarded-For counts; repeat it. In the variable: separated by blanks.",
)
@click.pass_obj
def web(
    settings: Settings, /, host: str, port: int, token: str | None, read_only: bool, api: bool, proxy: tuple[str, ...]
) -> None:
    """Serve a web page with queues, workers and tasks, and actions."""
    try:
        from rhai_tasks.web.server import serve  # noqa: PLC0415  (needs more than the other commands)
    except ImportError as error:
        raise click.UsageError(f"{error.name} is not installed: pip install 'rhai-tasks[web]'") from error
    if token:
        setproctitle(getproctitle().replace(token, "***"))  # every user of the machine can read it
    serve(settings, host=host, port=port, token=token or None, read_only=read_only, proxies=proxy, has_api=api)


@main.command()
@click.option("--web", is_flag=True, help="Then show the web page, while tasks come and go, until Ctrl-C.")
@click.option("--port", default=8020, show_default=True, type=WholeNumber(1, 65535), help="TCP port of the page.")
def demo(*, web: bool, port: int) -> None:
    """Start a server and a worker, submit scripts, watch them end."""
    show_page = None
    try:
        from .demo import main as run  # noqa: PLC0415  (needs more than the other commands)

        if web:
            from rhai_tasks.web.server import serve  # noqa: PLC0415

            def show_page(url: str) -> None:
                serve(Settings(redis_url=url), host="127.0.0.1", port=port, token=None, read_only=False, proxies=())

    except ImportError as error:
        raise click.UsageError(f"{error.name} is not installed: pip install 'rhai-tasks[demo,web]'") from error
    sys.exit(run(show_page))
