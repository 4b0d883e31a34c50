"""`make pictures`: draws each DOT file of docs as SVG, in colours for light and dark pages. Needs graphviz."""
# ruff: noqa: INP001 (a script beside the files it reads)

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1]

#: Colours by the class that an element has in the DOT file. A page's theme chooses between them.
STYLE = """
svg { color-scheme: light dark }
text { fill: #1f2328; font-family: -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.node path, .node polygon, .node ellipse { fill: #f6f8fa; stroke: #59636e }
.edge path { stroke: #59636e } .edge polygon { fill: #59636e; stroke: #59636e } .edge text { fill: #59636e }
.ours path, .ours polygon, .ours ellipse { fill: #ddf4ff; stroke: #0969da }
.store path, .store polygon, .store ellipse { fill: #fff8c5; stroke: #9a6700 }
.way path { stroke: #cf222e; stroke-width: 2 } .way polygon { fill: #cf222e; stroke: #cf222e }
.way text { fill: #cf222e }
.person polygon { fill: none; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .node path, .node polygon, .node ellipse { fill: #212830; stroke: #9198a1 }
  .edge path { stroke: #9198a1 } .edge polygon { fill: #9198a1; stroke: #9198a1 } .edge text { fill: #9198a1 }
  .ours path, .ours polygon, .ours ellipse { fill: #0d2b4a; stroke: #4493f8 }
  .store path, .store polygon, .store ellipse { fill: #3a2d05; stroke: #d29922 }
  .way path { stroke: #f85149 } .way polygon { fill: #f85149; stroke: #f85149 } .way text { fill: #f85149 }
  .person polygon { fill: none; stroke: none }
}
"""
PAINT = re.compile(r' (?:fill|stroke|font-family)="[^"]*"')


def digest(source: Path) -> str:
    """Of all that makes the picture: it stands in the SVG, so that a test can tell an old one."""
    return hashlib.sha256(source.read_bytes() + STYLE.encode()).hexdigest()[:16]


def draw(source: Path) -> str:
    """The SVG. Raises CalledProcessError with what graphviz complained about, FileNotFoundError without graphviz."""
    dot = ["dot", "-Tsvg", str(source)]
    drawn = subprocess.run(dot, check=True, capture_output=True, text=True).stdout
    picture = drawn[drawn.index("<svg") :]
    picture = re.sub(r"<!--.*?-->\n?", "", picture, flags=re.DOTALL)
    picture = re.sub(r"<title>.*?</title>\n?", "", picture)
    picture = re.sub(r'<polygon fill="white"[^>]*/>\n?', "", picture)  # the page shows through
    picture = PAINT.sub("", picture)
    # A path without a colour would be filled black.
    picture = re.sub(r'(<g id="edge\d+".*?<path)', r'\1 fill="none"', picture, flags=re.DOTALL)
    head, end = picture.split(">", 1)
    return f"{head}>\n<!-- {source.name} {digest(source)} -->\n<style>{STYLE}</style>{end}"


def main() -> None:
    for source in sorted(DOCS.rglob("*.dot")):
        try:
            source.with_suffix(".svg").write_text(draw(source))
        except FileNotFoundError:
            sys.exit("graphviz is needed to draw pictures: apt install graphviz, brew install graphviz")
        except subprocess.CalledProcessError as error:
            sys.exit(f"{source}: {error.stderr}")


if __name__ == "__main__":
    main()
