"""What every route needs, assembled once an app: backend, engine, settings, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction

from gateway.backends.base import Backend, ModelCard
from gateway.budget import AUTO, parse_thinking, split_suffix
from gateway.config import ConfigError, LevelSettings, ModelSettings, Settings
from gateway.engine import Engine
from gateway.errors import ModelNotFound
from gateway.events import Outcome
from gateway.metrics import Metrics
from gateway.planning import Job, Model
from gateway.recorder import Recorder
from policies.families import find_family
from policies.prompts import LEVELS, Level

__all__ = ["Resolved", "Service", "describe_model", "levels_with"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model name as the client gave it, understood."""

    name: str
    card: ModelCard | None
    level: str | None = None
    samples: int | None = None


@dataclass(slots=True)
class Service:
    """One app's working parts."""

    settings: Settings
    backend: Backend
    engine: Engine
    metrics: Metrics = field(default_factory=Metrics)
    recorder: Recorder | None = None
    _models: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.recorder is not None:
            recorder = self.recorder
            self.metrics.unrecorded(lambda: recorder.dropped)

    def finished(self, job: Job, outcome: Outcome) -> None:
        """A request has come to its end: it is counted, and recorded where that is asked for."""
        self.metrics.outcome(job, outcome)
        if self.recorder is not None:
            self.recorder.record(job, outcome)

    @property
    def level_names(self) -> tuple[str, ...]:
        """All levels that some model may be asked for."""
        own = [name for model in self.settings.models.values() for name in model.levels]
        return tuple(dict.fromkeys([*LEVELS, *self.settings.levels, *own, AUTO]))

    async def resolve(self, model: str) -> Resolved:
        """The upstream model that is meant, and what the name's suffix asks for.

        An upstream's exact name wins; an unknown name has the list read once more. An
        upstream that lists nothing gets every name as it is. Raises `ModelNotFound`.
        """
        known = await self.backend.models()
        for refreshed in (False, True):
            if refreshed:
                known = await self.backend.models(refresh=True)
            if not known:
                return Resolved(model, None)
            if model in known:
                return Resolved(model, known[model])
            name, level, samples = split_suffix(model, self.level_names)
            if name in known:
                return Resolved(name, known[name], level, samples)
            if not model and len(known) == 1:
                return Resolved(*next((name, card) for name, card in known.items()))
        raise ModelNotFound(model, known)

    def levels(self, card: ModelCard) -> tuple[str, ...]:
        """The budgets a model may be asked for."""
        return (*self.model(Resolved(card.name, card)).levels, AUTO)

    def model(self, resolved: Resolved) -> Model:
        """All that is known of a model; remembered by name."""
        model = self._models.get(resolved.name)
        if model is None or model.card is not resolved.card:
            model = describe_model(self.settings, resolved)
            if resolved.card is not None:  # only names the upstream knows, so that the memory stays small
                self._models[resolved.name] = model
        return model


def describe_model(settings: Settings, resolved: Resolved) -> Model:
    """What the settings and the family table say of a model. Raises `ConfigError`."""
    name = resolved.name.lower()
    own = next(
        (value for pattern, value in settings.models.items() if fnmatchcase(name, pattern.lower())),
        ModelSettings(),
    )
    base = resolved.card.base if resolved.card else None
    try:
        family = find_family(resolved.name, base_model=base, explicit=own.family or settings.family)
    except ValueError as error:
        raise ConfigError(f"family: {error}.") from error
    default = own.default_budget or settings.default_budget
    cap = settings.budget_cap if own.budget_cap is None else own.budget_cap
    levels = levels_with(settings.levels, own.levels)
    return Model(
        resolved.name,
        family,
        resolved.card,
        levels,
        parse_thinking(default, "default_budget", levels) if default else None,
        cap,
        own.answer_reserve or settings.answer_reserve,
    )


def levels_with(*changes: Mapping[str, LevelSettings]) -> Mapping[str, Level]:
    """The default levels with the settings' changes, later ones over earlier ones, and new levels added."""
    levels = dict(LEVELS)
    for change in changes:
        for name, level in change.items():
            base = levels.get(name) or Level(name, None, Fraction(3, 4), LEVELS["medium"].prompt)
            said = {key: value for key, value in level.model_dump().items() if value is not None}
            if "share" in said:
                said["share"] = Fraction(said["share"])
            levels[name] = replace(base, **said)
    return levels
