"""matplotlib's SVG made fit for readers of all kinds, and for a page that allows no style of its own.

A title and a description for screen readers come in, metadata and fixed sizes go; styles become attributes,
for a strict Content-Security-Policy forbids ``style=``.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET

_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"
_DECLARATION: Final = re.compile(r"\s*([a-z-]+)\s*:\s*([^;]+?)\s*(?:;|$)")


def accessible(document: str, title: str, description: str) -> str:
    """The SVG element of a document by matplotlib, named and described, without XML head and style."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(document)  # noqa: S314 (our own)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for name, value in _DECLARATION.findall(element.attrib.pop("style", "")):
            element.set(name, value)
    # What matplotlib's style sheet says of all elements; these two are inherited.
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.set("role", "img")
    root.set("aria-labelledby", "report-title report-description")
    for number, (tag, name, text) in enumerate(
        (("title", "report-title", title), ("desc", "report-description", description))
    ):
        named = ET.Element(f"{{{_SVG}}}{tag}", {"id": name})
        named.text = text
        root.insert(number, named)
    return ET.tostring(root, encoding="unicode")


def document(element: str) -> str:
    """An SVG element as a file."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{element}\n'
