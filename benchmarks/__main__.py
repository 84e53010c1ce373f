"""Runs the benchmarks: `python -m benchmarks [PART ...]`, all of them unless some are named."""

import argparse
import importlib
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.tables import Section

#: What is measured, and how many rounds of it.
PARTS: Final = {"cpu": 3, "ideal": 3, "lag": 3, "layers": 5, "journal": 5, "adaptive": 3, "memory": 1, "goodput": 1}
PLACE: Final = Path(__file__).parent
_PACKAGES: Final = ("httpx", "anyio", "httptools", "aiohttp", "openstacksdk", "keystoneauth1", "huaweicloudsdkecs")


def main() -> None:
    """Measure, print what was found, and write it down if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)} (default: all)")
    rounds = ", ".join(f"{part} {number}" for part, number in PARTS.items())
    parser.add_argument("--rounds", type=int, help=f"how often each figure is taken (default: {rounds})")
    parser.add_argument("--write", action="store_true", help="write the tables into README.md, and the picture")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be a whole number from 1 up")
    for part in options.parts or PARTS:
        rounds_of_it = options.rounds or PARTS[part]
        taken = _taken(rounds_of_it)
        section: Section = importlib.import_module(f"benchmarks.{part}").run(rounds_of_it)
        text = f"{taken}\n\n{section.text}"
        print(f"## {part}\n\n{text}\n", flush=True)
        if options.write:
            _write(part, text)
            if section.drawing is not None:
                (PLACE / f"{part}.svg").write_text(section.drawing, encoding="utf-8")


def _taken(rounds: int) -> str:
    """Say when and where figures were taken."""
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    machine = f"{platform.system()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it began"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    moment = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"Taken on {moment}: {machine}; {python}, {', '.join(versions)}; rounds: {rounds}."


def _write(part: str, text: str) -> None:
    """Put a part's tables between its marks in README.md."""
    path = PLACE / "README.md"
    readme = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->\n"
    written, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n\n{end}", readme, flags=re.DOTALL
    )
    if count != 1:
        sys.exit(f"{path.name} has not one place for {part}: {begin.strip()} ... {end.strip()}")
    path.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
