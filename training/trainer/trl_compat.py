"""Which tokens a model's output head is asked about in training."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import trl.trainer.utils

__all__ = ["score_completions_only"]


def score_completions_only() -> AbstractContextManager[Any]:
    """Within, TRL scores the replies' tokens alone; without Triton it scores prompts and padding too.

    Its other devices need tensors of one shape, CPUs don't. With a vocabulary of 49,152 and short replies
    that is a third of a step of RL and half a step of imitation.
    """
    return patch.object(trl.trainer.utils, "_use_triton", lambda device: True)
