"""Drivers: one for each package, all with the same commands on standard input."""
