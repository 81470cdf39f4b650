"""README and guides: every command is run, every configuration loaded, every log line can be said."""

import errno
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import dns.rcode
import pytest

from hybridgrey.config import load
from parts import examples, guides
from parts.base import accepts, wait_until
from parts.guides import FOLDER, ROOT, blocks, only, said
from parts.sendmail import CF, SNIPPET

# What a block may be, and who tries it.  Without a word: a picture.
KINDS = {
    "",
    "sh",
    "toml",
    "hybridgrey.toml",
    "install",
    "lab",
    "main.cf",
    "master.cf",
    "sendmail.mc",
    "redis.conf",
    "sentinel.conf",
    "log",
    "maillog",
}
NAMES = sorted(path.name for path in FOLDER.glob("*.md"))
# These may end with 1, a negative result: a list that is not well, nothing known of somebody.
NEGATIVE = (
    "hybridgrey zones",
    "hybridgrey pools",
    "hybridgrey status",
    "greylist show",
    "greylist forget",
    "greylist list",
    "hybridgrey log",
)


def test_every_block_is_of_a_kind_that_is_tried():
    """No guide has a block that nobody tries."""
    assert len(NAMES) >= 8
    assert {block.kind for block in blocks()} <= KINDS
    pictures = [block.text for block in blocks("")]
    assert all("──" in text for text in pictures)


def test_files_in_the_text_are_there():
    """A file of contrib/ that a guide names exists."""
    for name in re.findall(r"`(contrib/[\w./-]+)`", "".join((FOLDER / n).read_text() for n in NAMES)):
        assert (ROOT / name).exists(), name


def test_keys_in_the_text_are_keys():
    """`greylist.delay` and its like, wherever a guide names one, are keys of the configuration."""
    sample = tomllib.loads((ROOT / "etc/hybridgrey.toml").read_text())
    sections = {name for name, value in sample.items() if isinstance(value, dict)}
    for name in NAMES:
        for section, key in re.findall(r"`([a-z]+)\.([a-z_0-9]+)\b", (FOLDER / name).read_text()):
            if section in sections and key != "conf":
                assert key in sample[section], (name, section, key)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_configuration_loads(block, tmp_path):
    """A piece of configuration is one, without a warning but for rules that are shown without the rest."""
    path = tmp_path / "hybridgrey.toml"
    path.write_text(block.text)
    loaded = load.load(path)
    assert loaded.rules
    assert [one for one in loaded.warnings if "key_secret" not in one] == []


@pytest.fixture(scope="module")
def postconf():
    """Postfix's own program, which knows every name."""
    if not Path("/usr/sbin/postconf").exists():
        pytest.skip("Postfix is not installed")


class Host(examples.World):
    """The folder that stands for the root, with the programs of a mail host around it."""

    def _programs(self):
        super()._programs()
        self._program(
            "apt-get",
            'for word; do case $word in -*|install) ;; ./*) test -e "$word" || exit 1 ;;'
            ' *) apt-cache show "$word" >/dev/null || exit 1 ;; esac; done',
        )
        self._program("postconf", f'exec /usr/sbin/postconf -c {self.root}/etc/postfix "$@"')
        self._program("postfix", f'[ "$1" = reload ] && /usr/sbin/postconf -c {self.root}/etc/postfix -n')
        # The group is the package's.
        self._program("chgrp", '[ "$1" = hybridgrey ] && shift && exec stat "$@"')
        (self.root / "etc/postfix/master.cf").write_text("")
        (self.root / "etc/postfix/main.cf").chmod(0o644)
        # What it really does is tried in install/test_debian.py.
        self._program(
            "systemctl", '[ "$*" = "enable --now unbound" ]'
        )  # install/test_packages.py really does
        self._program("dig", '[ "$*" = "+short @127.0.0.1 2.0.0.127.zen.spamhaus.org" ] && echo 127.0.0.2')
        self._program("make", '[ "$*" = package ] && mkdir -p dist && touch dist/hybridgrey_1_all.deb')


@pytest.fixture(scope="module")
def host(tmp_path_factory, postconf):
    with examples.running() as daemon:
        yield Host(tmp_path_factory.mktemp("root"), daemon)


def test_metrics_in_the_text_are_metrics(host):
    """Metrics that a guide names are served."""
    where, _, port = host.metrics.removeprefix("http://").partition(":")
    wait_until(lambda: accepts((where, int(port))), "the keeper serves them")
    with urllib.request.urlopen(f"{host.metrics}/metrics", timeout=30) as answer:  # noqa: S310
        served = answer.read().decode()
    named = {one for name in NAMES for one in re.findall(r"`(hybridgrey_\w+)`", (FOLDER / name).read_text())}
    assert named
    for metric in named:
        assert f"# TYPE {metric} " in served, metric


@pytest.mark.parametrize("block", [one for one in blocks("sh") if one.words == "sh"], ids=str)
def test_commands_work(host, block):
    """Each line ends well, and none with a traceback; together with those before it in its guide."""
    for line in block.text.splitlines():
        done = host.run(line)
        assert "Traceback" not in done.stderr
        negative = any(words in line for words in NEGATIVE)
        said_all = done.stdout[-500:], done.stderr[-1000:]
        assert done.returncode in ((0, 1) if negative else (0,)), (line, *said_all)


def test_the_package_is_tried_elsewhere():
    """`make package`, which the guide calls, has what it builds from, and a script with a test of its own."""
    assert "package: setup-package\n" in (ROOT / "Makefile").read_text()
    assert os.access(ROOT / "contrib/debian/build", os.X_OK)
    assert "debianpackage" in (ROOT / "tests/install/test_debian.py").read_text()


@pytest.mark.parametrize(
    ("guide", "observed"), [("small-host.md", [True, True, False]), ("README.md", [True, False])]
)
def test_changes_of_the_small_host_change_the_sample(tmp_path, guide, observed):
    """Each `sed` of the guide finds what it is to change in the sample configuration."""
    path = tmp_path / "hybridgrey.toml"
    shutil.copy(ROOT / "etc/hybridgrey.toml", path)
    lines = [
        line
        for block in blocks("sh")
        if block.guide == guide
        for line in block.text.splitlines()
        if line.startswith("sed")
    ]
    modes = []
    for line in lines:
        before = path.read_text()
        command = line.replace("/etc/hybridgrey/hybridgrey.toml", str(path))
        subprocess.run(["bash", "-c", command], check=True)
        assert path.read_text() != before, line
        modes.append(load.load(path).observe)
    assert modes == observed
    if guide == "small-host.md":
        assert [one for one, _ in load.load(path).dns.nameservers] == ["127.0.0.1"]


def test_lines_for_postfix_are_postfixs(tmp_path, postconf):
    """postconf knows each name of a main.cf, takes its value, and each service of a master.cf."""
    assert blocks("main.cf")
    for block in blocks("main.cf", "master.cf"):
        (tmp_path / "main.cf").write_text(block.text if block.kind == "main.cf" else "")
        (tmp_path / "master.cf").write_text(block.text if block.kind == "master.cf" else "")
        what = ["-n"] if block.kind == "main.cf" else ["-M"]
        command = ["/usr/sbin/postconf", "-c", str(tmp_path), *what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == "", (block, done.stderr)
        given = [line for line in block.text.splitlines() if line and line[0] not in "# \t"]
        # postconf adds where it looked.
        found = [line for line in done.stdout.splitlines() if not line.startswith("config_directory")]
        assert len(found) == len(given), block


@pytest.mark.parametrize("name", ["main.cf", "main.cf.postscreen", "master.cf.postscreen"])
def test_lines_for_postfix_are_those_of_contrib(name):
    """What a guide shows of contrib/postfix stands there, line by line."""
    there = (ROOT / "contrib/postfix" / name).read_text().splitlines()
    guide = "from-postscreen.md" if name.endswith("postscreen") else "from-milter-greylist.md"
    for line in only(guide, name.removesuffix(".postscreen")).splitlines():
        assert line in there, line


def test_the_command_for_postfix_is_one():
    """README, guides, contrib/postfix and `make run` have the same, which keeps other milters."""
    shown = {
        line
        for block in blocks("sh")
        for line in block.text.splitlines()
        # The loop for services of their own is tried by tests/mta/test_postfix_snippets.py.
        if line.startswith("postconf") and "postconf -e" in line and "inet:" in line
    }
    adds = {line for line in shown if "{ unix:" not in line}
    assert len(adds) == 1
    (command,) = adds
    assert f"#   {command}\n" in (ROOT / "contrib/postfix/main.cf").read_text()
    assert f"    {command}\n" in (ROOT / "contrib/setup/run").read_text().replace("\\$(", "$(")
    assert all("$(postconf -h smtpd_milters" in line for line in shown)


def test_the_content_filters_service_is_that_of_contrib():
    """The lines of master.cf in the guide stand in contrib/postfix, which a real Postfix tries."""
    assert only("mta.md", "master.cf") in (ROOT / "contrib/postfix/master.cf").read_text()
    there = (ROOT / "contrib/postfix/hybridgrey.toml.socket").read_text()
    assert only("mta.md", "hybridgrey.toml") in there


def test_only_lists_and_greylisting_leave_the_restrictions():
    """What the guide takes out of main.cf is postgrey and the lists; every other word stays, in its order."""
    before, after = (
        only("from-postgrey.md", f"main.cf {words}").splitlines() for words in ("before", "after")
    )
    gone = [line for line in before if line not in after]
    assert [line for line in before if line not in gone] == after
    assert [line.split()[0] for line in gone] == [
        "permit_dnswl_client",
        "reject_rbl_client",
        "check_policy_service",
    ]
    assert gone[-1].split()[1] == "inet:127.0.0.1:10023,"


@pytest.mark.parametrize("line", [line for b in blocks("lab") for line in b.text.splitlines()])
def test_commands_of_the_lab_are_commands(line):
    """The lab's own parser takes each line; those for hybridgrey itself are handed on."""
    specification = importlib.util.spec_from_file_location("lab_client", ROOT / "contrib/lab/client.py")
    client = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(client)
    words = shlex.split(line, comments=True)
    if words[0] not in client.HOST_COMMANDS:
        assert client.parser().parse_args(words).do == words[0]


def test_alerts_are_counted_right():
    """The guide has the number of alerts that there are."""
    rules = (ROOT / "contrib/prometheus/hybridgrey.rules.yml").read_text()
    count = len(re.findall(r"^ *- alert:", rules, re.MULTILINE))
    assert f"has {count} alerts" in (FOLDER / "monitoring.md").read_text()


def test_what_is_to_be_installed():
    """Packages are those that `make run` installs, paths are there, and README and guide say the same."""
    packages = (ROOT / "contrib/setup/packages").read_text().partition("run=(")[2].partition(")")[0].split()
    lines = [line for block in blocks("install") for line in block.text.splitlines()]
    wanted = {word for line in lines if line.startswith("apt install") for word in line.split()[2:]}
    assert wanted == set(packages) - {"libc6-dev"}  # gcc brings it
    for line in lines:
        for path in re.findall(r"(?<![\w/])(?:etc|contrib)/[\w./-]+", line):
            assert (ROOT / path).exists(), path
    assert only("README.md", "install") in only_all("install.md", "install")
    copied = {path for line in lines for path in re.findall(r"share/doc/hybridgrey/(\S+)", line)}
    assert copied
    assert [path for path in copied if not list(ROOT.glob(path))] == []


def only_all(guide, words):
    return "".join(block.text for block in blocks(words) if block.guide == guide)


@pytest.mark.skipif(not CF.exists(), reason="Sendmail is not unpacked: run contrib/setup/sendmail")
@pytest.mark.parametrize("block", blocks("sendmail.mc"), ids=str)
def test_lines_for_sendmail_are_sendmails(block, tmp_path):
    """m4 makes a filter of them."""
    lines = block.text.replace("/etc/mail/hybridgrey.m4", str(SNIPPET))
    head = f"define(`_CF_DIR_', `{CF}/')\ninclude(`{CF}/m4/cf.m4')\nOSTYPE(`linux')\n"
    (tmp_path / "sendmail.mc").write_text(f"{head}{lines}MAILER(`smtp')\n")
    made = subprocess.run(["m4", tmp_path / "sendmail.mc"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"^Xhybridgrey, S=inet:8893@127\.0\.0\.1, T=", made, re.MULTILINE)
    assert re.search(r"^O InputMailFilters=hybridgrey$", made, re.MULTILINE)


@pytest.mark.parametrize("line", [line for b in blocks("log") for line in b.text.splitlines()])
def test_log_lines_can_be_said(line):
    """Event and reasons of a line of our log are texts of the source, or of the system."""
    if not line.startswith("{"):
        assert said(line)
        return
    fields = json.loads(line)
    assert is_event(fields["event"]), fields["event"]
    for name in ("error", "reason", "problem"):
        if name in fields:
            # A problem begins with its file and its key.
            text = fields[name].rpartition(": ")[2] if name == "problem" else fields[name]
            assert is_reason(text), fields[name]


def is_event(event):
    """Whether it is an event by itself, or of something that fails and recovers."""
    noun, _, how = event.rpartition(" ")
    # "zone:LABEL" is logged as "zone failing", with its name.
    trouble = how in ("failing", "recovered") and re.search(rf'"{re.escape(noun)}[":]', source())
    return said(event) or bool(trouble)


def is_reason(text):
    """Whether the source, the system or DNS says so."""
    system = {os.strerror(number) for number in errno.errorcode}
    return text in system or text in {one.name for one in dns.rcode.Rcode} or said(text)


def source():
    return "\n".join(path.read_text() for path in guides.SOURCE.rglob("*.py"))


@pytest.mark.parametrize("line", [line for b in blocks("maillog") for line in b.text.splitlines()])
def test_maillog_lines_can_be_said(line):
    """A line of an MTA's log is one of its formats, and our part of it is one of ours."""
    text = line.removeprefix("warning: ")
    if "milter-reject" in text:
        assert "Greylisted, please try again in {seconds} seconds" in source()
        text = "milter-reject"
    programs = [Path("/usr/lib/postfix/sbin/smtpd"), CF.parents[3] / "usr/libexec/sendmail/sendmail"]
    formats = [form for program in programs if program.exists() for form in strings(program)]
    assert any(len(form) > 10 and guides.from_printf(form).fullmatch(text) for form in formats), text


def strings(program):
    """The texts in a program that speak of milters."""
    found = re.findall(rb"[\x20-\x7e]{8,}", program.read_bytes())
    return [one.decode() for one in found if b"ilter" in one]


def table(name):
    """The rows of the table behind <!-- name --> in the guide about a row of hosts."""
    text = (FOLDER / "mx-row.md").read_text().partition(f"<!-- {name} -->\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1] for row in rows if row[1] and not row[1].startswith("--")}


def number(text):
    """The number at the head of a cell."""
    return float(re.match(r"[\d,.]+", text)[0].replace(",", ""))


def test_the_arithmetic_is_right():
    """Each number of the plans follows from the measured ones."""
    new, seen, redis, single, cluster = (number(cell) for cell in list(table("measured").values())[1:])
    assert seen < new
    row = [number(cell) for cell in table("row").values()]
    triplets = 20_000 * 36 + 500_000 * 2
    wanted = [triplets, triplets * single / 1e6, 2 * triplets * single / 1e6]
    wanted += [1_000 * new * 2 / 1e6, 1_000 * redis * 2 / 1e6]
    assert row == pytest.approx(wanted, rel=0.04)
    plan = [number(cell) for cell in table("plan").values()]
    memory, busy = 100_000_000 * cluster / 1e9, 100_000 * redis / 1e6
    cores = 100_000 * new / 1e6
    wanted = [memory, busy, busy * 2, busy * 2 + 1, memory / 6, 2 * memory / 6, 12, 12 * 2 * memory / 6]
    wanted += [cores, 2 * cores, -(-2 * cores // 16), 400_000]
    assert plan == pytest.approx(wanted, rel=0.04)
    assert "maxmemory 6400mb" in only("mx-row.md", "redis.conf cluster")
