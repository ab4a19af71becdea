"""Runs musicnn's own TensorFlow graph on known signals and keeps what it says, for the tests to compare with."""
