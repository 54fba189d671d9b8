"""What is sent again: nothing that an engine can have read."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
import pytest

from gateway.upstreams.connections import KEEP_IDLE, send
from tests.fakes import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Server:
    """A server that counts the requests it has read, and what it does after each."""

    then: Literal["answer", "answer and close", "close", "reset"] = "answer"
    read: int = 0
    address: str = ""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests until the connection closes."""
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
                self.read += 1
                if self.then == "reset":
                    connection = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if self.then.startswith("answer"):
                    writer.write(OK)
                if self.then != "answer":
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    """Run a server, and a client as the gateway's."""
    state = Server()
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
    state.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_IDLE)
    async with server, aiohttp.ClientSession(connector=connector) as session:
        yield state, session


async def ask(server: Server, session: aiohttp.ClientSession) -> bytes:
    """Send one request and return its reply."""
    async with await send(session, "POST", server.address, data=b'{"a": 1}') as response:
        return await response.read()


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_request_that_was_read_and_dropped_is_never_sent_twice(
    then: Literal["close", "reset"], idle: bool
) -> None:
    """On a new connection or on one that was kept open: the engine may have begun to generate."""
    async with connected() as (server, session):
        if idle:
            await ask(server, session)
        before, server.then = server.read, then
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(server, session)
        assert server.read == before + 1


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    """Every request is answered and read once, however often the server closes after its answer."""
    async with connected() as (server, session):
        server.then = "answer and close"
        for _ in range(50):
            assert await ask(server, session) == b"{}"
        assert server.read == 50


async def test_many_connections_that_were_closed_while_idle_are_replaced() -> None:
    """A restarted engine has closed all of them."""
    async with connected() as (server, session):
        await asyncio.gather(*(ask(server, session) for _ in range(20)))
        for writer in server.writers:
            writer.close()
        assert await asyncio.gather(*(ask(server, session) for _ in range(20))) == [b"{}"] * 20
        assert server.read == 40


async def test_the_end_of_a_connection_counts_before_the_event_loop_sees_it() -> None:
    """The server closes in another thread, so that the client's loop hasn't run since."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with aiohttp.ClientSession() as session:
            asking = asyncio.create_task(send(session, "POST", address, data=b"{}"))
            peer, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(peer.recv, 1 << 16)
            peer.sendall(OK)
            async with await asking as response:
                await response.read()
            peer.close()  # no await from here to the next request's first byte
            again = asyncio.create_task(send(session, "POST", address, data=b"{}"))
            peer, _ = await asyncio.to_thread(listener.accept)
            assert b"{}" in await asyncio.to_thread(peer.recv, 1 << 16)
            peer.sendall(OK)
            (await again).close()
            peer.close()


async def test_a_redirect_is_not_followed() -> None:
    """The reply comes back as it is."""
    async with connected() as (server, session):
        moved = b"HTTP/1.1 307 X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            server.read += 1
            writer.write(moved)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
            address = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}/"
            async with await send(session, "POST", address, data=b"{}") as response:
                assert response.status == 307
            await until(lambda: server.read == 1, "the request")
