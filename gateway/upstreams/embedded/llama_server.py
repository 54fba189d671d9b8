"""The embedded engine's process: llama.cpp's server on loopback for as long as its parent lives.

A script that nothing imports. It reads one JSON object of options from standard input and
writes one JSON line, `{"port": ...}` or `{"error": ...}`. The end of standard input ends it.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any


def main() -> None:
    """Serve until the parent closes our standard input or has ended."""
    parent = os.getppid()
    options = json.loads(sys.stdin.buffer.readline())
    # llama.cpp may print to standard output, which is reserved for our one line.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        _server, port = start(options)
    except Exception as error:  # noqa: BLE001 (the parent reports whatever the engine raises)
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        os._exit(1)
    print(json.dumps({"port": port}), file=out, flush=True)
    while not select.select([sys.stdin], [], [], 2.0)[0]:
        # A process forked from our parent can hold the pipe open after the parent's death.
        if os.getppid() != parent:
            break
    # No cleanup: the server's own shutdown sometimes hangs, and there is nothing to save.
    os._exit(0)


def start(options: dict[str, Any]) -> tuple[object, int]:
    """Start the server; return it and its port."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.model_alias = {options["name"]}
    params.n_parallel = options["slots"]
    params.n_ctx = options["slots"] * options["context"]
    params.hostnames = ["127.0.0.1"]
    params.port = options["port"]
    params.api_keys = [options["key"]]
    params.use_jinja = True
    # Thinking stays in the text as the model wrote it, because the gateway splits it off.
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.endpoint_slots = params.endpoint_metrics = True
    params.ui = False
    params.verbosity = 1  # errors only
    params.cache_ram_mib = 0  # the default keeps up to 8 GiB of old prompts
    if options["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(lora, 0.0 if index else 1.0)
        for index, lora in enumerate(options["loras"])
    ]
    server = xllamacpp.Server(params)
    return server, int(server.listening_address.rsplit(":", 1)[1])


if __name__ == "__main__":
    main()
