"""Imports point one way only, and the gateway starts without the heavy libraries."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "gateway": {"policies", "scorers"},
    "training": {"policies", "scorers"},
    "policies": {"scorers"},
    "scorers": set(),
}
OURS = {*ALLOWED, "benchmarks", "tests"}
HEAVY = {"math_verify", "sympy", "torch", "transformers", "vllm"}
SOURCES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


def imported(source: str) -> set[str]:
    """The top-level packages that a module imports absolutely, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def forbidden(package: str, source: str) -> set[str]:
    """Our own packages that a module of `package` must not import, but does."""
    return imported(source) & OURS - ALLOWED[package] - {package}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    """A module imports of ours only what lies below its package: gateway or training, policies, scorers."""
    package = path.relative_to(ROOT).parts[0]
    assert forbidden(package, path.read_text(encoding="utf-8")) == set()


def test_every_package_is_walked() -> None:
    """The walk finds the packages that serving consists of."""
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} >= {"gateway", "policies", "scorers"}


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("policies", "import gateway.app", {"gateway"}),
        ("gateway", "def late():\n    from training.rewards import REWARDS", {"training"}),
        ("training", "from gateway import config", {"gateway"}),
        ("scorers", "from policies.types import Budget", {"policies"}),
        ("scorers", "from tests.fakes import Script", {"tests"}),
        ("gateway", "from policies.types import Budget\nimport scorers.types", set()),
        ("gateway", "from .types import Settings\nimport json", set()),
    ],
)
def test_a_wrong_arrow_is_seen(package: str, source: str, found: set[str]) -> None:
    """An import that points the wrong way is found at any depth; allowed and relative ones are not."""
    assert forbidden(package, source) == found


def test_the_gateway_starts_light() -> None:
    """Importing the app loads no deep-learning and no symbolic algebra library."""
    code = "import json, sys, gateway.app; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert "gateway" in loaded
    assert loaded & HEAVY == set()
