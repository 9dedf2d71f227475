"""The accesses of a shipped C++ kernel, written down while it runs: ``record`` in ``record.py``."""
