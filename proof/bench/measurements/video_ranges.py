"""P5: video bytes from the streaming app itself, compared with nginx on the same file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from local import ports
from local.environment import inherited_environment
from local.part import Part
from local.rabbitmq_programs import MORE_FOLDERS
from local.unsupervised_part import Program
from proof.bench import cpu
from proof.bench.errors import BenchError
from proof.bench.load import Generator, Outcome, get
from proof.bench.load import Plan as Load
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Series, divided
from proof.bench.systems import OURS, WEB_PROCESSES, Systems

CLIENTS, RANGE_BYTES, FILE_BYTES = 8, 2 * 1024 * 1024, 256 * 1024 * 1024
RANGES = 1_600
MEGA = 1_000_000
HOW = (
    "Eight clients read ranges of 2 MiB from one file of 256 MiB, from the streaming app and from nginx (sendfile, "
    "as many processes). There is no proxy in between."
)
CONFIGURATION = """\
{user}worker_processes {processes}; daemon off; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; types {{ video/mp4 mp4; }}
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    figure, program = Figure(name="P5", title="Video bytes without nginx", how=HOW), _nginx()
    if program is None:
        if os.environ.get("REQUIRE_ALL") == "1":
            raise BenchError("REQUIRE_ALL=1, and there is no nginx: apt install nginx-light")
        figure.skipped = "no nginx on this machine"
        return [figure]
    video = _make_video(systems.videos)
    ours, port = systems[OURS], ports.allocate(systems.nodes.state, ("nginx",))["nginx"]
    nginx = _server(systems, program, port)
    sides = {
        OURS: (ours.port, f"/videos/{video.stem}/stream", ours.web),
        "nginx": (port, f"/{video.name}", nginx),
    }
    series = {name: Series(name=name, unit="MB/s") for name in sides}
    try:
        ours.start_web()
        nginx.start()
        nginx.wait(lambda: ports.is_listening(port), "it listened")
        for _ in range(plan.rounds):
            for name, (at, path, server) in sides.items():
                plan.step(name)
                groups = {"server": [server]}
                before = cpu.seconds(groups)
                outcome = _read(at, path, plan.size(RANGES, 160))
                used = {**cpu.used(before, cpu.seconds(groups)), "load": outcome.cpu_s}
                rate = outcome.received_bytes / (outcome.ended - outcome.began) / MEGA
                series[name].events = outcome.answers
                series[name].add(rate, cpu.per_event_us(used, outcome.answers))
    finally:
        nginx.stop()
        ours.stop()
        video.unlink()
    figure.series = [*series.values()]
    figure.ratios = [divided(series[OURS], series["nginx"], at_least=0.5)]
    return [figure]


def _read(port: int, path: str, ranges: int) -> Outcome:
    """Read the file. Each client uses an order of its own, so that not all read the same bytes at once."""
    starts = range(0, FILE_BYTES - RANGE_BYTES, RANGE_BYTES)
    clients = [
        [
            get(path, {"Range": f"bytes={start}-{start + RANGE_BYTES - 1}"})
            for turn in range(ranges // CLIENTS)
            for start in [starts[(turn + client * len(starts) // CLIENTS) % len(starts)]]
        ]
        for client in range(CLIENTS)
    ]
    return Generator(Load(port=port, clients=clients, status=206)).wait()


def _make_video(folder: Path) -> Path:
    """Make a clip, padded with an empty box (`free`): a valid MP4 of FILE_BYTES."""
    video = folder / "large.mp4"
    shutil.copyfile(folder / "clip-1.mp4", video)
    padding = FILE_BYTES - video.stat().st_size
    with video.open("ab") as file:
        file.write(padding.to_bytes(4, "big") + b"free")
        while (left := FILE_BYTES - file.tell()) > 0:
            file.write(os.urandom(min(left, 1 << 24)))
    return video


def _nginx() -> str | None:
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), *MORE_FOLDERS]))


def _server(systems: Systems, program: str, port: int) -> Program:
    folder = systems.nodes.state.folder / "nginx"
    folder.mkdir(exist_ok=True)
    user = "user root; " if os.geteuid() == 0 else ""
    text = CONFIGURATION.format(user=user, processes=WEB_PROCESSES, folder=folder, port=port, root=systems.videos)
    (folder / "nginx.conf").write_text(text)
    argv = (program, "-p", str(folder), "-c", str(folder / "nginx.conf"))
    return Program(Part("nginx", argv, inherited_environment()), systems.nodes.state)
