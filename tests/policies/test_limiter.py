"""Thinking counted against its limit, and a reply's tokens shared between thinking and answer."""

from hypothesis import given
from hypothesis import strategies as st

from policies.limiter import Limiter, share_tokens

counts = st.lists(st.integers(0, 9), max_size=40)


@given(counts, st.integers(0, 60))
def test_the_limit_is_passed_by_one_chunk_at_most(chunks: list[int], limit: int) -> None:
    """Fed until it cuts, the limiter lets no chunk through after the limit was reached."""
    limiter = Limiter(limit)
    for tokens in chunks:
        before = limiter.used
        assert before < limit or before == 0
        limiter.used += tokens
        if limiter.must_cut():
            break
    assert limiter.used <= limit + max(chunks, default=0)


def test_a_limit_of_none_at_all_cuts_the_opening_tag() -> None:
    """With 0 tokens allowed the block is closed as soon as it opens."""
    assert Limiter(0).must_cut()


def test_an_early_end_is_put_off_as_often_as_allowed() -> None:
    """Two waits are two, and none once the limit is reached."""
    limiter = Limiter(10, waits=2)
    assert [limiter.must_wait() for _ in range(3)] == [True, True, False]
    assert not Limiter(10, waits=2, used=10).must_wait()


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.none() | st.integers(1, 10**6))
def test_the_answer_always_has_room(limit: int, reserve: int, total: int | None) -> None:
    """Thinking never exceeds its limit, and the answer keeps its reserve or half of a small total."""
    thinking = share_tokens(limit, reserve, total)
    assert 0 <= thinking <= limit
    if total is None:
        assert thinking == limit
    else:
        assert total - thinking >= min(reserve, max(total // 2, 1))


def test_an_engines_own_end_is_not_put_off() -> None:
    """With slack for an engine that keeps the limit, an end next to the limit is the limit's."""
    assert not Limiter(8, 2, slack=1, used=7).must_wait()
    assert Limiter(8, 2, slack=1, used=5).must_wait()
