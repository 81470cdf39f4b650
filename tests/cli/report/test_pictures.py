"""The report as text, SVG and PNG, and what keeps it from being made."""

from __future__ import annotations

import os
import re
from xml.etree import ElementTree as ET

import pytest

from cli.report.world import SVG, day_of_log
from hybridgrey.report import comparison, graphs
from hybridgrey.report.bins import DAY, HOUR
from hybridgrey.report.comparison import ListRejects, Proof
from hybridgrey.report.maillog import ACCEPTED, GREYLISTED, REJECTED, SPAM
from parts.commandline import in_terminal, measured


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "name the file to write"),
        (["-o", "report.pdf"], 2, "name the file to write"),
        (["-o", "report"], 2, "name the file to write"),
        (["-o", "x.svg", "--since", "1d", "--until", "2d"], 2, "--since must be before --until"),
        (["-o", "x.svg", "--since", "soon"], 2, "write a duration"),
        (["-o", "x.svg"], 1, "nothing to draw"),
        (["-o", "x.svg", "--since", "9000d", "--until", "8000d"], 1, "nothing to draw"),
        (["-o", "x.svg", "--mail-log", "missing"], 1, "missing: No such file or directory"),
        (["-o", "x.svg", "--mail-log", "/"], 1, "/: Is a directory"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors(world, words, status, said):
    """What cannot be done is said, with a status of its kind and without a file."""
    done = world.run(*words)
    assert done.status == status
    assert said in done.error
    assert "Traceback" not in done.error
    assert status == 2 or len(done.error.splitlines()) == 1


def test_the_file_that_was_there_stays_when_nothing_can_be_written(world):
    """A folder that is missing is one line; a report that was there is replaced as a whole."""
    world.write(world.switched())
    done = world.run("-o", world.folder / "missing/report.svg")
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    path = world.folder / "report.svg"
    path.write_text("before")
    os.umask(before := os.umask(0o027))
    world.document()
    assert path.read_text().startswith("<?xml")
    assert path.stat().st_mode & 0o777 == 0o666 & ~before
    assert [p.name for p in world.folder.iterdir() if p.name.startswith(".")] == []


def test_without_matplotlib(world, tmp_path):
    """Where matplotlib is missing one line says what to install; `report observed` does without."""
    block = tmp_path / "block"
    block.mkdir()
    (block / "matplotlib.py").write_text("raise ModuleNotFoundError('none', name='matplotlib')")
    environment = {"PYTHONPATH": str(block)}
    report = ("report", "-c", world.config)
    done, _ = measured(*report, "-o", world.folder / "x.svg", environment=environment)
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert "install it, or hybridgrey with its extra, hybridgrey[report]" in done.error
    world.write(world.switched())
    assert measured(*report, "observed", environment=environment)[0].status == 0


def test_without_a_home(world):
    """Where matplotlib may keep nothing it complains of that to nobody."""
    world.write(world.switched())
    done = world.run("-o", world.folder / "x.svg", environment={"MPLCONFIGDIR": "/proc/none"})
    assert (done.status, done.error) == (0, "")


def test_text(world):
    """What is printed has the means in a table, and in a terminal no trace of the progress stays."""
    world.write(world.switched())
    done = world.run("-o", world.folder / "report.html")
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines[0].startswith(f"{world.folder}/report.html: ")
    (row,) = (line for line in lines if line.startswith("Accepted"))
    assert re.fullmatch(r"Accepted [\d,]+ 1 0\.\d+ 86,\d+ [\d,]+ \N{MINUS SIGN}70%", row), row
    assert "Spam identified later is not shown: that takes mail logs, given with --mail-log." in lines
    (world.folder / "mail.log").write_text("".join(day_of_log(world.now - DAY, on=True)) * 30)
    words = ("--mail-log", world.folder / "mail.log", "-o", world.folder / "report.png")
    done = in_terminal("report", "-c", world.config, *words)
    assert done.status == 0
    assert "reading logs" in done.plain, "the progress, on the way"
    assert "Accepted" in done.plain


def test_svg(world, logs):
    """The SVG is one element with title and description, and needs nothing from elsewhere."""
    world.document(*logs)
    text = (world.folder / "report.svg").read_text()
    root = ET.fromstring(text)  # noqa: S314 (our own)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    named = {element.get("id"): element.text for element in root if element.get("id")}
    assert [named[name] is not None for name in root.get("aria-labelledby").split()] == [True, True]
    assert "switched on at" in named["report-description"]
    links = [value for one in root.iter() for name, value in one.attrib.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not any(one.tag in (f"{SVG}style", f"{SVG}script", f"{SVG}image") for one in root.iter())
    assert not any("style" in one.attrib for one in root.iter())


def test_png(world):
    """The PNG is one, large enough for a slide, and has the colours of the graphs."""
    world.write(world.switched())
    world.document(name="report.png")
    data = (world.folder / "report.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(data[16:20]) == 1600
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(data))
    shades = {
        tuple(round(float(part) * 255) for part in pixel[:3]) for pixel in pixels[::2, ::2].reshape(-1, 4)
    }
    for series in (ACCEPTED, REJECTED, GREYLISTED):
        colour = graphs.COLOURS[series]
        wanted = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
        assert any(max(abs(a - b) for a, b in zip(wanted, shade, strict=True)) < 25 for shade in shades), (
            series
        )


def test_the_same_numbers_give_the_same_file(world, logs):
    """A report that is made again is the same to the byte."""
    world.document(*logs)
    first = (world.folder / "report.svg").read_bytes()
    world.document(*logs)
    assert (world.folder / "report.svg").read_bytes() == first


def test_the_figure():
    """Four graphs from top to bottom, each with its steps, the line at the moment, and the means."""
    counts = [{ACCEPTED: 3600, SPAM: 360}, {ACCEPTED: 7200, SPAM: 720}, {ACCEPTED: 360, REJECTED: 36}]
    bins = [comparison.Bin(number * HOUR, HOUR, one, logged=True) for number, one in enumerate(counts)]
    bins.append(comparison.Bin(3 * HOUR, 0.0, {}))
    made = Proof(0, 4 * HOUR, HOUR, 2 * HOUR, bins, [ListRejects("zen", 3, 4)], ["mail logs"])
    figure = graphs.figure(made)
    *panels, lists = figure.axes
    assert [one.get_title(loc="left") for one in panels] == [graphs.TITLES[name] for name in comparison.SHOWN]
    places = [one.get_position().y0 for one in figure.axes]
    assert places == sorted(places, reverse=True)
    for axes in panels:
        at = [line for line in axes.lines if list(line.get_xdata()) == [2 / 24, 2 / 24]]
        assert len(at) == 1, "one line at the moment"
        assert [text.get_text() for text in axes.texts] == ["switched on 1970-01-01 02:00"]
    steps = panels[0].lines[0].get_ydata()
    assert list(steps[:3]) == [1.0, 2.0, 0.1]
    assert steps[3] != steps[3], "what is not known is a gap"
    assert panels[0].get_title(loc="right") == "1.5 → 0.1 per second   \N{MINUS SIGN}93%"
    assert panels[1].get_title(loc="right") == "0.15 → 0 per second   \N{MINUS SIGN}100%"
    assert panels[2].get_title(loc="right") == "0 → 0.01 per second"
    assert [bar.get_width() for bar in lists.patches] == [3, 4]
