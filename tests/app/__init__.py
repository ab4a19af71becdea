"""Tests of the service; skipped where its extras are not installed."""

import pytest

for package in ("fastapi", "uvicorn", "httptools", "onnxruntime", "onnx", "msgspec"):
    pytest.importorskip(package, reason="needs the extras serve and onnx")
