"""``hybridgrey status``: what the running daemons have done so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from hybridgrey.cleaning import clean
from hybridgrey.cli import config_option, liveness
from hybridgrey.cli.access import UNAVAILABLE, configured, configured_if_any
from hybridgrey.cli.liveness import Host
from hybridgrey.cli.output import as_json, coloured, fail, milliseconds, several, span, table, title
from hybridgrey.metrics.series import HEALTH, NOTES, RESULTS, STATES
from hybridgrey.process.pooltrouble import none_resolves


@click.command()
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="A daemon's metrics, as http://mx2:9893 or mx2:9893; several add up.",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@config_option
def status(config_path: Path, urls: tuple[str, ...], json_: bool) -> None:
    """Show the counts of all workers: verdicts, lists, store, greylist, since the daemon's start.

    The daemon is asked at [metrics] listen of this host's configuration.  With --url other daemons are asked
    instead, and their counts are added up.  If a daemon wants a password, it is sent [metrics] password of
    this host's configuration.  Exit status 1 when a daemon is not well, 69 when none can be asked; a
    daemon for which no list works, or no content scanner, is well, for mail goes on: that is said first.

    \b
    Examples:
      hybridgrey status
      hybridgrey status --url http://mx1:9893 --url http://mx2:9893
      hybridgrey status --json | jq '.verdicts[] | select(.action == "reject")'
    """
    config = configured(config_path) if not urls else configured_if_any(config_path)
    password = config.metrics.password.get_secret_value() if config else ""
    if config and not urls:
        own = liveness.url_of(config)
        if own is None:
            fail('[metrics] listen is "": set it to an address such as "127.0.0.1:9893"', UNAVAILABLE)
        urls = (own,)
    with ThreadPoolExecutor(len(urls)) as threads:
        hosts = list(threads.map(partial(liveness.ask, password=password), urls))
    answering = [host for host in hosts if not host.error]
    if not answering and not json_:
        reasons = "; ".join(f"{clean(host.url)}: {clean(host.error)}" for host in hosts)
        fail(f"{reasons}; is the daemon running?", UNAVAILABLE)
    total = liveness.added(answering)
    if json_:
        as_json(_report(hosts, total))
    else:
        _print(hosts, total)
    if not answering:
        raise SystemExit(UNAVAILABLE)
    # Mail goes on without lists and scores: who restarts what is not well would gain nothing by it.
    raise SystemExit(any(host.error or set(host.problems).difference(NOTES) for host in hosts))


def _report(hosts: Sequence[Host], total: Host) -> dict[str, Any]:
    """All numbers; times in seconds."""
    return {
        "hosts": [
            {
                "url": host.url,
                "state": _state(host),
                "problems": [host.error] if host.error else list(host.problems),
                "version": host.version,
                "mode": host.mode,
                "started": host.started,
                "reload_ok": host.reload_ok,
                "loaded": host.loaded,
                "workers": int(host.value("workers")),
                "sessions_open": int(host.value("sessions_open")),
                "sessions": int(host.value("sessions_total")),
            }
            for host in hosts
        ],
        "verdicts": list(_verdicts(total)),
        "lists": list(_lists(total)),
        "greylist": {state: int(total.value("greylist_total", state=state)) for state in STATES},
        "greylist_delay": _mean(total, "greylist_delay_seconds"),
        "rcpt_wait": _mean(total, "rcpt_wait_seconds"),
        "store": {
            "calls": int(total.value("store_seconds_count")),
            "failures": int(total.value("store_failures_total")),
            "seconds": _mean(total, "store_seconds"),
            **_size(hosts),
            **_memory(hosts),
        },
        "pools": _pools(hosts),
        "scanner": _scanner(hosts, total),
    }


def _size(hosts: Sequence[Host]) -> dict[str, Any]:
    """Whether the store serves all hosts, and its keys; of the largest of several. None: unknown."""
    up, keys = (
        [host.samples[name, ()] for host in hosts if (name, ()) in host.samples]
        for name in ("store_up", "store_keys")
    )
    return {"reachable": all(up) if up else None, "keys": int(max(keys)) if keys else None}


def _memory(hosts: Sequence[Host]) -> dict[str, int]:
    """The store's memory in bytes; of the fullest, if hosts have their own. 0: no limit, or unknown."""
    names = ("store_memory_bytes", "store_memory_max_bytes")
    pairs = [(host.value(names[0]), host.value(names[1])) for host in hosts]
    used, limit = max(pairs, key=lambda pair: (pair[0] / pair[1] if pair[1] else 0.0, pair[0]))
    return {"memory": int(used), "memory_max": int(limit)}


def _pools(hosts: Sequence[Host]) -> dict[str, Any] | None:
    """The pools of senders, of the host that has most to tell; None where no rule names one."""
    using = [host for host in hosts if host.value("pools")]
    if not using:
        return None
    worst = max(using, key=lambda host: (host.value("pools_unknown"), host.value("pools_failing")))
    return {
        "domains": int(worst.value("pools")),
        "unknown": int(worst.value("pools_unknown")),
        "failing": int(worst.value("pools_failing")),
        "networks": int(worst.value("pool_networks")),
        "oldest": worst.samples.get(("pools_oldest_time_seconds", ())),
    }


def _scanner(hosts: Sequence[Host], total: Host) -> dict[str, Any] | None:
    """The content scanners, those of all hosts as one; None where no rule asks one."""
    using = [host for host in hosts if host.value("scanner_wanted")]
    if not using:
        return None
    up = [host.samples[name] for host in using if (name := ("scanner_up", ())) in host.samples]
    since = [host.value("scanner_failing_since_timestamp_seconds") for host in using]
    return {
        "works": all(up) if up else None,
        "failing_since": min(filter(None, since), default=None),
        "left_alone": int(total.value("scanner_left_alone")),
        "workers": int(sum(host.value("workers") for host in using)),
        "scores": int(total.value("scan_seconds_count")),
        "failures": int(total.value("scan_failures_total")),
        "seconds": _mean(total, "scan_seconds"),
    }


def _state(host: Host) -> str:
    if host.error:
        return "down"
    well = not set(host.problems).difference(NOTES)
    return "ok" if not host.problems else "warning" if well else "not well"


def _mean(total: Host, name: str, **labels: str) -> float | None:
    """The mean of a histogram; None when nothing was observed."""
    count = total.value(f"{name}_count", **labels)
    return total.value(f"{name}_sum", **labels) / count if count else None


def _verdicts(total: Host) -> Iterator[dict[str, Any]]:
    """The counts by rule; of a mode that is over only what was counted in it."""
    modes = {
        dict(pairs)["enforced"] for (name, pairs), value in total.samples.items() if name == "verdicts_total"
    }
    now = "false" if total.value("enforced") == 0 and "false" in modes else "true"
    for (name, pairs), value in total.samples.items():
        labels = dict(pairs)
        if name == "verdicts_total" and (value or (labels["rule"] != "(none)" and labels["enforced"] == now)):
            enforced = labels["enforced"] == "true"
            yield {
                "rule": labels["rule"],
                "action": labels["action"],
                "enforced": enforced,
                "count": int(value),
            }


def _lists(total: Host) -> Iterator[dict[str, Any]]:
    names = [dict(pairs)["list"] for name, pairs in total.samples if name == "list_suspended"]
    for label in names:
        counts = {one: int(total.value("list_answers_total", list=label, result=one)) for one in RESULTS}
        mean = _mean(total, "list_latency_seconds", list=label)
        suspended = bool(total.value("list_suspended", list=label))
        states = (one for one in reversed(HEALTH) if total.value("list_health", list=label, state=one))
        health = next(states, "unchecked")
        yield {"list": label, **counts, "seconds": mean, "suspended": suspended, "health": health}


def _print(hosts: Sequence[Host], total: Host) -> None:
    for note in NOTES:
        for host in hosts:
            if note in host.problems:
                click.echo(f"{coloured('warning')}: {clean(host.url)}: {note}")
    report = _report(hosts, total)
    _print_hosts(hosts, report["hosts"])
    title("Verdicts")
    verdicts = (
        (v["rule"], v["action"], v["count"], "" if v["enforced"] else "observed") for v in report["verdicts"]
    )
    table(("rule", "action", "count", "mode"), verdicts)
    if report["lists"]:
        title("Lists")
        rows = [
            (one["list"], *(one[result] for result in RESULTS), milliseconds(one["seconds"]), _health(one))
            for one in report["lists"]
        ]
        table(("list", *RESULTS, "mean", "health"), rows)
    title("Greylist")
    table(("state", "count"), report["greylist"].items())
    _print_times(report)
    for head, words in _sentences(report):
        title(head)
        click.echo(", ".join(words))


def _print_hosts(hosts: Sequence[Host], rows: Sequence[Mapping[str, Any]]) -> None:
    names = ("url", "state", "mode", "version", "workers", "sessions_open", "sessions")
    daemons = [[*(one[name] for name in names), _since(one["started"])] for one in rows]
    table(("host", "state", "mode", "version", "workers", "open", "sessions", "since"), daemons)
    for host in hosts:
        for problem in [host.error] if host.error else host.problems:
            if problem in NOTES:
                continue
            click.echo(f"{coloured(_state(host))}: {clean(host.url)}: {clean(problem)}")
        if not host.reload_ok:
            since = f" of {_since(host.loaded)}" if host.loaded else ""
            click.echo(
                f"note: {clean(host.url)}: the last reload failed, the configuration{since} is in effect"
            )


def _print_times(report: Mapping[str, Any]) -> None:
    store = report["store"]
    title("Times")
    waits = (
        ("RCPT waits for lists and store", milliseconds(report["rcpt_wait"]), ""),
        ("a call of the store", milliseconds(store["seconds"]), several(store["failures"], "failure")),
        ("a passed mail was delayed", span(report["greylist_delay"]), ""),
    )
    table(("what", "mean", "note"), waits)


def _sentences(report: Mapping[str, Any]) -> Iterator[tuple[str, Iterator[str]]]:
    """What is told in words: of each its title, and the parts of the sentence."""
    if report["store"]["reachable"] is not None:
        yield "Store", _store(report["store"])
    if report["scanner"]:
        yield "Content scanner", _scans(report["scanner"])
    if report["pools"]:
        yield "Pools", _pooled(report["pools"])


def _store(store: Mapping[str, Any]) -> Iterator[str]:
    yield "reachable" if store["reachable"] else coloured("down")
    if store["keys"] is not None:
        yield f"{several(store['keys'], 'key')} (entries, their notes, history)"
    if store["memory"]:
        of = f" of {_mebibytes(store['memory_max'])}" if store["memory_max"] else ""
        yield f"memory {_mebibytes(store['memory'])}{of}"


def _scans(scanner: Mapping[str, Any]) -> Iterator[str]:
    if scanner["works"] is None:
        yield "not asked yet" if scanner["failing_since"] is None else "no score yet"
    else:
        yield "works" if scanner["works"] else f"{coloured('warning')}: does not work"
    if scanner["failing_since"] is not None:
        ago = span(max(0.0, time.time() - scanner["failing_since"]))
        yield f"failing since {_since(scanner['failing_since'])} ({ago})"
    if scanner["left_alone"]:
        workers = several(scanner["workers"], "worker")
        yield f"left alone between tries by {scanner['left_alone']} of {workers}"
    yield several(scanner["scores"], "score")
    if scanner["seconds"] is not None:
        yield f"mean {milliseconds(scanner['seconds'])}"
    yield f"{several(scanner['failures'], 'message')} without a score"


def _pooled(pools: Mapping[str, Any]) -> Iterator[str]:
    none = none_resolves(pools["failing"], pools["domains"])
    if none:
        yield f"{coloured('warning')}: none can be resolved now (see hybridgrey pools)"
    yield several(pools["domains"], "domain")
    yield several(pools["networks"], "network")
    if pools["oldest"] is not None and (pools["networks"] or not none):
        yield f"the oldest resolved {span(max(0.0, time.time() - pools['oldest']))} ago"
    if pools["unknown"]:
        yield f"{coloured('warning')}: {pools['unknown']} not resolved yet"
    if pools["failing"] and not none:
        yield f"{coloured('warning')}: {several(pools['failing'], 'problem')} (see hybridgrey pools)"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _since(started: float) -> str:
    """When a daemon started, in UTC as the log has it."""
    return datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if started else ""


def _health(one: dict[str, Any]) -> str:
    # Only a suspended list has no vote; of the others an admin wants to know that something is odd.
    if one["suspended"]:
        return "suspended"
    return {"warning": "votes, test point wrong", "silent": "silent"}.get(one["health"], "votes")
