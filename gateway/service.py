"""What every route needs, assembled once an app: backend, engine, settings, metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.backends.base import Backend, ModelCard
from gateway.budget import split_suffix
from gateway.config import Settings
from gateway.engine import Engine
from gateway.errors import ModelNotFound
from gateway.metrics import Metrics
from policies.families import Family, find_family

__all__ = ["Resolved", "Service"]


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
    _families: dict[str, Family] = field(default_factory=dict)

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
            name, level, samples = split_suffix(model)
            if name in known:
                return Resolved(name, known[name], level, samples)
            if not model and len(known) == 1:
                return Resolved(*next((name, card) for name, card in known.items()))
        raise ModelNotFound(model, known)

    def family(self, resolved: Resolved) -> Family:
        """The model's family; remembered by name."""
        family = self._families.get(resolved.name)
        if family is None:
            base = resolved.card.base if resolved.card else None
            family = find_family(resolved.name, base_model=base, explicit=self.settings.family)
            if resolved.card is not None:  # only names the upstream knows, so that the memory stays small
                self._families[resolved.name] = family
        return family
