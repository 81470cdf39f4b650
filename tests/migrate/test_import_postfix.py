"""``hybridgrey import postfix``: a corpus of main.cf files, each with the rules that are wanted of it."""

import atexit
import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from hybridgrey.config import load
from hybridgrey.migrate.maincf import MainCf, MainCfError, parse
from parts import forked

# A copy at a short path: where long comments are folded must not depend on where the tests lie.
FOLDER = Path(tempfile.mkdtemp(prefix="hg-")) / "maincf"
shutil.copytree(Path(__file__).parents[1] / "maincf", FOLDER)
atexit.register(shutil.rmtree, FOLDER.parent, ignore_errors=True)
CORPUS = sorted(FOLDER.glob("*.cf"))
PROGRAM = [sys.executable, "-c", "from hybridgrey.cli import main; main()"]


def run(*args, **options):
    """The finished command."""
    return forked.run("import", "postfix", *args, **options)


def wanted(source):
    """The rules and lists wanted of a file of the corpus, "@" in them being its folder."""
    return taken(source.with_suffix(".toml").read_text().replace("@/", f"{FOLDER}/"))


def taken(text):
    """The rules and lists of a configuration."""
    content = tomllib.loads(text)
    return content.get("rule", []), content.get("zones", {})


@pytest.mark.parametrize("source", CORPUS, ids=lambda path: path.stem)
def test_corpus(source, tmp_path):
    """Each main.cf gives its rules, and the text that is printed loads as a config file."""
    done = run(source)
    assert done.returncode == 0, done.stderr
    assert taken(done.stdout) == wanted(source)
    path = tmp_path / "hybridgrey.toml"
    path.write_text(done.stdout)
    assert load.load(path).rules


def test_the_corpus_is_there():
    """At least ten shapes of main.cf are tried."""
    assert len(CORPUS) >= 10


def unwrapped(text):
    """The output with each comment in one line; where they are folded depends on this folder's name."""
    return text.replace("\n#   ", " ")


def test_every_rule_names_its_line():
    """Above each rule stands the line of main.cf that each of its parts comes from."""
    source = FOLDER / "01-design.cf"
    blocks = unwrapped(run(source).stdout).split("\n\n")
    assert blocks[2].startswith(
        f"# {source}:5: smtpd_recipient_restrictions: reject_rbl_client bl.mailspike.net\n"
        f"# {source}:6: smtpd_recipient_restrictions: reject_rbl_client zen.spamhaus.org\n[[rule]]"
    )


def test_words_of_variables_keep_their_line():
    """A restriction that comes in through a variable is traced to the line where it was typed."""
    out = unwrapped(run(FOLDER / "03-variables.cf").stdout)
    assert "03-variables.cf:5: smtpd_recipient_restrictions: reject_rbl_client dnsbl.sorbs.net" in out
    assert "03-variables.cf:2: smtpd_recipient_restrictions: reject_rbl_client bl.spamcop.net" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("05-mixed-map", "reject_rhsbl_sender dbl.spamhaus.org: not taken over"),
        ("05-mixed-map", "permit_rhswl_client swl.example: not taken over"),
        ("05-mixed-map", "check_sender_access hash:"),
        ("05-mixed-map", "reject_unknown_client_hostname: not taken over; leave it in main.cf"),
        ("06-greylist-first", "greylisting is taken over already"),
        ("08-bad", "08-bad.cf:2: this is no setting: no setting of main.cf"),
        ("08-bad", 'a range runs backwards at "zen.spamhaus.org=127.0.0.[>4..1<]"'),
        ("08-bad", "smtpd_helo_restrictions: cannot be read: parameters refer to each other in a loop"),
        ("08-bad", 'smtpd_sender_restrictions: cannot be read: a "{" is not closed'),
        ("08-bad", "a map of type mysql is no text"),
        ("08-bad", "check_client_access: has no argument"),
        ("08-bad", "/nonexistent/clients: does not exist here"),
        ("08-bad", "never reached: the weights sum up to 2 at most"),
        ("09-postconf-n", 'the rule "blocklists" does this already'),
        ("10-closed", 'the rule "reject the rest" before it decides everything'),
        ("12-isp", "the port of policyd-weight"),
        ("13-brackets", 'a number is missing at "odd.example=127.0.0.[><"'),
        ("14-labels", "rbl_reply_maps: ….other.example: no name can be taken from its reply"),
        ("14-labels", "replies will show the names of ….other.example, ….third.vendor.example"),
    ],
)
def test_what_is_not_taken_over_is_said(name, said):
    """What no rule stands for is named on stderr, one a line, and stands in a comment too."""
    done = run(FOLDER / f"{name}.cf")
    assert said in done.stderr
    comments = " ".join(line.lstrip("# ") for line in done.stdout.splitlines() if line.startswith("#"))
    assert said.replace(": ", " ") in comments.replace(": ", " ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("05-mixed-map", "not taken over: line 2: 192.0.2.66 REJECT you again"),
        ("05-mixed-map", "not taken over: line 5: evil.example 554 go away"),
        ("05-mixed-map", "mynetworks is not set (mynetworks_style = host)"),
        ("06-greylist-first", "moved to the end"),
        ("07-trial", "warn_if_reject: logged and counted only"),
        ("09-postconf-n", "not taken over: hash:/etc/postfix/networks"),
        ("12-isp", "here it accepts for good, past smtpd_recipient_restrictions"),
        ("13-brackets", "blanks inside brackets taken out"),
    ],
)
def test_rules_that_differ_say_so(name, said):
    """A rule that is not quite what Postfix did says so above it."""
    out = run(FOLDER / f"{name}.cf").stdout
    assert said in " ".join(line.lstrip("# ") for line in out.splitlines())


def test_keys_of_lists_are_not_told():
    """What is said on stderr of a list does not show the key in its name."""
    done = run(FOLDER / "14-labels.cf")
    for key in ("k3yk3yk3yk3yk3yk3y", "0a1b2c3d4e5f6a7b8c9d", "abcdefghijklmnopqrst"):
        assert key not in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("01-design", "6 restrictions taken over in 4 rules, 0 not"),
        ("06-greylist-first", "3 restrictions taken over in 3 rules, 0 not"),
        ("11-nothing", "0 restrictions taken over in 0 rules, 0 not"),
        ("13-brackets", "8 restrictions taken over in 6 rules, 1 not"),
    ],
)
def test_the_summary_counts_what_decides(name, said):
    """The first line says how many restrictions were taken over, and how many that decide were not."""
    assert said in run(FOLDER / f"{name}.cf").stdout.splitlines()[0]


@pytest.mark.program
def test_nothing_is_said_twice(tmp_path):
    """A thing that stands twice in a line is told once; on a terminal the comments alone say it."""
    source = tmp_path / "main.cf"
    source.write_text("smtpd_client_restrictions = foo foo foo\n reject_rbl_client z.example\n")
    assert len(run(source).stderr.splitlines()) == 1
    leader, follower = pty.openpty()
    command = [*PROGRAM, "import", "postfix", str(source)]
    with open(leader, "rb", buffering=0) as screen:  # noqa: PTH123
        with open(follower, "wb", buffering=0) as terminal:  # noqa: PTH123
            subprocess.run(
                command, stdout=terminal, stderr=terminal, check=True, env={**os.environ, "TERM": "xterm"}
            )
        pieces = []
        # Nobody writes any more: an error is the end.
        with contextlib.suppress(OSError):
            while piece := screen.read(10_000):
                pieces.append(piece)
        text = b"".join(pieces).decode()
    # A long path makes the line go on in the next one.
    text = re.sub(r"\r\n#   ", " ", text)
    assert text.count("foo: not taken over") == 0
    assert text.count("smtpd_client_restrictions: foo") == 1


def test_standard_input():
    """The output of postconf -n is read from standard input."""
    source = FOLDER / "09-postconf-n.cf"
    done = run("-", input=source.read_text())
    assert taken(done.stdout) == wanted(source)
    assert "# postconf:4: smtpd_client_restrictions: permit_mynetworks" in done.stdout


def test_json():
    """With --json rules and losses are one JSON object."""
    report = json.loads(run("--json", FOLDER / "05-mixed-map.cf").stdout)
    assert [r["name"] for r in report["rules"]] == ["mynetworks", "access", "blocklists"]
    assert all(loss["origin"] and loss["notes"] for loss in report["not_taken_over"])


def test_missing_file_is_one_line():
    """A file that cannot be read is one line on stderr and status 1."""
    done = run("/nonexistent/main.cf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hybridgrey: /nonexistent/main.cf: No such file or directory\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = $b\nb = 1", "1"),
        ("a = ${b}$(b)\nb = 1", "11"),
        ("a = x$$b", "x$b"),
        ("a = ${b?yes}${b:no}", "no"),
        ("a = ${b?yes:no}\nb = 1", "yes"),
        ("a = ${b?{$b and {c}}:{no}}\nb = 1", "1 and {c}"),
        ("a = ${{$b} == {1} ? {one} : {other}}\nb = 1", "one"),
        ("a = ${{$b} < {10} ? {less} : {more}}\nb = 9", "less"),
        ("a = 1\na = 2", "2"),
        ("a = 1\n# no end\n\n  2", "1\n  2"),
        ("a =\n b", "b"),
    ],
)
def test_expansion(text, value):
    """Values are expanded as Postfix does it."""
    assert MainCf(text, {}).value("a").text == value


@pytest.mark.parametrize(
    "text", ["a = $a", "a = ${", "a = ${b?", "a = ${}", "a = ${{x} ? {y}}", "a = ${b c}"]
)
def test_bad_references(text):
    """A reference that cannot be expanded is an error, never an endless loop."""
    with pytest.raises(MainCfError):
        MainCf(text, {}).value("a")


@pytest.mark.slow
def test_expansion_is_bounded():
    """Parameters that double each other end in an error before memory does."""
    text = "\n".join(f"p{n} = $p{n + 1} $p{n + 1}" for n in range(38)) + "\np38 = xx\n"
    with pytest.raises(MainCfError):
        MainCf(text, {}).value("p0")


def test_lines_before_the_first_setting():
    """A continuation of nothing is passed over."""
    assert parse("  x\n a\nb = 1\n")[0].keys() == {"b"}


@pytest.mark.parametrize(
    "text",
    [
        "smtpd_recipient_restrictions = check_client_access {\n hash:/b }",
        "postscreen_dnsbl_sites = {\n a } z.example\n",
        "smtpd_client_restrictions = check_client_access hash:/\x01\x07\x7f",
        "postscreen_dnsbl_sites = z.example\npostscreen_access_list = \x07 word é\u2028:x",
        "soft_bounce = $soft_bounce\nmynetworks = $soft_bounce\n"
        "smtpd_client_restrictions = permit_mynetworks reject_rbl_client z.example",
        "smtpd_client_restrictions = warn_if_reject\nmynetworks = !10.0.0.0/8\n",
        "smtpd_restriction_classes = a b\na = b\nb = a\nsmtpd_client_restrictions = a reject",
    ],
)
def test_odd_text_gives_a_config(text, tmp_path):
    """Whatever stands in a main.cf, what is printed loads as a config file."""
    done = run("-", input=text)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    path = tmp_path / "hybridgrey.toml"
    path.write_text(done.stdout)
    assert load.load(path).rules
