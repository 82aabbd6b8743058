"""The README's quick start is run as it stands there."""

import contextlib
import io
import re
from pathlib import Path

from jaxnas.estimators import table

README = Path(__file__).resolve().parents[1] / "README.md"


def test_quick_start_runs_and_is_short():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 25, len(lines)
    scope = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block, "README.md", "exec"), scope)
    assert float(scope["info"].accuracy) > 0.9
    assert "chain" in printed.getvalue()


def test_table_of_estimators_is_that_of_the_library():
    assert table() in README.read_text()
