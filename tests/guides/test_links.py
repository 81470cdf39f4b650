"""README, CONTRIBUTING and guides: short where they must be, and every link leads somewhere."""

import re
from urllib.parse import urlsplit

import pytest

from parts.guides import FOLDER, README, ROOT

PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(FOLDER.glob("*.md"))]
LINK = re.compile(r"\]\(([^()\s]+)\)")


def prose(page):
    """A page without its blocks of code, which may have brackets of their own."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every link to this tree is to a file that exists, and to a heading that it has."""
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_elsewhere_are_addresses(page):
    """One that leads out of the tree is an https address of a named host, without blanks or brackets."""
    for target in re.findall(r"\]\(([^)]*)\)", prose(page)):
        if "://" not in target:
            assert LINK.fullmatch(f"]({target})"), target
            continue
        parts = urlsplit(target)
        assert parts.scheme == "https", target
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}", parts.netloc), target
        assert re.fullmatch(r"[\w/.~#%?=&+-]*", target.partition(parts.netloc)[2]), target


def test_pictures_are_small():
    """A picture that a page shows is a PNG of at most 100 kB, and as wide as a page."""
    shown = [
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]+\]\(([^()\s]+)\)", page.read_text())
    ]
    assert ROOT / "contrib/guides/page.png" in shown
    for path in shown:
        head = path.read_bytes()
        assert head.startswith(b"\x89PNG")
        assert len(head) <= 100_000
        assert 800 <= int.from_bytes(head[16:20], "big") <= 1600


def test_the_readme_is_short():
    """A newcomer reads it to the end."""
    assert len(README.read_text().splitlines()) <= 150


def test_the_readme_leads_to_each_guide():
    """None is found only by those who list the folder."""
    links = LINK.findall(README.read_text())
    assert {f"contrib/guides/{path.name}" for path in FOLDER.glob("*.md")} <= set(links)


def test_make_has_what_is_named():
    """`make run`, `make test` and all others that are named are targets of the Makefile."""
    texts = [page.read_text() for page in PAGES]
    named = {
        name for text in texts for name in re.findall(r"(?:^ {4}|`|^)make ([a-z-]+)", text, re.MULTILINE)
    }
    assert {"run", "test"} <= named
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named <= set(targets)
