"""The results of a scorer run as a Markdown table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["results_table"]


def results_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with one line a try: its metrics, and the checks that it failed."""
    if not results:
        return ""
    sizes = list(results[0]["curves"]["majority"])
    largest = sizes[-1]
    header = ["try", "AUC within", "AUC pooled", "calibration error", "Brier"]
    header += [f"{vote}@{largest}" for vote in ("majority", "weighted", "best", "oracle")]
    lines = [[*header, "seconds", "gate"], ["---"] * (len(header) + 2)]
    for result in results:
        curves = result["curves"]
        auc = [_number(result["within_auc"]), _number(result["pooled_auc"])]
        votes = [f"{curves[vote][largest]:.1%}" for vote in ("majority", "weighted", "best", "oracle")]
        failed = [
            f"{check['name']} {check['value']:.3f}" for check in result["checks"] if not check["passed"]
        ]
        verdict = "passed" if result["passed"] else "failed: " + "; ".join(failed)
        errors = [_number(result["calibration_error"]), _number(result["brier"])]
        lines.append([result["name"], *auc, *errors, *votes, f"{result['seconds']:.0f}", verdict])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
