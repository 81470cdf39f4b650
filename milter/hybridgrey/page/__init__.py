"""The web page: what it asks and is answered, and its files.

In reading order: `server` (HTTP), `site` (what is served, and to whom), `data` (the answers to the page's
questions), `spans` (counts for charts and tables), `flow` (what became of the mail), `verdicts` (recorded
verdicts, searched), `past` (those before the latest), `hand` (entries by hand), `files` (what is in static/).
"""
