"""The tries as a table in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["results_table"]


def results_table(results: Sequence[Mapping[str, Any]]) -> str:
    """A line a try: what it reached, and which checks it failed."""
    if not results:
        return ""
    sizes = list(results[0]["curves"]["majority"])
    most = sizes[-1]
    head = ["try", "AUC within", "AUC pooled", "calibration error", "Brier"]
    head += [f"{vote}@{most}" for vote in ("majority", "weighted", "best", "oracle")]
    lines = [[*head, "seconds", "gate"], ["---"] * (len(head) + 2)]
    for result in results:
        curves = result["curves"]
        auc = [_number(result["within_auc"]), _number(result["pooled_auc"])]
        votes = [f"{curves[vote][most]:.1%}" for vote in ("majority", "weighted", "best", "oracle")]
        failed = [f"{c['name']} {c['value']:.3f}" for c in result["checks"] if not c["passed"]]
        verdict = "passed" if result["passed"] else "failed: " + "; ".join(failed)
        error = [_number(result["calibration_error"]), _number(result["brier"])]
        lines.append([result["name"], *auc, *error, *votes, f"{result['seconds']:.0f}", verdict])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
