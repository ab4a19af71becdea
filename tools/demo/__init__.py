"""Composes and renders the demo data by rule, and measures its table: python -m tools.demo.make

Nothing here is a recording of music that anyone has made.
"""
