"""Subcommands beyond Lightning's four; each module has a function `run(args)`."""
