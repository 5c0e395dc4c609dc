"""What other nodes say, made safe to show: nothing in it steers a terminal or forges a line."""


def printable(text: str) -> str:
    """Return text with control characters, line ends and the like shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
