"""The command line; its entry is the package `iroh_gossip_discovery_cli`."""


def main() -> None:
    """Run the command line."""
    from iroh_gossip_discovery_cli import main  # noqa: PLC0415  # it is the entry

    main()
