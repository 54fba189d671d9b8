"""The wheel, installed with its dependencies into an empty environment and run from an empty folder."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
COMMANDS = ("serve", "demo", "replay", "keys", "adapter", "canary", "eval", "promote", "train")
DATA_FILES = (
    "gateway/py.typed",
    "policies/py.typed",
    "scorers/py.typed",
    "training/py.typed",
    "training/configs/tiny.toml",
    "gateway/demo/smollm2-reasoner.gguf",
    "gateway/demo/smollm2-judge.gate.json",
)


@dataclass(frozen=True)
class Installed:
    """The wheel, the installed command, and the empty folder to run it in."""

    wheel: Path
    command: Path
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """Return an environment without the settings, caches and Python paths of the machine."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [self.command, *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel from the files that git knows and install it, in folders of their own."""
    base = tmp_path_factory.mktemp("wheel")
    files = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in files.splitlines():
        if (ROOT / name).is_file():
            (base / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, base / "source" / name)
    (base / "empty").mkdir()
    subprocess.run([sys.executable, "-m", "venv", base / "venv"], cwd=base, check=True)
    pip = [base / "venv/bin/python", "-P", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", base / "source", "--no-deps", "-w", base], cwd=base, check=True)
    (wheel,) = base.glob("thinkgate-*.whl")
    subprocess.run([*pip, "install", wheel, "-c", ROOT / "constraints.txt"], cwd=base, check=True)
    return Installed(wheel, base / "venv/bin/thinkgate", base / "empty")


def test_the_version_matches_the_project(installed: Installed) -> None:
    """`thinkgate --version` prints the version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert installed.run("--version").stdout == f"thinkgate {project['version']}\n"


def test_a_bare_command_lists_all_commands(installed: Installed) -> None:
    """The help of `thinkgate` names the commands of these tests, and no others."""
    run = installed.run()
    assert run.returncode == 2
    commands = [
        line.split()[0] for line in run.stderr.splitlines() if line.startswith("    ") and line.split()
    ]
    assert sorted(commands) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(installed: Installed, command: str) -> None:
    """A command loads, its modules and data files included, and prints its usage."""
    run = installed.run(command, "--help")
    assert run.returncode == 0, run.stderr
    assert f"usage: thinkgate {command} " in run.stdout
    assert run.stderr == ""


def test_keys_prints_settings(installed: Installed) -> None:
    """`thinkgate keys NAME` prints valid settings."""
    run = installed.run("keys", "alice")
    assert set(tomllib.loads(run.stdout)["keys"]) == {"alice"}


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("serve", "--port", "0"), "pip install 'thinkgate[local]'"),
        (("demo", "--once", "--port", "0"), "pip install 'thinkgate[local]'"),
        (("train", "rl", "run.toml"), "pip install 'thinkgate[train]'"),
    ],
)
def test_a_missing_extra_is_named(installed: Installed, arguments: tuple[str, ...], advice: str) -> None:
    """Commands that need a missing extra say how to install it."""
    run = installed.run(*arguments)
    assert run.returncode != 0
    assert advice in run.stderr
    assert "Traceback" not in run.stderr


def test_the_gateway_serves(installed: Installed) -> None:
    """`thinkgate serve` prints its address, answers `/health` there and ends with status 0 on Ctrl-C."""
    process = subprocess.Popen(
        [installed.command, "serve", "--port", "0"],
        cwd=installed.folder,
        env={**installed.environ, "THINKGATE_UPSTREAM": "http://127.0.0.1:9/v1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split("//")[1].partition("/")[0]
            connection = http.client.HTTPConnection(address, timeout=20)
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200
            connection.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_wheel_carries_its_data(installed: Installed) -> None:
    """The wheel has types, example configurations, the demo's adapters and the licence, but no tests."""
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert set(DATA_FILES) <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
