"""Requests and replies: typed errors, deadlines and cancellation that travel, back-pressure."""

import asyncio
import contextvars
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    GossipDiscovery,
    MessageTooLargeError,
    NotAnsweredError,
    NotRunningError,
    PeerUnreachableError,
    Request,
    RequestFailedError,
    RequestTimeoutError,
    StreamReader,
    StreamResetError,
    StreamWriter,
    _requests,
    blocking,
)
from iroh_gossip_discovery._requests import MAX_DATA, PROTOCOL

CONFIG = Config.local()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[GossipDiscovery, GossipDiscovery]]:
    async with GossipDiscovery("server", "t", config=CONFIG) as server:
        ticket = server.ticket
        async with GossipDiscovery("client", "t", bootstrap=[ticket], config=CONFIG) as client:
            await client.wait_for_peers(1, timeout=30)
            yield server, client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, 100_000, MAX_DATA])
@pytest.mark.asyncio
async def test_a_reply_is_what_the_handler_returned(size: int) -> None:
    async with pair() as (server, client):

        @server.answer("echo")
        async def echo(request: Request) -> bytes:
            assert (request.peer, request.name) == (client.id, "echo")
            return request.data

        data = bytes(size)
        assert await client.request(server.id, "echo", data, timeout=60) == data
        assert echo.active


@pytest.mark.asyncio
async def test_plain_functions_and_empty_replies_are_answers_too() -> None:
    async with pair() as (server, client):
        server.answer("plain", lambda request: request.data + b"!")
        server.answer("nothing", lambda _: None)
        peer = client.book[server.id]
        assert await client.request(peer, "plain", bytearray(b"hi"), timeout=30) == b"hi!"
        assert await client.request(peer, "nothing", timeout=30) == b""


@pytest.mark.asyncio
async def test_what_the_handler_raises_comes_back_typed() -> None:
    async with pair() as (server, client):

        @server.answer("fail")
        async def fail(request: Request) -> bytes:
            raise ValueError(f"no {request.data!r}\x1b[31m")

        server.answer("wrong", lambda _: "text")  # type: ignore[arg-type,return-value]
        server.answer("large", lambda _: bytes(MAX_DATA + 1))
        with pytest.raises(RequestFailedError) as caught:
            await client.request(server.id, "fail", b"x", timeout=30)
        error = caught.value
        assert (error.peer, error.name, error.kind) == (server.id, "fail", "ValueError")
        assert error.reason == "no b'x'\x1b[31m"
        assert "\x1b" not in str(error), "what a peer says is quoted"
        with pytest.raises(RequestFailedError, match=r"TypeError.*must return bytes or None"):
            await client.request(server.id, "wrong", timeout=30)
        with pytest.raises(RequestFailedError, match="MessageTooLargeError"):
            await client.request(server.id, "large", timeout=30)


@pytest.mark.asyncio
async def test_an_error_that_can_not_be_shown_comes_back_by_its_class() -> None:
    class UnshownError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async with pair() as (server, client):

        @server.answer("fail")
        async def fail(request: Request) -> bytes:
            raise UnshownError

        with pytest.raises(RequestFailedError, match=r"UnshownError.*its __str__ failed"):
            await client.request(server.id, "fail", timeout=30)


@pytest.mark.asyncio
async def test_a_name_that_nobody_answers_is_an_error_of_its_own() -> None:
    async with pair() as (server, client):
        with pytest.raises(NotAnsweredError) as caught:
            await client.request(server.id, "resize", timeout=30)
        assert (caught.value.peer, caught.value.name) == (server.id, "resize")
        answer = server.answer("other", lambda _: b"")
        with pytest.raises(NotAnsweredError):
            await client.request(server.id, "resize", timeout=30)
        answer.cancel()
        assert not answer.active
        with pytest.raises(NotAnsweredError):
            await client.request(server.id, "other", timeout=30)
        server.answer("other", lambda _: b"again")
        assert await client.request(server.id, "other", timeout=30) == b"again"


@pytest.mark.asyncio
async def test_the_deadline_travels_and_cancels_the_handler() -> None:
    async with pair() as (server, client):
        left, ended = [], []

        @server.answer("slow")
        async def slow(request: Request) -> bytes:
            assert request.deadline is not None
            left.append(request.deadline - asyncio.get_running_loop().time())
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)
            return b""

        with pytest.raises(RequestTimeoutError):
            await client.request(server.id, "slow", timeout=0.5)
        assert 0 < left[0] <= 0.5
        await until(lambda: ended == [True])


@pytest.mark.asyncio
async def test_a_cancelled_request_cancels_the_handler() -> None:
    async with pair() as (server, client):
        begun, ended = asyncio.Event(), asyncio.Event()

        @server.answer("slow")
        async def slow(request: Request) -> bytes:
            assert request.deadline is None
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return b""

        asking = asyncio.create_task(client.request(server.id, "slow"))
        await asyncio.wait_for(begun.wait(), 30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(ended.wait(), 30)


@pytest.mark.asyncio
async def test_no_more_run_at_a_time_than_asked_for_and_none_is_lost() -> None:
    async with pair() as (server, client):
        running, most, calls = 0, 0, 0

        @server.answer("work", concurrency=3)
        async def work(request: Request) -> bytes:
            nonlocal running, most, calls
            calls += 1
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            return request.data

        sent = [bytes([n]) for n in range(40)]
        requests = (client.request(server.id, "work", data, timeout=60) for data in sent)
        assert await asyncio.gather(*requests) == sent
        assert (most, calls) == (3, 40), "at most three at a time, each exactly once"


@pytest.mark.asyncio
async def test_one_that_waits_for_its_turn_gives_up_at_its_deadline() -> None:
    async with pair() as (server, client):
        release, calls = asyncio.Event(), []

        @server.answer("work", concurrency=1)
        async def work(request: Request) -> bytes:
            calls.append(request.data)
            await release.wait()
            return b"done"

        first = asyncio.create_task(client.request(server.id, "work", b"1"))
        await until(lambda: calls == [b"1"])
        second = asyncio.create_task(client.request(server.id, "work", b"2", timeout=1))
        places = work._places
        await until(lambda: bool(places._waiters))
        with pytest.raises(RequestTimeoutError):
            await second
        await until(lambda: not places._waiters)
        release.set()
        assert await first == b"done"
        assert await client.request(server.id, "work", b"3", timeout=30) == b"done"
        assert calls == [b"1", b"3"]


@pytest.mark.asyncio
async def test_a_server_that_dies_is_unreachable() -> None:
    async with pair() as (server, client):
        begun = asyncio.Event()

        @server.answer("slow")
        async def slow(_: Request) -> bytes:
            begun.set()
            await asyncio.sleep(60)
            return b""

        asking = asyncio.create_task(client.request(server.id, "slow"))
        await asyncio.wait_for(begun.wait(), 30)
        await server.close()
        with pytest.raises((PeerUnreachableError, RequestFailedError, ConnectionError)):
            await asyncio.wait_for(asking, 30)


@pytest.mark.asyncio
async def test_calls_run_in_the_context_of_their_registration() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    node = GossipDiscovery("server", "t", config=CONFIG)
    variable.set("mine")
    node.answer("read", lambda _: variable.get().encode())
    variable.set("other")
    async with (
        node as server,
        GossipDiscovery("client", "t", bootstrap=[server.ticket], config=CONFIG) as client,
    ):
        await client.wait_for_peers(1, timeout=30)
        assert PROTOCOL in client.book[server.id].protocols
        assert await client.request(server.id, "read", timeout=30) == b"mine"


@pytest.mark.asyncio
async def test_what_is_no_request_is_refused_before_anything_is_sent() -> None:
    async with pair() as (server, client):
        with pytest.raises(ConfigurationError, match="name must be 1 to 64 bytes, is 0"):
            await client.request(server.id, "")
        with pytest.raises(ConfigurationError, match="name must be 1 to 64 bytes, is 65"):
            server.answer("x" * 65, lambda _: b"")
        with pytest.raises(MessageTooLargeError):
            await client.request(server.id, "x", bytes(MAX_DATA + 1))
        with pytest.raises(TypeError, match="data must be bytes"):
            await client.request(server.id, "x", "text")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="concurrency must be at least 1"):
            server.answer("x", lambda _: b"", concurrency=0)
        server.answer("x", lambda _: b"")
        with pytest.raises(ConfigurationError, match="'x' is answered already"):
            server.answer("x", lambda _: b"")
        with pytest.raises(TypeError, match="handler must be callable"):
            server.answer("y", 7)  # type: ignore[call-overload]
    with pytest.raises(NotRunningError):
        await client.request(server.id, "x")


@pytest.mark.asyncio
async def test_bytes_that_are_no_request_are_reset_and_the_service_goes_on() -> None:
    async with pair() as (server, client):
        server.answer("echo", lambda request: request.data)
        for junk in (b"\xff" * 10, b"\x01\x00\x00\x00\x00\x00\xff\xff\xff\xff"):
            reader, writer = await client.open_stream(server.id, PROTOCOL, timeout=30)
            writer.write(junk)
            await writer.drain()
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 30)
        assert await client.request(server.id, "echo", b"on", timeout=30) == b"on"


def test_it_blocks_without_asyncio() -> None:
    server = blocking.GossipDiscovery("server", "t", config=CONFIG)

    @server.answer("upper")
    def upper(request: Request) -> bytes:
        return request.data.upper()

    with (
        server,
        blocking.GossipDiscovery("client", "t", bootstrap=[server.ticket], config=CONFIG) as client,
    ):
        client.wait_for_peers(1, timeout=30)
        assert client.request(server.id, "upper", b"abc", timeout=30) == b"ABC"
        assert upper.active
        upper.cancel()
        with pytest.raises(NotAnsweredError):
            client.request(server.id, "upper", b"abc", timeout=30)


@pytest.mark.asyncio
async def test_a_reply_that_comes_before_all_of_the_request_was_read_is_the_reply() -> None:
    async with pair() as (server, client):

        @server.serve(PROTOCOL)
        async def hasty(reader: StreamReader, writer: StreamWriter) -> None:
            await reader.readexactly(10)
            writer.write(struct.pack("!BI", 0, 5) + b"hello")

        for _ in range(10):  # closed by then, or not yet
            data = bytes(MAX_DATA)
            assert await client.request(server.id, "anything", data, timeout=60) == b"hello"


@pytest.mark.asyncio
async def test_requests_of_one_peer_take_no_more_than_a_share_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_requests, "MAX_HELD", 900_000)
    async with pair() as (server, client):
        arrived, go_on = asyncio.Event(), asyncio.Event()

        @server.answer("keep")
        async def keep(request: Request) -> bytes:
            arrived.set()
            await go_on.wait()
            return request.data[:1]

        one = asyncio.create_task(client.request(server.id, "keep", bytes(200_000), timeout=60))
        await arrived.wait()
        # Half a request counts too: its bytes are held until it is given up.
        reader, writer = await client.open_stream(server.id, PROTOCOL)
        writer.write(struct.pack("!BBII", 1, 4, 0, MAX_DATA) + b"keep" + bytes(300_000))
        assert (await reader.readexactly(5))[0] == 1, "it failed before it was whole"
        with pytest.raises(RequestFailedError, match=r"Overloaded.*too much memory"):
            await client.request(server.id, "keep", bytes(300_000), timeout=60)
        go_on.set()
        assert await one == b"\0"
        assert await client.request(server.id, "keep", bytes(300_000), timeout=60) == b"\0"


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [30.0, 0.2])
async def test_half_a_request_is_reset_and_no_error_of_the_node_that_waited_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: float
) -> None:
    monkeypatch.setattr(_requests, "_HEADER_TIMEOUT", limit)
    async with pair() as (server, client):
        server.answer("keep")(lambda request: request.data)
        reader, writer = await client.open_stream(server.id, PROTOCOL)
        writer.write(struct.pack("!BBII", 1, 4, 0, 100) + b"keep" + bytes(10))
        if limit > 1:
            writer.write_eof()
        with pytest.raises(StreamResetError, match="not whole"):
            await reader.readexactly(5)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_peers_that_take_all_they_can_leave_room_for_others() -> None:
    room = _requests._Room()
    for peer in "abcdefghij":
        while room.take(peer, MAX_DATA // 16):
            pass
    assert room.take("another", MAX_DATA // 16)
    assert sum(room._of_peer.values()) < _requests.MAX_HELD
    room.give_back("another", MAX_DATA // 16)
    assert "another" not in room._of_peer
