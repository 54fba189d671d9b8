"""A teacher of sums that listens on a real port and counts its requests."""

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["Teacher"]


class Teacher:
    """A server that answers OpenAI chat requests for a sum; a context manager starts and stops it.

    After `patience` answers it stays silent. `asked` counts requests by question, `answered` counts answers,
    and the first request without an answer sets `stuck`. Questions in `unwilling` get an error.
    """

    def __init__(self, patience: int | None = None, unwilling: Collection[str] = ()) -> None:
        self.patience = patience
        self.unwilling = set(unwilling)
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.stuck = threading.Event()
        self._lock = threading.Lock()
        self._over = threading.Event()
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = teacher._reply(body)
                with contextlib.suppress(ConnectionError):  # the client may have been killed
                    if reply is None:
                        return
                    status, text = reply
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _reply(self, body: dict[str, Any]) -> tuple[int, bytes] | None:
        question = body["messages"][-1]["content"]
        with self._lock:
            self.asked[question] += 1
            silent = self.patience is not None and self.answered.total() >= self.patience
            if not silent:
                self.answered[question] += 1
        if silent:
            self.stuck.set()
            self._over.wait()
            return None
        if question in self.unwilling:
            return 500, b"{}"
        one, other = map(int, re.findall(r"\d+", question))
        text = f"<think>\n{one}+{other}={one + other}\n</think>\n\n{one + other}"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return 200, json.dumps({"choices": [choice for _ in range(body.get("n", 1))]}).encode()
