"""Rebuild the generated parts of the documentation: what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` in any page.

The words around a table are written by people; the table is made from the code, so it cannot say something else.
Invariant: running it twice changes nothing; ``tests/test_docs.py`` fails while a page differs from what this program would write.
"""

import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any  # typer's command and parameter types are private to it

import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import icecap  # noqa: E402  (after the path; the documentation describes the front door)
from ingest import schema  # noqa: E402
from ingest.billing import tables as billing  # noqa: E402, F401  (adds the ledger's tables to the schema)
from protocol import topics  # noqa: E402
from provisioning import registry  # noqa: E402
from provisioning.programs import PROGRAMS  # noqa: E402

MARK = re.compile(r"<!-- begin (?P<name>[a-z-]+) -->\n.*?<!-- end (?P=name) -->\n", re.DOTALL)


def main() -> int:
    """Write every page that has a generated part."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        fresh = rebuilt(text)
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")
            print(f"rewritten: {page.relative_to(ROOT)}")
    return 0


def pages(root: Path = ROOT) -> list[Path]:
    """All pages of the project."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("protocol/*.md")])


def rebuilt(text: str) -> str:
    """The page with every generated part made anew; KeyError names a part that nobody generates."""

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- begin {name} -->\n\n{PARTS[name]()}\n\n<!-- end {name} -->\n"

    return MARK.sub(part, text)


def commands() -> list[tuple[str, Any]]:
    """Every command with its full name, in reading order; groups are left out, and verbs whose package is not installed."""
    front: Any = typer.main.get_command(icecap.app)
    context = SimpleNamespace(resilient_parsing=False)  # all that the lazy group asks of a context
    present = [name for name in front.list_commands(context) if _is_present(icecap.MOUNTS[name][0])]
    return [leaf for name in present for leaf in _leaves(f"icecap {name}", front.get_command(context, name))]


def _is_present(module: str) -> bool:
    """Whether a module can be found, without running it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands below ``command`` that do something themselves."""
    below = getattr(command, "commands", None)
    if not below:
        yield name, command
        return
    for word in below:
        yield from _leaves(f"{name} {word}", below[word])


def verbs() -> dict[str, str]:
    """What ``make`` can do: verb → its line."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    return {match[1]: match[2] for line in lines if (match := re.match(r"([a-z-]+):.*?## (.*)", line))}


def channels() -> list[tuple[str, dict[str, Any]]]:
    """Channels of the built-in profiles, in wire order: profile → channel."""
    found = []
    for path in sorted((ROOT / "protocol" / "profiles").glob("*.toml")):
        profile = tomllib.loads(path.read_text(encoding="utf-8"))
        found += [(str(profile["id"]), channel) for channel in profile["channel"]]
    return found


def commands_part() -> str:
    """A section for each command: what it does, then its arguments and options."""
    sections = []
    for name, command in commands():
        rows = [_parameter_row(parameter) for parameter in command.params if parameter.name != "help"]
        table = _table(("", "meaning", "default"), rows) if rows else ""
        sections.append("\n\n".join(filter(None, [f"### {name}", _one_line(command.help), table])))
    return "\n\n".join(sections)


def _parameter_row(parameter: Any) -> tuple[str, str, str]:
    """One argument or option."""
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    shown = f"`{parameter.name.upper()}`" if parameter.param_type_name == "argument" else f"`{names}`"
    meaning = _one_line(parameter.help) + (f" From `{parameter.envvar}`." if parameter.envvar else "")
    default = getattr(parameter.default, "value", parameter.default)
    if parameter.required:
        return shown, meaning, "required"
    if default in (None, (), [], "", False) or callable(default):
        return shown, meaning, ""
    return shown, meaning, f"`{default}`".replace(f"{ROOT}/", "")  # a default below the clone is the same in every clone


def verbs_part() -> str:
    """The verbs of the Makefile."""
    return _table(("verb", "what it does"), [(f"`make {verb}`", words) for verb, words in verbs().items()])


def programs_part() -> str:
    """The programs that Icecap starts, and where they come from."""
    rows = [(f"`{entry.name}`", f"`{entry.apt}`", f"`{entry.brew}`" if entry.brew else "", entry.need.value) for entry in PROGRAMS]
    return _table(("program", "Debian, Ubuntu", "Homebrew", "first needed by"), rows)


def channels_part() -> str:
    """The fields of the cooler's series, which are the channels of its profile."""
    rows = []
    for profile, channel in channels():
        bounds = f"{channel['lo']} … {channel['hi']}" if "lo" in channel and "hi" in channel else ""
        rows.append((profile, f"`{channel['name']}`", channel.get("unit", ""), str(channel.get("circuit", "")), bounds))
    return _table(("profile", "field", "unit", "circuit", "range"), rows)


def tables_part() -> str:
    """A section for each table of the cloud's store: its columns, their types and what they mean."""
    sections = []
    for table in (*registry.metadata.tables.values(), *schema.metadata.tables.values()):
        keys = {column.name for column in table.primary_key}
        rows = [
            (f"`{column.name}`" + (" (key)" if column.name in keys else ""), _type(column), column.comment or "")
            for column in table.columns
        ]
        words = [
            word for word in (table.comment, "Evidence: never changed, never deleted." if table.name in schema.IMMUTABLE else "") if word
        ]
        sections.append("\n\n".join([f"### {table.name}", *words, _table(("column", "type", ""), rows)]))
    return "\n\n".join(sections)


def _type(column: Any) -> str:
    """A column's type in one word, with its length where it has one."""
    word = {"BigInteger": "int64", "Integer": "int32", "LargeBinary": "bytes", "String": "text", "Text": "text", "Boolean": "bool"}
    length = getattr(column.type, "length", None)
    return word[type(column.type).__name__] + (f" ≤ {length}" if length else "") + (" or null" if column.nullable else "")


def topics_part() -> str:
    """One row a leaf, with the topic as it stands on the wire."""
    rows = [(f"`{topics.ROOT}/{{partition}}/{{gateway}}/{leaf.value}`", leaf.name.lower()) for leaf in topics.Leaf]
    return _table(("topic", "leaf"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _one_line(text: str | None) -> str:
    """Help text without its line breaks."""
    return " ".join((text or "").split())


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands_part,
    "verbs": verbs_part,
    "programs": programs_part,
    "channels": channels_part,
    "topics": topics_part,
    "tables": tables_part,
}


if __name__ == "__main__":
    sys.exit(main())
