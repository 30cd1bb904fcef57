"""A model in pictures and words, from plain arrays. No torch."""

from lobbycard.report.card import write_card
from lobbycard.report.findings import Findings
from lobbycard.report.page import write_report
from lobbycard.report.words import metrics_table

__all__ = ["Findings", "metrics_table", "write_card", "write_report"]
