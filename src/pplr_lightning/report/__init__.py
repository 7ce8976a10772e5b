"""A run's folder, told as one page."""

from pplr_lightning.report.run_page import REPORT, write_comparison, write_report

__all__ = ["REPORT", "write_comparison", "write_report"]
