"""examples/ on the path, as its programs have it, so that ``studies`` can be imported."""

import sys

from tests.runs import EXAMPLES

sys.path.insert(0, str(EXAMPLES))
