"""Writes a bundle's network as an ONNX graph, reads it strictly, and runs it with onnxruntime.

Uses the rest of bundle/ and the rooms below it. onnx and onnxruntime are imported on first use.
"""
