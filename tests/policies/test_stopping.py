"""How many samples the stopping rules draw, and when they stop."""

from dataclasses import replace

import pytest

from policies.stopping import AllChoicesPolicy, VotePolicy, lead_probability, parse_stop
from policies.types import RunLimits, RunningSample, SamplingRequest, VoteState
from scorers.types import Answer, Group


def state(sampling: SamplingRequest, sizes: list[int], in_flight: int = 0, **known: object) -> VoteState:
    """Return a state after groups of these sizes finished, one after another."""
    groups, start = [], 0
    for number, size in enumerate(sizes):
        groups.append(Group(Answer(str(number), number), tuple(range(start, start + size)), float(size)))
        start += size
    running = tuple(RunningSample(start + i) for i in range(in_flight))
    fields = {"launched": start + in_flight, "finish_order": tuple(range(start)), **known}
    return VoteState(sampling, tuple(groups), running, **fields)  # type: ignore[arg-type]


def launched(policy: VotePolicy, now: VoteState) -> int:
    """Return how many samples the policy launches now."""
    return sum(launch.count for launch in policy.step(now).launch)


def test_none_draws_all() -> None:
    """Without a rule all samples start at once, and unanimity stops nothing."""
    sampling = SamplingRequest(samples=8, stop="none")
    assert launched(VotePolicy(), state(sampling, [])) == 8
    assert not VotePolicy().step(state(sampling, [7], 1)).done
    assert VotePolicy().step(state(sampling, [8])).done


def test_adaptive_stops_at_four_unanimous() -> None:
    """Four equal answers lead with probability 0.969, which is enough; three do not."""
    sampling = SamplingRequest(samples=16, stop="adaptive")
    assert lead_probability(4, 0) == 0.96875
    assert launched(VotePolicy(), state(sampling, [])) == 4
    assert not VotePolicy().step(state(sampling, [3], 1)).done
    assert VotePolicy().step(state(sampling, [4])).done


def test_adaptive_draws_what_could_settle_it() -> None:
    """At 3 to 1, three more for the leader would be enough, so the rule draws three."""
    assert launched(VotePolicy(), state(SamplingRequest(samples=16), [3, 1])) == 3


def test_window_stops_at_a_unanimous_one() -> None:
    """Windows are drawn one at a time; after a divided one the next is drawn."""
    sampling = SamplingRequest(samples=12, stop="window", window=3)
    assert launched(VotePolicy(), state(sampling, [])) == 3
    assert VotePolicy().step(state(sampling, [3])).done
    assert launched(VotePolicy(), state(sampling, [2, 1])) == 3
    assert launched(VotePolicy(), state(sampling, [1], 2)) == 0


def test_first_m_keeps_the_first() -> None:
    """All samples start; after the first m with an answer the others are aborted."""
    sampling = SamplingRequest(samples=6, stop="first-3", vote="weighted")
    assert launched(VotePolicy(), state(sampling, [])) == 6
    assert not VotePolicy().step(state(sampling, [2], 4)).done
    step = VotePolicy().step(state(sampling, [2, 1], 3))
    assert step.done
    assert step.abort == {3, 4, 5}


def test_first_m_of_free_text() -> None:
    """With a vote over texts, not answers, the first m samples are kept whatever they say."""
    sampling = SamplingRequest(samples=6, stop="first-2", vote="mbr")
    assert (
        VotePolicy().step(VoteState(sampling, (), (RunningSample(2),), launched=6, finish_order=(0, 1))).done
    )


def test_confident_sets_its_threshold_first() -> None:
    """Half of a few samples warm up; then all start, and unsure samples are aborted."""
    sampling = SamplingRequest(samples=8, stop="confident")
    assert launched(VotePolicy(), state(sampling, [])) == 4
    warm = state(sampling, [2, 2], confidences={0: 10.0, 1: 11.0, 2: 12.0, 3: 13.0})
    assert launched(VotePolicy(), warm) == 4
    # the threshold keeps nine tenths of the warm-up: 10.3
    running = (
        RunningSample(4, 9, 10.2),
        RunningSample(5, 9, 10.4),
        RunningSample(6, 9),
        RunningSample(7, 9, 3.0),
    )
    step = VotePolicy().step(replace(warm, running=running, launched=8))
    assert (step.abort, step.done, step.wake_after) == ({4, 7}, False, 0.25)
    only_unsure = VotePolicy().step(replace(warm, running=(RunningSample(7, 9, 3.0),), launched=8))
    assert (only_unsure.abort, only_unsure.done) == ({7}, True)


def test_confident_stops_when_the_sure_agree() -> None:
    """After the warm-up, the leader's part of all confidence stops the drawing."""
    sampling = SamplingRequest(samples=8, stop="confident", threshold=0.9)
    unsure_minority = {0: 12.0, 1: 12.0, 2: 12.0, 3: 1.0}
    assert VotePolicy().step(state(sampling, [3, 1], 4, confidences=unsure_minority)).done
    assert not VotePolicy().step(state(sampling, [3, 1], 4)).done
    assert not VotePolicy().step(state(sampling, [3], 5)).done


def test_one_answer_is_no_agreement() -> None:
    """After a warm-up with one answer and replies without any, the confident rule draws on."""
    sampling = SamplingRequest(samples=8, stop="confident", threshold=0.9)
    assert not VotePolicy().step(replace(state(sampling, [1]), finish_order=(0, 1, 2, 3), launched=4)).done
    assert VotePolicy().step(replace(state(sampling, [2]), finish_order=(0, 1, 2, 3), launched=4)).done


def test_a_decided_majority_stops() -> None:
    """A majority does not wait for samples that can't change the winner; another vote does."""
    decided = state(SamplingRequest(samples=5, stop="adaptive", threshold=1.0), [3, 1], 1)
    assert VotePolicy().step(decided).done
    weighted = state(SamplingRequest(samples=5, stop="adaptive", threshold=1.0, vote="weighted"), [3, 1], 1)
    assert not VotePolicy().step(weighted).done


def test_all_at_once_and_slots() -> None:
    """ "all" launches everything whatever the rule returns; concurrency caps the samples in flight."""
    assert launched(VotePolicy(launch="all"), state(SamplingRequest(samples=16), [])) == 16
    assert launched(VotePolicy("all", concurrency=4), state(SamplingRequest(samples=16), [1], 3)) == 1


def test_limits_end_the_drawing() -> None:
    """A time limit and a token limit both abort the samples in flight."""
    late = SamplingRequest(samples=8, limits=RunLimits(max_seconds=2.0))
    assert VotePolicy().step(state(late, [1], 3, elapsed=0.5)).wake_after == 1.5
    step = VotePolicy().step(state(late, [1], 3, elapsed=2.0))
    assert (step.done, step.abort, step.reason) == (True, {1, 2, 3}, "max_seconds")
    spent = SamplingRequest(samples=8, limits=RunLimits(max_tokens=100))
    assert VotePolicy().step(state(spent, [1], 3, lengths={0: 60}, lost_tokens=40)).reason == "max_tokens"


def test_choices_are_drawn() -> None:
    """A rule does not stop before there are as many samples as the client receives."""
    assert launched(VotePolicy(), state(SamplingRequest(samples=8, choices=6), [4])) == 2


def test_a_lost_sample_is_drawn_again() -> None:
    """Two of six samples failed in a way that another try may avoid, so two more are launched."""
    sampling = SamplingRequest(samples=6, stop="none")
    lost = state(sampling, [4], launched=6, failures=2, retryable=frozenset({4, 5}))
    assert launched(VotePolicy(), lost) == 2
    assert launched(AllChoicesPolicy(6), replace(lost, sampling=SamplingRequest())) == 2


def test_an_error_that_would_come_again_is_not_drawn_again() -> None:
    """Without a failure that another try may avoid, the rest decide."""
    sampling = SamplingRequest(samples=6, stop="none")
    assert VotePolicy().step(state(sampling, [4], launched=6, failures=2)).done


def test_a_replacement_is_not_replaced() -> None:
    """Samples beyond the requested number are replacements; the drawing ends when these fail too."""
    sampling = SamplingRequest(samples=4, stop="none")
    again = state(sampling, [2], launched=6, failures=4, retryable=frozenset({2, 3, 4, 5}))
    assert VotePolicy().step(again).done


def test_one_sample_alone_is_not_drawn_again() -> None:
    """Its error goes to the client, who decides whether to try again."""
    alone = VoteState(SamplingRequest(), launched=1, failures=1, retryable=frozenset({0}))
    assert VotePolicy().step(alone).done


def test_rules_count_on_replacements() -> None:
    """A majority of 2 to 1 is final where two samples are lost for good, not where they are drawn again."""
    sampling = SamplingRequest(samples=5, stop="adaptive", threshold=1.0)
    lost = state(sampling, [2, 1], launched=5, failures=2)
    assert VotePolicy().step(lost).done
    assert launched(VotePolicy(), replace(lost, retryable=frozenset({3, 4}))) == 1


def running_for(*seconds: float, start: int = 2) -> tuple[RunningSample, ...]:
    """Return samples in flight with these seconds."""
    return tuple(RunningSample(start + i, seconds=known) for i, known in enumerate(seconds))


@pytest.mark.parametrize(
    ("slowest", "seconds", "given_up"),
    [(5.0, 29.9, False), (5.0, 30.0, True), (20.0, 59.0, False), (20.0, 60.0, True)],
)
def test_a_straggler_is_given_up(slowest: float, seconds: float, given_up: bool) -> None:
    """A sample may take three times as long as the slowest finished one, and 30 s in any case."""
    sampling = SamplingRequest(samples=4, stop="adaptive", threshold=0.99)
    now = state(sampling, [1, 1], durations={0: 1.0, 1: slowest}, launched=4)
    step = VotePolicy().step(replace(now, running=running_for(seconds, 1.0)))
    assert step.abort == ({2} if given_up else set())
    assert not step.done


def test_the_next_look_is_when_a_sample_becomes_a_straggler() -> None:
    """The policy asks to be woken at that moment, though nothing happens before it."""
    sampling = SamplingRequest(samples=4, stop="first-4")
    now = replace(state(sampling, [1, 1], durations={0: 1.0, 1: 20.0}), running=running_for(40.0, 12.0))
    step = VotePolicy().step(replace(now, launched=4))
    assert step.wake_after == 20.0
    assert VotePolicy().step(replace(now, durations={}, launched=4)).wake_after is None


def test_the_last_stragglers_end_the_drawing() -> None:
    """Where only stragglers are left, the finished samples vote."""
    sampling = SamplingRequest(samples=4, stop="window")
    now = replace(state(sampling, [1, 1], durations={0: 1.0, 1: 2.0}), running=running_for(31.0, 32.0))
    step = VotePolicy().step(replace(now, launched=4))
    assert (step.done, step.abort, step.reason) == (True, {2, 3}, "all drawn")


def test_without_a_rule_nothing_is_given_up() -> None:
    """ "none" waits for every sample, however long it takes."""
    sampling = SamplingRequest(samples=4, stop="none")
    now = replace(state(sampling, [1, 1], durations={0: 1.0, 1: 2.0}), running=running_for(999.0, 999.0))
    step = VotePolicy().step(replace(now, launched=4))
    assert (step.done, step.abort, step.wake_after) == (False, set(), None)


def test_the_confident_rule_gives_up_what_cannot_change_a_majority() -> None:
    """A leader that nobody can catch ends the drawing before the sure samples agree."""
    sampling = SamplingRequest(samples=8, stop="confident", threshold=0.99)
    assert VotePolicy().step(state(sampling, [5, 1], 2)).done
    assert not VotePolicy().step(state(replace(sampling, vote="weighted"), [5, 1], 2)).done


@pytest.mark.parametrize("text", ["first-0", "first-", "first-m", "First-3", "sometimes", ""])
def test_unknown_rules_are_refused(text: str) -> None:
    """An unknown rule is an error that lists the allowed names."""
    with pytest.raises(ValueError, match="allowed: none, adaptive, window, first-<m>, confident"):
        parse_stop(text)
