"""The real servers that the tests and the demo start for themselves, and clients for them. See base.py."""
