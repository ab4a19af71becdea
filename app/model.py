"""The served model for other people's code: ``from app.model import model_service``."""

from genre_classifier.service.model import model_service

__all__ = ["model_service"]
