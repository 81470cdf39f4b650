"""The command line (DESIGN section 6)."""
