"""The configuration file: its keys, what is wrong with it, and what is worth a warning.

In reading order: `load` (a file becomes one frozen `Config`, or every mistake in it at once), `settings` (the
keys), `rules` (the ``[[rule]]`` tables), `mistakes` (errors as lines for an admin), `advice` (warnings),
`known_lists` (what is known of well-known lists), `sockets`, `store_url`, `scanner`, `durations` and `words`
(how single values are written), `textfile` (files that an admin wrote), `masking` (texts without secrets),
`restart_only` (what a reload cannot change), `in_effect` (a configuration in bytes).
"""
