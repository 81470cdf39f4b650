"""Trouble, told once: one line when something begins to fail and one when it works again, for all processes.

In reading order: `reporter` (a process says what fails), `collector` (the master decides what is told),
`log` (and writes it).
"""
