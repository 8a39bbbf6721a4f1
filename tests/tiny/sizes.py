"""The sizes of whatever a test trains: small enough for seconds, large enough to learn."""

from __future__ import annotations

from typing import Any

IMAGE_ENCODER: dict[str, Any] = {"backbone": "resnet18", "weights": None, "width": 0.125}
REPORT_ENCODER: dict[str, Any] = {
    "name": "new",
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "intermediate_size": 64,
}
# Fields that only some methods have.
HEADS: dict[str, Any] = {
    "embedding_dim": 16,
    "projection_dim": 16,
    "projection_hidden_dim": 32,
    "pooling_heads": 4,
    "prototypes": 5,
}
VOCABULARY_SIZE = 40
IMAGE_SIZE_PX = 64
