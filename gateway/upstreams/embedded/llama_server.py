"""The embedded engine's process: llama.cpp's server on loopback for as long as its parent lives.

Run as a script, never imported: one JSON object of options comes in on standard input, one
JSON line goes out, `{"port": ...}` or `{"error": ...}`; the end of standard input ends it.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any


def main() -> None:
    """Serves until the parent closes our standard input or is gone."""
    parent = os.getppid()
    options = json.loads(sys.stdin.buffer.readline())
    # llama.cpp may print to standard output, which is kept for our one line.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        _server, port = start(options)
    except Exception as error:  # noqa: BLE001 (whatever the engine raises, the parent shall say it)
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        os._exit(1)
    print(json.dumps({"port": port}), file=out, flush=True)
    while not select.select([sys.stdin], [], [], 2.0)[0]:
        # A process forked from our parent can hold the pipe open after the parent's death.
        if os.getppid() != parent:
            break
    # No tidying up: the server's own shutdown now and then waits for ever, and nothing is to be saved.
    os._exit(0)


def start(options: dict[str, Any]) -> tuple[object, int]:
    """The running server, and its port."""
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
    # Thinking stays in the text as the model wrote it: taking it apart is the gateway's work.
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.endpoint_slots = params.endpoint_metrics = True
    params.ui = False
    params.verbosity = 1  # errors only
    params.cache_ram_mib = 0  # by default up to 8 GiB of old prompts
    if options["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(lora, 0.0 if place else 1.0)
        for place, lora in enumerate(options["loras"])
    ]
    server = xllamacpp.Server(params)
    return server, int(server.listening_address.rsplit(":", 1)[1])


if __name__ == "__main__":
    main()
