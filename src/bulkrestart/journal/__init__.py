"""The journal of a run: one file that survives the process, and tells the next process what was sent."""

from bulkrestart.journal.journal import Journal, read_contents, read_journal, why_not_trusted

__all__ = ["Journal", "read_contents", "read_journal", "why_not_trusted"]
