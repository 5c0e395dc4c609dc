"""One interpreter of a process: in another one, the import is refused with the reason."""

from iroh_gossip_discovery._core import check_interpreter

check_interpreter()
