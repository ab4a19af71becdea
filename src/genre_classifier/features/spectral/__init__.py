"""Measures feature sets of a signal: core20 by SciPy alone, gtzan57 and fma518 by librosa.

The functions take samples and read no file.
"""
