"""Checks of what a caller passes in, whatever its annotations promise."""

import inspect
import math
from collections.abc import Iterable

from iroh_gossip_discovery._errors import ConfigurationError


def require(field: str, value: object, *kinds: type) -> None:
    """Refuse a value that is of none of the kinds; a bool is no int here.

    Raises:
        TypeError: It names the field.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{field} must be {names}, not {type(value).__name__}")


def require_text(field: str, value: object) -> bytes:
    """Return a text as UTF-8.

    Raises:
        TypeError: It is no text; the message names the field.
        ConfigurationError: It has a lone surrogate in it.
    """
    require(field, value, str)
    try:
        return str(value).encode()
    except UnicodeEncodeError:
        reason = "has a lone surrogate in it, so it is not valid Unicode"
        raise ConfigurationError(field, reason) from None


def require_key(key: str | bytes, field: str = "key") -> bytes:
    """Return the key of an ownership as it is hashed; text stands for its UTF-8 bytes.

    Raises:
        TypeError: It is neither text nor bytes.
        ConfigurationError: It is text with a lone surrogate in it.
    """
    require(field, key, str, bytes)
    return key if isinstance(key, bytes) else require_text(field, key)


def require_callable(field: str, function: object) -> None:
    """Refuse what can't be called, and a function with a `yield`: nothing in it would ever run.

    Raises:
        TypeError: It names the field.
    """
    is_callable = callable(function)  # a variable, because a narrowed type would confuse stubtest
    if not is_callable:
        raise TypeError(f"{field} must be callable, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{field} has a `yield` in it, so a call of it would run nothing")


def require_iterable(field: str, values: object, items: str) -> None:
    """Refuse what is no iterable of values, and one text or bytes, which is one of single letters.

    Raises:
        TypeError: It names the field.
    """
    one = isinstance(values, str | bytes)
    if one or not isinstance(values, Iterable):
        given = f"{'one ' if one else ''}{type(values).__name__}"
        raise TypeError(f"{field} must be a sequence of {items}, not {given}")


def require_timeout(timeout: float | None) -> None:
    """Check a time limit. One below zero is over already, as in asyncio.

    Raises:
        TypeError: It is no number.
        ConfigurationError: It is NaN, with which a wait would never end.
    """
    require("timeout", timeout, int, float, type(None))
    if timeout is not None and math.isnan(timeout):
        raise ConfigurationError("timeout", "is nan, which is no number of seconds")


def require_duration(field: str, seconds: float) -> None:
    """Refuse what is no length of time.

    Raises:
        TypeError: It is no number.
        ConfigurationError: It is negative or not finite.
    """
    require(field, seconds, int, float)
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(
            field, f"must be a finite number of seconds, at least 0, is {seconds}"
        )
