"""Spending by difficulty: little where samples agree, more where they don't."""

from dataclasses import replace

from policies.escalation import AutoPolicy, Rung
from policies.types import SamplingRequest, VoteState
from scorers.types import Answer, Group

AUTO = SamplingRequest(level="auto", samples=16)


def after(*sizes: int, sampling: SamplingRequest = AUTO) -> VoteState:
    """All launched samples have finished in classes of these sizes."""
    total, groups, start = sum(sizes), [], 0
    for number, size in enumerate(sizes):
        groups.append(Group(Answer(str(number), number), tuple(range(start, start + size)), float(size)))
        start += size
    return VoteState(sampling, tuple(groups), launched=total, order=tuple(range(total)))


def asked(state: VoteState, policy: AutoPolicy | None = None) -> list[tuple[str | None, int | None, int]]:
    """Effort, thinking tokens and number of what is launched now."""
    step = (policy or AutoPolicy()).step(state)
    return [(ask.sampling.level, ask.sampling.thinking_limit, ask.count) for ask in step.launch]


def test_it_starts_low() -> None:
    """The first three samples think little."""
    assert asked(after()) == [("low", 1024, 3)]


def test_agreement_ends_it() -> None:
    """Three of one mind are enough."""
    assert AutoPolicy().step(after(3)).done


def test_disagreement_escalates() -> None:
    """Two against one are followed by the three that could settle it, which think longer."""
    assert asked(after(2, 1)) == [("medium", 4096, 3)]


def test_lasting_disagreement_goes_to_the_top() -> None:
    """The samples that could settle four against four start at the top, all of them there."""
    assert asked(after(4, 4)) == [("high", 16384, 5)]


def test_asks_are_split_where_a_rung_ends() -> None:
    """One ask never spans two levels."""
    policy = AutoPolicy((Rung("low", 2), Rung("high")), sure=0.95)
    assert asked(after(), policy) == [("low", 1024, 2), ("high", 16384, 2)]


def test_a_stray_dissenter_does_not_hold_the_next_rung_up() -> None:
    """With one sample still in flight that can't settle it alone, the next rung starts beside it."""
    state = replace(after(1, 1), launched=3)
    assert [ask.sampling.level for ask in AutoPolicy().step(state).launch] == ["medium"]


def test_caps_hold() -> None:
    """No more samples and no more thinking than the budget allows."""
    capped = replace(AUTO, samples=4, thinking_limit=2000)
    assert asked(after(2, 1, sampling=capped)) == [("medium", 2000, 1)]
    assert AutoPolicy().step(after(2, 2, sampling=capped)).done


def test_a_given_effort_is_kept() -> None:
    """Where only the number of samples is left open, every sample keeps the effort asked for."""
    given = SamplingRequest(level="high", thinking_limit=9000, samples=16)
    assert asked(after(sampling=given)) == [("high", 9000, 3)]


def test_one_sample_goes_to_the_middle() -> None:
    """A single sample has nothing to agree with."""
    assert asked(after(sampling=SamplingRequest(level="auto", samples=1))) == [("medium", 4096, 1)]
