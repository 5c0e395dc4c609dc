"""This project beside other packages, in one run: `make compare`."""
