"""Measurements: what training costs and what models reach. Each is a command: `python -m tools.bench.<name> --help`."""
