"""Where the checkout's own files lie, whichever test asks."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
DOCS = ROOT / "docs"
