"""What the demo prints when it is ready: all addresses, and what to try next."""

from __future__ import annotations

from urllib.parse import urlsplit

from rich.markup import escape

from local.pasteable_commands import here, program
from local.rabbitmq_programs import HOW_TO_INSTALL
from local.stack import Stack

LEARNER_MODE = f"""\
[bold]Learner mode[/]: the messages lie in PostgreSQL (pgmq), there is no RabbitMQ here. Recording, any number of
workers and redelivery after kill -9 work. Absent: publisher confirms, the broker's dead letters, Flower.
To see those, install RabbitMQ and start again.  {HOW_TO_INSTALL}"""


def greeting(stack: Stack) -> str:
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
    flixtrail = escape(program(stack.state.folder))
    lines += [
        "See a worker die and another one take over its messages, in a second terminal:",
        f"  {escape(here())}",
        f"  {flixtrail} tour            step by step",
        "Or by hand, in three terminals:",
        f"  {flixtrail} watch           the work queue, live",
        f"  {flixtrail} send --slow     views for a minute, slow enough to watch",
        f"  {flixtrail} workers kill    kill -9 the worker that holds most: another one gets its messages",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def management_page(url: str) -> str:
    """Return RabbitMQ's page: its address, user and password."""
    parts = urlsplit(url)
    return f"http://{parts.hostname}:{parts.port}  (user {parts.username}, password {parts.password})"
