"""The web page: what it asks and is answered, and its files.

In reading order: `site` (what is served, and to whom), `data` (the answers to the page's questions),
`spans` (counts for charts and tables), `verdicts` (recorded verdicts, searched), `hand` (entries by
hand), `files` (what is in static/).
"""
