"""Load an export with accelerate's and DeepSpeed's own code: `probe_accelerate.py OUT FOLDER`."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from deepspeed.runtime.config import DeepSpeedConfig

out, folder = map(Path, sys.argv[1:])
findings: dict[str, Any] = {}
for name in ("fsdp", "deepspeed"):
    export = folder / "accelerate-rl"
    loaded = load_config_from_file(str(export / f"{name}.yaml"))
    line = (export / "train.sh").read_text(encoding="utf-8").splitlines()[-1]
    words = shlex.split(line.replace("$here/${1:-fsdp.yaml}", str(export / f"{name}.yaml")))
    arguments = launch_command_parser().parse_args(words[words.index("launch") + 1 :])
    arguments, _, _ = _validate_launch_command(arguments)
    findings[name] = {
        "class": type(loaded).__name__,
        "distributed_type": str(loaded.distributed_type.value),
        "processes": arguments.num_processes,
        "script": [arguments.training_script, *arguments.training_script_args],
        "module": arguments.module,
        "use_fsdp": arguments.use_fsdp,
        "use_deepspeed": arguments.use_deepspeed,
    }
    if name == "deepspeed":  # as `accelerate launch` itself does
        arguments.deepspeed_fields_from_accelerate_config = ",".join(loaded.deepspeed_config)
    environment = (
        prepare_multi_gpu_env(arguments) if name == "fsdp" else prepare_deepspeed_cmd_env(arguments)[1]
    )
    with patch.dict(os.environ, environment):
        if name == "fsdp":
            plugin = FullyShardedDataParallelPlugin()
            findings[name]["version"] = plugin.fsdp_version
        else:
            zero = DeepSpeedPlugin()
            zero.deepspeed_config |= {"train_batch_size": 8, "gradient_accumulation_steps": 1}
            zero.deepspeed_config["train_micro_batch_size_per_gpu"] = 8
            config = DeepSpeedConfig({**zero.deepspeed_config, "zero_allow_untested_optimizer": True})
            findings[name]["stage"] = [zero.zero_stage, config.zero_optimization_stage]
out.write_text(json.dumps(findings), encoding="utf-8")
