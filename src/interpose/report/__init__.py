"""From what was found to what is shown: a result as data, its figures, and its page."""

from interpose.report.page import html as html, write as write
from interpose.report.result import Result as Result
