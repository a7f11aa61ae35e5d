"""The documentation as a test: nothing undocumented, nothing documented that is not there, no dead link, no stale table."""

import doctest
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol import series, topics
from scripts import docs

ROOT = Path(__file__).parent.parent
PACKAGES = ("dashboards", "edge", "ingest", "native", "protocol", "provisioning", "simulator")
PAGES = docs.pages()
REFERENCE = "\n".join(path.read_text() for path in PAGES if "reference" in path.parts)
CONFIG_MODULES = ("edge.settings", "ingest.config", "dashboards.console.settings")

FENCE = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH_IN_WORDS = re.compile(rf"`((?:{'|'.join(PACKAGES)}|tests|scripts|docs|requirements)/[\w./-]+\.\w+)`")


def _id(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def dead_links(page: Path) -> list[str]:
    """Links of a page to files or headings that are not there."""
    dead = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in anchors(linked.read_text())):
            dead.append(target)
    return dead


def anchors(text: str) -> set[str]:
    """The names under which the headings of a page can be linked."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {*plain, *re.findall(r'<a (?:id|name)="([^"]+)"', text)}


def unknown_commands(text: str) -> list[str]:
    """``icecap …`` and ``make …`` in code that do not exist."""
    commands = {name for name, _ in docs.commands()}
    starts = {" ".join(name.split()[:length]) for name in commands for length in range(1, 4)}
    unknown = []
    code = FENCE.findall(text) + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for line in "\n".join(code).splitlines():
        verbs = re.findall(r"(?:^|&& |; )make ([a-z-]+)", line.strip())
        unknown += [f"make {verb}" for verb in verbs if verb not in docs.verbs()]
        if match := re.match(r"(?:\$ )?(?:\.venv/bin/)?icecap ((?:[a-z][a-z-]* ?)+)", line.strip()):
            words = match[1].split()
            known = [length for length in range(len(words) + 1) if " ".join(["icecap", *words[:length]]) in commands]
            if not known and " ".join(["icecap", *words]) not in starts:
                unknown.append(f"icecap {' '.join(words)}")
    return unknown


def changelog_errors(text: str) -> list[str]:
    """What is not as Keep a Changelog has it."""
    errors = []
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    if not text.startswith("# Changelog\n"):
        errors.append("the first line is not '# Changelog'")
    if not versions or versions[0] != "[Unreleased]":
        errors.append("Unreleased is not at the top")
    errors += [
        f"not a version with its day: {name}" for name in versions[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", name)
    ]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    errors += [f"not a kind of change: {kind}" for kind in re.findall(r"^### (.*)$", text, re.MULTILINE) if kind not in kinds]
    return errors


def config_keys(name: str) -> list[str]:
    """Every key that the tables of a settings module accept."""
    tables = [table for table in vars(importlib.import_module(name)).values() if isinstance(table, type) and table.__module__ == name]
    fields = [field for table in tables if issubclass(table, msgspec.Struct) for field in msgspec.structs.fields(table)]
    return sorted({field.encode_name for field in fields})


def environment_variables() -> set[str]:
    """Names of environment variables that the product or its set-up reads."""
    sources = [path for name in (*PACKAGES, "scripts") for path in (ROOT / name).rglob("*.py")]
    text = "\n".join(path.read_text() for path in [*sources, ROOT / "icecap.py", ROOT / "setup.py"])
    return set(re.findall(r"(?:environ(?:\.get)?[\[(]|getenv\(|envvar=)\s*[\"']([A-Z][A-Z0-9_]+)[\"']", text)) - {"PATH"}


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_generated_parts_are_what_the_code_says(page: Path) -> None:
    assert docs.rebuilt(page.read_text()) == page.read_text(), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_commands_in_the_text_exist(page: Path) -> None:
    assert unknown_commands(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_files_in_the_text_exist(page: Path) -> None:
    assert [name for name in PATH_IN_WORDS.findall(page.read_text()) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text()], ids=_id)
def test_examples_in_the_text_give_what_they_show(page: Path) -> None:
    assert doctest.testfile(str(page), module_relative=False).failed == 0


@pytest.mark.parametrize(("name", "command"), docs.commands(), ids=_id)
def test_every_command_and_option_says_what_it_does(name: str, command: Any) -> None:
    assert f"### {name}\n" in REFERENCE, "run: make docs"
    assert command.help
    assert [parameter.name for parameter in command.params if not parameter.help] == []


@pytest.mark.parametrize("module", [name for name in CONFIG_MODULES if _is_there(name)])
def test_every_configuration_key_is_documented(module: str) -> None:
    page = (ROOT / f"docs/reference/{module.split('.')[-2]}-config.md").read_text()

    assert [key for key in config_keys(module) if f"`{key}`" not in page] == []


@pytest.mark.parametrize("variable", sorted(environment_variables()))
def test_every_environment_variable_is_documented(variable: str) -> None:
    assert re.search(rf"`{variable}[=`]", REFERENCE) is not None


@pytest.mark.parametrize("leaf", topics.Leaf)
def test_every_topic_is_documented(leaf: topics.Leaf) -> None:
    page = (ROOT / "docs/reference/topics.md").read_text()

    assert re.search(rf"^\| `{leaf.value}` \| (gateway → cloud|cloud → gateway) \| .+ \| .{{20,}} \|$", page, re.MULTILINE)


def test_every_series_tag_and_field_is_documented() -> None:
    page = (ROOT / "docs/reference/series.md").read_text()
    channels = [channel["name"] for _, channel in docs.channels()]

    assert [
        name for name in (*series.COOLER_TAGS, *series.GATEWAY_FIELDS, *channels, series.SMOOTH_SUFFIX) if f"`{name}`" not in page
    ] == []


def test_every_verb_of_make_is_documented() -> None:
    assert [verb for verb in docs.verbs() if f"`make {verb}`" not in REFERENCE] == []


def test_verbs_of_make_are_declared_so() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert phony
    assert set(docs.verbs()) <= set(phony[1].split())


def test_the_changelog_keeps_its_shape() -> None:
    assert changelog_errors((ROOT / "CHANGELOG.md").read_text()) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](#another) [c](gone.md) [d](https://example.org/x)\n```\n[e](in-code.md)\n```\n")

    assert dead_links(page) == ["#another", "gone.md"]


def test_an_unknown_command_is_found() -> None:
    text = "`make tea` and `make test`\n```\nicecap fly --high\nmake demo && make coffee\n```\n"

    assert sorted(unknown_commands(text)) == ["icecap fly", "make coffee", "make tea"]


def test_a_stale_table_is_found() -> None:
    stale = "<!-- begin verbs -->\nold\n<!-- end verbs -->\n"

    assert "make demo" in docs.rebuilt(stale)
    assert docs.rebuilt(docs.rebuilt(stale)) == docs.rebuilt(stale)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("# Changes\n\n## [Unreleased]\n", "the first line is not '# Changelog'"),
        ("# Changelog\n\n## [0.1.0] - 2026-01-01\n", "Unreleased is not at the top"),
        ("# Changelog\n\n## [Unreleased]\n\n## 0.1\n", "not a version with its day: 0.1"),
        ("# Changelog\n\n## [Unreleased]\n\n### Stuff\n", "not a kind of change: Stuff"),
    ],
)
def test_a_changelog_out_of_shape_is_found(text: str, error: str) -> None:
    assert changelog_errors(text) == [error]
