"""README and docs: links lead somewhere, named files exist, and named settings are settings."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from stvideo.settings.schema import Config
from stvideo.weights.factory import create_model

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OWN = ("stvideo", "configs", "data_tools", "docs", "tests")
SECTION = re.compile(
    r"(?<![\w./-])((?:model|data|train|evaluate|visualize|predict)\.[a-z_]+(?:\.\w+)*)(?=[=,:\s)\]]|$)"
)
FILE = re.compile(rf"(?<![\w./-])((?:{'|'.join(OWN)})/[\w./*-]*\w(?:/|\.\w+)?)")
FILE_NAME = re.compile(r"\.(csv|json|log|onnx|py|safetensors|txt|yaml|yml)$")
COMMAND = re.compile(r"python -m stvideo\.(\w+)|-m stvideo\.(\w+)")


def pages(name: str) -> Any:
    return pytest.mark.parametrize(name, PAGES, ids=lambda page: page.name)


def code(text: str) -> list[str]:
    """List what is between backticks, and the lines of fenced blocks."""
    fenced = re.findall(r"```\w*\n(.*?)```", text, re.S)
    rest = re.sub(r"```.*?```", "", text, flags=re.S)
    return [line for block in fenced for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)


def anchors(page: Path) -> set[str]:
    """Make anchors from headings as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in headings}


def is_attribute(name: str) -> bool:
    """Tell whether this is Python, such as ``model.classes``, and no setting."""
    section, _, attribute = name.partition(".")
    return section == "model" and hasattr(create_model("timesformer_tiny_patch16_224", depth=1), attribute)


def setting_exists(key: str) -> bool:
    kind: Any = Config
    for part in key.split("."):
        if not is_dataclass(kind):
            return True  # options of a reduction, arguments of a model
        if part not in {field.name for field in fields(kind)}:
            return False
        kind = get_type_hints(kind)[part]
    return True


@pages("page")
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}: no such heading"


@pages("page")
def test_named_files_exist(page: Path) -> None:
    named = {match for text in code(page.read_text(encoding="utf-8")) for match in FILE.findall(text)}
    made = {"configs/mine.yaml", "configs/studies/NAME.yaml"}  # the reader's own
    missing = [name for name in sorted(named - made) if not list(ROOT.glob(name.rstrip("/")))]
    assert not missing


@pages("page")
def test_named_settings_exist(page: Path) -> None:
    lines = code(page.read_text(encoding="utf-8"))
    named = {match for text in lines for match in SECTION.findall(text) if not FILE_NAME.search(match)}
    unknown = [key for key in sorted(named) if not setting_exists(key) and not is_attribute(key)]
    assert not unknown


@pages("page")
def test_named_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {first or second for first, second in COMMAND.findall(text)} - {"NAME"}
    missing = [name for name in sorted(named) if not any(ROOT.glob(f"stvideo/{name}.py"))]
    missing = [name for name in missing if not (ROOT / "stvideo" / name / "__main__.py").exists()]
    assert not missing


def test_the_check_of_settings_can_fail() -> None:
    assert setting_exists("model.reduction.evit.keep_rate") and setting_exists("train.lr")
    assert not setting_exists("train.learning_rate") and not setting_exists("data.path")
