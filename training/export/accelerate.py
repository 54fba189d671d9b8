"""For `accelerate launch`: this project's own trainer over several GPUs, with TRL's vLLM server beside it.

Nothing is converted: the run's own TOML is trained, by the same code, so all options hold.
"""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlsplit

from training.config import RlTable
from training.export.stage_export import ExportedFiles, ExportError, StageExport
from training.trainer.ranks import rl_share, sft_share

__all__ = ["export"]

TRAIN = """#!/usr/bin/env bash
# Both configurations train the same: FSDP 2 splits the weights, DeepSpeed (ZeRO 2) what the optimizer keeps.
#   ./train.sh                 ./train.sh deepspeed.yaml
set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
cd {folder}
export PYTHONSAFEPATH=1  # `-m training` is the installed one, not a folder of that name here
exec accelerate launch --config_file "$here/${{1:-fsdp.yaml}}" -m training train {stage} {file}
"""

SERVE = """#!/usr/bin/env bash
# The server that draws the samples, on GPUs of its own; start it before the training.
set -euo pipefail
exec trl vllm-serve --model {model} --port {port} --max-model-len {length} "$@"
"""


def export(job: StageExport) -> ExportedFiles:
    """The files. Raises ExportError where a step can't be shared out among the processes."""
    table = job.table
    try:
        if isinstance(table, RlTable):
            rl_share(table.groups, table.samples, table.batch, job.processes)
        else:
            sft_share(table.batch, job.processes)
    except ValueError as error:
        raise ExportError(str(error)) from error
    files: dict[str, str | bytes] = {
        "fsdp.yaml": _yaml({**_common(job), "distributed_type": "FSDP", "fsdp_config": _FSDP}),
        "deepspeed.yaml": _yaml({**_common(job), "distributed_type": "DEEPSPEED", "deepspeed_config": _ZERO}),
        "train.sh": TRAIN.format(
            folder=shlex.quote(str(job.folder)), stage=job.stage, file=shlex.quote(str(job.file))
        ),
    }
    start = "`./train.sh`."
    left = [
        "Nothing: it is the same trainer. A step is shared out, and stays as large as in one process.",
        "ZeRO 3 and FSDP 1 are refused: their weights can't be drawn from and saved as a whole.",
    ]
    if isinstance(table, RlTable) and table.vllm is not None:
        files["serve.sh"] = _serve(job, table, table.vllm)
        start = "`./serve.sh` on other GPUs (or another machine), then `./train.sh`."
        left.append("The server draws by random numbers of its own: a resumed step draws other replies.")
    elif isinstance(table, RlTable):
        left.append(f"[{job.stage}] has no vllm = URL: the training processes draw the samples themselves.")
    return ExportedFiles(files, left, start)


_FSDP: dict[str, Any] = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": True,
    "fsdp_state_dict_type": "FULL_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": False,
    "fsdp_offload_params": False,
    "fsdp_activation_checkpointing": False,
}
_ZERO: dict[str, Any] = {
    "zero_stage": 2,
    "gradient_clipping": 1.0,
    "gradient_accumulation_steps": "auto",
    "offload_optimizer_device": "none",
    "offload_param_device": "none",
    "zero3_init_flag": False,
}


def _common(job: StageExport) -> dict[str, Any]:
    return {
        "compute_environment": "LOCAL_MACHINE",
        "mixed_precision": "bf16",
        "num_machines": 1,
        "machine_rank": 0,
        "num_processes": job.processes,
        "use_cpu": False,
    }


def _serve(job: StageExport, table: RlTable, url: str) -> str:
    place = urlsplit(url)
    longest = (table.length_most or table.length) + _PROMPT_ROOM
    return SERVE.format(model=shlex.quote(job.model), port=place.port or 8000, length=longest)


_PROMPT_ROOM = 2048
"""Tokens that a prompt may have beside the longest reply."""


def _yaml(values: dict[str, Any], depth: int = 0) -> str:
    """Nested mappings of plain values, which in JSON's notation are YAML too."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines.append(f"{'  ' * depth}{name}:\n{_yaml(value, depth + 1)}")
        else:
            lines.append(f"{'  ' * depth}{name}: {json.dumps(value)}\n")
    return "".join(lines)
