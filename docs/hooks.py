"""MkDocs hooks: links to files of the repository, pages that stand outside of docs/, and formulas as MathML (no script)."""

import html
import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site that are files beside docs/."""
STATIC = ("notebooks/*.ipynb", "experiments/presets.json", "docs/results.json")
LINK = re.compile(r"\]\((?:\.\./)*((?:jgen|experiments|notebooks|docs|CONTRIBUTING|CHANGELOG)\b[^)\s]*)\)")
MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages beside docs/, and the files that pages link to."""
    for page, name in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for path in sorted(path for pattern in STATIC for path in ROOT.glob(pattern)):
        name = f"files/{path.relative_to(ROOT)}"
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to files of the repository into links to the API reference, to other pages, and to files of the site."""

    def target(match: re.Match[str]) -> str:
        here = os.path.dirname(page.file.src_uri)
        path, mark, anchor = site_path(match[1]).partition("#")
        return f"]({os.path.relpath(path, here or '.')}{mark}{anchor})"

    return LINK.sub(target, markdown)


def site_path(path: str) -> str:
    """The page or file of the site for a path of the repository.

    >>> site_path("jgen/models/unet.py"), site_path("jgen/sde.py"), site_path("docs/costs.md")
    ('api/models.md#jgen.models.unet', 'api/base.md#jgen.sde', 'costs.md')
    """
    by_name = {name: page for page, name in PAGES.items()}
    if path in by_name:
        return by_name[path]
    if path.endswith(".md"):
        return path.removeprefix("docs/")
    parts = path.removesuffix(".py").rstrip("/").split("/")
    if path.endswith((".py", "/")) and parts[0] in ("jgen", "experiments"):
        package = "experiments" if parts[0] == "experiments" else parts[1]
        page = package if package == "experiments" or (ROOT / "jgen" / package).is_dir() else "base"
        return f"api/{page}.md#{'.'.join(parts)}"
    return f"files/{path}" if (ROOT / path).is_file() and not path.endswith(".png") else path.removeprefix("docs/")


def on_page_content(content: str, **_: Any) -> str:
    """Turns the formulas that arithmatex marked into MathML, which browsers show without a script."""

    def formula(match: re.Match[str]) -> str:
        return convert(html.unescape(match[3]), display="inline" if match[2] == "(" else "block")

    return MATH.sub(formula, content)
