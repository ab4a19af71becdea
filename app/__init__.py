"""The HTTP service: thin, over the library."""
