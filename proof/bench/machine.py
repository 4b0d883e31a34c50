"""Describes the machine and the versions of the software. Names neither host nor folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from proof.bench.nodes import Nodes
from proof.bench.systems import PEERS_PYTHON
from proof.chaos import versions as tested_versions

PEERS_LIBRARIES = ("celery", "celery-batches", "dramatiq")
PRINT_VERSIONS = (
    "import json, sys; from importlib.metadata import version; print(json.dumps([version(n) for n in sys.argv[1:]]))"
)


def machine() -> dict[str, str]:
    """Return CPU, cores, memory and kernel."""
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions(nodes: Nodes) -> dict[str, str]:
    """Return the versions of servers, libraries and the peers' libraries, and the commit."""
    servers = {
        "RabbitMQ": nodes.broker.version(),
        "PostgreSQL": nodes.settings(["server_version"])["server_version"].partition(" ")[0],
    }
    return {
        "Flixtrail": tested_versions.commit(),
        **servers,
        **tested_versions.libraries(),
        "msgspec": version("msgspec"),
        **_peers(),
    }


def _peers() -> dict[str, str]:
    if not PEERS_PYTHON.exists():
        return {}
    argv = [str(PEERS_PYTHON), "-c", PRINT_VERSIONS, *PEERS_LIBRARIES]
    answer = subprocess.run(argv, capture_output=True, text=True, check=True)
    names = ("celery of celery-batches", "celery-batches", "dramatiq")
    return dict(zip(names, json.loads(answer.stdout), strict=True))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
