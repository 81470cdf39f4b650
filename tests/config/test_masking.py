"""What is never shown of a config file, and files of arbitrary content."""

from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridgrey.config import mistakes
from hybridgrey.config.load import ConfigError
from hybridgrey.config.rules import RuleTable
from hybridgrey.config.settings import Settings, Zone
from parts.configfile import LIST_KEY as KEY
from parts.configfile import load
from parts.laws import examples

# Each example writes its own file, so the folder may be shared between them.
fuzz = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(150)
)

SECRET_FILE = f"""
[store]
url = "redis://user:hunter2@127.0.0.1:6379/0"
key_secret = "correct horse"
[metrics]
password = "battery staple"
[zones."{KEY}.zen.dq.example"]
label = "zen.example"
[zones."other-key-of-ours.zen.dq.example"]
label = "zen.example"
[[rule]]
name = "blocklists"
dns = ["{KEY}.zen.dq.example=127.0.0.2", "other-key-of-ours.zen.dq.example"]
action = "reject"
[[rule]]
action = "greylist"
"""
SECRETS = (KEY, "hunter2", "correct horse", "battery staple", "other-key-of-ours")


def test_secrets_are_not_shown(tmp_path):
    """What is shown has secrets masked and zones by their labels; the values themselves are intact."""
    loaded = load(tmp_path, SECRET_FILE)
    shown = loaded.shown
    assert shown["store"]["url"] == "redis://user:********@127.0.0.1:6379/0"
    assert shown["store"]["key_secret"] == "********"
    assert shown["metrics"]["password"] == "********"
    assert list(shown["zones"]) == ["zen.example", "zen.example (2)"]
    assert shown["rule"][0]["dns"] == ["zen.example=127.0.0.2", "zen.example"]
    assert not [s for s in SECRETS if s in f"{loaded.warnings} {shown}"]
    assert not [s for s in ("hunter2", "correct horse", "battery staple") if s in repr(loaded)]
    assert loaded.store.url.get_secret_value() == "redis://user:hunter2@127.0.0.1:6379/0"
    assert loaded.rules[0].lists[0].zone == f"{KEY}.zen.dq.example"


BROKEN_SECRETS = [
    SECRET_FILE.replace("redis:", "reids:"),
    SECRET_FILE.replace("redis://", ""),
    SECRET_FILE.replace("hunter2@", "hunter2/@"),
    SECRET_FILE.replace(":6379", ":hunter2"),
    SECRET_FILE.replace("correct horse", 'correct horse" "'),
    SECRET_FILE.replace('"correct horse"', '["correct horse"]'),
    SECRET_FILE.replace("battery staple", 'battery staple" "'),
    SECRET_FILE.replace('"battery staple"', '["battery staple"]'),
    SECRET_FILE.replace("password", "passwort"),
    SECRET_FILE.replace("key_secret", "keysecret"),
    SECRET_FILE.replace("label", "lable"),
    SECRET_FILE.replace("label", "bogus = 1\nlabel"),
    SECRET_FILE.replace('label = "zen.example"', "label = 3"),
    SECRET_FILE.replace("127.0.0.2", "127.0.0.300"),
    SECRET_FILE.replace("dq.example", "dq..example"),
    SECRET_FILE.replace("dq.example", "dq!.example"),
    SECRET_FILE + f'[zones."{KEY}.zen.dq.example"]',
    SECRET_FILE + f'[zones."{KEY}.zen.dq.example."]',
    SECRET_FILE.replace("dns =", "clients ="),
    SECRET_FILE.replace("dns =", f'helo = ["{KEY} x"]\ndns ='),
]


@pytest.mark.parametrize("text", BROKEN_SECRETS)
def test_error_never_holds_a_secret(tmp_path, text):
    """Passwords and list keys are in no error, wherever the mistake is, nor in what led to it."""
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert not [s for s in SECRETS if s in str(error.value).lower()]
    assert error.value.__context__ is None


# Whatever stands in the file.


def told(folder: Path, text: str | bytes) -> str:
    """All that is said of a file, whether it is valid or not; anything but a ConfigError fails the test."""
    try:
        return "\n".join(load(folder, text).warnings)
    except ConfigError as e:
        assert e.problems
        assert all(p.isprintable() for p in e.problems)
        return "\n".join(e.problems)


@fuzz
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_any_file_is_read_or_refused(tmp_path, text):
    """Whatever stands in the file, it is a configuration or a list of errors."""
    told(tmp_path, text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))


def _keys(model):
    return st.sampled_from([*model.model_fields, "bogus"])


_scalar = st.one_of(
    st.text(max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(),
    st.datetimes(),
    st.sampled_from(
        ["1s", "accept", "none", "file:f", "!file:f", "a.b*2", "127.0.0.1", "::1", "!", "file:hg.toml"]
    ),
)
_value = st.one_of(
    _scalar, st.lists(_scalar, max_size=3), st.dictionaries(st.text(max_size=5), _scalar, max_size=2)
)
_section = {
    name: st.one_of(_value, st.dictionaries(_keys(model), _value, max_size=4))
    for name in Settings.model_fields
    if (model := mistakes.section_of(name))
}
_tables = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(Settings.model_fields, _value)
    | _section
    | {
        "zones": st.one_of(
            _value, st.dictionaries(st.text(max_size=8), st.dictionaries(_keys(Zone), _value))
        ),
        "rule": st.one_of(
            _value, st.lists(st.one_of(_value, st.dictionaries(_keys(RuleTable), _value)), max_size=4)
        ),
        "bogus": _value,
    },
)


@fuzz
@given(_tables)
def test_any_values_are_read_or_refused(tmp_path, tables):
    """Values of every type at every key are a configuration or a list of errors."""
    told(tmp_path, tomli_w.dumps(tables).encode(errors="surrogatepass"))


@fuzz
@given(st.data())
def test_mutated_file_does_not_give_secrets_away(tmp_path, data):
    """However a file with secrets is garbled, what is said of it does not hold them."""
    text = SECRET_FILE
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.sampled_from([0, 1, 2, 8]))
        piece = data.draw(
            st.sampled_from(["", '"', "'", "\n", "]", "[", "=", "@", "/", ":", ".", "x", "\\", "#", "\0"])
        )
        text = text[:at] + piece + text[at + cut :]
    said = told(tmp_path, text)
    # A list key that looks like a word is a secret by its label alone, and that may be cut away.
    assert not [s for s in SECRETS if s in said and s != "other-key-of-ours"]
