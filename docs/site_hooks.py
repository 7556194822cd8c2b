"""Build hooks of the manual (mkdocs.yml): pages and files of the repository outside docs/, and the API reference."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "build" / "site_package"
"""A folder in which the package has the layout of an installed one, for the API reference."""
FOLDERS = ("representations", "distill", "pipelines", "world", "training", "configs", "assets")
MODULES = {
    "steindreamer": ["steindreamer"],
    "representations": ["steindreamer.representations"],
    "distill": ["steindreamer.distill", "steindreamer.distill.control_variates"],
    "priors": ["steindreamer.distill.priors.base", "steindreamer.distill.priors.diffusion"],
    "pipelines": ["steindreamer.pipelines", "steindreamer.pipelines.export", "steindreamer.pipelines.auditing"],
    "world": ["steindreamer.world"],
}
"""The modules of each page of the API reference."""
_LINK = re.compile(r"(\]\(|src=\")(?!https?:|mailto:|#)([^)\s\"]+)")


def on_startup(command: str, dirty: bool) -> None:
    """Copy the modules into one package, as an installation has them."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    for folder in ("", *FOLDERS):
        for path in (ROOT / (folder or "steindreamer")).rglob("*.py"):
            copy = PACKAGE / "steindreamer" / folder / path.relative_to(ROOT / (folder or "steindreamer"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            # The parser of docstrings knows the section by its plural only.
            copy.write_text(re.sub(r"^( +)Example:$", r"\1Examples:", path.read_text("utf-8"), flags=re.M), "utf-8")


def on_files(files: Files, config: Any) -> Files:
    """Add the README as the first page, the API reference, and every file outside docs/ that a page links to."""
    index = _moved((ROOT / "README.md").read_text(encoding="utf-8"), "README.md", "index.md")
    files.append(File.generated(config, "index.md", content=index))
    for name, modules in MODULES.items():
        text = f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=_notebook(path)))
    waiting = [file for file in files if file.src_uri.endswith(".md")]
    while waiting:
        page = waiting.pop()
        home = page.src_uri if page.generated_by else f"docs/{page.src_uri}"
        for target in _targets(page.content_string, "README.md" if page.src_uri == "index.md" else home):
            path = ROOT / target
            if target.startswith("docs/") or not path.is_file() or files.get_file_from_path(target):
                continue
            if path.suffix == ".md":
                text, level = path.read_text(encoding="utf-8"), InclusionLevel.NOT_IN_NAV
                added = File.generated(config, target, content=text, inclusion=level)
                waiting.append(added)
            else:
                added = File.generated(config, target, abs_src_path=str(path))
            files.append(added)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    if page.file.src_uri == "index.md":
        return markdown
    home = page.file.src_uri if page.file.generated_by else f"docs/{page.file.src_uri}"
    return _moved(markdown, home, page.file.src_uri)


def _notebook(path: Path) -> str:
    """The cells of a notebook as a page."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + f"\n\n[The notebook]({path.name})\n"


def _targets(markdown: str, home: str) -> list[str]:
    """The files that a page links to, relative to the repository."""
    found = [unquote(link.group(2)).partition("#")[0] for link in _LINK.finditer(_without_code(markdown))]
    return [_from(home, target) for target in found if target]


def _from(home: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), target))


def _without_code(markdown: str) -> str:
    return re.sub(r"```.*?```", "", markdown, flags=re.S)


def _moved(markdown: str, home: str, page: str) -> str:
    """The text with links that are valid on a page of the manual.

    Args:
        markdown: the text.
        home: its file, relative to the repository.
        page: its page, relative to the manual.
    """

    def moved(link: re.Match[str]) -> str:
        target, hash_, anchor = link.group(2).partition("#")
        if not target:
            return link.group(0)
        place = _from(home, target)
        place = "index.md" if place == "README.md" else place.removeprefix("docs/")
        return f"{link.group(1)}{posixpath.relpath(place, posixpath.dirname(page) or '.')}{hash_}{anchor}"

    return _LINK.sub(moved, markdown)
