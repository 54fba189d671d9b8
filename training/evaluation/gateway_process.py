"""A gateway of the evaluation's own, for as long as it needs one."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["GatewayStartFailed", "run_gateway"]

_ADDRESS = re.compile(r"https?://\S+/v1\b")


class GatewayStartFailed(Exception):
    """The gateway did not start; its own words are on stderr."""


@contextmanager
def run_gateway(command: str) -> Iterator[str]:
    """Runs a command that serves and prints its address, ending in /v1; gives that address.

    Raises GatewayStartFailed where it ends without having printed one.
    """
    try:
        process = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise GatewayStartFailed(f"{command!r} can't be run: {error.strerror}") from error
    # What it prints beside its address is read away, so that it never waits for a full pipe.
    drain = threading.Thread(target=deque, args=(process.stdout, 0), daemon=True)
    with process:
        try:
            found = next(filter(None, map(_ADDRESS.search, process.stdout or ())), None)
            if found is None:
                raise GatewayStartFailed(f"{command!r} ended without serving")
            drain.start()
            yield found[0]
        finally:
            process.terminate()
            if drain.is_alive():
                drain.join()
