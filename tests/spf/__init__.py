"""Zones and data for the tests of SPF."""
