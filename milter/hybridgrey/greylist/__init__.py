"""greylist."""
