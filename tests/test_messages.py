"""A message is delivered once, to its recipient, with its true sender; or an error says why."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Awaitable

import pytest
import pytest_asyncio

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    DiscoveryError,
    GossipDiscovery,
    Message,
    MessagesLost,
    MessageTooLargeError,
    NoSubscriberError,
    NotRunningError,
    Peer,
    PeerJoined,
    PeerUnreachableError,
    PeerUpdated,
    Receipt,
    RequestTimeoutError,
)

pytestmark = pytest.mark.asyncio

LIMIT = 64 * 1024
NOBODY = Peer("ab" * 32, "nobody").id
Pair = tuple[GossipDiscovery, GossipDiscovery]


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    config = Config.local(message_buffer=4096)
    async with (
        GossipDiscovery("alice", "fleet", config=config) as alice,
        GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob,
    ):
        await alice.wait_for_peers(1, timeout=30)
        await bob.wait_for_peers(1, timeout=30)
        yield alice, bob


async def fails(work: Awaitable[object]) -> Exception:
    try:
        await work
    except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
        return error
    pytest.fail("it did not fail")


async def test_a_message_arrives_with_its_sender_and_a_receipt(pair: Pair) -> None:
    alice, bob = pair
    inboxes = [bob.messages(), bob.messages()]
    for data in (b"", b"hello", bytes(LIMIT)):
        receipt = await alice.send(bob.id, data, timeout=30)
        assert receipt.peer == bob.id
        assert 0 < receipt.elapsed < 30
        for inbox in inboxes:
            async with asyncio.timeout(30):
                assert await anext(inbox) == Message(alice.id, data, "direct")


async def test_peers_and_buffers_of_any_kind_are_taken(pair: Pair) -> None:
    alice, bob = pair
    inbox = bob.messages()
    for peer in (bob.id, alice.book[bob.id]):
        for data in (b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4]):
            await alice.send(peer, data)
            message = await anext(inbox)
            assert isinstance(message, Message)
            assert message.data == b"abc"


async def test_a_failed_delivery_is_an_error_that_says_why(pair: Pair) -> None:
    alice, bob = pair
    too_large = await fails(alice.send(bob.id, bytes(LIMIT + 1)))
    assert isinstance(too_large, MessageTooLargeError)
    assert (too_large.size, too_large.limit) == (LIMIT + 1, LIMIT)
    unheard = await fails(alice.send(bob.id, b"anybody?"))
    assert isinstance(unheard, NoSubscriberError)
    assert unheard.peer == bob.id
    inbox = bob.messages()
    await alice.send(bob.id, b"now")
    inbox.close()
    assert isinstance(await fails(alice.send(bob.id, b"and now?")), NoSubscriberError)
    unreachable = await fails(alice.send(NOBODY, b"hello"))
    assert isinstance(unreachable, PeerUnreachableError)
    assert (unreachable.peer, isinstance(unreachable, ConnectionError)) == (NOBODY, True)
    assert unreachable.reason
    assert unreachable.reason in str(unreachable)
    myself = await fails(alice.send(alice.id, b"me"))
    assert isinstance(myself, ConfigurationError)
    assert myself.field == "peer"
    gone = bob.id
    await bob.close()
    assert isinstance(await fails(alice.send(gone, b"late")), PeerUnreachableError)


async def test_wrong_arguments_are_named(pair: Pair) -> None:
    alice, bob = pair
    wrong: list[tuple[object, object, type[Exception], str]] = [
        (7, b"", TypeError, "peer must be Peer or str, not int"),
        (None, b"", TypeError, "peer must be Peer or str, not NoneType"),
        (bob.id, "text", TypeError, "data must be bytes, bytearray or memoryview, not str"),
        (bob.id, [1], TypeError, "data must be bytes"),
        ("alice", b"", ConfigurationError, 'peer "alice"'),
        (bob.id.upper(), b"", ConfigurationError, "64 lower-case hex"),
    ]
    for peer, data, kind, message in wrong:
        with pytest.raises(kind, match=message):
            await alice.send(peer, data)  # type: ignore[arg-type]  # that is the point


async def test_a_timeout_is_an_error_that_names_the_peer(pair: Pair) -> None:
    alice, bob = pair
    _inbox = bob.messages()
    error = await fails(alice.send(bob.id, b"now or never", timeout=0))
    assert isinstance(error, RequestTimeoutError)
    assert isinstance(error, TimeoutError)
    assert bob.id[:10] in str(error)
    await alice.send(bob.id, b"the link still serves", timeout=30)


async def test_messages_need_a_running_discovery() -> None:
    discovery = GossipDiscovery("alone", "fleet", config=Config.local())
    with pytest.raises(NotRunningError):
        discovery.messages()
    with pytest.raises(NotRunningError):
        await discovery.send(NOBODY, b"")
    async with discovery:
        inbox = discovery.messages()
    with pytest.raises(StopAsyncIteration):
        await anext(inbox)
    with pytest.raises(NotRunningError):
        await discovery.send(NOBODY, b"")


async def test_a_cancelled_iteration_loses_no_message(pair: Pair) -> None:
    alice, bob = pair
    count = 2000
    inbox = bob.messages()

    async def send_all() -> None:
        for n in range(count):
            await alice.send(bob.id, str(n).encode())

    sending = asyncio.create_task(send_all())
    got: list[bytes] = []
    cancelled = 0
    async with asyncio.timeout(60):
        while len(got) < count:
            try:
                async with asyncio.timeout(0.0005):
                    message = await anext(inbox)
                    assert isinstance(message, Message)
                    got.append(message.data)
            except TimeoutError:
                cancelled += 1
        await sending
    assert got == [str(n).encode() for n in range(count)]
    assert cancelled > 100


async def test_cancelled_sends_deliver_each_message_at_most_once(pair: Pair) -> None:
    alice, bob = pair
    inbox = bob.messages()
    sends = [asyncio.create_task(alice.send(bob.id, str(n).encode() * 5000)) for n in range(400)]
    for n, send in enumerate(sends):
        if n % 3 == 0:
            send.cancel()
        if n % 10 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*sends, return_exceptions=True)
    accepted = {str(n).encode() for n, r in enumerate(results) if isinstance(r, Receipt)}
    assert all(isinstance(result, Receipt | asyncio.CancelledError) for result in results)
    await alice.send(bob.id, b"the last")
    got: list[bytes] = []
    async with asyncio.timeout(30):
        async for message in inbox:
            assert isinstance(message, Message)
            if message.data == b"the last":
                break
            assert len(message.data) % 5000 == 0
            got.append(message.data[: len(message.data) // 5000])
    assert len(got) == len(set(got))
    assert accepted <= set(got)
    assert len(accepted) >= 200


async def test_a_burst_costs_no_event_and_says_what_it_dropped() -> None:
    config = Config.local(message_buffer=3, event_buffer=4)
    async with (
        GossipDiscovery("alice", "fleet", config=config) as alice,
        GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob,
    ):
        await alice.wait_for_peers(1, timeout=30)
        await bob.wait_for_peers(1, timeout=30)
        inbox, events = bob.messages(), bob.events()
        for n in range(300):
            await alice.send(bob.id, str(n).encode())
        await alice.update_metadata(after="the burst")
        async with asyncio.timeout(30):
            event = await anext(events)
            assert isinstance(event, PeerUpdated)
            assert event.peer.metadata == {"after": "the burst"}
            assert [await anext(inbox) for _ in range(3)] == [
                Message(alice.id, str(n).encode(), "direct") for n in range(297, 300)
            ]
            assert inbox.lost == 297


async def test_each_channel_reaches_its_own_subscribers_alone(pair: Pair) -> None:
    alice, bob = pair
    plain, cache, jobs = bob.messages(), bob.messages("cache"), bob.messages("jobs")
    async with asyncio.timeout(60):
        await alice.send(bob.id, b"1", channel="cache")
        await alice.send(bob.id, b"2")
        await alice.send(bob.id, b"3", channel="jobs")
        await alice.broadcast(b"4", channel="cache")
        await alice.broadcast(b"5")
        first, second = [await anext(cache) for _ in range(2)]
        assert first == Message(alice.id, b"1", "direct", "cache")
        assert second == Message(alice.id, b"4", "broadcast", "cache")
        assert [(await anext(plain)).data for _ in range(2)] == [b"2", b"5"]
        assert (await anext(jobs)).data == b"3"
    unheard = await fails(alice.send(bob.id, b"", channel="other", timeout=60))
    assert isinstance(unheard, NoSubscriberError)


async def test_one_channel_has_no_share_in_the_losses_of_another() -> None:
    config = Config.local(message_buffer=3)
    async with (
        GossipDiscovery("alice", "fleet", config=config) as alice,
        GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob,
    ):
        await alice.wait_for_peers(1, timeout=30)
        quiet, loud = bob.messages("quiet"), bob.messages("loud")
        async with asyncio.timeout(60):
            await alice.send(bob.id, b"kept", channel="quiet")
            for n in range(20):
                await alice.send(bob.id, str(n).encode(), channel="loud")
            assert (await anext(quiet)).data == b"kept"
            assert (await anext(loud)).data == b"17"
            assert (quiet.lost, loud.lost) == (0, 17)


async def test_callbacks_take_messages_of_a_channel_and_losses() -> None:
    config = Config.local(message_buffer=3)
    heard: list[Message | MessagesLost] = []
    enough, release = asyncio.Event(), asyncio.Event()
    bob = GossipDiscovery("bob", "fleet", config=config)

    @bob.on((Message, MessagesLost), channel="jobs")
    async def take(message: Message | MessagesLost) -> None:
        heard.append(message)
        if isinstance(message, Message) and message.data == b"9":
            enough.set()
        await release.wait()

    async with (
        bob,
        GossipDiscovery("alice", "fleet", bootstrap=[bob.ticket], config=config) as alice,
    ):
        async with asyncio.timeout(60):
            await alice.send(bob.id, b"0", channel="jobs")
            while not heard:
                await asyncio.sleep(0.01)
            for n in range(1, 10):
                await alice.send(bob.id, str(n).encode(), channel="jobs")
            release.set()
            await enough.wait()
        assert heard[0] == Message(alice.id, b"0", "direct", "jobs")
    assert sum(item.count if isinstance(item, MessagesLost) else 1 for item in heard) == 10
    with pytest.raises(TypeError, match="or Message, MessagesLost or both"):
        bob.on((Message, PeerUpdated), print)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="channel is for Message"):
        bob.on(PeerUpdated, print, channel="jobs")


async def test_a_message_to_a_peer_that_has_just_started_waits_for_its_subscription() -> None:
    sending = asyncio.Event()
    async with GossipDiscovery("alice", "fleet", config=Config.local()) as alice:

        @alice.on(PeerJoined)
        async def greet(event: PeerJoined) -> None:
            sending.set()
            await alice.send(event.peer, b"welcome", timeout=60)

        async with GossipDiscovery(
            "bob", "fleet", bootstrap=[alice.ticket], config=Config.local()
        ) as bob:
            async with asyncio.timeout(60):
                await sending.wait()
                assert (await anext(bob.messages())).data == b"welcome"


async def test_names_of_channels_have_limits(pair: Pair) -> None:
    alice, bob = pair
    for name in ("", "x" * 65, "a\nb"):
        with pytest.raises(ConfigurationError, match="channel "):
            bob.messages(name)
        assert isinstance(await fails(alice.send(bob.id, b"", channel=name)), ConfigurationError)
        assert isinstance(await fails(alice.broadcast(b"", channel=name)), ConfigurationError)
    with pytest.raises(TypeError, match="channel must be str"):
        bob.messages(7)  # type: ignore[arg-type]


async def test_a_second_task_on_one_iterator_is_refused(pair: Pair) -> None:
    _, bob = pair
    inbox = bob.messages()
    waiting = asyncio.create_task(anext(inbox))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=r"each call of messages\(\) is a subscription"):
        await anext(inbox)
    inbox.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_values_are_frozen_and_pickle() -> None:
    values = [
        Message(NOBODY, b"\0data", "direct"),
        Message(NOBODY, b"x" * 1000, "broadcast"),
        Message(NOBODY, b"", "broadcast", "cache"),
        MessagesLost(3),
        Receipt(NOBODY, 0.25),
    ]
    for value in values:
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301  # our own bytes
        with pytest.raises(AttributeError):
            value.count = 1  # type: ignore[attr-defined]
    assert repr(values[0]) == f"Message(sender='{NOBODY[:10]}…', data=b'\\x00data', kind='direct')"
    assert len(repr(values[1])) < 120
    with pytest.raises(ConfigurationError, match="kind"):
        Message(NOBODY, b"", "carrier pigeon")  # type: ignore[arg-type]
    errors: list[DiscoveryError] = [
        PeerUnreachableError(NOBODY, "why"),
        NoSubscriberError(NOBODY),
        MessageTooLargeError(2, 1),
    ]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (str(again), vars(again)) == (str(error), vars(error))
