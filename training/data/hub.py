"""Rows of data sets on the Hugging Face hub, or on disk, by the `datasets` library."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from training.data.problems import DataError
from training.data.readers import parse_rows
from training.types import Problem

__all__ = ["HubSet", "hub_rows", "rows_of_records"]


@dataclass(frozen=True, slots=True)
class HubSet:
    """A data set by its name or local directory, and which of its columns hold what a row needs.

    `columns` maps a field of a line (see `training.data.readers.parse_rows`: "question", "answer",
    "tests", "rubric", ...) to a column; fields that aren't named are taken from columns of the
    same name. `fixed` fields are the same for all rows, as {"reward": "rubric", "general": true}.
    """

    name: str
    subset: str | None = None
    split: str = "train"
    columns: Mapping[str, str] | None = None
    fixed: Mapping[str, Any] | None = None


def hub_rows(wanted: HubSet, most: int | None = None) -> list[Problem]:
    """The set's rows, at most so many of the first. Raises DataError, also where the library is missing."""
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            "a hub set needs the datasets package: pip install 'thinkgate[train]' (or datasets)"
        ) from error
    try:
        records = library.load_dataset(wanted.name, wanted.subset, split=wanted.split)
        if most is not None:
            records = records.select(range(min(most, len(records))))
        return rows_of_records(records, wanted)
    except (OSError, ValueError, KeyError) as error:  # what the library raises for names, splits and networks
        raise DataError(f"data set {wanted.name!r}: {error}") from error


def rows_of_records(records: Iterable[Mapping[str, Any]], wanted: HubSet) -> list[Problem]:
    """The rows that a set's records make. Raises DataError, which names the record as a line, from 1 on."""
    columns, fixed = wanted.columns or {}, wanted.fixed or {}
    known = ("id", "question", "problem", "answer", "reward", "tests", "checks", "rubric")
    lines = []
    for record in records:
        fields = {field: record[field] for field in known if record.get(field) is not None}
        for field, column in columns.items():
            if column not in record:
                raise DataError(f"it has no column {column!r}; there are {', '.join(record)}")
            fields[field] = record[column]
        lines.append(json.dumps({**fields, **fixed}, default=str))
    return parse_rows(lines, wanted.name.rsplit("/", 1)[-1])
