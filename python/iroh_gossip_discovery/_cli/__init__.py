"""The command line `iroh-gossip-discovery`."""


def main() -> None:
    """Run the command line; the heavy imports wait until here."""
    try:
        from iroh_gossip_discovery._cli._app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:  # before a command could see to it
        raise SystemExit(130) from None
