"""Run a gateway for the duration of one evaluation."""

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
    """The gateway did not start; its own messages are on stderr."""


@contextmanager
def run_gateway(command: str) -> Iterator[str]:
    """Run a command that starts a gateway, and yield the address that it prints, ending in /v1.

    Raises GatewayStartFailed if the command ends before it prints an address.
    """
    try:
        process = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise GatewayStartFailed(f"{command!r} can't be run: {error.strerror}") from error
    # The thread discards all later output, so that the gateway never blocks on a full pipe.
    drain = threading.Thread(target=deque, args=(process.stdout, 0), daemon=True)
    with process:
        try:
            address = next(filter(None, map(_ADDRESS.search, process.stdout or ())), None)
            if address is None:
                raise GatewayStartFailed(f"{command!r} ended without serving")
            drain.start()
            yield address[0]
        finally:
            process.terminate()
            if drain.is_alive():
                drain.join()
