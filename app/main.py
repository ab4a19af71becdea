"""The service for uvicorn's command: ``uvicorn app.main:app``, from the repository's root."""

from genre_classifier.service.application import app

__all__ = ["app"]
