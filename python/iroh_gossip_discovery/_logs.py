"""Gives the extension's log lines to `logging`; called from the extension's own thread."""

import logging

from iroh_gossip_discovery._printable import printable

ROOT = "iroh_gossip_discovery"
PREFIX = "igd_"
"""The prefix of each field's name in `extra`, so that none collides with a record's own."""

TRACE = 5
"""Below `logging.DEBUG`: each frame, each heartbeat."""

_LEVELS = (TRACE, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
_NOTHING = 255

# The loggers, at the indices that the extension uses.
LOGGERS = tuple(logging.getLogger(f"{ROOT}.{name}") for name in ("driver", "proto", "iroh"))

# This is a library: in a program without logging it prints nothing, not even on stderr.
logging.getLogger(ROOT).addHandler(logging.NullHandler())
# The layers below write pages at a level at which this library writes lines.
if LOGGERS[2].level == logging.NOTSET:
    LOGGERS[2].setLevel(logging.WARNING)

# What iroh says at ERROR whenever an endpoint with a relay is closed in order.
_SAID_AT_A_CLOSE = "relay_recv_channel closed"

Value = bool | int | float | str


def thresholds() -> list[int]:
    """Return, for each logger, the lowest level that it wants; above all levels for none."""
    return [
        next((level for level in _LEVELS if logger.isEnabledFor(level)), _NOTHING)
        for logger in LOGGERS
    ]


def deliver(  # noqa: PLR0913, PLR0917  # as the extension knows them
    source: int,
    level: int,
    created: float,
    place: tuple[str, str | None, int | None],
    message: str,
    fields: dict[str, Value],
) -> None:
    """Give a line to its logger, as a record of the moment at which it was logged."""
    logger = LOGGERS[source]
    if message == _SAID_AT_A_CLOSE:
        level = logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    target, file, line = place
    extra: dict[str, object] = {
        PREFIX + "".join(c if c.isalnum() else "_" for c in name): value
        for name, value in fields.items()
    }
    extra[f"{PREFIX}target"] = target
    if fields:
        pairs = ", ".join(f"{name}={value}" for name, value in fields.items())
        message = f"{message} ({pairs})" if message else pairs
    message = printable(message)  # words of a peer in it forge no line, and steer no terminal
    record = logger.makeRecord(
        logger.name, level, file or "(unknown file)", line or 0, message, (), None, target, extra
    )
    record.relativeCreated += (created - record.created) * 1000
    record.created = created
    record.msecs = float(int((created - int(created)) * 1000))
    record.threadName = "iroh-gossip-discovery"
    logger.handle(record)


def report_dropped(count: int) -> None:
    """Log that the queue was full and `count` lines were dropped."""
    logging.getLogger(ROOT).warning(
        "%d log records were dropped: handlers are slower than what is logged",
        count,
        extra={f"{PREFIX}count": count},
    )
