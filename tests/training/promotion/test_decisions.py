"""Whether a candidate may take over, by paired outcomes and by its traffic."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.aliases import parse_aliases
from training.promotion.decisions import (
    PairedOutcomes,
    Traffic,
    TrafficLimits,
    assess_traffic,
    compare_outcomes,
    decide_promotion,
    mcnemar_p_value,
    next_share,
    split_traffic,
)
from training.promotion.deployment import (
    DeploymentFailed,
    PromotionState,
    read_aliases,
    read_state,
    read_traffic,
    replace_alias,
    save_state,
    write_aliases,
)

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def data(both: int, gained: int, lost: int, neither: int, *, trained: bool = True) -> PairedOutcomes:
    """Build paired outcomes with these numbers of problems."""
    pairs = [(True, True)] * both + [(False, True)] * gained + [(True, False)] * lost
    return PairedOutcomes("sums", trained, tuple(pairs + [(False, False)] * neither))


@given(OUTCOMES)
def test_the_interval_contains_the_difference(pairs: list[tuple[bool, bool]]) -> None:
    """The difference is candidate minus current; swapping the two models negates it."""
    forward = compare_outcomes(PairedOutcomes("x", True, tuple(pairs)))
    backward = compare_outcomes(PairedOutcomes("x", True, tuple((new, old) for old, new in pairs)))
    assert forward.low <= forward.difference + 1e-9
    assert forward.difference <= forward.high + 1e-9
    assert forward.difference == pytest.approx(forward.candidate - forward.current)
    assert forward.difference == -backward.difference
    assert forward.p == backward.p


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemars_test_is_a_binomial_test(gained: int, lost: int) -> None:
    """Equal gains and losses give p = 1; the more one-sided, the smaller p."""
    assert 0 < mcnemar_p_value(gained, lost) <= 1
    assert mcnemar_p_value(gained, gained) == 1
    assert mcnemar_p_value(gained + 1, 0) <= mcnemar_p_value(gained, 0)
    assert mcnemar_p_value(10, 0) == pytest.approx(2 / 1024)


def test_a_gain_passes_and_a_loss_does_not() -> None:
    """The trained set must gain beyond chance; the reason names the set and the interval."""
    assert decide_promotion([data(40, 30, 2, 28)]).passed
    worse = decide_promotion([data(40, 2, 30, 28)])
    assert not worse.passed
    assert worse.reasons[0].startswith("sums: -28.0 points (95%: ")
    assert worse.reasons[0].endswith("is worse")
    unclear = decide_promotion([data(3, 2, 1, 3)])
    assert "not shown to be above +0.0" in unclear.reasons[0]


def test_untouched_sets_may_lose_a_little() -> None:
    """Equal outcomes pass; a real loss is refused despite a gain elsewhere, and so is too small a set."""
    good = data(40, 30, 2, 28)
    assert decide_promotion([good, data(60, 0, 0, 40, trained=False)]).passed
    lost = decide_promotion([good, data(40, 1, 25, 34, trained=False)])
    assert [reason.endswith("is worse") for reason in lost.reasons] == [True]
    assert not decide_promotion([good, data(4, 2, 2, 2, trained=False)]).passed
    assert decide_promotion([data(60, 0, 0, 40)], min_gain=-1).passed


def test_no_common_answers_are_an_error() -> None:
    """There is no promotion without evidence."""
    with pytest.raises(ValueError, match="answered no common question"):
        decide_promotion([data(0, 0, 0, 0)])


def test_shares_increase_step_by_step() -> None:
    """Any share moves to the next larger step; after the last step there is none."""
    steps = (5.0, 25.0, 100.0)
    assert [next_share(steps, share) for share in (0, 5, 10, 25, 100)] == [5, 25, 25, 100, None]
    assert split_traffic("old", "new", 5) == (("old", 95), ("new", 5))


def traffic(good: int, bad: int = 0, *, seconds: float = 1.0, agreement: float = 0.8) -> Traffic:
    """Build traffic of votes, each with these seconds and this agreement."""
    return Traffic({"200": good, "500": bad, "400": 9}, seconds * good, good, agreement * good, good)


@pytest.mark.parametrize(
    ("current", "candidate", "health"),
    [
        (traffic(100), traffic(30), "good"),
        (traffic(100), traffic(19), "wait"),
        (traffic(0), traffic(30), "good"),
        (traffic(100), traffic(2, 4), "bad"),
        (traffic(100), traffic(1, 3), "wait"),
        (traffic(100), traffic(29, 1), "good"),
        (traffic(50, 50), traffic(20, 15), "good"),
        (traffic(100), traffic(30, seconds=1.6), "bad"),
        (traffic(10), traffic(30, seconds=1.6), "good"),
        (traffic(100), traffic(30, agreement=0.65), "bad"),
        (traffic(100), traffic(30, agreement=0.75), "good"),
        (traffic(100), traffic(30, seconds=0.1, agreement=1.0), "good"),
    ],
)
def test_traffic_is_compared_with_the_current_models(
    current: Traffic, candidate: Traffic, health: str
) -> None:
    """Failures beyond chance count at once, means only with enough requests, and a 4xx never."""
    assert assess_traffic(current, candidate, TrafficLimits())[0] == health


def test_traffic_is_read_from_the_gateways_metrics() -> None:
    """It holds one target's counters, and `since` gives their increase."""
    text = """\
# TYPE thinkgate_target_requests counter
thinkgate_target_requests_total{alias="best",status="200",target="new"} 7.0
thinkgate_target_requests_total{alias="best",status="502",target="new"} 1.0
thinkgate_target_requests_total{alias="best",status="200",target="old"} 70.0
# TYPE thinkgate_target_seconds histogram
thinkgate_target_seconds_bucket{alias="best",le="+Inf",target="new"} 7.0
thinkgate_target_seconds_count{alias="best",target="new"} 7.0
thinkgate_target_seconds_sum{alias="best",target="new"} 3.5
# TYPE thinkgate_target_agreement summary
thinkgate_target_agreement_count{alias="best",target="new"} 2.0
thinkgate_target_agreement_sum{alias="best",target="new"} 1.5
"""
    new = read_traffic(text, "best", "new")
    assert new == Traffic({"200": 7, "502": 1}, 3.5, 7, 1.5, 2)
    assert (new.total, new.failed) == (8, 1)
    assert new.since(Traffic({"200": 2}, 0.5, 2)).requests == {"200": 5, "502": 1}
    assert read_traffic(text, "best", "other").total == 0


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
TABLES = st.dictionaries(
    NAMES,
    st.dictionaries(NAMES, st.integers(1, 100), min_size=1, max_size=3).map(
        lambda targets: tuple(targets.items())
    ),
    max_size=3,
)


@pytest.mark.parametrize("name", ["aliases.toml", "aliases.json"])
@given(table=TABLES)
def test_the_gateway_reads_what_promote_writes(
    tmp_path_factory: pytest.TempPathFactory, name: str, table: dict[str, tuple[tuple[str, float], ...]]
) -> None:
    """Any names, in either format; promote itself reads them too."""
    path = tmp_path_factory.mktemp("aliases") / name
    write_aliases(path, table)
    read = parse_aliases(path.read_bytes(), json=path.suffix == ".json")
    assert {alias: tuple((t.model, t.share) for t in targets) for alias, targets in read.items()} == table
    assert read_aliases(path) == table
    assert list(path.parent.iterdir()) == [path]


def test_replacing_one_alias_keeps_the_others(tmp_path: Path) -> None:
    """Without targets the alias is removed; a missing file has no aliases, a foreign file is an error."""
    table = read_aliases(tmp_path / "missing.toml")
    table = replace_alias(replace_alias(table, "a", (("x", 1),)), "b", (("y", 1),))
    assert replace_alias(table, "a", (("z", 2),)) == {"a": (("z", 2),), "b": (("y", 1),)}
    assert replace_alias(table, "a", ()) == {"b": (("y", 1),)}
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(DeploymentFailed, match="not a file of aliases"):
        read_aliases(tmp_path / "other.json")


def test_the_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """A missing file is None, and a foreign file is an error."""
    path = tmp_path / "promotion.json"
    assert read_state(path) is None
    state = PromotionState("best", "old", "new", (("old", 100.0),)).with_share(25)
    save_state(path, state)
    assert read_state(path) == state
    path.write_text(json.dumps({"alias": "best"}))
    with pytest.raises(DeploymentFailed, match="not the state"):
        read_state(path)
