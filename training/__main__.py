"""`python -m training COMMAND`: the commands of training, which `thinkgate` starts as child processes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

from stamina.instrumentation import RetryDetails, set_on_retry_hooks

__all__: list[str] = []

_COMMANDS: Mapping[str, str] = {
    "adapter": "training.export.gguf_adapter",
    "canary": "training.evaluation.weight_check",
    "eval": "training.evaluation.command",
    "promote": "training.promotion.command",
    "train": "training.train",
}
"""Each module has `main(arguments)`, which returns the exit status."""


def _main(arguments: list[str]) -> int:
    name, *rest = arguments or [""]
    if name not in _COMMANDS:
        print(f"usage: python -m training {{{','.join(_COMMANDS)}}} ...", file=sys.stderr)
        return 2
    set_on_retry_hooks([_print_retry])
    status: int = importlib.import_module(_COMMANDS[name]).main(rest)
    return status


def _print_retry(details: RetryDetails) -> None:
    print(f"{details.caused_by}; trying again in {details.wait_for:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
