"""What others say, made fit to show: it steers no terminal, forges no line and fills no screen."""

_MOST = 300


def printable(text: str) -> str:
    """Return text with control characters, line ends and the like shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str) -> str:
    """Return a text of at most `_MOST` letters: a longer one without its middle."""
    if len(text) <= _MOST:
        return text
    return f"{text[: _MOST // 2]} … {text[3 - _MOST // 2 :]}"
