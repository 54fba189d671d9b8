"""Imports follow the arrows of docs/architecture.md without circles, and the gateway starts light."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "policies", "scorers", "training")
OURS = {*PACKAGES, "benchmarks", "tests"}
HEAVY = {"math_verify", "sympy", "torch", "transformers", "vllm"}


def name_of(path: Path) -> str:
    """Return a file's name as a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in FILES.items()}


def imports(module: str, source: str, *, is_package: bool = False) -> set[str]:
    """Return the modules of ours that a module imports, wherever in it the import stands."""
    package = module if is_package else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                origin = resolve_name("." * node.level + origin, package)
            members = [f"{origin}.{alias.name}" for alias in node.names]
            names |= {member if member in FILES else origin for member in members}
    return {name for name in names if name.partition(".")[0] in OURS} - {module}


IMPORTS = {
    name: imports(name, source, is_package=FILES[name].name == "__init__.py")
    for name, source in SOURCES.items()
}


def read_arrows(page: str) -> dict[str, frozenset[str]]:
    """Return the table of arrows: which rooms each room may import. A package stands for all of its rooms."""
    section = page.partition("## Arrows")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    cells = [[re.findall(r"`([\w/]+)`", cell) for cell in row] for row in rows]
    rooms = [room for names, _ in cells for room in names]
    arrows = {}
    for names, targets in cells:
        for room in names:
            package = room.partition("/")[0]
            # A short name is a room of the same package; else it names a package.
            full_names = {target: f"{package}/{target}" for target in targets}
            arrows[room] = frozenset(name if name in rooms else target for target, name in full_names.items())
    return arrows


ARROWS = read_arrows((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def room_of(module: str) -> str | None:
    """Return the room of a module: the longest name in the table that leads to it."""
    path = module.replace(".", "/")
    rooms = [room for room in ARROWS if path == room or path.startswith(f"{room}/")]
    return max(rooms, key=len, default=None)


def forbidden(room: str, imported: set[str]) -> set[str]:
    """Return the imports that the room's row does not list."""
    targets = {name: room_of(name) or name for name in imported}
    return {
        name
        for name, target in targets.items()
        if target not in {room, *ARROWS[room]} and target.partition("/")[0] not in ARROWS[room]
    }


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return one circle of a graph, from a node back to itself; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        nodes: list[str] = error.args[1]
        return nodes
    return []


MODULES = [name for name in FILES if name not in PACKAGES]
"""All modules but the packages themselves, which hold no code."""


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str) -> None:
    """A module imports only from its own room and from the rooms in that room's row of the table."""
    room = room_of(module)
    assert room is not None, "the table of arrows has no room for this module"
    assert forbidden(room, IMPORTS[module]) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_nothing(package: str) -> None:
    """Importing a package itself loads none of its rooms."""
    assert IMPORTS[package] == set()


def test_every_room_has_a_module() -> None:
    """The table lists no room that does not exist, and names only rooms that it lists."""
    assert {room_of(module) for module in MODULES} == ARROWS.keys()
    assert {target for targets in ARROWS.values() for target in targets} <= {*ARROWS, *PACKAGES}


def test_no_circle_of_modules() -> None:
    """No module imports itself by way of others."""
    assert circle(IMPORTS) == []


def test_no_circle_of_rooms() -> None:
    """No room imports itself by way of others."""
    graph: dict[str, set[str]] = {room: set() for room in ARROWS}
    for module in MODULES:
        room = room_of(module)
        assert room is not None
        graph[room] |= {target for name in IMPORTS[module] if (target := room_of(name)) not in (room, None)}
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("policies.types", "import gateway.app", {"gateway.app"}),
        ("gateway.app", "def late():\n    from training.rewards import REWARDS", {"training.rewards"}),
        ("training.config", "from gateway import config", {"gateway.config"}),
        ("scorers.votes", "from policies.types import SamplingRequest", {"policies.types"}),
        ("scorers.votes", "from tests.fakes import Script", {"tests.fakes"}),
        ("scorers.grader.pool", "from scorers.types import Sample", {"scorers.types"}),
        ("gateway.runs.run", "from ..http import streaming", {"gateway.http.streaming"}),
        ("training.data.readers", "import training.rewards.length", {"training.rewards.length"}),
        ("gateway.runs.run", "from policies.types import Step\nimport scorers.grader.pool", set()),
        ("gateway.runs.run", "from .events import Delta\nimport json", set()),
    ],
)
def test_a_wrong_arrow_is_seen(module: str, source: str, wrong: set[str]) -> None:
    """The check finds a forbidden import at any depth, relative or not, and passes the others."""
    room = room_of(module)
    assert room is not None
    assert forbidden(room, imports(module, source)) == wrong


def test_a_circle_is_seen() -> None:
    """The check returns the nodes of a circle, and nothing for imports that only meet."""
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_gateway_starts_light() -> None:
    """Importing the app loads no deep-learning and no symbolic algebra library."""
    code = "import json, sys, gateway.app; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert "gateway" in loaded
    assert loaded & HEAVY == set()
