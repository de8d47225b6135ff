"""The `interpose` command: each file is a command, found by its name, and `main.py` runs the one that is asked for."""
