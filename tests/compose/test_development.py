"""docker-compose.dev.yml: an edit shows within two seconds, and one more library is one more download."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic
from uuid import uuid4

import pytest
import urllib3

from tests.client import Client, a_view
from tests.compose.asking import BROKER_S, watched
from tests.compose.stack import ROOT, Stack, copy_of_sources
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(420)]

#: From the file on the disk to the answer of the new code.
WITHIN_S = 2.0
#: The same where the imports alone take long, since the machine is slow or busy: as many times as long as they do. A
#: process must end, another start, import, connect, and answer.
TIMES_THE_IMPORTS = 4
#: A small library that nothing here needs, from an index like all others.
LIBRARY = "pyfiglet"


@pytest.fixture(scope="module")
def developer(tmp_path_factory: pytest.TempPathFactory, engine: None) -> Iterator[Stack]:  # noqa: ARG001 (skips)
    """A copy of the sources, since they are edited, and the stack that runs them."""
    folder = tmp_path_factory.mktemp("sources")
    copy_of_sources(folder)
    stack = Stack(folder, ("docker-compose.yml", "docker-compose.dev.yml"))
    try:
        stack.up("proxy", "history-worker", "history-api")
        yield stack
    finally:
        stack.down()


def edit(file: Path, old: str, new: str) -> float:
    """Change a file in place, as an editor does; the time when it is on the disk."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return monotonic()


def limit_s(stack: Stack, service: str, module: str) -> float:
    """Seconds within which an edit shows on this machine, as busy as it is now, in a service that imports `module`."""
    imports = f"import time; began = time.time(); import {module}; print(time.time() - began)"
    taken = float(stack.compose("exec", "-T", service, "python", "-c", imports))
    return max(WITHIN_S, TIMES_THE_IMPORTS * taken)


def seconds_until(condition: Callable[[], object], began: float) -> float:
    until(condition, 30, what="the edit to show")
    return monotonic() - began


def test_an_edit_of_the_streaming_app_shows_within_two_seconds(developer: Stack) -> None:
    nobody = Client(developer.url)
    health = developer.folder / "streaming_app" / "routes" / "health.py"

    def answers(word: str) -> Callable[[], bool]:
        return lambda: word in nobody.get("/healthz").data.decode()

    took = []
    for old, new in (("alive", "edited once"), ("edited once", "edited twice"), ("edited twice", "alive")):
        began = edit(health, f'status="{old}"', f'status="{new}"')
        took.append(seconds_until(answers(new), began))
    assert sorted(took)[1] < limit_s(developer, "streaming-app", "streaming_app.rsgi"), took


def test_an_edit_of_a_template_shows_too(developer: Stack) -> None:
    nobody = Client(developer.url)
    page = developer.folder / "streaming_app" / "templates" / "page.html"
    began = edit(page, "<body", "<!-- edited --><body")

    def shows() -> bool:
        answer = nobody.get("/")
        return answer.status == 200 and "<!-- edited -->" in answer.data.decode()

    assert seconds_until(shows, began) < limit_s(developer, "streaming-app", "streaming_app.rsgi")


def test_an_edit_of_the_history_api_shows_too(developer: Stack) -> None:
    url = f"http://127.0.0.1:{developer.ports['history-api']}/healthz"
    api = developer.folder / "history_worker" / "api.py"

    def answers(word: str) -> Callable[[], bool]:
        def asked() -> bool:
            try:
                # A connection of its own: one to a process that is leaving may never be answered.
                return word in urllib3.request("GET", url, timeout=0.5, retries=False).data.decode()
            except urllib3.exceptions.HTTPError:
                return False

        return asked

    took = []
    for old, new in (("alive", "edited once"), ("edited once", "edited twice"), ("edited twice", "alive")):
        began = edit(api, f'"status": "{old}"', f'"status": "{new}"')
        took.append(seconds_until(answers(new), began))
    assert sorted(took)[1] < limit_s(developer, "history-api", "history_worker.api"), took


def test_an_edit_of_a_worker_shows_within_two_seconds_and_loses_no_view(developer: Stack) -> None:
    alice = developer.viewer("alice")
    tasks = developer.folder / "history_worker" / "tasks.py"
    command = ["docker", "logs", "--follow", "--since", "0s", *developer.containers("history-worker")]
    took, lines, sent = [], list[str](), 0

    def written_by(new: str) -> bool:
        """Record one more view, and say whether the new code has written one. The process of before may write some."""
        nonlocal sent
        alice.record([a_view()])
        sent += 1
        return any(new in line for line in list(lines))

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as said:
        assert said.stdout is not None
        reading = Thread(target=lines.extend, args=(said.stdout,), daemon=True)
        reading.start()
        try:
            for old, new in (("committed", "committed, edited once"), ("edited once", "edited twice")):
                began = edit(tasks, f'{old}",', f'{new}",')
                until(partial(written_by, new), 60, what="the edited worker to write", every_s=0.2)
                took.append(monotonic() - began)
        finally:
            said.kill()
            reading.join()
    assert min(took) < limit_s(developer, "history-worker", "history_worker.tasks"), took
    # The history API starts anew, too.
    until(lambda: len(watched(alice, limit="100")) == sent, BROKER_S, what="all views stored")


def test_the_ports_are_open_on_this_machine_alone(developer: Stack) -> None:
    for service, port in (("rabbitmq", "5672/tcp"), ("postgres", "5432/tcp")):
        (container,) = developer.containers(service)
        bindings = developer.inspect(container)["NetworkSettings"]["Ports"][port]
        assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}


def test_one_more_library_is_one_more_download(developer: Stack, tmp_path: Path) -> None:
    pip = [str(ROOT / ".venv" / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "download", "--no-deps", "-q", "-d", str(tmp_path), LIBRARY], check=True, timeout=120)
    (wheel,) = tmp_path.iterdir()
    hashed = subprocess.run([*pip, "hash", str(wheel)], check=True, capture_output=True, text=True).stdout
    (digest,) = re.findall(r"--hash=(sha256:\w+)", hashed)
    version = wheel.name.split("-")[1]
    requirements = developer.folder / "requirements" / "reload.txt"
    # The comment is new each time: what was built before on this machine is not simply taken again.
    line = f"{LIBRARY}=={version} \\\n    --hash={digest}\n# {uuid4()}\n"
    requirements.write_text(requirements.read_text() + line)
    done = developer.run("build", timeout_s=600)
    assert done.status == 0, done.err
    downloaded = re.findall(r"Downloading (\S+?)-", done.out + done.err)
    assert set(downloaded) <= {LIBRARY}
    kept = re.findall(r"File was already downloaded", done.out + done.err)
    assert len(kept) > 40
