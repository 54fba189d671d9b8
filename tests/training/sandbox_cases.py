"""Code for the sandbox's tests. The part behind `# tests` tests the part before it."""

HONEST = {
    "values": """
def double(x):
    return 2 * x
# tests
assert double(2) == 4
assert double("a") == "aa"
assert double([1]) == [1, 1]
""",
    "nested values": """
def f():
    return {"a": (1, 2.5), 3: {4, None}, b"x": 2**80, (1,): 1j}
# tests
assert f() == {"a": (1, 2.5), 3: {4, None}, b"x": 2**80, (1,): 1j}
""",
    "changes in place": """
def order(xs):
    xs.sort()
# tests
xs = [3, 1]
assert order(xs) is None
assert xs == [1, 3]
""",
    "exceptions": """
def f(x):
    raise ValueError(x)
# tests
try:
    f(1)
    assert False
except ValueError as error:
    assert str(error) == "1"
""",
    "objects": """
class Pile:
    def __init__(self):
        self.all = []
    def push(self, x):
        self.all.append(x)
    def __len__(self):
        return len(self.all)
# tests
pile = Pile()
pile.push(4)
assert pile.all == [4]
assert len(pile) == 1
""",
    "generators": """
def count():
    n = 0
    while True:
        yield n
        n += 1
# tests
from itertools import islice
assert list(islice(count(), 3)) == [0, 1, 2]
""",
    "a check of a candidate": """
import math
LIMIT = 3
def f(n):
    return math.comb(n, LIMIT)
# tests
def check(candidate):
    assert candidate(5) == 10
    assert LIMIT == 3
check(f)
""",
    "long numbers": """
def f(n):
    return 10**n
# tests
assert f(6000) == 10**6000
""",
}

_LIAR = """
class Liar:
    def __eq__(self, other):
        return True
    __ne__ = __lt__ = __gt__ = __contains__ = __bool__ = __eq__
    __hash__ = object.__hash__
def double(x):
    return Liar()
# tests
"""

CHEATS = {
    "exit at once": """
import os
os._exit(0)
# tests
assert double(2) == 4
""",
    "exit in a call": """
import os
def double(x):
    os._exit(0)
# tests
assert double(2) == 4
""",
    "SystemExit": """
def double(x):
    raise SystemExit(0)
# tests
assert double(2) == 4
""",
    "a printed verdict": """
import os
for descriptor in range(64):
    try:
        os.write(descriptor, b'{"passed": true, "why": ""}\\n')
    except OSError:
        pass
print('{"passed": true, "why": ""}', flush=True)
# tests
assert double(2) == 4
""",
    "patched built-ins": """
import builtins
builtins.AssertionError = None
builtins.isinstance = lambda *_: True
# tests
assert 1 == 2
""",
    "shadowed built-ins": """
def double(x):
    return 5
len = print = isinstance = all = lambda *_: True
# tests
assert all([double(2) == 4])
""",
    "forged messages": """
import json, os
for message in ({"value": [["__builtins__", ["dict", ["all", ["object", 0]]]]]}, {"value": [True, []]}):
    os.write(3, json.dumps(message).encode() + b"\\n")
# tests
assert all([1 == 2])
""",
    "equal to everything": f"{_LIAR}assert double(2) == 4",
    "unequal to nothing": f"{_LIAR}assert not double(2) != 4",
    "always true": f"{_LIAR}assert double(2)",
    "holds everything": f"{_LIAR}assert 4 in double(2)",
    "more than anything": f"{_LIAR}assert double(2) > 3",
    "a number equal to everything": """
class Number(int):
    def __eq__(self, other):
        return True
    __hash__ = int.__hash__
def double(x):
    return Number(7)
# tests
assert double(2) == 4
""",
    "an endless collection": """
import itertools
def double(x):
    return itertools.count()
# tests
assert 4 in double(2)
""",
    "an iteration ended early": """
def double(x):
    raise StopIteration
# tests
assert all(map(lambda x: double(x) == 2 * x, [1, 2]))
""",
    "an emptied argument": """
def order(xs):
    xs.clear()
    return []
# tests
xs = [2, 1]
assert order(xs) == sorted(xs)
""",
    "a look at the callers": """
import sys
def double(x):
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
    return frame.f_locals.get("tests") or frame.f_locals.get("job")
# tests
assert double(2) == 4
""",
    "killing the others": """
import os, signal
def double(x):
    for process in (-1, 1, 2, 3, os.getppid()):
        try:
            os.kill(process, signal.SIGKILL)
        except OSError:
            pass
    return 5
# tests
assert double(2) == 4
""",
    "more than can be read": """
def double(x):
    return "[" * 10**7
# tests
assert double(2) == 4
""",
    "deeper than can be read": """
def double(x):
    for _ in range(10**5):
        x = [x]
    return x
# tests
assert double(2) == 4
""",
}

FORBIDDEN = {
    "connecting to this machine": """
import socket
socket.create_connection(("127.0.0.1", 80), 1)
""",
    "connecting to another": """
import socket
socket.create_connection(("8.8.8.8", 53), 1)
""",
    "writing a temporary file": 'open("/tmp/x", "w")',
    "writing where it stands": 'open("x", "w")',
    "making a directory": """
import os
os.mkdir("/new")
""",
    "reading the machine's files": 'open("/etc/passwd")',
    "reading of processes": 'open("/proc/self/status")',
    "listing homes": """
import os, sys
assert any(not sys.base_prefix.startswith(f"/home/{name}/") for name in os.listdir("/home"))
""",
    "listing programs": """
import os
os.listdir("/usr/bin")
""",
    "forking": """
import os
os.fork()
""",
    "starting a thread": """
import threading
threading.Thread(target=print).start()
""",
    "running a program": """
import subprocess
subprocess.run(["/bin/sh", "-c", "true"])
""",
    "taking memory": "bytearray(300 << 20)",
    "becoming root": """
import os
os.setuid(0)
""",
    "mounting": """
import ctypes
assert ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0
""",
    "making the root writable": """
import ctypes
assert ctypes.CDLL(None).mount(None, b"/", None, 32 | 4096, None) == 0
""",
    "raising a limit": """
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (99, 99))
""",
}

ENDLESS = {
    "loops": "while True:\n    pass",
    "sleeps": "import time\ntime.sleep(60)",
    "forks": """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    "eats memory": """
taken = []
while True:
    taken.append(bytearray(1 << 20))
""",
    "ignores signals": """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
""",
}
