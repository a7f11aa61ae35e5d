"""The house style as functions: text in, violations out. Not a linter for what ruff, mypy and import-linter see already.

Invariant: a rule reads nothing but the ``root`` it is given, so that a planted violation in a temporary folder is judged alike.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LONG_MODULES", "RULES", "Rule", "source_files", "tracked_files", "unlinked_documents", "violations"]

PACKAGES = ("dashboards", "edge", "ingest", "native", "protocol", "provisioning", "simulator")

FUNCTION_LINES_MAX = 60  # one screen: what cannot be seen at once is not understood at once
POSITIONAL_MAX = 4  # a fifth is passed in the wrong order sooner or later
MODULE_LINES_MAX = 400  # the alarm, not the aim: a module has one idea
TEST_LINES_MAX = 600  # a test module is a list of facts; it is read one at a time

LONG_MODULES: dict[str, int] = {}
"""Modules over the alarm, with their length on the day they were let in; the list and the lengths may only shrink."""

SHORT_NAMES = frozenset("_ijknxy")
"""One-letter names that are idioms of loops and coordinates; capital letters are type variables or matrices."""

EXCEPTION = re.compile(r"# (house: |noqa: PLR0913)")
"""A definition that must break a rule carries such a comment with the reason on its first line."""

BOUND = re.compile(r"\s*(?:#define\s+|(?:cdef|cpdef|enum)\s.*\b)?([A-Z][A-Z0-9_]*_MAX)\b(?:\s*:[^=]*)?(?:\s*=[^=]|\s+\d)")
"""A declaration of a named maximum in Python, Cython or C."""

# Put together from pieces, so that the rule does not find itself.
BANNED = {
    "unfinished": r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b",
    "filler": "lor" + "em ip" + "sum",
    "tracker number": r"\b[Ii]ss" + r"ue #?\d",
    "somebody's machine": r"(?<![\w.])/(wo" + r"rk|ro" + r"ot|ho" + r"me|Us" + r"ers)/",
    "package host": r"py" + r"pi\.org|python" + r"hosted\.org|reg" + r"istry\.npm",
    "excluding word": r"\b(black|white)" + r"list",
    "emoji": "[\U0001f300-\U0001faff\u2705\u274c\u2728\u26a0]",
}

TEXT_SUFFIXES = frozenset(
    [".py", ".pyx", ".pyi", ".pxi", ".h", ".md", ".toml", ".sh", ".html", ".css", ".js", ".sql", ".service", ".conf", ".in", ".typ", ""]
)


BUILT = frozenset({"build", "dist", "mutants", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: which files it judges, and what it says of one."""

    name: str
    judges: Callable[[Path], bool]
    check: Callable[[Path, str], Iterator[str]]


def source_files(root: Path) -> list[Path]:
    """Text files of our own, relative to ``root``."""
    return [name for name in tracked_files(root) if name.suffix in TEXT_SUFFIXES and not _is_foreign(name)]


def tracked_files(root: Path) -> list[Path]:
    """Files under version control, relative to ``root``; in a tree without it, all that are neither hidden nor built."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        names = [Path(name) for name in listing.stdout.decode().split("\0") if name]
    else:
        found = [path.relative_to(root) for path in root.rglob("*")]
        names = [name for name in found if not any(part.startswith(".") or part in BUILT for part in name.parts)]
    return sorted(name for name in names if (root / name).is_file())


def violations(rule: Rule, root: Path) -> list[str]:
    """What ``rule`` finds below ``root``, each as ``file:line: words``."""
    found = []
    for name in source_files(root):
        if rule.judges(name):
            found += [f"{name}:{message}" for message in rule.check(name, (root / name).read_text(encoding="utf-8"))]
    return found


def unlinked_documents(root: Path) -> list[str]:
    """Pages of ``docs/`` that no chain of links from ``docs/README.md`` or ``README.md`` reaches."""
    pages = {path.resolve() for path in (root / "docs").rglob("*.md")}
    queue = [path.resolve() for path in (root / "README.md", root / "docs" / "README.md") if path.exists()]
    seen = set(queue)
    while queue:
        page = queue.pop()
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            if linked.suffix == ".md" and linked.is_file() and linked not in seen:
                seen.add(linked)
                queue.append(linked)
    return sorted(str(page.relative_to(root.resolve())) for page in pages - seen)


def _is_foreign(name: Path) -> bool:
    """Vendored and generated files follow their own makers' style."""
    return "vendor" in name.parts or "generated" in name.parts or name.parts[0] == "requirements" or name.name == "LICENSE"


def _is_python(name: Path) -> bool:
    return name.suffix == ".py"


def _is_product(name: Path) -> bool:
    return name.suffix == ".py" and (name.parts[0] in PACKAGES or name.name == "icecap.py")


def _is_money(name: Path) -> bool:
    return _is_product(name) and name.parts[:2] == ("ingest", "billing")


def _functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not EXCEPTION.search(lines[node.lineno - 1]):
            yield node


def _long_functions(_name: Path, text: str) -> Iterator[str]:
    for function in _functions(text):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > FUNCTION_LINES_MAX:
            yield f"{function.lineno}: {function.name} has {length} lines; {FUNCTION_LINES_MAX} is the maximum"


def _positional(_name: Path, text: str) -> Iterator[str]:
    for function in _functions(text):
        names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
        count = len([name for name in names if name not in {"self", "cls"}])
        if count > POSITIONAL_MAX and not _is_registered(function):
            yield f"{function.lineno}: {function.name} takes {count} positional arguments; {POSITIONAL_MAX} is the maximum"


def _is_registered(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Commands and routes: their framework reads the signature and passes by name."""
    return any(isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) for mark in function.decorator_list)


def _long_modules(name: Path, text: str) -> Iterator[str]:
    usual = TEST_LINES_MAX if name.parts[0] == "tests" else MODULE_LINES_MAX
    length, limit = len(text.splitlines()), LONG_MODULES.get(str(name), usual)
    if length > limit and "generated by" not in text[:400].lower():
        yield f"1: {length} lines; {limit} is the maximum"


def _docstring(_name: Path, text: str) -> Iterator[str]:
    if text.strip() and not ast.get_docstring(ast.parse(text)):
        yield "1: no module docstring"


def _prints(_name: Path, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{node.lineno}: print; a command line echoes, everything else logs an event"


def _floats(_name: Path, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if (isinstance(node, ast.Constant) and isinstance(node.value, float)) or (isinstance(node, ast.Name) and node.id == "float"):
            yield f"{node.lineno}: a float beside money; amounts are integer minor units"


def _unexplained_bounds(name: Path, text: str) -> Iterator[str]:
    """A bound needs a comment on its line or above, or a string below it; a second name for a bound needs none."""
    lines = text.splitlines()
    if "generated by" in text[:400].lower():
        return
    mark = "/" if name.suffix == ".h" else "#"
    for number, line in enumerate(lines):
        declared = BOUND.match(line)
        if not declared or line.rstrip().endswith(f"_{declared.group(1)}"):
            continue
        above = lines[number - 1].strip() if number else ""
        below = lines[number + 1].strip() if number + 1 < len(lines) else ""
        explained = mark in line.replace("#define", "") or above.startswith(("#", "//", "/*", "*")) or below.startswith('"""')
        if not explained:
            yield f"{number + 1}: a bound without its reason: {line.strip()}"


def _short_names(_name: Path, text: str) -> Iterator[str]:
    """One-letter names; the fields of a record are named by its wire format, so they are not judged."""
    tree = ast.parse(text)
    records = [statement for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for statement in node.body]
    fields = {id(field.target) for field in records if isinstance(field, ast.AnnAssign)}
    for node in ast.walk(tree):
        if id(node) in fields:
            continue
        if isinstance(node, ast.arg):
            named = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            named = node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            named = node.name or "none"
        else:
            continue
        if len(named) == 1 and named not in SHORT_NAMES and not named.isupper():
            yield f"{getattr(node, 'lineno', 1)}: the name {named!r} says nothing"


def _banned_words(_name: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for reason, pattern in BANNED.items():
            if found := re.search(pattern, line):
                yield f"{number}: {reason}: {found.group()!r}"


def _anything(_name: Path) -> bool:
    return True


RULES = (
    Rule("function length", _is_python, _long_functions),
    Rule("positional arguments", lambda name: _is_python(name) and name.parts[0] != "tests", _positional),
    Rule("module length", lambda name: name.suffix in {".py", ".pyx", ".h", ".js", ".css"}, _long_modules),
    Rule("module docstring", lambda name: _is_python(name) and not name.name.startswith("test_"), _docstring),
    Rule("no print", _is_product, _prints),
    Rule("no float beside money", _is_money, _floats),
    Rule("bounds say why", lambda name: name.suffix in {".py", ".pyx", ".h"}, _unexplained_bounds),
    Rule("names say something", lambda name: _is_product(name) and name.parts[0] != "native", _short_names),
    Rule("banned words", _anything, _banned_words),
)
