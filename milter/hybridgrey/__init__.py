"""A milter that accepts the trusted, rejects the listed and greylists the rest."""

__version__ = "0.2.0"
