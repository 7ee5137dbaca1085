"""The ledger of claims: what the paper, its reviews and its follow-up say, each with a test that was written down
before looking, and the verdict that runs give (``python -m reports claims``)."""

from reports.claims.ledger import LEDGER, PARTS
from reports.claims.verdict import VERDICTS, Finding, Judged, judge

__all__ = ["LEDGER", "PARTS", "VERDICTS", "Finding", "Judged", "judge"]
