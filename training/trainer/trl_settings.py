"""The `[STAGE.trl]` tables: settings of TRL that this project has no name of its own for.

They are handed to TRL's configuration class as they are. A setting that a stage decides itself is refused
with the name of the setting to use instead, and so is one that would have no effect. TRL is imported only
to check names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from training.config import ConfigError, RlTable, SftTable, StageTable, TrainConfig

__all__ = ["check_trl_tables", "merge_settings", "refused_settings"]

T = TypeVar("T")


def _for_each(reason: str, *names: str) -> Iterator[tuple[str, str]]:
    return ((name, reason) for name in names)


_BOTH: Mapping[str, str] = dict(
    [
        *_for_each("the run's output decides it", "output_dir"),
        *_for_each("the run's seed decides it", "seed", "data_seed"),
        *_for_each("set max_steps or max_seconds of the stage", "num_train_epochs"),
        *_for_each("[model] dtype and the device decide it", "bf16", "fp16", "use_cpu"),
        *_for_each("set dtype, adapter or lora in [model]", "model_init_kwargs", "trust_remote_code"),
        *_for_each(
            "held-out questions are evaluated instead: set eval_steps of the stage",
            *("do_eval", "eval_strategy", "eval_on_start", "eval_delay", "per_device_eval_batch_size"),
        ),
        *_for_each(
            "held-out accuracy decides which weights are best",
            *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        ),
        *_for_each("set save_steps of the stage", "save_strategy"),
        *_for_each("a stage resumes from its last checkpoint by itself", "resume_from_checkpoint"),
        *_for_each("a stage could not resume from such a checkpoint", "save_only_model", "ignore_data_skip"),
        *_for_each(
            "every step is logged, because the guards read the log",
            *("logging_steps", "logging_strategy", "logging_first_step", "logging_nan_inf_filter"),
        ),
    ]
)
"""Settings that [STAGE.trl] refuses in every stage, with the reason."""

_RL: Mapping[str, str] = {
    **_BOTH,
    **dict(
        [
            *_for_each(
                "set groups, num_generations and per_device_train_batch_size of the stage",
                *("gradient_accumulation_steps", "steps_per_generation", "generation_batch_size"),
            ),
            *_for_each("held-out questions are asked once, greedily", "num_generations_eval"),
            *_for_each(
                "the stage decides in which order problems are asked",
                *("shuffle_dataset", "train_sampling_strategy", "remove_unused_columns"),
            ),
            *_for_each(
                "ratios are taken over the whole distribution, so completions are sampled from it",
                *("top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs"),
                "vllm_structured_outputs_regex",
            ),
            *_for_each(
                "the training processes generate by code of this project",
                *("cache_implementation", "use_transformers_continuous_batching"),
                *("use_transformers_paged", "transformers_continuous_batching_config"),
            ),
            *_for_each("[levels] and the family decide the prompts", "chat_template_kwargs"),
            *_for_each("tools are not called in training", "max_tool_calling_iterations"),
            *_for_each("set rewards of the stage", "reward_weights", "multi_objective_aggregation"),
            *_for_each(
                "set vllm_server_base_url of the stage",
                *("use_vllm", "vllm_mode", "vllm_server_host", "vllm_server_port"),
            ),
            *_for_each(
                "the vLLM server is started with its own options",
                *("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size"),
                *("vllm_enable_sleep_mode", "vllm_model_impl"),
            ),
        ]
    ),
}

_SFT: Mapping[str, str] = {
    **_BOTH,
    **dict(
        [
            *_for_each(
                "set batch of the stage", "per_device_train_batch_size", "gradient_accumulation_steps"
            ),
            *_for_each(
                "the stage tokenizes its examples itself, so it has no effect",
                *("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "chat_template_path"),
                *("eos_token", "pad_token", "max_length", "truncation_mode", "packing", "packing_strategy"),
                *("eval_packing", "completion_only_loss", "assistant_only_loss"),
            ),
        ]
    ),
}


def refused_settings(kind: type[StageTable]) -> Mapping[str, str]:
    """Return the settings that a stage's `trl` table may not have, each with the reason."""
    reasons = _RL if issubclass(kind, RlTable) else _SFT
    own = {name: f"set {name} of the stage itself" for name in kind.model_fields if name != "trl"}
    return {**own, **reasons}


def check_trl_tables(config: TrainConfig) -> None:
    """Raise ConfigError for a setting in a `trl` table that TRL lacks or that a stage decides itself."""
    tables = [(heading, table) for heading, table in config.tables() if table.trl]
    if not tables:
        return
    from trl import GRPOConfig, SFTConfig

    for heading, table in tables:
        kind = SFTConfig if isinstance(table, SftTable) else GRPOConfig
        names = {field.name for field in dataclasses.fields(kind) if field.init}
        _check(f"[{heading}.trl]", table, kind.__name__, names)


def _check(heading: str, table: StageTable, kind: str, names: Iterable[str]) -> None:
    refused = refused_settings(type(table))
    old_names = type(table).old_names
    for name in table.trl:
        if name in refused:
            raise ConfigError(f"{heading} {name} can't be set here: {refused[name]}")
        if name in old_names:
            raise ConfigError(
                f"{heading} {name} can't be set here: set {old_names[name]} of the stage itself"
            )
        if name not in names:
            near = get_close_matches(name, sorted(names), n=3)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise ConfigError(f"{heading} {name}: TRL's {kind} has no such setting{hint}")


def merge_settings(
    kind: type[T], defaults: Mapping[str, Any], trl: Mapping[str, Any], decided: Mapping[str, Any]
) -> T:
    """Return TRL's configuration: the defaults, changed by the `trl` table, and what the stage decides.

    Raises ConfigError if TRL refuses a value.
    """
    try:
        return kind(**{**defaults, **trl, **decided})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"TRL refuses the settings: {error}") from error
