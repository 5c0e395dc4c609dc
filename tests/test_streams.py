"""Streams with a peer: asyncio's methods with asyncio's meaning, and every byte in its place."""

import asyncio
import contextvars
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
import pytest_asyncio

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    DiscoveryError,
    GossipDiscovery,
    NotRunningError,
    PeerUnreachableError,
    PeerUpdated,
    ProtocolNotServedError,
    RequestTimeoutError,
    StreamReader,
    StreamResetError,
    StreamWriter,
    TooManyStreamsError,
)

pytestmark = pytest.mark.asyncio

CHAT = "chat/1"
NOBODY = "ab" * 32
Pair = tuple[GossipDiscovery, GossipDiscovery]
End = tuple[StreamReader, StreamWriter]


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    config = Config.local()
    async with (
        GossipDiscovery("alice", "fleet", config=config) as alice,
        GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob,
    ):
        await alice.wait_for_peers(1, timeout=30)
        await bob.wait_for_peers(1, timeout=30)
        yield alice, bob


async def connect(pair: Pair, limit: int = 2**16) -> tuple[End, End]:
    """Open a stream from alice to bob, and return both of its ends."""
    alice, bob = pair
    accepted: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        accepted.set_result((reader, writer))

    service = bob.serve(CHAT, accept, limit=limit)
    async with asyncio.timeout(30):
        near = await alice.open_stream(bob.id, CHAT, limit=limit)
        far = await accepted
    service.cancel()
    return near, far


async def fails(work: Awaitable[object]) -> Exception:
    try:
        async with asyncio.timeout(30):
            await work
    except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
        return error
    pytest.fail("it did not fail")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def pattern(length: int) -> bytes:
    return bytes((n * 31 + n // 251) % 256 for n in range(length))


async def test_a_stream_carries_both_ways_and_each_direction_ends_by_itself(pair: Pair) -> None:
    (reader, writer), (far_reader, far_writer) = await connect(pair)
    alice, bob = pair
    assert (reader.peer, writer.get_extra_info("peer")) == (bob.id, bob.id)
    assert (far_reader.peer, far_writer.peer) == (alice.id, alice.id)
    assert writer.get_extra_info("protocol") == CHAT
    assert writer.get_extra_info("socket", "none") == "none"
    data = pattern(3_000_000)
    writer.write(data[:1_000_000])
    writer.writelines([bytearray(data[1_000_000:1_000_010]), memoryview(data)[1_000_010:]])
    assert not writer.is_closing()
    assert writer.can_write_eof()
    writer.write_eof()
    assert writer.is_closing()
    async with asyncio.timeout(30):
        assert await far_reader.read() == data
        assert await far_reader.read() == b""
        assert far_reader.at_eof()
        await writer.wait_closed()
        far_writer.write(b"still open")
        assert await reader.readexactly(10) == b"still open"
        far_writer.close()
        await far_writer.wait_closed()
        assert await reader.read() == b""
    with pytest.raises(RuntimeError, match="closed here"):
        writer.write(b"late")


async def test_reading_works_as_in_asyncio(pair: Pair) -> None:
    (reader, _writer), (_far_reader, far_writer) = await connect(pair, limit=100)
    for piece in (b"ab", b"c\ndef\n", b"gh--i-", b"-jk\nlast"):
        far_writer.write(piece)
        await asyncio.sleep(0)
    far_writer.write_eof()
    async with asyncio.timeout(30):
        assert await reader.readexactly(0) == b""
        assert await reader.readexactly(2) == b"ab"
        assert await reader.readline() == b"c\n"
        assert await reader.read(0) == b""
        assert await reader.readuntil(b"\n") == b"def\n"
        assert await reader.readuntil(b"--") == b"gh--"
        assert await reader.readuntil(b"--") == b"i--"
        assert [line async for line in reader] == [b"jk\n", b"last"]
        assert await reader.readline() == b""
        assert reader.at_eof()
        with pytest.raises(asyncio.IncompleteReadError) as short:
            await reader.readexactly(5)
        assert (short.value.partial, short.value.expected) == (b"", 5)
    with pytest.raises(ValueError, match="at least one byte"):
        await reader.readuntil(b"")
    with pytest.raises(ValueError, match="negative"):
        await reader.readexactly(-1)


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "asyncio"])
@pytest.mark.parametrize(
    "data",
    [b"x" * 500, b"x" * 100 + b"\n" + b"tail\n", b"x" * 101 + b"\n" + b"tail\n", b"short", b"a\n"],
    ids=len,
)
async def test_limits_are_those_of_asyncio(pair: Pair, data: bytes, stock: bool) -> None:  # noqa: FBT001
    reader: StreamReader | asyncio.StreamReader
    if stock:
        reader = asyncio.StreamReader(limit=100)
        reader.feed_data(data)
        reader.feed_eof()
    else:
        (reader, _writer), (_, far_writer) = await connect(pair, limit=100)
        far_writer.write(data)
        far_writer.write_eof()
        await far_writer.wait_closed()
    async with asyncio.timeout(30):
        if len(data) > 110:
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil()
            with pytest.raises(ValueError, match=r"(?i)separator"):
                await reader.readline()
        elif len(data) == 107:
            with pytest.raises(asyncio.LimitOverrunError) as over:
                await reader.readuntil()
            assert over.value.consumed == 101
            assert await reader.readexactly(102) == data[:102]
            assert await reader.readline() == b"tail\n"
        elif len(data) == 106:
            assert await reader.readuntil() == data[:101]
            assert await reader.readline() == b"tail\n"
        elif data == b"short":
            with pytest.raises(asyncio.IncompleteReadError) as short:
                await reader.readuntil()
            assert (short.value.partial, short.value.expected) == (b"short", None)
        else:
            assert await reader.readline() == b"a\n"


async def test_a_refused_stream_is_an_error_that_says_why(pair: Pair) -> None:
    alice, bob = pair
    error = await fails(alice.open_stream(bob.id, CHAT))
    assert isinstance(error, ProtocolNotServedError)
    assert (error.peer, error.protocol) == (bob.id, CHAT)
    assert CHAT in str(error)
    error = await fails(alice.open_stream(NOBODY, CHAT))
    assert isinstance(error, PeerUnreachableError)
    error = await fails(alice.open_stream(alice.id, CHAT))
    assert isinstance(error, ConfigurationError)
    assert error.field == "peer"
    for wrong in ("", "x" * 33, b"\xff" * 33):
        error = await fails(alice.open_stream(bob.id, wrong))
        assert isinstance(error, ConfigurationError)
        assert "1 to 32" in str(error)
        with pytest.raises(ConfigurationError, match="1 to 32"):
            alice.serve(wrong, print)
    bob.serve(CHAT, print)
    error = await fails(alice.open_stream(bob.id, CHAT, timeout=0))
    assert isinstance(error, RequestTimeoutError)
    assert isinstance(error, TimeoutError)
    for n in range(7):
        bob.serve(f"protocol/{n}", print)
    with pytest.raises(ConfigurationError, match="the limit is 8"):
        bob.serve("one/too/many", print)
    with pytest.raises(ConfigurationError, match="served already"):
        bob.serve(CHAT, print)
    with pytest.raises(TypeError, match="handler must be callable, not int"):
        bob.serve("other/1", 7)  # type: ignore[call-overload]  # that is the point
    with pytest.raises(TypeError, match="protocol must be str or bytes, not int"):
        await alice.open_stream(bob.id, 7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="limit is 0, must be at least 1 byte"):
        await alice.open_stream(bob.id, CHAT, limit=0)
    with pytest.raises(TypeError, match="limit must be int"):
        bob.serve("other/1", print, limit=1.5)  # type: ignore[call-overload]


async def test_streams_need_a_running_discovery() -> None:
    discovery = GossipDiscovery("alone", "fleet", config=Config.local())
    with pytest.raises(NotRunningError):
        await discovery.open_stream(NOBODY, CHAT)
    early = discovery.serve(CHAT, print)
    cancelled = discovery.serve("cancelled/1", print)
    cancelled.cancel()
    with pytest.raises(ConfigurationError, match="served already"):
        discovery.serve(CHAT, print)
    with pytest.raises(ConfigurationError, match="1 to 32"):
        discovery.serve("x" * 33, print)
    async with discovery:
        assert early.active
        await until(lambda: discovery.me.protocols == (CHAT,))
    await until(lambda: not early.active)
    with pytest.raises(NotRunningError):
        discovery.serve("late/1", print)


async def test_served_protocols_are_found_in_the_book(pair: Pair) -> None:
    alice, bob = pair
    assert not alice.book.serving(CHAT)
    service = bob.serve(CHAT, print)
    await until(lambda: list(alice.book.serving(CHAT)) == [bob.id])
    await bob.update_metadata(other="news")
    await until(lambda: alice.book[bob.id].metadata == {"other": "news"})
    assert list(alice.book.serving(CHAT)) == [bob.id]
    service.cancel()
    assert not service.active
    await until(lambda: not alice.book.serving(CHAT))
    assert isinstance(await fails(alice.open_stream(bob.id, CHAT)), ProtocolNotServedError)
    bob.serve(CHAT.encode(), print)  # the same, as bytes
    await until(lambda: list(alice.book.serving(CHAT)) == [bob.id])


async def test_a_handler_is_a_task_of_its_own_in_the_context_of_its_registration(
    pair: Pair,
) -> None:
    alice, bob = pair
    who = contextvars.ContextVar("who", default="nobody")
    who.set("the server")

    @bob.serve("echo/1")
    async def echo(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(who.get().encode() + b"\n")
        who.set("one stream")
        async for line in reader:
            writer.write(line)
            await writer.drain()

    who.set("the client")
    assert echo.active
    assert echo.protocol == "echo/1"
    streams = [await alice.open_stream(bob.id, "echo/1") for _ in range(3)]
    async with asyncio.timeout(30):
        for reader, writer in reversed(streams):
            assert await reader.readline() == b"the server\n"
            writer.write(b"one\ntwo\n")
            assert await reader.readexactly(8) == b"one\ntwo\n"
        echo.cancel()
        for reader, writer in streams:
            writer.write(b"still\n")
            assert await reader.readline() == b"still\n"
            writer.write_eof()
            assert await reader.read() == b""  # the handler has returned: both directions end
            await writer.wait_closed()


async def test_a_handler_that_fails_resets_its_stream_and_is_reported(pair: Pair) -> None:
    alice, bob = pair
    reported: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    started: list[StreamWriter] = []

    async def fail(reader: StreamReader, _writer: StreamWriter) -> None:
        await reader.readexactly(4)
        raise LookupError("no such thing")

    async def wait(reader: StreamReader, writer: StreamWriter) -> None:
        started.append(writer)
        await reader.read()

    bob.serve("fail/1", fail)
    bob.serve("wait/1", wait)
    reader, writer = await alice.open_stream(bob.id, "fail/1")
    writer.write(b"now!")
    error = await fails(reader.read())
    assert isinstance(error, StreamResetError)
    assert (error.peer, error.code, error.reason) == (bob.id, 1, "the handler failed")
    await until(lambda: len(reported) == 1)
    assert isinstance(reported[0]["exception"], LookupError)
    assert "fail/1" in str(reported[0]["message"])
    # A peer that gives up is no fault of the handler.
    _reader, writer = await alice.open_stream(bob.id, "wait/1")
    await until(lambda: len(started) == 1)
    writer.reset(3, "never mind")
    await until(started[0].is_closing)
    assert len(reported) == 1


async def test_a_reset_is_an_exception_at_the_other_end(pair: Pair) -> None:
    (reader, writer), (far_reader, far_writer) = await connect(pair)
    writer.write(b"before")
    assert await far_reader.readexactly(6) == b"before"
    reading = asyncio.create_task(fails(far_reader.read()))
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    writer.reset(42, "the disk is full")
    error = await reading
    assert isinstance(error, StreamResetError)
    assert isinstance(error, ConnectionResetError)
    assert isinstance(error, DiscoveryError)
    assert (error.code, error.reason) == (42, "the disk is full")
    assert str(error).endswith("the disk is full (code 42)")

    async def write_on() -> None:
        while True:
            far_writer.write(bytes(100_000))
            await far_writer.drain()
            await asyncio.sleep(0.001)

    error = await fails(write_on())
    assert isinstance(error, StreamResetError)
    assert (error.code, error.reason) == (42, "the disk is full")
    error = await fails(far_writer.wait_closed())
    assert isinstance(error, StreamResetError)
    # Here it has ended without an exception: this end reset the stream itself.
    async with asyncio.timeout(30):
        assert await waiting == b""
        await writer.wait_closed()
    assert writer.is_closing()
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert (str(again), vars(again)) == (str(error), vars(error))


async def test_a_reset_outside_its_limits_is_refused_and_changes_nothing(pair: Pair) -> None:
    (_reader, writer), (far_reader, _far_writer) = await connect(pair)
    wrong: list[tuple[object, object, type[Exception], str]] = [
        (0, "", ConfigurationError, "code is 0"),
        (2**32, "", ConfigurationError, "must be 1 to 4294967295"),
        (-1, "", ConfigurationError, "code must not be negative"),
        (2**70, "", ConfigurationError, "must be 1 to 4294967295"),
        ("7", "", TypeError, "code must be int, not str"),
        (1, "x" * 257, ConfigurationError, "reason is 257 bytes, the limit is 256"),
        (1, b"", TypeError, "reason must be str, not bytes"),
    ]
    for code, reason, kind, message in wrong:
        with pytest.raises(kind, match=message):
            writer.reset(code, reason)  # type: ignore[arg-type]  # that is the point
    writer.write(b"still there")
    assert await far_reader.readexactly(11) == b"still there"


async def test_drain_waits_only_for_its_own_slow_reader(pair: Pair) -> None:
    alice, bob = pair
    (_reader, writer), (far_reader, _far_writer) = await connect(pair)
    piece = bytes(256 * 1024)
    written = 0
    with suppress(TimeoutError):
        while written < 256 * len(piece):
            writer.write(piece)
            written += len(piece)
            async with asyncio.timeout(1):
                await writer.drain()
    assert written < 16 * len(piece), "nothing held the writer back"
    # Another stream, a message and an event pass by.
    _inbox, events = bob.messages(), bob.events()
    (other, _), (_, far_other) = await connect(pair)
    far_other.write(bytes(5_000_000))
    async with asyncio.timeout(30):
        assert len(await other.readexactly(5_000_000)) == 5_000_000
        await alice.send(bob.id, bytes(65536))
        await alice.update_metadata(n="1")
        while not isinstance(await anext(events), PeerUpdated):
            pass
        # All of it is there for a late reader: no byte of a cancelled drain is lost.
        writer.write_eof()
        assert len(await far_reader.read()) == written
        await writer.drain()
        await writer.wait_closed()


async def test_a_write_beyond_the_queue_limit_is_refused_whole(pair: Pair) -> None:
    (_reader, writer), (far_reader, _far_writer) = await connect(pair)
    with pytest.raises(ConfigurationError, match="await drain"):
        writer.write(bytes(64 * 1024 * 1024 + 1))
    for _ in range(16):
        writer.write(bytes(4 * 1024 * 1024))
    with pytest.raises(ConfigurationError, match="the limit is 67108864"):
        writer.write(bytes(8 * 1024 * 1024))
    with pytest.raises(TypeError, match="data must be bytes, bytearray or memoryview, not str"):
        writer.write("text")  # type: ignore[arg-type]
    writer.reset()
    assert isinstance(await fails(far_reader.read()), StreamResetError)


async def test_a_cancelled_read_loses_nothing(pair: Pair) -> None:
    (_reader, writer), (far_reader, _far_writer) = await connect(pair)
    lines = [b"%d " % n + pattern(n % 3000).hex().encode() + b"\n" for n in range(1500)]

    begin = asyncio.Event()

    async def write() -> None:
        await begin.wait()
        for line in lines:
            writer.write(line)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()

    writing = asyncio.create_task(write())
    got: list[bytes] = []
    cancelled = 0
    reads: list[Callable[[], Awaitable[bytes]]] = [
        far_reader.readline,
        far_reader.readuntil,
        lambda: far_reader.readexactly(len(lines[len(got)])),
    ]
    async with asyncio.timeout(60):
        while len(got) < len(lines):
            if cancelled == 9:  # each of these waited in vain
                begin.set()
            try:
                async with asyncio.timeout(0.0004):
                    got.append(await reads[cancelled % 3]())
            except TimeoutError:
                cancelled += 1
        await writing
        assert await far_reader.read() == b""
    assert got == lines
    print(f"{cancelled} reads were cancelled")


async def test_a_second_task_that_reads_is_refused(pair: Pair) -> None:
    (reader, _writer), (_far_reader, far_writer) = await connect(pair)
    first = asyncio.create_task(reader.read(5))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task reads"):
        await reader.read(5)
    far_writer.write(b"hello")
    assert await first == b"hello"


async def test_closing_a_reader_stops_the_writer_at_the_other_end(pair: Pair) -> None:
    (reader, writer), (far_reader, far_writer) = await connect(pair)
    waiting = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    writer.close()
    async with asyncio.timeout(30):
        assert await waiting == b""
        assert await far_reader.read() == b""
        await writer.wait_closed()

    async def write_on() -> None:
        while True:
            far_writer.write(b"anybody?")
            await far_writer.drain()
            await asyncio.sleep(0.001)

    error = await fails(write_on())
    assert isinstance(error, StreamResetError)
    assert (error.code, error.reason) == (0, "")
    assert "reads no more" in str(error)


async def test_the_end_of_the_link_is_an_exception_and_ends_the_handlers() -> None:
    config = Config.local()
    ended = asyncio.Event()

    async def wait(reader: StreamReader, _writer: StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            ended.set()

    async with GossipDiscovery("alice", "fleet", config=config) as alice:
        async with GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob:
            bob.serve(CHAT, wait)
            await alice.wait_for_peers(1, timeout=30)
            reader, writer = await alice.open_stream(bob.id, CHAT)
            reading = asyncio.create_task(fails(reader.read()))
        assert ended.is_set()
        error = await reading
        assert isinstance(error, PeerUnreachableError)
        assert error.peer == reader.peer
        assert isinstance(await fails(writer.wait_closed()), PeerUnreachableError)
        with pytest.raises(PeerUnreachableError):
            writer.write(b"late")
        assert isinstance(await fails(writer.drain()), PeerUnreachableError)


async def test_a_thousand_streams_at_a_time(pair: Pair) -> None:
    alice, bob = pair

    @bob.serve("echo/1")
    async def echo(reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async with asyncio.timeout(60):
        streams = await asyncio.gather(*(alice.open_stream(bob.id, "echo/1") for _ in range(1024)))
        assert isinstance(await fails(alice.open_stream(bob.id, "echo/1")), TooManyStreamsError)

        async def talk(n: int, reader: StreamReader, writer: StreamWriter) -> None:
            data = b"%d " % n * 500
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.write_eof()
            assert await reader.read() == b""
            await writer.wait_closed()

        await asyncio.gather(*(talk(n, *stream) for n, stream in enumerate(streams)))
    # Their places are free again.
    async with asyncio.timeout(30):
        while isinstance(await opened(alice, bob), TooManyStreamsError):
            await asyncio.sleep(0.01)


async def opened(alice: GossipDiscovery, bob: GossipDiscovery) -> Exception | None:
    try:
        _, writer = await alice.open_stream(bob.id, "echo/1")
    except DiscoveryError as error:
        return error
    writer.close()
    return None


async def test_errors_pickle() -> None:
    errors: list[DiscoveryError] = [
        ProtocolNotServedError(NOBODY, CHAT),
        TooManyStreamsError(NOBODY),
        StreamResetError(NOBODY, 7, "why"),
        StreamResetError(NOBODY, 0, ""),
    ]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
        assert (str(again), vars(again), again.args) == (str(error), vars(error), error.args)
