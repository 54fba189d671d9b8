"""What every route needs, assembled once for an app: settings, upstream, runner, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction

from gateway.aliases import Aliases
from gateway.config import Allowance, ConfigError, LevelSettings, ModelSettings, Settings
from gateway.errors import BadRequest, GatewayError, ModelNotFound, UpstreamError
from gateway.observability.metrics import Metrics
from gateway.recordings.writer import Recorder
from gateway.runs.budget import AUTO, parse_budget, split_suffix
from gateway.runs.request import Route, ServedModel
from gateway.runs.run import Runner
from gateway.upstreams.base import ModelCard, Upstream
from policies.families import Family, find_family
from policies.prompts import LEVELS, Level
from policies.templates import probe_requests, refine_rendered

__all__ = [
    "ResolvedModel",
    "Service",
    "apply_allowances",
    "check_settings",
    "describe_model",
    "fits",
    "levels_with",
]

_REFRESH_SECONDS = 1.0
_REFRESHES = 8


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model name from a client, with what it means.

    `listed` is None where the upstream's list has the model, or there is no list. Otherwise it holds the
    names that the client could use instead, should the upstream not know this one.
    """

    name: str
    card: ModelCard | None
    level: str | None = None
    samples: int | None = None
    route: Route | None = None
    listed: tuple[str, ...] | None = None

    def not_served(self) -> GatewayError | None:
        """Return the error for a name that the upstream refused; None for one that its list has."""
        if self.listed is None:
            return None
        if self.route is None:
            return ModelNotFound(self.name, self.listed)
        return UpstreamError(
            502,
            f"The alias {self.route.alias!r} stands for {self.route.target!r}, "
            "which the upstream does not serve.",
        )


@dataclass(slots=True)
class Service:
    """Everything that the routes of one app share."""

    settings: Settings
    upstream: Upstream
    runner: Runner
    metrics: Metrics = field(default_factory=Metrics)
    aliases: Aliases = field(default_factory=Aliases)
    clock: Callable[[], float] = time.monotonic
    probe_seconds: float = 5.0
    """For all of a template's probes; an engine renders one in milliseconds."""
    recorder: Recorder | None = None
    scorers: tuple[str, ...] = field(init=False)
    """The scorers that a client may name."""
    _models: dict[str, ServedModel] = field(default_factory=dict)
    _families: dict[tuple[str, str | None], Family] = field(default_factory=dict)
    _refreshed: dict[str, float] = field(default_factory=dict)
    """The unknown names that have lately had the upstream's list read again, and when."""
    _learn_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.scorers = ("none", *self.runner.vote_settings.scorers)
        if self.recorder is not None:
            recorder = self.recorder
            self.metrics.add_unrecorded_gauge(lambda: recorder.dropped)
        if self.aliases.configured:
            self.metrics.add_aliases_gauge(lambda: self.aliases.error is not None)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Return all levels that some model may be asked for."""
        own = [name for model in self.settings.models.values() for name in model.levels]
        return tuple(dict.fromkeys([*LEVELS, *self.settings.levels, *own, AUTO]))

    async def resolve(self, model: str, allowed: Collection[str] = ("*",), key: str = "") -> ResolvedModel:
        """Return the upstream model that a name means, and what the name's suffix asks for.

        An alias comes first, and `key` chooses among its targets; then an upstream's exact name; then either
        with a suffix. A name that the upstream's list lacks may still be one that it serves, so it stays as
        it is, without a known suffix. Raises `ModelNotFound` where nothing is named and there are several
        models, and where neither the alias's nor the model's name fits one of the `allowed` patterns.
        """
        route: Route | None = None
        level: str | None = None
        samples: int | None = None
        if self.aliases.table:
            route, level, samples = await self._route(model, key)
        resolved, served = await self._find(route.target if route else model)
        names = {route.alias, route.target} if route else {resolved.name} if resolved else set()
        permitted = any(fits(name, allowed) for name in names)
        if resolved is None or not permitted or resolved.listed is not None:
            listed = tuple(name for name in (*served, *self.aliases.table) if fits(name, allowed))
            if resolved is None or not permitted:
                raise ModelNotFound(model, listed)
            resolved = replace(resolved, listed=listed)
        if route is None:
            return resolved
        level, samples = level or resolved.level, samples or resolved.samples  # a target may have a suffix
        return replace(resolved, level=level, samples=samples, route=route)

    async def _route(self, model: str, key: str) -> tuple[Route | None, str | None, int | None]:
        """Return the alias that a name means, if one, and its suffix; an upstream's exact name has none."""
        route = self.aliases.route(model, key)
        if route is not None or model in await self.upstream.models():
            return route, None, None
        name, level, samples = split_suffix(model, self.level_names)
        return self.aliases.route(name, key), level, samples

    async def _find(self, model: str) -> tuple[ResolvedModel | None, Mapping[str, ModelCard]]:
        """Return the upstream model that a name means, and all that the upstream lists.

        None where no name is given and the list has several. The list may be old, so an unknown name has it
        read again.
        """
        served = await self.upstream.models()
        resolved = self._find_in(served, model)
        if resolved is None and self._may_refresh(model):
            served = await self.upstream.models(refresh=True)
            resolved = self._find_in(served, model)
        if resolved is None and model:
            name, level, samples = split_suffix(model, self.level_names)
            resolved = ResolvedModel(name, None, level, samples, listed=())
        return resolved, served

    def _may_refresh(self, model: str) -> bool:
        """Tell whether a name may have the list read again: each once a second, and few of them."""
        now = self.clock()
        recent = {name: when for name, when in self._refreshed.items() if now - when < _REFRESH_SECONDS}
        allowed = model not in recent and len(recent) < _REFRESHES
        self._refreshed = {**recent, model: now} if allowed else recent
        return allowed

    def _find_in(self, served: Mapping[str, ModelCard], model: str) -> ResolvedModel | None:
        """Return the model of a list that a name means; any name where there is no list."""
        if not served:
            return ResolvedModel(model, None)
        if (listed := _listed_name(served, model)) is not None:
            return ResolvedModel(listed, served[listed])
        name, level, samples = split_suffix(model, self.level_names)
        if (listed := _listed_name(served, name)) is not None:
            return ResolvedModel(listed, served[listed], level, samples)
        if not model and len({card.base or name for name, card in served.items()}) == 1:
            return ResolvedModel(*next(iter(served.items())))  # one model, or adapters of one
        return None

    async def resolve_and_describe(
        self, model: str, allowed: Collection[str], key: str, allowances: Mapping[str, Allowance]
    ) -> tuple[ResolvedModel, ServedModel]:
        """Resolve a name, and return all that is known of the model for those with these allowances."""
        resolved = await self.resolve(model, allowed, key)
        served = await self.model(resolved)
        return resolved, apply_allowances(served, allowances) if allowances else served

    def levels(self, card: ModelCard) -> tuple[str, ...]:
        """Return the budgets that a model may be asked for."""
        return (*describe_model(self.settings, ResolvedModel(card.name, card)).levels, AUTO)

    async def model(self, resolved: ResolvedModel) -> ServedModel:
        """Return all that is known of a model, remembered by name.

        The first request for a model also probes its chat template, which beats the family table. A family
        that the settings name is the operator's word and stays as it is.
        """
        model = self._models.get(resolved.name)
        if model is None or model.card is not resolved.card:
            model = describe_model(self.settings, resolved)
            if resolved.card is not None:  # only names the upstream knows, so that the memory stays small
                if not _own_settings(self.settings, resolved.name).family and not self.settings.family:
                    model = replace(model, family=await self._learn_family(model.family, resolved.card))
                self._models[resolved.name] = model
        return model

    async def _learn_family(self, family: Family, card: ModelCard) -> Family:
        """Return the family as the model's template shows it, or the table's row if no template does."""
        key = card.name, card.base  # a card is made anew whenever the models are listed
        async with self._learn_lock:
            if key not in self._families:
                try:
                    async with asyncio.timeout(self.probe_seconds):
                        prompts = await self._render_probes(family, card.name)
                except TimeoutError:
                    prompts = {}
                except UpstreamError:
                    return family  # the engine is down; the next request tries again
                self._families[key] = refine_rendered(family, prompts)
            return self._families[key]

    async def _render_probes(self, family: Family, model: str) -> dict[str, str]:
        """Render the probes; if the engine doesn't render the first one, try no other."""
        prompts: dict[str, str] = {}
        requests = probe_requests(family)
        first = requests.pop("default", None)
        if first is None or (prompt := await self.upstream.prompt_text({**first, "model": model})) is None:
            return prompts
        prompts["default"] = prompt
        bodies = [{**body, "model": model} for body in requests.values()]
        rendered = await asyncio.gather(*map(self.upstream.prompt_text, bodies))
        return prompts | {
            name: prompt for name, prompt in zip(requests, rendered, strict=True) if prompt is not None
        }


def _listed_name(served: Mapping[str, ModelCard], model: str) -> str | None:
    """Return the name under which a list has a model; in Ollama a name without a tag means `:latest`."""
    return next((name for name in (model, f"{model}:latest") if name in served), None)


def _own_settings(settings: Settings, model: str) -> ModelSettings:
    """Return the settings of just this model: those of the first pattern that fits its name."""
    fitting = (own for glob, own in settings.models.items() if fits(model, (glob,)))
    return next(fitting, ModelSettings())


def fits(model: str, patterns: Collection[str]) -> bool:
    """Tell whether a model's name fits one of the patterns, whatever the case."""
    return any(fnmatchcase(model.lower(), pattern.lower()) for pattern in patterns)


def apply_allowances(model: ServedModel, allowances: Mapping[str, Allowance]) -> ServedModel:
    """Return the model as it is for those with these allowances, each under its giver's name.

    The first default that is set replaces the model's own; the lowest of all caps holds. Raises `BadRequest`
    where a default is no level of the model's.
    """
    for by, allowance in reversed(list(allowances.items())):
        if allowance.default_budget:
            default = parse_budget(allowance.default_budget, f"{by}.default_budget", model.levels)
            model = replace(model, default=default, default_by=by)
        if allowance.budget_cap is not None:
            cap = allowance.budget_cap if model.cap is None else min(model.cap, allowance.budget_cap)
            model = replace(model, cap=cap)
    return model


def describe_model(settings: Settings, resolved: ResolvedModel) -> ServedModel:
    """Return what the settings and the family table say of a model. Raises `ConfigError`."""
    own = _own_settings(settings, resolved.name)
    base = resolved.card.base if resolved.card else None
    try:
        family = find_family(resolved.name, base_model=base, explicit=own.family or settings.family)
    except ValueError as error:
        raise ConfigError(f"family: {error}.") from error
    default = own.default_budget or settings.default_budget
    cap = settings.budget_cap if own.budget_cap is None else own.budget_cap
    levels = levels_with(settings.levels, own.levels)
    return ServedModel(
        resolved.name,
        family,
        resolved.card,
        levels,
        parse_budget(default, "default_budget", levels) if default else None,
        cap,
        own.answer_reserve or settings.answer_reserve,
        answer_cap=own.answer_cap or settings.answer_cap,
    )


def check_settings(settings: Settings) -> None:
    """Find impossible families and budgets before a client does. Raises `ConfigError`."""
    allowances: dict[str, Allowance] = {f"keys.{name}": key for name, key in settings.keys.items()}
    allowances |= {f"routes.{path}": route for path, route in settings.routes.items()}
    for pattern in ("*", *settings.models):
        try:
            apply_allowances(describe_model(settings, ResolvedModel(pattern, None)), allowances)
        except BadRequest as error:
            raise ConfigError(error.message) from error


def levels_with(*changes: Mapping[str, LevelSettings]) -> Mapping[str, Level]:
    """Return the default levels with the settings' changes, later ones over earlier ones, and new levels."""
    levels = dict(LEVELS)
    for change in changes:
        for name, level in change.items():
            base = levels.get(name) or Level(name, None, Fraction(3, 4), LEVELS["medium"].prompt)
            changed = {key: value for key, value in level.model_dump().items() if value is not None}
            if "share" in changed:
                changed["share"] = Fraction(changed["share"])
            levels[name] = replace(base, **changed)
    return levels
