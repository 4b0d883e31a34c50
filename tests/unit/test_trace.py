"""`flixtrail trace` reads logs of both formats, as they are: rotated, prefixed, coloured, cut off, full of others."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from flixtrail.commands.trace import command
from local.log_lines import Log, logs_in, parse
from local.view_trace import ViewTrace, trace_view

VIEW = "01a20dec-1d23-771a-a6b4-4133aab4c4f6"
OTHER = "01a20dec-1d04-775b-b6bd-b3c691905de3"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TASK = "5f1086db-9a38-4093-8dcb-39ef7e2421c5"
OTHER_TASK = "912fea87-87eb-4a34-83ee-62a1c9125360"

Write = Callable[[float, str, str], str]


def console(second: float, event: str, logger: str, **fields: Any) -> str:
    return str(structlog.dev.ConsoleRenderer(colors=False)(None, "", record(second, event, logger, fields)))


def coloured(second: float, event: str, logger: str, **fields: Any) -> str:
    return str(structlog.dev.ConsoleRenderer(colors=True)(None, "", record(second, event, logger, fields)))


def as_json(second: float, event: str, logger: str, **fields: Any) -> str:
    return str(structlog.processors.JSONRenderer()(None, "", record(second, event, logger, fields)))


def record(second: float, event: str, logger: str, fields: dict[str, Any]) -> dict[str, Any]:
    time = f"2026-11-24T14:18:{second:09.6f}Z"
    return {"event": event, "level": "info", "logger": logger, "timestamp": time, **fields}


FORMATS = pytest.mark.parametrize("write", [console, coloured, as_json], ids=["console", "coloured", "json"])


@FORMATS
@pytest.mark.parametrize("prefix", ["", "history-worker-1  | ", "flixtrail-streaming-app-2 | "])
def test_a_line_is_read_as_it_was_written(write: Any, prefix: str) -> None:
    fields = {
        "events": 2,
        "ms": 82.8,
        "redelivered": False,
        "age_ms": None,
        "task_id": TASK,
        "views": {TRACE: [VIEW], "-": [OTHER]},
        "trace_ids": [TRACE],
        "reason": "a 'quoted' \"word\", {brackets} and = too",
    }
    line = parse(prefix + write(27.5, "published", "streaming_app.recording.publisher", **fields) + "\n", None)
    assert line
    assert line.time == datetime(2026, 11, 24, 14, 18, 27, 500_000, UTC)
    assert (line.event, line.service) == ("published", prefix.partition(" ")[0] or "streaming-app")
    assert {name: line.fields[name] for name in fields} == fields


#: structlog writes some characters as they are that end a line.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,9}", fullmatch=True).filter(lambda key: key not in record(0, "", "", {})),
        st.recursive(st.none() | st.booleans() | st.integers(), st.lists)
        | st.lists(TEXT)
        | st.dictionaries(TEXT, st.lists(TEXT)),
    )
)
def test_whatever_the_values_are_a_line_for_people_is_read_as_one_for_machines(fields: dict[str, Any]) -> None:
    written = {key: value for key, value in fields.items() if key not in {"stack", "exception", "exc_info"}}
    line = parse(console(1, "published", "streaming_app.recording.publisher", **written))
    assert line
    assert line.fields == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "Traceback (most recent call last):",
        "{",
        '{"event": "published"',
        "[1, 2]",
        '{"a": 1}',
        '{"event": "published", "timestamp": "yesterday"}',
        '{"event": "published", "timestamp": "2026-11-24T14:18:27"}',
        "2026-11-24T14:18:27.5Z [info     ] publ",
        "2026-13-99T14:18:27.5Z [info     ] published [a.b]",
        "history-worker-1  | ",
        "history-worker-1  | \x00\x01\x02",
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_line_of_ours_is_passed_over(text: str) -> None:
    assert parse(text) is None


def test_half_a_line_tells_what_is_there() -> None:
    whole = console(1, "published", "a.b", events=1, views={TRACE: [VIEW]})
    for length in range(len(whole)):
        line = parse(whole[:length])
        if line is not None:
            assert line.event == "published"


# -- the story --------------------------------------------------------------------------------------------


def traced(tmp_path: Path, *lines: str, **more: str) -> ViewTrace:
    (tmp_path / "all.log").write_text("\n".join(lines))
    for name, text in more.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    return trace_view(VIEW, logs_in(tmp_path))


def what(found: ViewTrace) -> list[str]:
    return [step.what for step in found.steps]


def published(write: Any, second: float = 1, task_id: str = TASK, views: Any = None, **fields: Any) -> str:
    fields = {"events": 2, "ms": 3.5, "from_outbox": False, **fields}
    views = {TRACE: [VIEW, OTHER]} if views is None else views
    return str(write(second, "published", "streaming_app.recording.publisher", task_id=task_id, views=views, **fields))


def committed(write: Any, second: float = 2, task_id: str = TASK, **fields: Any) -> str:
    fields = {"events": 2, "stored": 2, "ms": 4.0, "age_ms": 90, "redelivered": False, "trace_ids": [TRACE], **fields}
    return str(write(second, "committed", "history_worker.tasks", task_id=task_id, **fields))


@FORMATS
def test_the_story_goes_from_the_id_to_its_trace_and_its_tasks_in_order_of_time(tmp_path: Path, write: Any) -> None:
    found = traced(
        tmp_path,
        committed(write),
        "garbage " + VIEW,
        committed(write, 9, OTHER_TASK, trace_ids=["f" * 32]),
        published(write)[:-9],  # as the last line of a rotated file may be
        published(write),
        write(
            1.5,
            "PostgreSQL is away; the message stays unacknowledged",
            "safe_consumer.retry",
            task_id=TASK,
            reason="gone",
        ),
    )
    assert found.trace_ids == [TRACE]
    assert found.task_ids == [TASK]
    assert what(found)[-3:] == ["published", "PostgreSQL is away; the message stays unacknowledged", "committed"]
    assert "batch of 2, 2 new" in found.steps[-1].details


@FORMATS
def test_what_became_of_other_views_of_the_same_trace_or_message_is_not_told(tmp_path: Path, write: Any) -> None:
    found = traced(
        tmp_path,
        published(write, 1, TASK),
        published(write, 1, OTHER_TASK, {TRACE: [OTHER]}),
        committed(write, 2, OTHER_TASK),
        committed(write, 3, TASK),
        write(
            4,
            "event refused, dead-lettered",
            "history_worker.unstorable_events",
            task_id=TASK,
            event_id=OTHER,
            kind="x",
        ),
    )
    assert [(step.what, step.task_id) for step in found.steps] == [("published", TASK), ("committed", TASK)]
    assert found.maybe_task_ids == []


@FORMATS
def test_a_message_whose_confirm_never_came_is_found_by_its_trace(tmp_path: Path, write: Any) -> None:
    found = traced(
        tmp_path,
        write(1, "stored in the outbox", "streaming_app.recording.outbox", events=1, views={TRACE: [VIEW]}),
        committed(write, 2, OTHER_TASK, events=1, stored=1),
        published(write, 3, TASK, {TRACE: [VIEW]}, from_outbox=True),
        committed(write, 4, TASK, events=1, stored=0, redelivered=True),
    )
    assert what(found) == ["stored in the outbox", "committed", "sent from the outbox", "redelivered, committed"]
    assert found.steps[1].details.endswith("(by its trace)")
    assert found.maybe_task_ids == [OTHER_TASK]


@FORMATS
def test_a_refused_view_is_told_with_its_reason(tmp_path: Path, write: Any) -> None:
    found = traced(
        tmp_path,
        published(write),
        write(
            2,
            "event refused, dead-lettered",
            "history_worker.unstorable_events",
            kind="database",
            reason="22P05 unsupported Unicode escape sequence",
            event_id=VIEW,
            trace_id=TRACE,
            task_id=TASK,
        ),
        committed(write, 3, stored=1, refused=1),
    )
    assert what(found) == ["published", "refused, dead-lettered", "committed"]
    assert found.steps[1].details.startswith("database: 22P05 unsupported Unicode escape sequence")


def test_rotated_files_are_read_and_each_file_is_a_service(tmp_path: Path) -> None:
    (tmp_path / "web.log.1").write_text(published(console))
    (tmp_path / "history-worker-2.log").write_text(committed(console) + "\n")
    found = trace_view(VIEW, logs_in(tmp_path))
    assert [(step.service, step.what) for step in found.steps] == [
        ("web", "published"),
        ("history-worker-2", "committed"),
    ]


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with log.open("w") as file:
        for _ in range(20_000):
            file.write(published(console, 1, OTHER_TASK, {"f" * 32: [OTHER] * 20}) + "\n")
        file.write("x" * 30_000_000 + "\n")
        file.write(published(console) + "\n")
    assert log.stat().st_size > 40_000_000
    tracemalloc.start()
    found = trace_view(VIEW, [Log(log)])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert what(found) == ["published"]
    assert most < 10_000_000


# -- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    def run(*arguments: str, given: str = "") -> Result:
        return CliRunner().invoke(command, arguments, input=given)

    return run


def test_a_terminal_obeys_nothing_that_stands_in_a_log(run: Callable[..., Result]) -> None:
    evil = "\x1b]0;mine\x07\u202e\ud800[/bold]"
    lines = [
        as_json(1, "request", "proxy", method=evil, path=evil, status=evil, trace_id=TRACE, event_id=VIEW),
        as_json(2, f"{evil}", "streaming_app.recording.publisher", event_id=VIEW, trace_id=evil, reason=evil * 1_000),
    ]
    said = run(VIEW, "--logs", "-", given="\n".join(lines)).output
    assert VIEW in said
    assert "[/bold]" in said
    assert not {"\x1b", "\x07", "\u202e", "\ud800"} & set(said)


def test_logs_from_standard_input_tell_the_story_without_a_database(run: Callable[..., Result]) -> None:
    # As `docker compose logs --no-color` writes them into a pipe: it asks a terminal to erase the line all the same.
    request = (
        f'{{"event":"request","method":"POST","path":"/api/views","status":202,"seconds":0.020,"trace_id":"{TRACE}"'
    )
    lines = [
        f'\x1b[2Kproxy-1          | {request},"timestamp":"2026-11-24T14:18:00+00:00"}}',
        f"\x1b[2Kstreaming-app-1  | {published(as_json)}",
        f"\x1b[2Khistory-worker-2 | {committed(as_json)}",
    ]
    answer = run(VIEW, "--logs", "-", given="\n".join(lines))
    assert answer.exit_code == 0, answer.output
    rows = answer.output.splitlines()
    assert rows[0] == f"view {VIEW}, trace {TRACE}"
    assert rows[1].split()[2:7] == ["proxy-1", "answered", "202", "POST", "/api/views,"]
    assert rows[2].split()[2:4] == ["streaming-app-1", "published"]
    assert rows[3].split()[2:4] == ["history-worker-2", "committed"]
    assert rows[2].index("published") == rows[3].index("committed"), "aligned"
    assert rows[4].endswith("from the logs only: no database was named (--database-url)")


def test_programs_get_json(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "log").write_text(published(console))
    answer = run(VIEW, "--logs", str(tmp_path / "log"), "--json")
    document = json.load(io.StringIO(answer.output))
    assert (document["event_id"], document["trace_ids"], document["task_ids"]) == (VIEW, [TRACE], [TASK])
    assert document["story"][0]["what"] == "published"
    assert document["story"][0]["time"] == "2026-11-24T14:18:01+00:00"
    assert "stored" not in document


def test_a_view_that_nobody_knows_ends_with_1(run: Callable[..., Result]) -> None:
    answer = run(OTHER, "--logs", "-", given="nothing")
    assert answer.exit_code == 1
    assert "nothing is known of it" in answer.output


def test_what_is_no_id_is_a_wrong_option(run: Callable[..., Result]) -> None:
    answer = run("nonsense", "--logs", "-")
    assert answer.exit_code == 2
    assert "'nonsense' is not a valid UUID" in answer.output
    assert run(VIEW, "--logs", "/nowhere/at/all").exit_code == 2


def test_a_database_that_does_not_answer_is_named_and_the_logs_are_told(run: Callable[..., Result]) -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/none"
    answer = run(VIEW, "--logs", "-", "--database-url", nowhere, given=published(as_json))
    assert answer.exit_code == 0
    assert "from the logs only: the database does not answer: " in answer.output
