"""Export for `accelerate launch`: this project's own trainer on several GPUs, beside TRL's vLLM server.

Nothing is converted: the same code trains from the run's own TOML, so all options apply.
"""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlsplit

from training.config import RlTable
from training.export.plan import ExportedFiles, ExportError, ExportPlan
from training.trainer.process_group import rl_batch, sft_batch

__all__ = ["export"]

TRAIN = """#!/usr/bin/env bash
# Both configurations train alike: FSDP 2 shards the weights, DeepSpeed (ZeRO 2) the optimizer state.
#   ./train.sh                 ./train.sh deepspeed.yaml
set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
cd {folder}
export PYTHONSAFEPATH=1  # so that `-m training` is the installed module, not a folder of that name here
exec accelerate launch --config_file "$here/${{1:-fsdp.yaml}}" -m training train {stage} {file}
"""

SERVE = """#!/usr/bin/env bash
# The server that generates the rollouts, on its own GPUs; start it before the training.
set -euo pipefail
exec trl vllm-serve --model {model} --port {port} --max-model-len {length} "$@"
"""


def export(plan: ExportPlan) -> ExportedFiles:
    """Return the files. Raises ExportError if a step can't be divided among the processes."""
    table = plan.table
    try:
        if isinstance(table, RlTable):
            rl_batch(table.groups, table.num_generations, table.per_device_train_batch_size, plan.processes)
        else:
            sft_batch(table.batch, plan.processes)
    except ValueError as error:
        raise ExportError(str(error)) from error
    files: dict[str, str | bytes] = {
        "fsdp.yaml": _yaml({**_common(plan), "distributed_type": "FSDP", "fsdp_config": _FSDP}),
        "deepspeed.yaml": _yaml(
            {**_common(plan), "distributed_type": "DEEPSPEED", "deepspeed_config": _ZERO}
        ),
        "train.sh": TRAIN.format(
            folder=shlex.quote(str(plan.folder)), stage=plan.stage, file=shlex.quote(str(plan.file))
        ),
    }
    launch = "`./train.sh`."
    differences = [
        "None: it is the same trainer. The processes divide a step, which stays as large as in one process.",
        "ZeRO 3 and FSDP 1 are refused: with them the model can't generate, nor be saved as a whole.",
    ]
    if isinstance(table, RlTable) and table.vllm_server_base_url is not None:
        files["serve.sh"] = _serve(plan, table, table.vllm_server_base_url)
        launch = "`./serve.sh` on other GPUs (or another machine), then `./train.sh`."
        differences.append("The server has its own random numbers: a resumed step generates other replies.")
    elif isinstance(table, RlTable):
        differences.append(
            f"[{plan.stage}] has no vllm_server_base_url: the training processes generate the rollouts."
        )
    return ExportedFiles(files, differences, launch)


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


def _common(plan: ExportPlan) -> dict[str, Any]:
    return {
        "compute_environment": "LOCAL_MACHINE",
        "mixed_precision": "bf16",
        "num_machines": 1,
        "machine_rank": 0,
        "num_processes": plan.processes,
        "use_cpu": False,
    }


def _serve(plan: ExportPlan, table: RlTable, url: str) -> str:
    address = urlsplit(url)
    length = (table.final_completion_length or table.max_completion_length) + _PROMPT_TOKENS
    return SERVE.format(model=shlex.quote(plan.model), port=address.port or 8000, length=length)


_PROMPT_TOKENS = 2048
"""Maximum tokens of a prompt, beside those of the longest reply."""


def _yaml(values: dict[str, Any], depth: int = 0) -> str:
    """Return nested mappings of plain values as YAML; plain values are the same in JSON and YAML."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines.append(f"{'  ' * depth}{name}:\n{_yaml(value, depth + 1)}")
        else:
            lines.append(f"{'  ' * depth}{name}: {json.dumps(value)}\n")
    return "".join(lines)
