"""What Rust logs reaches `logging`: at the level that is wanted, with its fields, to the exit."""

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from iroh_gossip_discovery import Config, GossipDiscovery, _core, _logs
from iroh_gossip_discovery.testing import LocalSwarm

pytestmark = pytest.mark.asyncio
ROOT = "iroh_gossip_discovery"
NAMES = (ROOT, *(logger.name for logger in _logs.LOGGERS))
REPEATS = 8


class Recorder(logging.Handler):
    """Keeps records, and may hold up whoever hands them over."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.hold: Callable[[], object] = bool

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.hold()

    def find(self, message: str) -> list[logging.LogRecord]:
        return [r for r in list(self.records) if r.getMessage().startswith(message)]

    async def wait(self, message: str, count: int = 1) -> list[logging.LogRecord]:
        async with asyncio.timeout(20):
            while len(found := self.find(message)) < count:
                await asyncio.sleep(0.01)
        return found

    async def wait_while(self, busy: GossipDiscovery, message: str) -> None:
        """Wait for a line that `busy` causes again and again."""
        numbers = count()
        async with asyncio.timeout(20):
            while not self.find(message):
                await busy.update(metadata={"n": str(next(numbers))})
                await asyncio.sleep(0.01)


@pytest.fixture
def logs() -> Iterator[Recorder]:
    recorder = Recorder()
    before = {name: logging.getLogger(name).level for name in NAMES}
    logging.getLogger(ROOT).addHandler(recorder)
    yield recorder
    logging.getLogger(ROOT).removeHandler(recorder)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def node(name: str, *others: GossipDiscovery, expiration: float | None = None) -> GossipDiscovery:
    bootstrap = [other.ticket for other in others]
    return GossipDiscovery(
        name, "logs", bootstrap=bootstrap, config=Config.local(expiration=expiration)
    )


def extra(record: logging.LogRecord, field: str) -> object:
    value: object = vars(record)[f"igd_{field}"]
    return value


async def test_log_records_name_the_node_and_the_peer(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)
    async with node("alice") as alice, node("bob", alice) as bob:
        joined = await logs.wait("peer joined (", 2)
        opened = await logs.wait("link opened (", 2)
        ids = {"alice": alice.id[:10], "bob": bob.id[:10]}
    assert {record.name for record in joined} == {f"{ROOT}.proto"}
    assert {record.name for record in opened} == {f"{ROOT}.driver"}
    assert {(extra(r, "me"), extra(r, "peer"), extra(r, "name")) for r in joined} == {
        (ids["alice"], ids["bob"], "bob"),
        (ids["bob"], ids["alice"], "alice"),
    }
    one = joined[0]
    assert (one.levelno, one.levelname) == (logging.INFO, "INFO")
    assert one.pathname.endswith(".rs")
    assert one.lineno > 0
    assert f"peer={extra(one, 'peer')}" in one.getMessage()
    assert str(extra(one, "target")).startswith("iroh_gossip_discovery_proto::")
    # Numbers and truth values stay what they are.
    assert type(extra(one, "sequence")) is int
    assert {extra(r, "dialed") for r in opened} == {True, False}


async def test_every_field_has_a_prefix_so_that_none_hides_an_attribute(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(1)
    async with node("alice") as alice, node("bob", alice):
        await logs.wait("peer joined (", 2)
    usual = vars(logging.makeLogRecord({})).keys()
    for record in logs.records:
        own = vars(record).keys() - usual - {"message", "asctime"}
        assert {name for name in own if not name.startswith("igd_")} == set()
        assert all(name.isidentifier() for name in own)


async def test_a_log_record_has_the_time_at_which_it_was_made(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)
    go_on = threading.Event()
    async with node("alice") as alice:
        await logs.wait("announced (")
        logs.hold = lambda: go_on.wait(60)
        async with node("bob", alice) as bob:
            await bob.wait_for_peers(1, timeout=20)
            me = bob.id[:10]
            seen = logging.makeLogRecord({})
            # Only now do the records go on: those of the join come late, and say when it was.
            await asyncio.sleep(0.2)
            go_on.set()
            joined = await logs.wait("peer joined (", 2)
    mine = next(record for record in joined if extra(record, "me") == me)
    assert mine.created <= seen.created
    assert mine.relativeCreated <= seen.relativeCreated
    assert 0 <= mine.msecs < 1000


async def test_lines_keep_their_order(logs: Recorder) -> None:
    logging.getLogger(f"{ROOT}.proto").setLevel(logging.DEBUG)
    async with node("alice") as alice:
        for number in range(500):
            await alice.update(metadata={"n": str(number)})
        announced = await logs.wait("announced (", 501)
    sequences = [extra(record, "sequence") for record in announced]
    assert sequences == sorted(sequences, key=str)
    assert len(set(sequences)) == len(sequences)


async def test_log_levels_are_obeyed_and_may_change_while_nodes_run(logs: Recorder) -> None:
    root, driver = logging.getLogger(ROOT), logging.getLogger(f"{ROOT}.driver")
    root.setLevel(logging.WARNING)
    async with node("alice") as alice, node("bob", alice) as bob:
        await bob.wait_for_peers(1, timeout=20)
        await bob.update(metadata={"before": "1"})
        assert logs.find("announced (") == logs.find("peer joined (") == []
        root.setLevel(logging.DEBUG)
        await logs.wait_while(bob, "announced (")
        driver.setLevel(logging.INFO)
        logging.disable(logging.CRITICAL)
        try:
            async with asyncio.timeout(20):
                # None of a quarter of a second's announcements comes: the disabling was noticed.
                while True:
                    logs.records.clear()
                    for number in range(10):
                        await bob.update(metadata={"n": str(number)})
                        await asyncio.sleep(0.03)
                    if not logs.records:
                        break
        finally:
            logging.disable(logging.NOTSET)
        await logs.wait_while(bob, "announced (")
        async with node("carol", alice):
            await logs.wait("neighbor up (")
    assert logs.find("link opened (") == []


async def test_iroh_logs_below_warning_only_if_its_own_level_asks_for_it(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)
    below = logging.getLogger(f"{ROOT}.iroh")

    def said() -> list[logging.LogRecord]:
        return [record for record in list(logs.records) if record.name == below.name]

    async with node("alice") as alice, node("bob", alice):
        await logs.wait("peer joined (", 2)
        assert below.level == logging.WARNING
        assert [record for record in said() if record.levelno < logging.WARNING] == []
        below.setLevel(logging.DEBUG)
        async with node("carol", alice), asyncio.timeout(20):
            while not said():
                await asyncio.sleep(0.01)
    assert str(extra(said()[0], "target")).partition("::")[0] not in NAMES


async def test_a_heartbeat_writes_no_line_above_trace(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)

    async def hear(heartbeats: int) -> None:
        until = alice.book[bob.id].sequence + heartbeats
        async with asyncio.timeout(30):
            while alice.book[bob.id].sequence < until:
                await asyncio.sleep(0.02)

    async with node("alice", expiration=1.0) as alice, node("bob", alice, expiration=1.0) as bob:
        await alice.wait_for_peers(1, timeout=20)
        await bob.wait_for_peers(1, timeout=20)
        await hear(2)
        before = len(logs.find("announced ("))
        logs.records.clear()
        await hear(8)
        assert len(logs.records) < 8, [record.getMessage() for record in logs.records]
        assert before <= 4
        logging.getLogger(f"{ROOT}.proto").setLevel(5)
        await logs.wait("heartbeat (", 4)


async def test_at_info_each_change_of_membership_has_a_line(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.INFO)
    # Patient timers: even on a busy machine no living node is suspected.
    config = Config.lan(bind=["127.0.0.1:0"], mdns=False)
    async with asyncio.timeout(90), LocalSwarm(config=config) as swarm:
        alice, bob, carol, dave = await swarm.start_many(4)
        await swarm.wait_converged(timeout=60)
        me = {node.id[:10]: node.name for node in swarm.nodes}
        await dave.update_metadata(role="cache")
        for _ in range(5):
            await bob.update()  # as a heartbeat: nothing in it is new
        until = bob.me.sequence
        while any(node.book[bob.id].sequence < until for node in (alice, carol, dave)):
            await asyncio.sleep(0.02)
        await dave.close()
        await logs.wait("peer left (", 3)
        await swarm.kill(carol)
        await logs.wait("peer lost: unreachable (", 2)
        told = [record for record in list(logs.records) if record.levelno >= logging.INFO]
    lines = Counter(
        (
            record.getMessage().partition(" (")[0],
            me[str(extra(record, "me"))],
            me[str(extra(record, "peer"))],
        )
        for record in told
    )
    names = [node.name for node in (alice, bob, carol, dave)]
    left = {("peer left", name, dave.name) for name in names[:3]}
    lost = {
        (what, name, carol.name)
        for what in ("peer suspected", "peer lost: unreachable")
        for name in names[:2]
    }
    joined = {("peer joined", one, other) for one in names for other in names if one != other}
    assert lines == Counter(joined | left | lost)


async def test_drops_that_a_healthy_swarm_makes_are_no_warnings(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)
    usual = "broadcasts without anything new"
    numbers = count()
    async with asyncio.timeout(60), LocalSwarm() as swarm:
        nodes = await swarm.start_many(8)
        await swarm.wait_converged(timeout=50)
        while not any(usual in node.metrics().dropped for node in nodes):
            metadata = {"n": str(next(numbers))}
            await asyncio.gather(*(node.update(metadata=metadata) for node in nodes))
        while not (said := [r for r in logs.find("dropped") if vars(r)["igd_reason"] == usual]):
            await asyncio.sleep(0.01)
    assert {record.levelno for record in said} == {logging.DEBUG}


async def test_a_drop_with_consequences_is_a_warning(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.WARNING)
    config = Config.local(message_buffer=1)
    async with asyncio.timeout(60), LocalSwarm(config=config) as swarm:
        sender, slow = await swarm.start_many(2)
        await swarm.wait_converged()
        slow_messages = slow.messages()
        for _ in range(2):
            await sender.send(slow.id, b"x")
        (said,) = await logs.wait("dropped")
        slow_messages.close()
    assert said.levelno == logging.WARNING
    assert vars(said)["igd_reason"] == "messages to slow subscribers"


async def test_a_blocked_log_handler_delays_nothing_but_logs(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)
    go_on = threading.Event()
    logs.hold = lambda: go_on.wait(60)
    try:
        async with node("alice") as alice, node("bob", alice) as bob:
            await alice.wait_for_peers(1, timeout=20)
            events = alice.events()
            await bob.update(metadata={"n": "1"})
            async with asyncio.timeout(20):
                await anext(events)
            assert len(logs.records) == 1
    finally:
        go_on.set()
    await logs.wait("peer joined (", 2)


async def test_a_flood_of_log_records_is_bounded_counted_and_reported(logs: Recorder) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)
    go_on = threading.Event()
    logs.hold = lambda: go_on.wait(60)
    before = _core.logs_dropped()
    try:
        async with node("alice") as alice:
            for number in count():
                await alice.update(metadata={"n": str(number)})
                if _core.logs_dropped() >= before + 10:
                    break
    finally:
        dropped = _core.logs_dropped() - before
        go_on.set()
    async with asyncio.timeout(20):
        while sum(int(str(extra(r, "count"))) for r in logs.records if r.name == ROOT) < dropped:
            await asyncio.sleep(0.01)
        await logs.wait("announced (", 4096)
    # The queue, the burst under way, and no more.
    assert 4096 <= len(logs.find("announced (")) <= 4096 + 64


async def test_a_second_receiver_does_not_replace_the_first_for_logs_of_rust(
    logs: Recorder,
) -> None:
    logging.getLogger(ROOT).setLevel(logging.INFO)
    async with node("alice") as alice:
        assert _core.start_logs() is False
        async with node("bob", alice):
            joined = await logs.wait("peer joined (", 2)
    assert len(joined) == 2


async def test_an_exception_in_a_log_filter_is_reported_and_the_next_line_comes(
    logs: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger(ROOT).setLevel(logging.DEBUG)
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    once = count()

    def fail(record: logging.LogRecord) -> bool:
        if next(once) == 0:
            raise LookupError(record.name)
        return True

    logger = logging.getLogger(f"{ROOT}.proto")
    logger.addFilter(fail)
    try:
        async with node("alice") as alice, node("bob", alice):
            await logs.wait("peer joined (", 2)
    finally:
        logger.removeFilter(fail)
    assert len(reported) == 1


def run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_without_a_log_handler_nothing_is_printed() -> None:
    done = run("""
        import asyncio
        from iroh_gossip_discovery import Config, GossipDiscovery
        nobody = "9f" * 32 + "@127.0.0.1:9"
        async def main():
            async with GossipDiscovery("a", "t", bootstrap=[], config=Config.local()) as alice:
                await alice.update(metadata={"a": "b"})
        asyncio.run(main())
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_the_exit_loses_no_log_record_and_does_not_hang() -> None:
    script = """
        import asyncio, logging, sys, time
        from iroh_gossip_discovery import Config, GossipDiscovery

        class Slow(logging.StreamHandler):
            def emit(self, record):
                time.sleep(0.0005)
                super().emit(record)

        logging.basicConfig(level=logging.DEBUG, handlers=[Slow(sys.stdout)], format="%(message)s")

        async def main():
            global keep
            keep = GossipDiscovery("alice", "logs", config=Config.local())
            await keep.start()
            for number in range(300):
                await keep.update(metadata={"n": str(number)})

        asyncio.run(main())
        # The node runs on, its logs too: the interpreter goes away under them.
    """
    with ThreadPoolExecutor(2) as pool:
        futures = [asyncio.wrap_future(pool.submit(run, script)) for _ in range(REPEATS)]
        for done in await asyncio.gather(*futures):
            lines = [line for line in done.stdout.splitlines() if line.startswith("announced")]
            assert done.returncode == 0, done.stderr
            assert len(lines) >= 301
            assert "Traceback" not in done.stderr


async def test_words_of_a_peer_in_a_line_are_shown_as_escapes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, ROOT)
    place = ("iroh_gossip_discovery::door", None, None)
    said = "\x1b[2J\r\nWARNING: all is lost"
    _logs.deliver(0, logging.INFO, time.time(), place, said, {"reason": said})
    (line,) = caplog.messages
    assert line.isprintable()
    assert line.count(r"\x1b[2J\r\nWARNING: all is lost") == 2
