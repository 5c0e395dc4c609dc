"""The API without asyncio: the same names, in threads, through Ctrl-C, exit and fork."""

import asyncio
import contextlib
import contextvars
import inspect
import logging
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Never

import pytest

import iroh_gossip_discovery as package
from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    Event,
    Message,
    NotRunningError,
    PeerJoined,
    PeerLeft,
    PeersTimeoutError,
    PeerUnreachableError,
    PeerUpdated,
    ProtocolNotServedError,
    RequestFailedError,
    StreamResetError,
    blocking,
)
from iroh_gossip_discovery.blocking import GossipDiscovery, StreamReader, StreamWriter
from iroh_gossip_discovery.blocking._loop import loop_thread
from iroh_gossip_discovery.blocking._waits import Waits

PATIENCE = 30.0
LOCAL = Config.local()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def pair() -> Iterator[tuple[GossipDiscovery, GossipDiscovery]]:
    with GossipDiscovery("alice", "fleet", config=LOCAL) as alice:
        bootstrap = [alice.ticket]
        with GossipDiscovery("bob", "fleet", bootstrap=bootstrap, config=LOCAL) as bob:
            alice.wait_for_peers(1, timeout=PATIENCE)
            bob.wait_for_peers(1, timeout=PATIENCE)
            yield alice, bob


@pytest.mark.parametrize(
    ("module", "mark"), [("gevent.monkey", "saved"), ("eventlet.patcher", "already_patched")]
)
def test_patched_threads_are_refused_with_what_to_do(
    module: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{mark: {"threading": True}}))
    node = GossipDiscovery("alice", "fleet", config=LOCAL)
    with pytest.raises(RuntimeError, match=r"has patched .* run the node in a process of its own"):
        node.start()


def test_it_has_every_name_of_the_awaited_one_with_the_same_arguments() -> None:
    public = {name for name in dir(package.GossipDiscovery) if not name.startswith("_")}
    assert public <= set(dir(GossipDiscovery))
    for name in [*sorted(public), "__init__"]:
        awaited, here = getattr(package.GossipDiscovery, name), getattr(GossipDiscovery, name)
        if not callable(awaited):
            continue
        expected = list(inspect.signature(awaited).parameters.values())
        parameters = list(inspect.signature(here).parameters.values())
        names = [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]
        for parameter in expected:
            assert (parameter.name, parameter.kind, parameter.default) in names, name
        more = {parameter.name for parameter in parameters} - {p.name for p in expected}
        assert more <= {"timeout"}, name
        assert inspect.getdoc(here) or name == "__init__"
        assert "await " not in (inspect.getdoc(here) or "")


@pytest.mark.parametrize("name", ["StreamReader", "StreamWriter"])
def test_the_ends_of_a_stream_have_every_name_of_the_awaited_ones(name: str) -> None:
    awaited, here = getattr(package, name), getattr(blocking, name)
    public = {name for name in dir(awaited) if not name.startswith("_")}
    assert public <= set(dir(here))
    more = set(dir(here)) - set(dir(awaited)) - set(dir(Waits)) - {"__annotations__"}
    assert more - {"__iter__"} == {"timeout"}


def test_two_nodes_meet_talk_and_part(pair: tuple[GossipDiscovery, GossipDiscovery]) -> None:
    alice, bob = pair
    assert alice.book[bob.id].name == "bob"
    assert alice.members.keys() == {alice.id, bob.id} == {alice.me.id, bob.me.id}
    assert (bob.name, bob.topic, bob.config) == ("bob", "fleet", LOCAL)
    assert alice.metrics().peers == 1
    events, messages = alice.events(), alice.messages()
    assert alice.peers().get(timeout=PATIENCE).id == bob.id
    bob.update_metadata(role="cache", self="me")
    updated = events.get(timeout=PATIENCE)
    assert isinstance(updated, PeerUpdated)
    assert dict(updated.peer.metadata) == bob.metadata == {"role": "cache", "self": "me"}
    bob.update(name="robert")
    until(lambda: alice.book.named("robert"))
    receipt = bob.send(alice.id, b"hello", timeout=PATIENCE)
    assert receipt.peer == alice.id
    message = messages.get(timeout=PATIENCE)
    assert (message.sender, message.data) == (bob.id, b"hello")
    heard = queue.SimpleQueue[Message]()
    alice.on(Message, heard.put, channel="jobs")
    bob.send(alice.id, b"for callbacks", channel="jobs", timeout=PATIENCE)
    assert heard.get(timeout=PATIENCE).data == b"for callbacks"
    assert messages.lost == 0
    bob.close()
    bob.close()
    assert any(isinstance(event, PeerLeft) for event in events)  # nothing else ends this
    with pytest.raises(PeersTimeoutError):
        alice.wait_for_peers(1, timeout=0.05)
    assert repr(bob) == "<blocking.GossipDiscovery 'robert' in 'fleet': closed>"


def test_a_for_ends_after_its_timeout_and_another_goes_on(
    pair: tuple[GossipDiscovery, GossipDiscovery],
) -> None:
    alice, bob = pair
    messages = alice.messages(timeout=0.05)
    assert list(messages) == []
    for n in range(600):
        bob.send(alice.id, str(n).encode())
    taken = []
    for message in messages:
        taken.append(message.data)
        if len(taken) == 300:
            break
    taken += [message.data for message in messages]
    assert taken == [str(n).encode() for n in range(600)]
    assert not messages.ended
    with pytest.raises(TimeoutError):
        messages.get(timeout=0.01)
    for wait in (alice.messages, messages.get):
        with pytest.raises(ConfigurationError, match="timeout is nan"):
            wait(timeout=float("nan"))
    alice.close()
    assert list(messages) == []
    ended: bool = messages.ended
    assert ended
    with pytest.raises(NotRunningError, match="MessageStream has ended"):
        messages.get()


def test_a_closed_stream_wakes_the_thread_that_waits_on_it(
    pair: tuple[GossipDiscovery, GossipDiscovery],
) -> None:
    alice, _ = pair
    with alice.events() as events, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(list, events)
        until(events._taking.locked)
        with pytest.raises(RuntimeError, match="another thread takes from this EventStream"):
            events.get()
        events.close()
        assert waiting.result(PATIENCE) == []
        with pytest.raises(NotRunningError):
            events.get()


def test_threads_share_a_node(pair: tuple[GossipDiscovery, GossipDiscovery]) -> None:
    alice, bob = pair
    messages = alice.messages()
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(bob.send, alice.id, str(n).encode()) for n in range(100)]
        got = {messages.get(timeout=PATIENCE) for _ in sent}
        assert all(future.result(PATIENCE) for future in sent)
    assert len(got) == 100


def test_the_owner_of_a_key_comes_with_its_changes(
    pair: tuple[GossipDiscovery, GossipDiscovery],
) -> None:
    alice, bob = pair
    workers = alice.members.where(role="worker")
    changes = workers.serving("none").ownership_changes(["a"], timeout=0.05)
    assert list(changes) == []
    changes = workers.ownership_changes([], timeout=PATIENCE)
    changes.add(["a", "b"])
    bob.update_metadata(role="worker")
    first = {change.key: change.owner for change in (changes.get(), changes.get())}
    assert {owner and owner.id for owner in first.values()} == {bob.id}
    changes.discard(["b"])
    alice.update_metadata(role="worker")
    bob.update_metadata(role=None)
    until(lambda: "role" not in alice.book[bob.id].metadata)
    last = changes.get()
    assert (last.key, last.owner and last.owner.id, last.gained) == ("a", alice.id, True)
    # What is told is what holds when it is taken, not when the loop saw it.
    changes = workers.ownership_changes(["c", "d"], timeout=PATIENCE)
    assert changes.get().owner == alice.me
    bob.update_metadata(role="worker")
    alice.update_metadata(role=None)
    until(lambda: "role" in alice.book[bob.id].metadata)
    second = changes.get()
    assert second.owner is not None
    assert second.owner.id == bob.id
    for wrong in (changes.add, changes.discard):
        with pytest.raises(TypeError, match="keys must be a sequence"):
            wrong("a")


def test_callbacks_are_called_in_order_in_their_context_and_go_on_after_an_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    seen: list[tuple[str, str, str]] = []
    alice = GossipDiscovery("alice", "fleet", config=LOCAL)

    @alice.on((PeerJoined, PeerUpdated))
    def record(event: Event) -> None:
        assert isinstance(event, PeerJoined | PeerUpdated)
        n = event.peer.metadata["n"]
        seen.append((type(event).__name__, n, variable.get()))
        if n == "0":
            raise ValueError("the first one fails")

    never = alice.on(PeerLeft, lambda _: seen.append(("never", "", "")))
    never.cancel()
    assert (record.active, never.active) == (True, False)
    variable.set("changed")
    with (
        alice,
        GossipDiscovery(
            "bob", "fleet", bootstrap=[alice.ticket], metadata={"n": "0"}, config=LOCAL
        ) as bob,
        caplog.at_level(logging.ERROR),
    ):
        until(lambda: len(seen) == 1)
        for n in range(1, 20):
            bob.update_metadata(n=str(n))
            until(lambda: seen[-1][1] == str(n))  # noqa: B023  # awaited at once
        late = alice.on(PeerUpdated, record)
        bob.update_metadata(n="20")
        until(lambda: len(seen) == 22)
        late.cancel()
        record.cancel()
        assert "cancelled" in repr(record)
        bob.update_metadata(n="21")
        until(lambda: alice.book[bob.id].metadata["n"] == "21")
    assert [n for _, n, _ in seen] == [*map(str, range(21)), "20"]
    assert {context for *_, context in seen} == {"outside", "changed"}
    assert "a callback for PeerJoined failed" in caplog.text
    assert "the first one fails" in caplog.text


def test_streams_of_bytes_go_both_ways_with_timeouts(
    pair: tuple[GossipDiscovery, GossipDiscovery],
) -> None:
    alice, bob = pair
    where = contextvars.ContextVar("where", default="nowhere")
    where.set("here")

    @alice.serve("echo/1")
    def echo(reader: StreamReader, writer: StreamWriter) -> None:
        assert where.get() == "here"
        assert threading.current_thread().daemon
        for line in reader:
            writer.write(line.upper())
            writer.drain()

    assert (echo.active, echo.protocol) == (True, "echo/1")
    until(lambda: alice.id in bob.book.serving("echo/1"))
    reader, writer = bob.open_stream(alice.id, "echo/1", timeout=PATIENCE)
    assert (reader.peer, writer.peer) == (alice.id, alice.id)
    assert writer.get_extra_info("protocol") == "echo/1"
    reader.timeout = 0.05
    with pytest.raises(TimeoutError):
        reader.readline()
    writer.writelines([b"one", b" line\n"])
    reader.timeout = PATIENCE
    assert reader.readline() == b"ONE LINE\n"
    writer.write(b"another\nand one more\n")
    writer.drain()
    assert (reader.readexactly(4), reader.readuntil(b"H"), reader.read(1)) == (b"ANOT", b"H", b"E")
    writer.write_eof()
    assert reader.read() == b"R\nAND ONE MORE\n"
    assert reader.at_eof()
    writer.wait_closed()
    writer.close()
    assert writer.is_closing()
    echo.cancel()
    until(lambda: alice.id not in bob.book.serving("echo/1"))
    with pytest.raises(ProtocolNotServedError):
        bob.open_stream(alice.id, "echo/1", timeout=PATIENCE)


def test_a_handler_that_fails_resets_its_stream_and_is_logged(
    pair: tuple[GossipDiscovery, GossipDiscovery], caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = pair
    alice.serve("fail/1", lambda _, __: 1 // 0)
    reader, _ = bob.open_stream(alice.id, "fail/1", timeout=PATIENCE)
    reader.timeout = PATIENCE
    with pytest.raises(StreamResetError, match="the handler failed"):
        reader.read()
    until(lambda: "ZeroDivisionError" in caplog.text)


def test_a_node_that_closes_ends_a_handler_that_waits() -> None:
    begun, ended = threading.Event(), threading.Event()
    alice = GossipDiscovery("alice", "fleet", config=LOCAL)

    def wait_for_ever(reader: StreamReader, _: StreamWriter) -> None:
        begun.set()
        with contextlib.suppress(PeerUnreachableError, StreamResetError):
            reader.read()
        ended.set()

    alice.serve("wait/1", wait_for_ever)
    with alice, GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=LOCAL) as bob:
        _, writer = bob.open_stream(alice.id, "wait/1", timeout=PATIENCE)
        writer.write(b"x")
        assert begun.wait(PATIENCE)
        assert not ended.is_set()
        alice.close()
        assert ended.wait(PATIENCE)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="name"):
        GossipDiscovery("", "fleet")
    with pytest.raises(TypeError, match="bootstrap must be a sequence"):
        GossipDiscovery("alice", "fleet", bootstrap="ticket")
    alice = GossipDiscovery("alice", "fleet", config=LOCAL)
    for use in (alice.metrics, alice.events, alice.leave, lambda: alice.id):
        with pytest.raises(NotRunningError, match="not started"):
            use()
    with pytest.raises(TypeError, match="event must be"):
        alice.on(int, print)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="callable"):
        alice.on(PeerLeft, 1)  # type: ignore[call-overload]

    async def coroutine(_: PeerLeft) -> None: ...

    async def handler(_: StreamReader, __: StreamWriter) -> None: ...

    with pytest.raises(TypeError, match="callback must be a plain function"):
        alice.on(PeerLeft, coroutine)
    with pytest.raises(TypeError, match="handler must be a plain function"):
        alice.serve("x", handler)
    with pytest.raises(TypeError, match="handler must be callable"):
        alice.serve("x", 1)  # type: ignore[call-overload]
    alice.start()
    with pytest.raises(NotRunningError, match="starts once"):
        alice.start()
    with pytest.raises(TypeError, match="timeout must be"):
        alice.events(timeout="1")  # type: ignore[arg-type]
    alice.close()
    with pytest.raises(NotRunningError, match="closed"):
        alice.on(PeerLeft, print)


@pytest.mark.asyncio
async def test_on_a_running_loop_what_blocks_is_refused_and_the_rest_works() -> None:
    alice = GossipDiscovery("alice", "fleet", config=LOCAL)
    with pytest.raises(RuntimeError, match="this call blocks"):
        alice.start()
    await asyncio.to_thread(alice.start)
    for use in (alice.close, alice.leave, alice.events().get, lambda: alice.wait_for_peers(0)):
        with pytest.raises(RuntimeError, match="this call blocks"):
            use()
    assert len(alice.book) == alice.metrics().peers == 0
    alice.events().close()
    await asyncio.to_thread(alice.close)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_bootstrap_peers_may_be_found_by_a_function(kind: str) -> None:
    threads = []
    with GossipDiscovery("alice", "fleet", config=LOCAL) as alice:

        def plain() -> list[str]:
            threads.append(threading.current_thread().name)
            return [alice.ticket]

        async def coroutine() -> list[str]:
            return plain()

        lookup = plain if kind == "plain" else coroutine
        with GossipDiscovery("bob", "fleet", bootstrap=[lookup], config=LOCAL) as bob:
            bob.wait_for_peers(1, timeout=PATIENCE)
    assert threads


SCRIPT = """
import logging, os, signal, sys, threading, time
from iroh_gossip_discovery import Config, DiscoveryError, Event, PeerLeft
from iroh_gossip_discovery.blocking import GossipDiscovery
config = Config.local()
logging.getLogger("asyncio").setLevel(logging.ERROR)  # -X dev finds a busy machine slow

def pair():
    alice = GossipDiscovery("alice", "fleet", config=config)
    alice.start()
    bob = GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config)
    bob.start()
    alice.wait_for_peers(1, timeout=30)
    bob.wait_for_peers(1, timeout=30)
    return alice, bob
"""


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", *options, "-c"]
    command.append(SCRIPT + textwrap.dedent(script))
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


EXITS = {
    "nodes are open": "keep = pair()",
    "threads wait for events": """
        keep = pair()
        streams = [node.events() for node in keep for _ in range(4)]
        for stream in streams:
            threading.Thread(target=lambda s=stream: list(s), daemon=True).start()
    """,
    "callbacks are under way": """
        keep = pair()
        for node in keep:
            node.on(Event, lambda event: time.sleep(0.01))
        for n in range(20):
            keep[0].update_metadata(n=str(n))
    """,
    "sys.exit in a with": """
        with GossipDiscovery("alice", "fleet", config=config) as alice:
            alice.events()
            sys.exit(0)
    """,
    "sends are under way": """
        alice, bob = keep = pair()
        inbox = alice.messages()
        def flood():
            try:
                while True:
                    bob.send(alice.id, b"x" * 1000)
            except DiscoveryError:
                pass  # its end is the exit
        threading.Thread(target=flood, daemon=True).start()
        inbox.get()
    """,
    "everything was closed": """
        for node in pair():
            node.close()
    """,
}


@pytest.mark.parametrize("way", EXITS)
def test_the_interpreter_exits_cleanly_in_the_middle_of(way: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, [EXITS[way]] * 6))
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 6


def test_a_node_that_is_open_at_the_exit_says_goodbye() -> None:
    with GossipDiscovery("alice", "fleet", config=LOCAL) as alice:
        events = alice.events()
        script = f"""
            bob = GossipDiscovery("bob", "fleet", bootstrap=[{alice.ticket!r}], config=config)
            bob.start()
            bob.wait_for_peers(1, timeout=30)
        """
        result = run(script)
        assert (result.returncode, result.stderr) == (0, "")
        kinds = [type(events.get(timeout=PATIENCE)) for _ in range(2)]
        assert kinds == [PeerJoined, PeerLeft]


def test_ctrl_c_interrupts_a_wait_and_loses_nothing() -> None:
    script = """
        from iroh_gossip_discovery.blocking import _loop
        alice, bob = pair()
        inbox = alice.messages()
        interrupted = 0

        def handler(number, frame):
            # Between a return and an assignment Python itself may lose what was returned.
            global interrupted
            while frame is not None:
                if frame.f_code in (_loop.wait.__code__, _loop.LoopThread.wait.__code__):
                    interrupted += 1
                    raise KeyboardInterrupt
                frame = frame.f_back

        signal.signal(signal.SIGINT, handler)

        def interrupt():
            for n in range(300):
                bob.send(alice.id, str(n).encode())
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        taken = []
        while len(taken) < 300:
            try:
                message = inbox.get(timeout=30)
            except KeyboardInterrupt:
                continue
            taken.append(int(message.data))
        assert taken == list(range(300)), taken
        assert interrupted > 10, interrupted
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        alice.close(); bob.close()
    """
    result = run(script)
    assert (result.returncode, result.stderr) == (0, "")


def test_ctrl_c_ends_a_script_that_waits() -> None:
    script = """
        with GossipDiscovery("alice", "fleet", config=config) as alice:
            print("ready", flush=True)
            for event in alice.events():
                pass
    """
    command = [sys.executable, "-c", SCRIPT + textwrap.dedent(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert error.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.needs("fork")
def test_a_forked_child_is_refused_with_advice_and_exits() -> None:
    script = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, of 3.12
        alice, bob = pair()
        stream = alice.events()
        pid = os.fork()
        if pid == 0:
            told = []
            uses = [alice.book.snapshot, alice.events, lambda: alice.id, alice.leave,
                    lambda: alice.send(bob.id, b"x"), lambda: stream.get(timeout=5),
                    GossipDiscovery("carol", "fleet", config=config).start, bob.close]
            for use in uses:
                try:
                    use()
                except RuntimeError as error:
                    told.append("spawn" in str(error))
            os.write(1, str(told).encode() + b"\\n")
            sys.exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(1, f"child {code}, parent knows {len(alice.book)}\\n".encode())
        alice.close(); bob.close()
    """
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(run, [script] * 6):
            assert result.stdout.splitlines() == [str([True] * 8), "child 7, parent knows 1"], (
                result.stderr
            )


@pytest.mark.needs("fork")
def test_a_fork_before_the_first_start_is_fine() -> None:
    script = """
        alice = GossipDiscovery("alice", "fleet", config=config)
        pid = os.fork()
        alice.start()
        with GossipDiscovery("bob", "fleet", bootstrap=[alice.ticket], config=config) as bob:
            bob.wait_for_peers(1, timeout=30)
        alice.close()
        if pid:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    result = run(script)
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_it_starts_no_thread() -> None:
    script = """
        assert threading.active_count() == 1
        GossipDiscovery("alice", "fleet", config=config)
        assert threading.active_count() == 1
    """
    assert run(script).returncode == 0
    assert blocking.__all__ == sorted(blocking.__all__)
    assert os.fspath(Path(blocking.__file__)).endswith("__init__.py")


def test_an_exit_in_a_function_of_the_application_ends_no_node(
    pair: tuple[GossipDiscovery, GossipDiscovery], caplog: pytest.LogCaptureFixture
) -> None:
    def leave(*_: object) -> Never:
        raise SystemExit(3)

    alice, bob = pair
    bob.on(Message, leave)
    alice.answer("leave", leave)
    alice.answer("echo", lambda request: request.data)
    with pytest.raises(RequestFailedError, match="SystemExit: 3"):
        bob.request(alice.id, "leave", timeout=PATIENCE)
    with pytest.raises(SystemExit):  # its caller's own
        bob.book.where(leave).wait(1, timeout=PATIENCE)
    loop_thread().soon(leave)
    alice.send(bob.id, b"1", timeout=PATIENCE)
    alice.send(bob.id, b"2", timeout=PATIENCE)
    assert bob.request(alice.id, "echo", b"still here", timeout=PATIENCE) == b"still here"
    until(lambda: caplog.text.count("a callback for Message failed") == 2)
