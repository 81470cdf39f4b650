"""The page in a real Chromium, served by real daemons."""
