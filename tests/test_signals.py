"""A process that gets SIGTERM or Ctrl-C says goodbye: the others see `PeerLeft` within moments."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from iroh_gossip_discovery import (
    Config,
    ConfigurationError,
    Event,
    GossipDiscovery,
    PeerLeft,
    PeerLost,
    blocking,
)

CONFIG = Config.local()

ASYNC = """
    import asyncio, sys
    from iroh_gossip_discovery import Config, GossipDiscovery

    async def main():
        async with GossipDiscovery(
            "child", "t", bootstrap=[sys.argv[1]], config=Config.local()
        ) as node:
            with node.stop_on_signals() as stop:
                await node.joined()
                print("ready", flush=True)
                async for _ in node.messages():
                    pass
        print("stopped by", stop.signal.name, flush=True)

    asyncio.run(main())
"""

BLOCKING = """
    import sys
    from iroh_gossip_discovery import Config
    from iroh_gossip_discovery.blocking import GossipDiscovery

    with GossipDiscovery("child", "t", bootstrap=[sys.argv[1]], config=Config.local()) as node:
        with node.stop_on_signals() as stop:
            node.joined()
            print("ready", flush=True)
            for _ in node.messages():
                pass
    print("stopped by", stop.signal.name, flush=True)
"""

# As a server of ASGI applications does it: its own handler waits until each response has ended.
SERVER = """
    import asyncio, signal, sys
    from iroh_gossip_discovery import Config, GossipDiscovery
    from iroh_gossip_discovery.contrib.starlette import lifespan

    async def main():
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        came = []

        def stop(number, frame):
            came.append(signal.Signals(number).name)
            loop.call_soon_threadsafe(stopping.set)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)

        def make():
            return GossipDiscovery("child", "t", bootstrap=[sys.argv[1]], config=Config.local())

        async with lifespan(make)(None) as state:
            node = state["discovery"]
            await node.joined()

            async def open_response():
                async for _ in node.events():
                    pass

            response = asyncio.create_task(open_response())
            print("ready", flush=True)
            await stopping.wait()
            await response
        print("stopped by", *came, flush=True)

    asyncio.run(main())
"""


UVICORN = """
    import signal, socket, sys, threading, urllib.request
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route
    from iroh_gossip_discovery import Config, GossipDiscovery
    from iroh_gossip_discovery.contrib.starlette import lifespan

    came = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: came.append(signal.Signals(number).name))

    def make():
        return GossipDiscovery("child", "t", bootstrap=[sys.argv[1]], config=Config.local())

    async def events(request):
        async def tell():
            await request.state.discovery.joined()
            yield "data: begins\\n\\n"
            async for event in request.state.discovery.events():
                yield f"data: {event!r}\\n\\n"
        return StreamingResponse(tell(), media_type="text/event-stream")

    listening = socket.create_server(("127.0.0.1", 0))
    url = "http://127.0.0.1:%d/events" % listening.getsockname()[1]

    def read():
        with urllib.request.urlopen(url) as response:
            assert response.readline() == b"data: begins\\n"
            print("ready", flush=True)
            response.read()

    threading.Thread(target=read, daemon=True).start()
    app = Starlette(routes=[Route("/events", events)], lifespan=lifespan(make))
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
    print("stopped by", *came, flush=True)
"""


async def departure(program: str, number: signal.Signals) -> tuple[Event, float, str]:
    """Run a program, send it a signal, and return how and how soon it was gone, and its output."""
    async with GossipDiscovery("parent", "t", config=CONFIG) as parent, parent.events() as events:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(program),
            parent.ticket,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert child.stdout is not None
        async with asyncio.timeout(60):
            first = await child.stdout.readline()
            assert first == b"ready\n", first + await child.stdout.read()
            child.send_signal(number)
            began = time.monotonic()
            event = await anext(events)
            while not isinstance(event, PeerLeft | PeerLost):
                event = await anext(events)
            elapsed = time.monotonic() - began
            rest = (await child.stdout.read()).decode()
            assert await child.wait() == 0, rest
    return event, elapsed, rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize(
    "program",
    [ASYNC, BLOCKING, SERVER, UVICORN],
    ids=["async", "blocking", "server", "uvicorn"],
)
@pytest.mark.asyncio
async def test_a_process_that_gets_a_signal_says_goodbye(
    program: str, number: signal.Signals
) -> None:
    event, elapsed, rest = await departure(program, number)
    assert isinstance(event, PeerLeft)
    assert rest == f"stopped by {number.name}\n"
    # A suspicion alone takes more than 2 s: a goodbye was said, however busy the machine is.
    assert elapsed < 2


@pytest.mark.asyncio
async def test_the_block_ends_quietly_and_the_old_handlers_are_back() -> None:
    seen = []
    old = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        async with GossipDiscovery("a", "t", config=CONFIG) as node:
            with node.stop_on_signals(signal.SIGTERM) as stop:
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(30)
                raise AssertionError("it is not reached")
            assert stop.signal == signal.SIGTERM
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()
            assert not seen
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
            assert seen
    finally:
        signal.signal(signal.SIGTERM, old)


@pytest.mark.asyncio
async def test_without_a_signal_the_block_changes_nothing() -> None:
    old = signal.getsignal(signal.SIGTERM)
    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        with pytest.raises(ZeroDivisionError), node.stop_on_signals() as stop:
            raise ZeroDivisionError
        assert stop.signal is None
        assert signal.getsignal(signal.SIGTERM) is old


@pytest.mark.asyncio
async def test_a_cancellation_by_somebody_else_is_not_swallowed() -> None:
    async def work(node: GossipDiscovery) -> None:
        with node.stop_on_signals():
            await asyncio.sleep(30)

    async with GossipDiscovery("a", "t", config=CONFIG) as node:
        task = asyncio.create_task(work(node))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_what_is_no_signal_and_another_thread_are_refused() -> None:
    node = blocking.GossipDiscovery("a", "t", config=CONFIG)
    with pytest.raises(ConfigurationError, match="signals has none of this system"):
        node.stop_on_signals(4711)
    errors = []

    def call() -> None:
        try:
            node.stop_on_signals()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert errors == ["signals are handled in the main thread only: call it there"]
