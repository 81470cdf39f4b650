"""What is counted, in memory that all processes of the daemon share.

A *series* is a counter with its labels; a *cell* is where its number stands; a *slot* is a worker's row of
cells; a *ring* carries the records of verdicts from a worker to the keeper; the *journal* is what one
keeper leaves for the next.

In reading order: `series` (which there are, and where), `shared` (the memory), `meter` (adding), `ring`,
`journal`, `prometheus` (the text format).
"""
