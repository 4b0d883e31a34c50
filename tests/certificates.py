"""Certificates for tests: an authority of one's own, and what it signs. Made with the program `openssl`."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIGURATION = """
[ca]
default_ca = here
[here]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
unique_subject = no
default_md = sha256
copy_extensions = copy
policy = any
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
"""
#: An hour is enough for tests, and no clock is that wrong.
_VALID = ("-days", "2")
_EXPIRED = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """Two PEM files."""

    file: Path
    key: Path


class Authority:
    """A CA with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._configuration = folder / "openssl.cnf"
        self._configuration.write_text(_CONFIGURATION.format(folder=folder))
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        self.file, self._key = folder / "ca.pem", folder / "ca.key"
        self._openssl(
            "req", "-x509", *_VALID, *_NEW_KEY, "-subj", "/CN=tests", "-keyout", str(self._key), "-out", str(self.file),
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    def issue(self, name: str, hosts: str = "", *, expired: bool = False) -> Certificate:
        """A certificate. `hosts`: what it is good for, such as `IP:127.0.0.1,DNS:localhost`."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        alternative = ("-addext", f"subjectAltName={hosts}") if hosts else ()
        self._openssl(
            "req", *_NEW_KEY, "-subj", f"/CN={name}", *alternative, "-keyout", str(made.key), "-out", str(request)
        )
        self._openssl(
            "ca", "-batch", "-notext", "-cert", str(self.file), "-keyfile", str(self._key),
            *(_EXPIRED if expired else _VALID), "-in", str(request), "-out", str(made.file),
        )  # fmt: skip
        return made

    def _openssl(self, command: str, *arguments: str) -> None:
        subprocess.run(
            ["openssl", command, "-config", str(self._configuration), *arguments],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
