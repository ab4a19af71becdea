"""Tests of the service; skipped where its extras are not installed."""

import pytest

for package in (
    "fastapi",
    "uvicorn",
    "httptools",
    "onnxruntime",
    "onnx",
    "msgspec",
    "python_multipart",
    "httpx",
):
    pytest.importorskip(package, reason="needs the extras serve and onnx")
