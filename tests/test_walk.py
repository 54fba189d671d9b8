"""The count of calls that cross files, `benchmarks/walk.py`."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.walk import Walk

ROOT = Path(__file__).parents[1]


def load(file: str, source: str, **names: Any) -> dict[str, Any]:
    """Run a module's source as if it stood in this file."""
    exec(compile(source, file, "exec"), names)
    return names


def walk_of(run: Any) -> Walk:
    """Return the walk of one call."""
    walk = Walk("/code")
    sys.setprofile(walk.saw)
    try:
        run()
    finally:
        sys.setprofile(None)
    return walk


def test_a_call_into_another_file_is_a_crossing() -> None:
    """Calls within one file and calls into a library count as no crossing."""
    scorers = load("/code/scorers/b.py", "def add(): return plus()\ndef plus(): return len('ab')")
    caller = load("/code/policies/a.py", "def run(): return [add() for _ in range(2)]", add=scorers["add"])
    walk = walk_of(caller["run"])
    assert walk.figures["crossings"] == 2
    assert walk.figures["borders"] == 1
    assert all(callee == "scorers/b.py add" for _, callee in walk.crossings)


def test_library_code_in_between_hides_no_crossing() -> None:
    """A function handed to a library is entered from the file that called the library."""
    library = load("/elsewhere/c.py", "def apply(f): return f()")
    scorers = load("/code/scorers/b.py", "def key(): return 1")
    names = {"apply": library["apply"], "key": scorers["key"]}
    caller = load("/code/policies/a.py", "def run(): return apply(key)", **names)
    walk = walk_of(caller["run"])
    assert dict(walk.crossings) == {("policies/a.py run", "scorers/b.py key"): 1}


def test_a_coroutine_that_resumes_counts_once() -> None:
    """A coroutine crosses when it starts, however often it waits."""
    source = "import asyncio\nasync def wait():\n    for _ in range(3): await asyncio.sleep(0)"
    scorers = load("/code/scorers/b.py", source)
    caller = load("/code/gateway/a.py", "async def run(): await wait()", wait=scorers["wait"])
    walk = walk_of(lambda: asyncio.run(caller["run"]()))
    assert walk.figures == {"calls": 2, "crossings": 1, "borders": 1, "files": 1}


def test_the_gateway_is_walked_the_same_each_time(tmp_path: Path) -> None:
    """Two processes count the same calls of a vote, and more of them than of a plain request."""
    for name in ("first.json", "second.json"):
        command = [sys.executable, "-m", "benchmarks.walk", "--only", "plain", "vote", "--json"]
        subprocess.run([*command, str(tmp_path / name)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("first.json", "second.json"))
    assert first == second
    assert first["vote"]["crossings"] > first["plain"]["crossings"] > 0
