"""Problems of data sets on the Hugging Face hub, or on disk, read with the `datasets` library."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from training.data.problems import DataError
from training.data.readers import parse_problems
from training.types import Problem

__all__ = ["HubSet", "hub_problems", "problems_of_records"]

_SAME_NAME = (
    "id",
    "question",
    "problem",
    "answer",
    "reward",
    "tests",
    "cases",
    "input_output",
    "time_limit",
    "checks",
    "rubric",
)
"""The fields that are read from columns of the same name."""


@dataclass(frozen=True, slots=True)
class HubSet:
    """A data set by its name or local directory, and the columns that hold a problem's fields.

    `columns` maps a field (see `training.data.readers`: "question", "answer", "tests", "rubric", ...) to a
    column. Other fields are read from columns of the same name. `fixed` fields are the same for all
    problems, as {"reward": "rubric", "general": true}.
    """

    name: str
    subset: str | None = None
    split: str = "train"
    columns: Mapping[str, str] | None = None
    fixed: Mapping[str, Any] | None = None


def hub_problems(hub_set: HubSet, limit: int | None = None) -> list[Problem]:
    """Return the set's problems, or the first `limit` of them.

    Raises DataError, also where the library is missing.
    """
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            "a hub set needs the datasets package: pip install 'thinkgate[train]' (or datasets)"
        ) from error
    try:
        records = library.load_dataset(hub_set.name, hub_set.subset, split=hub_set.split)
        if limit is not None:
            records = records.select(range(min(limit, len(records))))
        return problems_of_records(records, hub_set)
    except (OSError, ValueError, KeyError) as error:  # the library's errors for names, splits and networks
        raise DataError(f"data set {hub_set.name!r}: {error}") from error


def problems_of_records(records: Iterable[Mapping[str, Any]], hub_set: HubSet) -> list[Problem]:
    """Return the problems of a set's records. Raises DataError, which counts records as lines from 1."""
    columns, fixed = hub_set.columns or {}, hub_set.fixed or {}
    lines = []
    for record in records:
        fields = {field: record[field] for field in _SAME_NAME if record.get(field) is not None}
        for field, column in columns.items():
            if column not in record:
                raise DataError(f"it has no column {column!r}; there are {', '.join(record)}")
            fields[field] = record[column]
        lines.append(json.dumps({**fields, **fixed}, default=str))
    return parse_problems(lines, name=f"data set {hub_set.name!r}", source=hub_set.name.rsplit("/", 1)[-1])
