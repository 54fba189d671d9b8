"""The worker processes: killable, apart from each other, and never in the caller's way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scorers.answers import equivalent, equivalent_async, extract, verify, verify_async
from scorers.grader.pool import LazyWorkerPool, PoolError, WorkerPool
from scorers.types import Answer

HOSTILE = r"\int_0^1 x^{99999} e^{x^{9^{9^{9}}}} \, dx"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One warm pool for this module; long limits, for test machines may be slow."""
    with WorkerPool(workers=2, seconds=10.0) as started:
        yield started


def executable(folder: Path, script: str | None) -> str:
    """A shell script that stands in for Python, or a path at which there is none."""
    path = folder / "python"
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return str(path)


def answer(text: str) -> Answer:
    """The answer that a box around `text` declares."""
    found = extract(rf"\boxed{{{text}}}")
    assert found is not None
    return found


def test_math_verify_settles_what_the_keys_cannot(pool: WorkerPool) -> None:
    """An integral and a sum are evaluated in the workers, in either order."""
    for a, b in [(r"\int_0^1 x\,dx", r"\frac12"), (r"\sum_{k=1}^{10} k", "55")]:
        assert equivalent(answer(a), answer(b)) is None
        assert equivalent(answer(a), answer(b), pool) is True
        assert equivalent(answer(b), answer(a), pool) is True
    assert verify(r"\boxed{\int_0^1 x\,dx}", "1/3", pool) is False


async def test_the_async_twins_agree_with_the_sync_ones(pool: WorkerPool) -> None:
    """Both ask the same workers."""
    assert await equivalent_async(answer(r"\int_0^1 x\,dx"), answer("1/2"), pool) is True
    assert await verify_async(r"\boxed{\sum_{k=1}^{10} k}", "55", pool) is True
    assert await verify_async("no idea", "55", pool) is False


async def test_a_hostile_question_is_undecided_and_harms_no_other() -> None:
    """The one worker in its clutches is killed; its neighbours' verdicts stay what they were."""
    async with WorkerPool(workers=2, seconds=1.0) as pool:
        questions = [(HOSTILE, "1"), (r"\int_0^1 x\,dx", "1/2")] * 3
        verdicts = await asyncio.gather(*(pool.ask_async(a, b) for a, b in questions))
    assert verdicts[0::2] == [None] * 3
    assert set(verdicts[1::2]) <= {True, None}


def test_text_is_never_evaluated_as_python(pool: WorkerPool) -> None:
    """Python in an answer stays text: undecided or different, and never run."""
    assert pool.ask("__import__('os').system('true')", "0") is not True
    assert pool.ask(r"\text{__import__}('os').getpid()", "1") is not True


def test_a_closed_pool_is_undecided_and_closing_twice_is_harmless() -> None:
    """No question hangs on a pool that was never started or has gone."""
    pool = WorkerPool()
    assert pool.ask("1", "1") is None
    pool.close()
    with pool:
        pass
    pool.close()
    assert pool.ask("1", "1") is None


def test_a_lazy_pool_starts_with_the_first_question_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started that is no matter until then; after its end it starts none."""
    needed = r"The answer is \boxed{\int_0^1 x\,dx}"
    with LazyWorkerPool(seconds=10.0) as pool:
        assert verify(needed, "1/2", pool) is True
    assert verify(needed, "1/2", pool) is None
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with LazyWorkerPool() as broken:
        assert verify("7", "8", broken) is False
        with pytest.raises(PoolError):
            verify(needed, "1/2", broken)
    assert verify(needed, "1/2", broken) is None


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo first >&2; echo no way >&2; echo >&2; exit 3", r"the process ended with status 3 \(no way\)$"),
        ("kill -9 $$", "the process ended with signal SIGKILL$"),
        (None, "No such file or directory"),
    ],
)
def test_workers_that_cannot_start_say_why(
    script: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By how their process ended and what it last said; a caller that gets the error needs no log."""
    monkeypatch.setattr(sys, "executable", executable(tmp_path, script))
    pool = WorkerPool()
    with pytest.raises(PoolError, match=rf"^the math workers can't start: .*{why}"):
        pool.start()
    assert pool.failure is None
    assert pool.ask("1", "1") is None


def test_workers_that_cannot_start_again_are_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the process dies and the next can't start, questions stay undecided and the cause is told."""
    started = tmp_path / "started"
    once = (
        f'test -e {started} && {{ echo gone >&2; exit 3; }}; echo $$ > {started}; exec {sys.executable} "$@"'
    )
    monkeypatch.setattr(sys, "executable", executable(tmp_path, once))
    with WorkerPool(workers=1, seconds=10.0) as pool:
        assert pool.ask(r"\int_0^1 x\,dx", "1/2") is True
        assert pool.failure is None
        os.kill(int(started.read_text()), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while pool.failure is None:
            assert time.monotonic() < deadline, "the workers' end was not noticed"
            pool.ask(r"\int_0^1 x\,dx", "1/2")
        assert pool.ask(r"\int_0^1 x\,dx", "1/2") is None
    assert pool.failure == "the math workers can't start: the process ended with status 3 (gone)"
    assert [record.getMessage() for record in caplog.records] == [
        f"Answers that need computer algebra stay undecided: {pool.failure}"
    ]


async def test_an_abandoned_question_does_not_disturb_the_pool(pool: WorkerPool) -> None:
    """A client that goes away while its question is open leaves the others alone."""
    task = asyncio.create_task(pool.ask_async(r"\sum_{k=1}^{20} k", "210"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pool.ask_async(r"\sum_{k=1}^{10} k", "55") is True


def test_questions_too_long_for_mathematics_are_not_asked(pool: WorkerPool) -> None:
    """A megabyte is undecided at once."""
    assert pool.ask("x" * 1_000_000, "1") is None


def test_the_callers_process_never_loads_sympy() -> None:
    """Grading, the pool included, imports sympy and math-verify only in the workers."""
    program = (
        "import sys\n"
        "from scorers.answers import verify\n"
        "from scorers.grader.pool import WorkerPool\n"
        "with WorkerPool(seconds=10.0) as pool:\n"
        r"    assert verify(r'\boxed{\int_0^1 x\,dx}', '1/2', pool) is True"
        "\n"
        "assert not {'sympy', 'math_verify', 'latex2sympy2_extended'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
