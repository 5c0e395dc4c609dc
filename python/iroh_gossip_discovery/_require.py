"""Checks of what a caller passes in, whatever its annotations promise."""


def require(field: str, value: object, *kinds: type) -> None:
    """Refuse a value that is of none of the kinds; a bool is no int here.

    Raises:
        TypeError: It names the field.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{field} must be {names}, not {type(value).__name__}")
