"""`python -m aserver.config > docs/settings.md` (also `make settings`)."""

import sys

from aserver.config.page import markdown

sys.stdout.write(markdown())
