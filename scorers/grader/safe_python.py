"""Start Python processes that run our own modules, whatever lies in the current folder.

`python -m NAME` looks for NAME in the current folder first. A user's folder that holds
`training/__main__.py` or `scorers/` would run in place of ours.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

__all__ = ["python_command", "python_environment"]

_ROOT = Path(__file__).resolve().parents[__name__.count(".")]
"""The folder that holds our packages: a checkout, or this Python's site-packages."""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python and ignores the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


def python_environment() -> dict[str, str]:
    """Return this process's environment, with a `PYTHONPATH` by which a child finds our packages.

    A checkout goes first, so that a child runs the same code as its parent, installed or not.
    Site-packages are found anyway; they stay off the path, where they would precede the standard
    library and reach other Pythons. Empty entries, which mean the current folder, are dropped.
    """
    own = [] if _ROOT in _site_folders() else [str(_ROOT)]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([*own, *filter(None, inherited)])
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return others | ({"PYTHONPATH": path} if path else {})


def _site_folders() -> set[Path]:
    """Return the folders in which this Python finds installed packages."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return {Path(folder).resolve() for folder in (*site.getsitepackages(), *user)}
