"""What the demo prints when it is ready: all addresses, and what to try next."""

from __future__ import annotations

from urllib.parse import urlsplit

from rich.markup import escape

from local.pasteable_commands import cd_command, flixtrail_command
from local.rabbitmq_programs import HOW_TO_INSTALL
from local.stack import Stack

LEARNER_MODE = f"""\
[bold]Learner mode[/]: the messages are in PostgreSQL (pgmq). There is no RabbitMQ. Recording, any number of
workers and redelivery after kill -9 work. Publisher confirms, the broker's dead letters and Flower do not.
To see those, install RabbitMQ and start again.  {HOW_TO_INSTALL}"""


def ready_message(stack: Stack) -> str:
    """Return several lines in rich's markup."""
    lines = [f"  the library       {stack.addresses.web_url}"]
    if stack.has_flower:
        password = stack.state.secret("flower_password")
        lines.append(f"  Flower            {stack.addresses.flower_url}  (user flixtrail, password {password})")
    if stack.addresses.management_url:
        lines.append(f"  RabbitMQ's pages  {management_page(stack.addresses.management_url)}")
    lines += [f"  logs              {escape(str(stack.state.logs))}", ""]
    if stack.learner_mode:
        lines += [LEARNER_MODE, ""]
    flixtrail = escape(flixtrail_command(stack.state.folder))
    lines += [
        "See a worker die and another one take over its messages, in a second terminal:",
        f"  {escape(cd_command())}",
        f"  {flixtrail} tour            step by step",
        "Or by hand, in three terminals:",
        f"  {flixtrail} watch           the work queue, live",
        f"  {flixtrail} send --slow     views for a minute, slow enough to watch",
        f"  {flixtrail} workers kill    kill -9 the worker with the most messages: another one gets them",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def management_page(url: str) -> str:
    """Return RabbitMQ's page: its address, user and password."""
    parts = urlsplit(url)
    return f"http://{parts.hostname}:{parts.port}  (user {parts.username}, password {parts.password})"
