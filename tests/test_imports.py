"""What importing costs: every module imports alone in a fresh process, and each process loads only what it needs."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("dashboards", "edge", "ingest", "native", "protocol", "provisioning", "simulator")
NOT_MODULES = {"migrations"}  # alembic runs these as scripts

# The gateway is a small machine; what is listed here belongs to the cloud or the workbench.
FOREIGN_TO_EDGE = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "psycopg", "influxdb_client", "jinja2", "grafana_api"}
FOREIGN_TO_EDGE |= {"simulator", "ingest", "dashboards", "pytest", "hypothesis", "matplotlib"}
FOREIGN_TO_LOGIC = {"paho", "bleak", "httpx", "apsw", "sqlalchemy", "socket", "sqlite3", "structlog"}
EDGE_ENTRIES = ("edge.agent", "edge.cli", "edge.config")


def modules() -> list[str]:
    """Every module of the packages."""
    paths = [path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = [path.with_suffix("").parts for path in paths if not NOT_MODULES & set(path.parts)]
    return sorted(".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in names)


def _fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-X", "utf8", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def _loaded_by(*names: str) -> set[str]:
    """First parts of the modules that a fresh process holds after importing ``names``."""
    run = _fresh(f"import sys, {', '.join(names)}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))")
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


# Foreign modules are loaded once; then each of ours is imported in a forked child that holds none of ours.
IMPORT_ALONE = """
import importlib, os, sys, traceback

foreign, ours = sys.argv[1].split(), sys.argv[2].split()
for name in foreign:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # an optional peer, or another system's
failed = 0
for name in ours:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            print(f"--- {name}", traceback.format_exc(), sep="\\n", flush=True)
            os._exit(1)
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
sys.exit(failed != 0)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)  # a fork and an import for each of some hundred modules, under whatever load there is
def test_every_module_imports_alone() -> None:
    names = [name for module in modules() for name in _foreign_imports(module)]
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALONE, " ".join(sorted(set(names))), " ".join(modules())]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


def test_the_edge_process_loads_nothing_of_the_cloud() -> None:
    entries = [name for name in EDGE_ENTRIES if name in modules()]

    assert _loaded_by(*entries) & FOREIGN_TO_EDGE == set()


def test_the_front_door_loads_no_package() -> None:
    assert _loaded_by("icecap") & set(PACKAGES) == set()


def test_logic_loads_no_transport() -> None:
    logic = [name for name in modules() if name.split(".")[0] == "protocol"]

    assert _loaded_by(*logic) & (FOREIGN_TO_LOGIC - {"socket"}) == set()


@pytest.mark.parametrize(
    ("lock", "packages"),
    [("edge.txt", {"edge", "protocol", "native"}), ("cloud.txt", {"ingest", "protocol", "native"}), ("sim.txt", set(PACKAGES))],
)
def test_what_a_part_imports_is_in_its_lock(lock: str, packages: set[str]) -> None:
    """A gateway is installed from ``edge.txt`` alone, a demonstration from ``sim.txt``; the peers of the benchmark are optional."""
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))
    owners = importlib.metadata.packages_distributions()
    ours = [name for name in modules() if name.split(".")[0] in packages and not name.startswith("simulator.bench")]
    wanted = {(module, name.split(".")[0]) for module in ours for name in _foreign_imports(module)}

    missing = {
        (module, name)
        for module, name in wanted
        if name not in sys.stdlib_module_names and not {_normal(owner) for owner in owners.get(name, ())} & locked
    }

    assert sorted(missing) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_that_it_is_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").exists()


@pytest.mark.parametrize("name", [name for name in modules() if name.split(".")[0] != "native"])
def test_public_names_are_listed_and_there(name: str) -> None:
    tree = _tree(name)
    defined = _defined(tree)
    listed = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]

    if not defined and not listed:
        return
    assert listed, "no __all__"
    assert set(ast.literal_eval(listed[0])) <= defined | _imported(tree)


def _normal(name: str) -> str:
    """A distribution's name as lock files spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _tree(name: str) -> ast.Module:
    """The parsed source of a module."""
    path = ROOT / name.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def _foreign_imports(name: str) -> list[str]:
    """Packages of others that a module imports, at its top or later."""
    found = []
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return [name for name in found if name.split(".")[0] not in PACKAGES]


def _defined(tree: ast.Module) -> set[str]:
    """Names that the module makes at its top level."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    names |= {part.id for node in assigned for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return names - {"__all__"}


def _imported(tree: ast.Module) -> set[str]:
    """Names that the module imports at its top level."""
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in nodes for alias in node.names}
