"""Viewers behind reverse proxies as people configure them: a page's views are recorded through each of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.client import Client, a_view
from tests.clips import make_clip
from tests.conftest import missing
from tests.waiting import until
from tests.web import Web, free_port, web_server

#: What a `location` has beside its `proxy_pass`.
VARIANTS = {
    "no line for Host": "",
    "Host as the browser sent it": "proxy_set_header Host $http_host;",
    "Host without its port": "proxy_set_header Host $host;",
    "another port": "proxy_set_header Host $host:80;",
    "a name of its own": "proxy_set_header Host films;",
    "X-Forwarded-Host": "proxy_set_header X-Forwarded-Host $http_host;",
    "no Origin": 'proxy_set_header Origin "";',
    "no Sec-Fetch-Site": 'proxy_set_header Sec-Fetch-Site "";',
    "neither of them, and another Host": 'proxy_set_header Origin ""; proxy_set_header Sec-Fetch-Site "";',
    "TLS ends there, and it says so": "proxy_set_header X-Forwarded-Proto https;",
}

CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream flixtrail_app {{ server 127.0.0.1:{port}; }}
  {servers}
}}
"""


@dataclass(frozen=True)
class Proxies:
    web: Web
    ports: dict[str, int]


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if nginx is None:
        missing("nginx")
    folder = tmp_path_factory.mktemp("proxies")
    (folder / "videos").mkdir()
    make_clip(folder / "videos" / "clip-1.mp4")
    ports = {name: free_port() for name in VARIANTS}
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{ports[name]}; location / {{ proxy_pass http://flixtrail_app; {lines} }} }}"
        for name, lines in VARIANTS.items()
    )
    with web_server(folder, folder / "videos", WEB_PROCESSES="1") as web:
        (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=web.port, servers=servers))
        argv = [str(nginx), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
        process = subprocess.Popen(argv)
        try:
            until((folder / "nginx.pid").exists, what="nginx")
            yield Proxies(web, ports)
        finally:
            process.terminate()
            process.wait()


class Browser:
    """What a browser does on a page of `http://NAME:PORT`, as far as it matters here."""

    def __init__(self, port: int, name: str) -> None:
        self._client = Client(f"http://127.0.0.1:{port}")
        self._host = {"Host": f"{name}:{port}"}
        page = self._client.get("/history", headers=self._host)
        self.cookie = page.headers["Set-Cookie"].partition(";")[0]
        found = re.search(r'name="page-token" content="(\w+)"', page.data.decode())
        assert found
        self.token = found[1]

    def record(self, origin: str, site: str | None, token: str | None = None, query: str = "") -> int:
        headers = {**self._host, "Cookie": self.cookie, "Origin": origin}
        headers |= {"Sec-Fetch-Site": site} if site else {}
        headers |= {"Page-Token": token} if token else {}
        return self._client.post(f"/api/views{query}", json=a_view(), headers=headers).status


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_page_is_known_behind_every_proxy(proxies: Proxies, variant: str) -> None:
    port = proxies.ports[variant]
    # https, and http://localhost: the browser says where a request comes from.
    secure = Browser(port, "localhost")
    assert secure.record(f"http://localhost:{port}", "same-origin", secure.token) == 202
    # http and a name of the LAN: it does not. The page has its token, for fetch and for sendBeacon.
    plain = Browser(port, "nas")
    assert plain.record(f"http://nas:{port}", None, plain.token) == 202
    assert plain.record(f"http://nas:{port}", None, query=f"?page_token={plain.token}") == 202


@pytest.mark.parametrize("variant", [name for name, lines in VARIANTS.items() if "Origin" not in lines])
def test_a_page_of_another_site_is_not(proxies: Proxies, variant: str) -> None:
    viewer = Browser(proxies.ports[variant], "nas")
    sites = ["cross-site", None] if "Sec-Fetch" not in VARIANTS[variant] else [None]
    for site in sites:
        assert viewer.record("http://evil.example", site) == 403
        assert viewer.record("http://evil.example", site, "0" * 32) == 403


def test_the_log_says_once_what_to_do(proxies: Proxies) -> None:
    assert proxies.web.log.read_text().count("Behind a proxy of your own") == 1
