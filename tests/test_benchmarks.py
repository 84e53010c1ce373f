"""The benchmarks run, so that they do not rot; what they measure is not judged here."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks import __main__ as program
from benchmarks import cpu, memory, plot
from benchmarks.tables import Figure, Section, judged

README = (program.PLACE / "README.md").read_text()


def test_contenders_take_turns() -> None:
    """Each contender restarts as many servers as it was told, in each round and at each number of requests at once."""
    found = cpu.compare([cpu.OWN, cpu.STREAMS], (4,), cpu.AT_ONCE, rounds=2, count=20)

    assert list(found.times) == [(cpu.OWN, 4), (cpu.STREAMS, 4)]
    assert [len(times) for times in found.times.values()] == [2, 2]
    assert all(seconds > 0.0 for times in found.times.values() for seconds in times)
    assert found.of(cpu.AIOHTTP, 4) == []
    costs, ratios = found.costs().splitlines(), found.ratios(cpu.OWN).splitlines()
    assert costs[0] == "|  | 4 at once |"
    assert re.fullmatch(rf"\| {cpu.OWN} \| \d+ \(\d+ to \d+\) \[2 x 20\] \|", costs[2])
    assert ratios[2] == f"| {cpu.OWN} | 1.00 (1.00 to 1.00) |"
    assert ratios[3].startswith(f"| {cpu.STREAMS} | ")


@pytest.mark.unmeasured
@pytest.mark.parametrize("kind", ["results kept", "streamed"])
def test_memory_of_a_small_fleet(kind: str) -> None:
    """A run is measured whose sends are answered without a request."""
    assert memory.grow(kind, 200) >= 0


def test_figures_are_judged_by_their_medians() -> None:
    """A figure without values is not judged, and one with values is held to each of its bounds."""
    most = Figure(name="most", values=[3.0, 1.0, 2.0], must=2.0, wanted=1.5)
    least = Figure(name="least", values=[7.0], must=3.0, wanted=8.0, is_most=False)
    missing = Figure(name="missing", values=[], must=1.0)

    assert judged([most, least, missing]).splitlines()[2:] == [
        "| most | 2.00 (1.00 to 3.00) | ≤ 2: yes | ≤ 1.5: no |",
        "| least | 7.00 | ≥ 3: yes | ≥ 8: no |",
        "| missing | not measured | ≤ 1 |  |",
    ]


def test_a_curve_is_drawn() -> None:
    """The picture is SVG, names every curve that has points, and keeps the names apart."""
    drawn = plot.draw({"a & b": [(10, 90.0), (100, 100.0)], "c": [(10, 100.0)], "d": []})
    picture = ElementTree.fromstring(drawn)  # noqa: S314 (it is our own)

    texts = picture.iter("{http://www.w3.org/2000/svg}text")
    names = {text.text: float(text.attrib["y"]) for text in texts if text.text in ("a & b", "c", "d")}
    assert names.keys() == {"a & b", "c"}
    assert abs(names["a & b"] - names["c"]) >= 13.0


def test_an_unknown_part_is_refused() -> None:
    """Whoever asks for a part that there is not is told which there are, and nothing is measured."""
    command = [sys.executable, "-m", "benchmarks", "cpu", "speed"]
    done = subprocess.run(command, cwd=program.PLACE.parent, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "there is no part speed: choose from cpu, " in done.stderr


def test_every_part_has_its_place() -> None:
    """What `--write` would put into the README has its marks there, once, and the picture is shown."""
    for part in program.PARTS:
        assert README.count(f"<!-- {part} -->\n") == README.count(f"<!-- end of {part} -->\n") == 1
    assert "](cpu.svg)" in README


def test_the_tables_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--write` puts new tables and pictures in the place of the old, and touches nothing else."""
    (tmp_path / "README.md").write_text("before\n<!-- cpu -->\n\nold \\1\n\n<!-- end of cpu -->\nafter\n")
    monkeypatch.setattr(program, "PLACE", tmp_path)
    monkeypatch.setattr(cpu, "run", lambda rounds: Section(text=rf"{rounds} \1", drawing="<svg/>"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "cpu", "--rounds", "7", "--write"])

    program.main()

    before, taken, text, after = (tmp_path / "README.md").read_text().split("\n\n")
    assert (before, text, after) == ("before\n<!-- cpu -->", r"7 \1", "<!-- end of cpu -->\nafter\n")
    assert taken.startswith("Taken on ")
    assert (tmp_path / "cpu.svg").read_text() == "<svg/>"
