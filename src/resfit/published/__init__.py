"""What the reports claim, what was measured, and the verdict. No torch but in `reproduce`, which trains."""

from resfit.published.claims import load_reports, row_names, select
from resfit.published.record import add_result, read_results
from resfit.published.reproduction import reproduce
from resfit.published.table import claim_rows, to_text
from resfit.published.verdicts import judge

__all__ = [
    "add_result",
    "claim_rows",
    "judge",
    "load_reports",
    "read_results",
    "reproduce",
    "row_names",
    "select",
    "to_text",
]
