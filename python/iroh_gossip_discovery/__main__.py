"""`python -m iroh_gossip_discovery`: the command line."""

from iroh_gossip_discovery_cli import main

if __name__ == "__main__":
    main()
