"""A bundle's network as an ONNX graph: written, read strictly, and run by onnxruntime.

It uses the rest of bundle/ and the rooms below it; onnx and onnxruntime are imported on first use.
"""
