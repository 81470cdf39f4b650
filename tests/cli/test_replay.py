"""``hybridgrey replay``: text and JSON, one configuration and two, and what may be wrong with its input."""

import gzip
import json

import pytest

from parts.commandline import run

AT = 1_767_225_600
GREY = '[[rule]]\nname = "all"\naction = "greylist"\n'


def message(*moments, **facts):
    attempts = [{"at": AT + at, "client": "192.0.2.1", **facts} for at in moments]
    record = {"label": "spam", "kind": "bot", "sender": "a@x.example", "recipient": "r@y.example"}
    return json.dumps(record | {"attempts": attempts}) + "\n"


MESSAGES = message(0, 300, lists={"zen.spamhaus.org": ["127.0.0.2"]}) + message(5, authenticated=True)


@pytest.fixture
def files(tmp_path):
    """Two configurations, and messages packed."""
    (tmp_path / "a.toml").write_text("")
    (tmp_path / "b.toml").write_text(GREY)
    (tmp_path / "messages.gz").write_bytes(gzip.compress(MESSAGES.encode()))
    return tmp_path


def test_one_configuration(files):
    """A table of what becomes of them."""
    done = run("replay", "-c", files / "a.toml", files / "messages.gz")
    assert (done.status, done.error) == (0, "")
    assert done.lines[0] == "2 messages, 3 attempts"
    assert done.lines[-1].split() == ["spam", "bot", "2", "1", "0", "1", "0", "0", "0s", "0s", "0.0", "%"]


def test_two_configurations(files):
    """Side by side, with the messages that differ, as text and as JSON."""
    words = ["replay", "-c", files / "a.toml", "--config", files / "b.toml", files / "messages.gz"]
    text = run(*words).output
    assert "Treated differently: 2" in text
    assert "1: A rejected (blocklists); B accepted after a delay (all)" in text
    assert "2026-01-01T00:00:00Z 192.0.2.1 from a@x.example to r@y.example: A -, B 5m [spam bot]" in text
    document = json.loads(run(*words, "--json").output)
    first, second = [one["groups"][0] for one in document["configurations"]]
    assert (first["accepted"], first["rejected"], first["median_delay"]) == (1, 1, 0)
    # The second comes 5 s after the first attempt of the same triplet, and never again.
    assert (second["accepted"], second["delayed"], second["never_accepted"]) == (1, 2, 1)
    assert document["differences"]["messages"] == 2
    assert len(document["differences"]["changes"]) == 2


def test_the_same_twice(files):
    """Nothing differs."""
    words = ["replay", "-c", files / "a.toml", "-c", files / "a.toml", files / "messages.gz"]
    assert run(*words).lines[-1] == "Treated differently: 0"


def test_damage_is_told_and_the_rest_stands(files):
    """Standard input too; with the place of the first."""
    done = run("replay", "-c", files / "a.toml", "-", text=MESSAGES + "x\n{\n\x1b[31m{}\n")
    assert done.status == 0
    assert done.error == "warning: 3 damaged lines were passed over; the first is -:3: no JSON object\n"


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["-c", "a.toml", "/dev/null"], 1, "there is no message"),
        (["-c", "a.toml", "nowhere"], 1, "nowhere: No such file"),
        (["-c", "nowhere.toml", "messages.gz"], 78, "does not exist"),
        (["-c", "a.toml", "-c", "b.toml", "-c", "b.toml", "messages.gz"], 2, "at most two"),
        (["-c", "a.toml"], 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_one_line(files, words, status, error):
    """And no traceback."""
    words = [files / one if one.endswith(("l", "z", "e")) and one[0] != "/" else one for one in words]
    done = run("replay", *words)
    assert done.status == status
    assert error in done.error
    assert "Traceback" not in done.error
