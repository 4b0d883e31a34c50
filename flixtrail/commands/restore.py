"""`flixtrail restore`: puts a backup of `flixtrail backup` back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flixtrail.commands.backup import ABOUT, DEFINITIONS, HISTORY, PSQL, steps
from flixtrail.commands.options import confirm
from flixtrail.compose import Compose, ComposeFailed, exit_on_signals
from local.errors import DemoError, WrongSetting

#: Users that docker-compose.yml creates (deploy/rabbitmq/definitions.json). Their passwords come from .env.
COMPOSE_USERS = frozenset({"flixtrail", "streaming-app", "history-worker", "monitor", "operator"})
#: SQL before the dump is restored, in the same transaction. It drops the schema first, so everything that is not in the
#: dump disappears.
#:
#: Viewers that were erased since the backup stay erased. The current tombstones are kept, and the restored views of
#: those viewers are deleted again.
BEFORE = """
CREATE TEMPORARY TABLE erased_now (viewer bytea, erased_at timestamptz);
CREATE TEMPORARY TABLE erased_events_now (event_id uuid);
DO $$ BEGIN
    IF to_regclass('public.erasures') IS NOT NULL THEN
        INSERT INTO erased_now SELECT viewer, erased_at FROM public.erasures;
        INSERT INTO erased_events_now SELECT event_id FROM public.erased_events;
    END IF;
END $$;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
"""
AFTER = """
CREATE TEMPORARY TABLE since AS
SELECT viewer_id, now.viewer, now.erased_at
  FROM pg_temp.erased_now AS now
  LEFT JOIN public.erasures AS known ON known.viewer = now.viewer
  LEFT JOIN (SELECT DISTINCT viewer_id FROM public.view_events) AS of
         ON sha256(convert_to(viewer_id, 'UTF8')) = now.viewer
 WHERE known.erased_at IS NULL OR known.erased_at < now.erased_at;
WITH gone AS (
    DELETE FROM public.view_events WHERE viewer_id IN (SELECT viewer_id FROM pg_temp.since) RETURNING event_id
)
INSERT INTO public.erased_events
SELECT event_id FROM gone UNION SELECT event_id FROM pg_temp.erased_events_now
    ON CONFLICT DO NOTHING;
DELETE FROM public.playbacks WHERE viewer_id IN (SELECT viewer_id FROM pg_temp.since);
INSERT INTO public.erasures SELECT DISTINCT viewer, erased_at FROM pg_temp.since
    ON CONFLICT (viewer) DO UPDATE SET erased_at = excluded.erased_at;
"""
RESTORE = """
{ printf %s "$1"; pg_restore --no-owner --no-privileges --file=-; printf %s "$2"
} | psql -U flixtrail -d flixtrail -Xq --single-transaction -v ON_ERROR_STOP=1 >/dev/null
"""
#: Through a file, because rabbitmqctl 4.3 on Erlang 28 does not read the definitions from a pipe.
IMPORT = """
umask 077; cat >/tmp/import.json; rabbitmqctl -q import_definitions /tmp/import.json >&2; status=$?
rm -f /tmp/import.json; exit $status
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask. You need this if there is no terminal.")
def command(folder: Path, *, yes: bool) -> None:
    """Replace the history of the compose stack with the backup in FOLDER, which `flixtrail backup` wrote.

    Views are accepted meanwhile. They wait in the queue, like those that were there before, and are written afterwards.
    The database changes in one transaction: afterwards it is exactly as in the backup, or unchanged. A viewer who was
    erased since the backup stays erased.

    \b
    flixtrail restore backups/2026-11-24T10-44-13Z
    """  # noqa: D301 (click's \b)
    about, definitions = read(folder)
    if not yes:
        confirm(
            f"Replace the history by that of {about['began_at']} ({about['views']:,} views)?",
            "What is stored now is replaced.",
        )
    compose = Compose()
    with exit_on_signals(), steps() as step:
        step("stopping the workers and the history API")
        compose("stop", "history-worker", "history-api")
        now = "It is as it was before."
        try:
            step("the database")
            script = ("bash", "-o", "pipefail", "-c", RESTORE, "restore", BEFORE, AFTER)
            compose.feed(folder / HISTORY, "exec", "-T", "postgres", *script)
            now = "It is the backup's already. To repeat the steps that are missing, restore once more."
            step("roles, migrations, grants")
            compose("run", "--rm", "--no-deps", "-T", "roles")
            compose("run", "--rm", "--no-deps", "-T", "migrate")
            step("the broker's definitions")
            data = json.dumps(definitions).encode()
            compose("exec", "-T", "rabbitmq", "bash", "-c", IMPORT, data=data)
            views = int(compose(*PSQL, "-c", "SELECT count(*) FROM view_events"))
        except ComposeFailed as error:
            raise DemoError(f"{error}\nThe history: {now}") from None
        finally:
            step("starting the workers and the history API")
            compose("start", "history-worker", "history-api")
    click.echo(f"restored: {views:,} views, as of {about['began_at']}. Views that wait in the queue are written now.")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read backup.json, and the definitions without the users that docker-compose.yml creates. Raises WrongSetting."""
    try:
        about = json.loads((folder / ABOUT).read_text())
        definitions = json.loads((folder / DEFINITIONS).read_text())
        if (folder / HISTORY).stat().st_size != about["bytes"]:
            raise WrongSetting(
                f"FOLDER: {folder / HISTORY} has another size than the {about['bytes']:,} bytes in backup.json"
            )
    except (OSError, ValueError, KeyError) as error:
        raise WrongSetting(f"FOLDER: {folder} is not a complete backup: {error}") from None
    definitions["users"] = [user for user in definitions.get("users", []) if user["name"] not in COMPOSE_USERS]
    return about, definitions
