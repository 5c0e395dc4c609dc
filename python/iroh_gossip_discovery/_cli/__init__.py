"""The command line `iroh-gossip-discovery`."""


def main() -> None:
    """Run the command line; the heavy imports wait until here."""
    from iroh_gossip_discovery._cli._app import app  # noqa: PLC0415

    app()
