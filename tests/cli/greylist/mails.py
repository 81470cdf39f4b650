"""A store with five mails in it, and the commands that look at it."""

import contextlib
import json

from hybridgrey.greylist.triplets import Greylist
from hybridgrey.store.connection import Store
from parts.commandline import run
from parts.greyterms import GreyTerms

LIFETIME = GreyTerms().lifetime
MAILS = (
    ("192.0.2.1", "a@example.org", "b@example.net", True),
    ("192.0.2.9", "c@example.org", "b@example.net", False),
    ("198.51.100.7", "", "postmaster@example.net", False),
    ("2001:db8::1", "list-return-4711-b=example.net@lists.example", "b@example.net", True),
    ("192.0.2.1", "odd :{}%\n\x1b[31m*@example.org", "b@example.net", False),
)


def fill(url, secret="", after=5):
    """Greet the store with MAILS."""
    with contextlib.closing(Store.open(url, 5.0)) as store:
        greylist = Greylist(store, GreyTerms(auto_allow_after=after), key_secret=secret)
        for client, sender, recipient, passes in MAILS:
            greylist.touch(client, sender, recipient, 0)
            if passes:
                greylist.touch(client, sender, recipient, 0)


def peek(url, client, sender, recipient, secret=""):
    """What the next mail would meet."""
    with contextlib.closing(Store.open(url, 5.0)) as store:
        greylist = Greylist(store, GreyTerms(), key_secret=secret)
        return greylist.peek(client, sender, recipient, 300).state


def listed(config, *words):
    """The entries that `list --json` prints with these options."""
    done = run("greylist", "list", "-c", config, "--json", *words)
    assert (done.status, done.error) == (0, "")
    return [json.loads(line) for line in done.lines]
