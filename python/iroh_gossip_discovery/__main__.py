"""`python -m iroh_gossip_discovery`: the command line."""

from iroh_gossip_discovery_cli import main

main()
