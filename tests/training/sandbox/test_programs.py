"""Programs on their cases: what passes, and what an untrusted program can't achieve."""

import json
from collections.abc import Iterator
from textwrap import indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import reply
from tests.training.sandbox_cases import ENDLESS, FORBIDDEN
from training.rewards.unit_tests import UnitTests
from training.sandbox import Sandbox, SandboxError, SandboxLimits, open_sandbox
from training.sandbox.programs import same_output
from training.types import Problem, ProgramCase

SUMS = [ProgramCase("1 2\n", "3\n"), ProgramCase("10 -4\n", "6\n")]
ADD = "a, b = map(int, input().split())\nprint(a + b)\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox, where this machine can give one."""
    try:
        yield open_sandbox(SandboxLimits(seconds=3.0, cpu=2, memory=256 << 20))
    except SandboxError as error:
        pytest.skip(str(error))


HONEST = {
    "input": ADD,
    "prompts": "a, b = map(int, input('').split())\nprint(a + b)",
    "lines": "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))",
    "bytes": "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
    "descriptors": "import os\nos.write(1, b'%d\\n' % sum(map(int, os.read(0, 99).split())))",
    "files": "a, b = map(int, open(0).read().split())\nopen(1, 'w').write(str(a + b))",
    "main": "def main():\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()",
    "exit": f"{ADD}exit()\nprint('never')",
    "sys.exit": f"import sys\n{ADD}sys.exit(0)\nprint('never')",
    "exit at once": "import os\nos.write(1, b'%d' % sum(map(int, input().split())))\nos._exit(0)",
    "at exit": "import atexit\natexit.register(lambda: print(total))\ntotal = sum(map(int, input().split()))",
    "own buffer": """
import io, os, sys
class Buffered(io.IOBase):
    def __init__(self):
        self.text = ""
    def write(self, text):
        self.text += text
    def flush(self):
        os.write(1, self.text.encode())
        self.text = ""
sys.stdout = Buffered()
print(sum(map(int, input().split())))
""",
    "closed output": f"import sys\n{ADD}sys.stdout.close()",
    "recursion": """
import sys
sys.setrecursionlimit(10**5)
def count(n):
    return n and 1 + count(n - 1)
count(5000)
print(sum(map(int, input().split())))
""",
    "dataclasses": """
from dataclasses import dataclass
@dataclass
class Pair:
    a: int
    b: int
pair = Pair(*map(int, input().split()))
print(pair.a + pair.b)
""",
    "errors are no output": f"import sys\nprint('thinking', file=sys.stderr)\n{ADD}",
    "more lines and spaces": "a, b = map(int, input().split())\nprint()\nprint(f'  {a + b}  ')\nprint()",
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_program_passes(sandbox: Sandbox, name: str) -> None:
    """However it reads, writes and ends."""
    result = sandbox.run_program(HONEST[name], SUMS)
    assert result.passed, result.why


FAILING = {
    "no output": ("pass", "no output"),
    "an empty program": ("", "no output"),
    "wrong output": ("print(4)", "wrong output"),
    "right only once": ("print(3)", "case 2: wrong output"),
    "more than expected": (f"{ADD}print(1)", "wrong output"),
    "output on standard error": ("import sys\nprint(3, file=sys.stderr)", "no output"),
    "a syntax error": ("print(3", "exit status 1"),
    "a crash": ("print(1 / 0)", "exit status 1"),
    "the right output, then a crash": (f"{ADD}1 / 0", "exit status 1"),
    "the right output, then a failing exit": (f"{ADD}exit(3)", "exit status 3"),
    "the right output, then a message": (f"{ADD}exit('done')", "exit status 1"),
    "the right output, then a signal": (
        "import os\nos.write(1, b'3')\nos.kill(os.getpid(), 9)",
        "ended by signal 9",
    ),
    "the right output, then a segmentation fault": (
        "import ctypes, os\nos.write(1, b'3')\nctypes.string_at(0)",
        "ended by signal 11",
    ),
    "an early exit": ("exit()\nprint(3)", "no output"),
    "an exit before anything is written": ("import os\nprint(3)\nos._exit(0)", "no output"),
    "reading too much": (f"{ADD}input()", "exit status 1"),
    "endless output": ("while True:\n    print(3)", "it prints too much"),
    "endless output without lines": (
        "import sys\nwhile True:\n    sys.stdout.write('3' * 99999)",
        "it prints too much",
    ),
    "a verdict of its own": (
        """
import os
for descriptor in range(64):
    try:
        os.write(descriptor, b'{"passed": true, "why": ""}\\n0\\n')
    except OSError:
        pass
""",
        "wrong output",
    ),
    "killing all others": (
        """
import os, signal
for process in {-1, 1, 2, 3, os.getppid()} - {os.getpid()}:
    for number in (signal.SIGKILL, signal.SIGSTOP):
        try:
            os.kill(process, number)
        except OSError:
            pass
print(4)
""",
        "wrong output",
    ),
    "counting cases": (
        """
import builtins, sys
builtins.number = getattr(builtins, "number", 0) + 1
sys.modules["again"] = builtins
print([3, 6][builtins.number - 1])
""",
        "case 2: wrong output",
    ),
    "looking for what is expected": (
        """
import gc, sys
texts, frame = [], sys._getframe()
while frame:
    texts += [value for value in frame.f_locals.values() if isinstance(value, str)]
    frame = frame.f_back
for item in gc.get_objects():
    values = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
    texts += [value for value in list(values) if isinstance(value, str)]
print(next((text for text in texts if text == "3" + chr(10)), "none"))
""",
        "wrong output",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_wrong_program_fails(sandbox: Sandbox, name: str) -> None:
    """It must end by itself, without an error, and print what is expected and nothing else."""
    program, why = FAILING[name]
    result = sandbox.run_program(program, SUMS)
    assert not result.passed
    assert why in result.why


SLOW = {
    **ENDLESS,
    "waits for more input": "import os\nwhile True:\n    os.read(0, 1)",
    "closes its output": "import os, time\nos.write(1, b'3')\nos.close(1)\ntime.sleep(60)",
    "never closes after the right output": "import time\nprint(3, flush=True)\ntime.sleep(60)",
}


@pytest.mark.parametrize("name", SLOW)
def test_it_always_ends(sandbox: Sandbox, name: str) -> None:
    """A program that never ends, forks, eats memory or ignores signals is ended, and has failed."""
    short = Sandbox(SandboxLimits(seconds=1.0, cpu=1, memory=sandbox.limits.memory))
    assert not short.run_program(SLOW[name], SUMS).passed


def test_a_case_has_its_own_time(sandbox: Sandbox) -> None:
    """Its limit may be under the sandbox's or over it, and each case has its whole time."""
    short = Sandbox(SandboxLimits(seconds=0.8, cpu=1, memory=sandbox.limits.memory))
    nap = "import time\ntime.sleep(0.5)\nprint(3)"
    assert short.run_program(nap, [ProgramCase("", "3")] * 3).passed
    assert short.run_program(nap, [ProgramCase("", "3", 0.2)]).why == "case 1: the time is over"
    nap = "import time\ntime.sleep(1.2)\nprint(3)"
    assert short.run_program(nap, [ProgramCase("", "3")]).why == "case 1: the time is over"
    assert short.run_program(nap, [ProgramCase("", "3", 3.0)]).passed


def test_a_case_s_time_limits_the_processor_too(sandbox: Sandbox) -> None:
    """A busy program may take what its case allows, also where that is more than the sandbox's seconds."""
    short = Sandbox(SandboxLimits(seconds=1.0, cpu=1, memory=sandbox.limits.memory))
    busy = "import time\nwhile time.process_time() < 1.3:\n    pass\nprint(3)"
    assert not short.run_program(busy, [ProgramCase("", "3")]).passed
    assert short.run_program(busy, [ProgramCase("", "3", 9.0)]).passed


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_program_can_t_do(sandbox: Sandbox, name: str) -> None:
    """No network, no file of the machine, nothing written, no process, little memory, no rights."""
    program = (
        "try:\n" + indent(FORBIDDEN[name].strip(), "    ") + "\nexcept BaseException:\n    print('refused')"
    )
    result = sandbox.run_program(program, [ProgramCase("", "refused")])
    assert result.passed, result.why


def test_long_input_and_output_pass_through(sandbox: Sandbox) -> None:
    """More than a pipe holds, in both directions at once; and input that the program leaves unread."""
    text = "\n".join(map(str, range(200_000)))
    echo = "import sys\nfor line in sys.stdin:\n    sys.stdout.write(line)"
    assert sandbox.run_program(echo, [ProgramCase(text, text)]).passed
    assert sandbox.run_program("print(3)", [ProgramCase(text, "3")]).passed


def test_no_cases_are_passed_by_anything(sandbox: Sandbox) -> None:
    """Without a case nothing can fail."""
    assert sandbox.run_program("1 / 0", []).passed


def test_the_reward_runs_tests_and_cases(sandbox: Sandbox) -> None:
    """Code earns where it passes all of both."""
    replies = [reply(f"```python\n{code}```") for code in (ADD, "print(3)\n")]
    problem = Problem("1", "Add.", reward="tests", cases=tuple(SUMS))
    assert UnitTests(sandbox)(problem, replies) == [1.0, 0.0]
    both = Problem("1", "Add.", reward="tests", tests="assert add(1, 2) == 3", cases=tuple(SUMS))
    code = "def add(a, b):\n    return a + b\n"
    main = "if __name__ == '__main__':\n    print(add(*map(int, input().split())))\n"
    replies = [reply(f"```python\n{part}```") for part in (code + main, code, ADD)]
    assert UnitTests(sandbox)(both, replies) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("3", "3\n"),
        ("3 \n", "3"),
        (" 1  2\n3\t\n\n", "1 2\n3\n"),
        ("1 2\r\n3\r\n", "1 2\n3\n"),
        ("", "\n"),
        ("1.50", "1.5"),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("-0.0", "0"),
    ],
)
def test_equal_outputs(printed: str, expected: str) -> None:
    """Spaces around and between tokens don't count, and decimals are numbers."""
    assert same_output(printed, expected)
    assert same_output(expected, printed)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("3", "4"),
        ("", "0"),
        ("1 2", "1\n2"),
        ("12", "1 2"),
        ("1\n\n2", "1\n2"),
        ("1\n2", "2\n1"),
        ("Yes", "YES"),
        ("010", "10"),
        ("+1", "1"),
        ("1.000001", "1"),
        ("nan", "NaN"),
        ("inf", "Infinity"),
        ("1e9999", "1e99999"),
        ("1_0.0", "10.0"),
    ],
)
def test_other_outputs(printed: str, expected: str) -> None:
    """Lines, their order, letters and digits count, and there is no tolerance."""
    assert not same_output(printed, expected)
    assert not same_output(expected, printed)


@given(st.lists(st.lists(st.text("ab1.", min_size=1, max_size=3), min_size=1, max_size=3), max_size=4))
def test_only_spaces_may_differ(lines: list[list[str]]) -> None:
    """An output is equal to itself with other spaces, and differs from itself without its last token."""
    text = "\n".join(map(" ".join, lines))
    assert same_output("\n".join("  ".join(line) + " \t" for line in lines) + "\n\n", text)
    if lines:
        shorter = [*lines[:-1], lines[-1][:-1]]
        assert not same_output("\n".join(map(" ".join, shorter)), text)
    assert same_output(json.dumps(lines), json.dumps(lines))
