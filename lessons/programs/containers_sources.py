"""What the lesson about containers builds and mounts: a small service, and a package that it needs, as a wheel."""

from __future__ import annotations

from pathlib import Path
from shutil import copy
from zipfile import ZipFile

SERVICE = Path(__file__).with_name("containers_service.py")
#: What pip asks of a wheel, and one module.
WHEEL = {
    "greeting.py": "HELLO = 'hello'\n",
    "greeting-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1\n",
    "greeting-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greeting-1.dist-info/RECORD": "",
}


def put(folder: Path) -> None:
    """serve.py, the title.py that it loads, requirements.txt, and wheels/ in the place of a package index."""
    copy(SERVICE, folder / "serve.py")
    (folder / "title.py").write_text("TITLE = 'old'\n")
    (folder / "requirements.txt").write_text("greeting==1\n")
    (folder / "wheels").mkdir()
    with ZipFile(folder / "wheels" / "greeting-1-py3-none-any.whl", "w") as wheel:
        for path, text in WHEEL.items():
            wheel.writestr(path, text)
