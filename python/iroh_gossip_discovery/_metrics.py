"""`Metrics`: what a node counted so far, as one frozen snapshot."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_type_hints


class About(NamedTuple):
    """What a field of `Metrics` is. A counter only rises; a gauge is what holds now."""

    kind: Literal["counter", "gauge"]
    unit: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a node counted since it started, and what holds now; all of one moment.

    The guide to operating a swarm says of each field what it counts, in which unit, and what an
    unusual value asks of you.

    Args:
        peers: Now: others in the book.
        suspects: Now: others in the book that are suspected to be gone.
        tombstones: Now: nodes that left or were lost, whose last sequence number is kept.
        neighbors: Now: neighbors in the overlay.
        observers: Now: observers that this node keeps up to date.
        links: Now: open links.
        links_relayed: Now: open links whose packets go through a relay.
        round_trip: Now: the median of the open links' round-trip times, in seconds, as QUIC
            estimates them; `None` without a link.
        banned: Now: keys that are refused for a while because they broke the protocol.
        links_opened: Links that were opened, from either side.
        dials: Dials that were begun.
        dials_failed: Dials that led to no link.
        frames_sent: Protocol frames that were queued on links.
        frames_received: Protocol frames that were read from links.
        bytes_sent: Bytes of UDP payload that links sent, all that QUIC adds included.
        bytes_received: Bytes of UDP payload that links received.
        streams: Now: open streams of applications' protocols, of either side.
        streams_opened: Streams that this node opened.
        streams_accepted: Streams that peers opened, of protocols that are served here.
        streams_refused: Streams that peers wanted to open: not served here, or over a limit.
        streams_reset: Streams that either end gave up, with a code and a reason.
        stream_bytes_sent: Bytes that were written to streams, without what QUIC adds.
        stream_bytes_received: Bytes that were read from streams.
        announcements: Own records that were signed and announced, heartbeats included.
        heartbeats: Records of others in which only the sequence number was new.
        verifications: Records of others whose signature was checked.
        syncs_started: Reconciliations of the book that this node began.
        syncs_served: Reconciliations of the book that others began with this node.
        syncs_completed: Reconciliations, begun by either side, that were completed.
        probes: Probes of peers that were not heard for a while, for this node or for others.
        probes_failed: Probes of its own that neither the peer nor an indirect prober answered.
        accusations: Accusations that this node signed.
        refutations: Accusations of this node that it refuted.
        broadcasts_sent: Broadcasts of this node's application.
        broadcasts_received: Broadcasts of others, each counted once, with or without a subscriber.
        pauses: Times that this node was paused, so that its timers were late.
        events: Events by the name of their class, with or without a subscriber.
        bans: Bans, by the rule that was broken.
        dropped: What limits refused or dropped, by what it was; only what happened at all.
        log_records_dropped: Log records that were dropped, in the whole process.

    Example:
        ```python
        metrics = discovery.metrics()
        print(metrics.peers, metrics.bytes_sent, metrics.events["PeerLost"])
        ```
    """

    peers: Annotated[int, About("gauge", "peers", "others in the book")]
    suspects: Annotated[
        int, About("gauge", "peers", "others in the book that are suspected to be gone")
    ]
    tombstones: Annotated[
        int,
        About("gauge", "nodes", "nodes that left or were lost, whose last sequence number is kept"),
    ]
    neighbors: Annotated[int, About("gauge", "peers", "neighbors in the overlay")]
    observers: Annotated[int, About("gauge", "peers", "observers that this node keeps up to date")]
    links: Annotated[int, About("gauge", "links", "open links")]
    links_relayed: Annotated[
        int, About("gauge", "links", "open links whose packets go through a relay")
    ]
    round_trip: Annotated[
        float | None,
        About(
            "gauge", "seconds", "median of the open links' round-trip times; None without a link"
        ),
    ]
    banned: Annotated[int, About("gauge", "peers", "keys that are refused for a broken rule")]
    links_opened: Annotated[
        int, About("counter", "links", "links that were opened, from either side")
    ]
    dials: Annotated[int, About("counter", "dials", "dials that were begun")]
    dials_failed: Annotated[int, About("counter", "dials", "dials that led to no link")]
    frames_sent: Annotated[
        int, About("counter", "frames", "protocol frames that were queued on links")
    ]
    frames_received: Annotated[
        int, About("counter", "frames", "protocol frames that were read from links")
    ]
    bytes_sent: Annotated[
        int, About("counter", "bytes", "UDP payload that links sent, all that QUIC adds included")
    ]
    bytes_received: Annotated[int, About("counter", "bytes", "UDP payload that links received")]
    streams: Annotated[int, About("gauge", "streams", "open streams of applications' protocols")]
    streams_opened: Annotated[int, About("counter", "streams", "streams that this node opened")]
    streams_accepted: Annotated[int, About("counter", "streams", "streams that peers opened")]
    streams_refused: Annotated[
        int,
        About("counter", "streams", "streams of peers that were not served here, or over a limit"),
    ]
    streams_reset: Annotated[int, About("counter", "streams", "streams that either end gave up")]
    stream_bytes_sent: Annotated[
        int, About("counter", "bytes", "bytes that were written to streams, without what QUIC adds")
    ]
    stream_bytes_received: Annotated[
        int, About("counter", "bytes", "bytes that were read from streams")
    ]
    announcements: Annotated[
        int, About("counter", "records", "own records announced, heartbeats included")
    ]
    heartbeats: Annotated[
        int,
        About("counter", "records", "records of others in which only the sequence number is new"),
    ]
    verifications: Annotated[
        int, About("counter", "records", "records of others whose signature was checked")
    ]
    syncs_started: Annotated[
        int, About("counter", "syncs", "reconciliations of the book that this node began")
    ]
    syncs_served: Annotated[
        int, About("counter", "syncs", "reconciliations of the book that others began")
    ]
    syncs_completed: Annotated[
        int, About("counter", "syncs", "reconciliations that came to their end")
    ]
    probes: Annotated[
        int,
        About(
            "counter",
            "probes",
            "probes of peers that were not heard for a while, for this node or for others",
        ),
    ]
    probes_failed: Annotated[
        int, About("counter", "probes", "own probes that neither the peer nor a helper answered")
    ]
    accusations: Annotated[
        int, About("counter", "accusations", "accusations that this node signed")
    ]
    refutations: Annotated[
        int, About("counter", "accusations", "accusations of this node that it refuted")
    ]
    broadcasts_sent: Annotated[
        int, About("counter", "messages", "broadcasts of this node's application")
    ]
    broadcasts_received: Annotated[
        int, About("counter", "messages", "broadcasts of others, each once, listened to or not")
    ]
    pauses: Annotated[
        int, About("counter", "pauses", "times that this node was paused: its timers came late")
    ]
    events: Annotated[
        Mapping[str, int],
        About("counter", "events", "events by the name of their class, subscribed to or not"),
    ]
    bans: Annotated[
        Mapping[str, int], About("counter", "bans", "bans, by the rule that was broken")
    ]
    dropped: Annotated[
        Mapping[str, int],
        About("counter", "items", "what limits refused or dropped, by what it was"),
    ]
    log_records_dropped: Annotated[
        int, About("counter", "records", "log records that were dropped, in the whole process")
    ]

    def _repr_html_(self) -> str:
        """Return the counts as a table, for notebooks."""
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(str(getattr(self, name)))}</td></tr>"
            for name in self.__dataclass_fields__
        )
        return f"<table><tbody>{rows}</tbody></table>"


def about() -> dict[str, About]:
    """Describe every field of `Metrics`, in their order."""
    hints = get_type_hints(Metrics, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}
