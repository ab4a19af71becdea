"""The HTTP service: one FastAPI application over a bundle, and the limits that keep it answering.

Uses the bundle, prediction and feature rooms; only the command line uses it. Start with application.py.
"""
