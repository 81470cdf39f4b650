"""Fixtures of all tests; its presence also puts this folder on the path, so that tests can import `parts`."""

from __future__ import annotations
