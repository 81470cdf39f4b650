"""The README and the guides: their blocks of code, and the texts that this program's source can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "contrib/guides"
README = ROOT / "README.md"
SOURCE = ROOT / "milter/hybridgrey"


class Block(NamedTuple):
    """A fenced block: the guide's name, the line it begins in, its words after the fence, its text."""

    guide: str
    line: int
    words: str
    text: str

    def __str__(self) -> str:
        return f"{self.guide}:{self.line}"

    @property
    def kind(self) -> str:
        """The first of its words: the language."""
        return self.words.partition(" ")[0]


@cache
def blocks(*kinds: str) -> tuple[Block, ...]:
    """All blocks of the README and the guides, or those of some kinds."""
    found = [block for path in (README, *sorted(FOLDER.glob("*.md"))) for block in _blocks(path)]
    return tuple(block for block in found if not kinds or block.kind in kinds)


def _blocks(path: Path) -> Iterator[Block]:
    text = path.read_text()
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(path.name, text.count("\n", 0, match.start()) + 1, match[1], match[2])


def only(guide: str, words: str) -> str:
    """The text of the one block with these words in a guide."""
    (block,) = [one for one in blocks() if (one.guide, one.words) == (guide, words)]
    return block.text


@cache
def sayings() -> tuple[re.Pattern[str], ...]:
    """What strings of the source can become, as patterns; without those of hardly a letter of their own."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Constant(value=str(text)) if len(text) > 3:
                    found.add(re.escape(text))
                case ast.JoinedStr(values=values):
                    parts = [one.value if isinstance(one, ast.Constant) else None for one in values]
                    if sum(len(str(part)) for part in parts if part) > 5:
                        found.add("".join(".*" if part is None else re.escape(str(part)) for part in parts))
    return tuple(re.compile(pattern, re.DOTALL) for pattern in found)


def said(text: str) -> bool:
    """Whether the source has this text, with whatever stands in its place for values."""
    return any(pattern.fullmatch(text) for pattern in sayings())


def from_printf(form: str) -> re.Pattern[str]:
    """What a format of C's printf can become."""
    parts = re.split(r"%[-0-9.*l]*[a-zA-Z]", form)
    return re.compile(".*".join(re.escape(part) for part in parts), re.DOTALL)
