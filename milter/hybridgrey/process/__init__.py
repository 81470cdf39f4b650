"""The daemon: a master, workers that take mail, and a keeper for all that is periodic.

The *master* opens the socket, forks, watches and reloads, and serves no mail.  A *worker* runs an engine.
The *keeper* probes the lists, writes the history and serves metrics and the page.  A *generation* is the
processes of one configuration.

In reading order: `daemon` (the start, in the one order that works), `assembly` (which parts a process
gets) and `stores` (of it what commands want, too), `master`, `generation`, `children`, `loop`,
`restarts` and `backoff`, `listener`, `privileges`,
`statefolder`, `statefiles`, `pidfile`, `holder`, `configcopy`; `engines` (which of the two), `serving`
and `worker_parts` (what both have); `worker`, `libmilter_engine`, `libmilter_pool`, `libmilter_parts`,
`descriptors`; `native_worker`, `native_engine`, `native_task`, `native_helpers`, `native_parts`; `keeper`,
`byhand`, `pools`, `pooltrouble` and `bulletin`, `store_watch`, `store_size`, `store_memory`, `systemd`.
"""
