"""Names that few programs use: their modules are imported when a name is asked for (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_imports(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the `__getattr__` and the `__dir__` of a package; `dir` shows what `__all__` lists.

    Args:
        package: The package's name.
        modules: The module in it that defines a name, by name.
    """
    names = vars(sys.modules[package])

    def get(name: str) -> object:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = names[name] = getattr(import_module(f"{package}.{module}"), name)
        return value

    return get, lambda: sorted(names["__all__"])
