"""The engines of the suite's daemons, by the table."""

from __future__ import annotations

from parts.engines import engine as engine
from parts.engines import pytest_generate_tests as pytest_generate_tests
