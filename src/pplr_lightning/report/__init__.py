"""A run's folder, told as one page."""

from pplr_lightning.report.page import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
