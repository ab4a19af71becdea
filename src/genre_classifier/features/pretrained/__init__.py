"""Features of pretrained music taggers: their weights, their networks in NumPy.

It uses features/sets, features/spectral/filters, files and machine; nothing of torch or TensorFlow.
"""
