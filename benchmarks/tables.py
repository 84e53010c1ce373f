"""What a benchmark tells: Markdown tables of medians, with the lowest and the highest value of all rounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

#: The head of a table of figures that have bounds.
_JUDGED: Final = ("figure", "median (lowest to highest)", "must be", "is to be")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one part has found.

    Attributes:
        text: Its tables, in Markdown.
        drawing: A picture of it, as SVG; None if it has none.
    """

    text: str
    drawing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure that has bounds.

    Attributes:
        name: What it is.
        values: It, one for each round; none if it was not measured.
        must: What it must keep.
        wanted: What it is to keep.
        form: How a value is written.
        is_most: The bounds are the highest that it may be, and not the lowest.
    """

    name: str
    values: Sequence[float]
    must: float
    wanted: float | None = None
    form: str = ".2f"
    is_most: bool = True

    @property
    def row(self) -> tuple[str, ...]:
        """Its row in the table."""
        bounds = ["" if bound is None else self._bound(bound) for bound in (self.must, self.wanted)]
        return self.name, spread(self.values, form=self.form) if self.values else "not measured", *bounds

    def _bound(self, bound: float) -> str:
        words = f"{'≤' if self.is_most else '≥'} {bound:g}"
        if not self.values:
            return words
        value = median(self.values)
        is_kept = value <= bound if self.is_most else value >= bound
        return f"{words}: {'yes' if is_kept else 'no'}"


def judged(figures: Iterable[Figure]) -> str:
    """Write a table of figures that have bounds, and whether their medians keep them."""
    return table(_JUDGED, [figure.row for figure in figures])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; its first column names the row."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], unit: float = 1.0, form: str = ".2f") -> str:
    """Write the median, and the lowest and the highest of several values."""
    middle, lowest, highest = (format(value * unit, form) for value in (median(values), min(values), max(values)))
    return f"{middle} ({lowest} to {highest})" if len(values) > 1 else middle


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divide what was measured in the same round; a series that ends early has fewer."""
    return [value / of for value, of in zip(values, base, strict=False)]
