"""Tests of the run on a GPU: its parts import benchmarks as these import each other, by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
