"""Scores → tables, curves, maps → one self-contained HTML page."""

from sciladm.report.maps import MapPanel, draw_samples
from sciladm.report.page import write_report
from sciladm.report.tables import print_table

__all__ = ["MapPanel", "draw_samples", "print_table", "write_report"]
