"""The common way to serve a scikit-learn scaler and a torch model. benchmarks/service.py compares with it.

It is FastAPI with pydantic models and a ``def`` endpoint, as in its tutorial. It loads the bundle by the contract alone
(torch.load, pickle, json).
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel

from genre_classifier.network import GenreClassifier

folder, name = Path(os.environ["MODEL_DIR"]), os.environ["MODEL_NAME"]
saved = torch.load(folder / f"{name}.pt", weights_only=True)
model = GenreClassifier.from_config(saved["model_config"])
model.load_state_dict(saved["model_state_dict"])
model.eval()
scaler = pickle.loads((folder / f"{name}_scaler.pkl").read_bytes())
genres = json.loads((folder / f"{name}_metadata.json").read_text())["genre_names"]
app = FastAPI()


class PredictRequest(BaseModel):
    """Body of a request."""

    features: list[float]


class TopPrediction(BaseModel):
    """One genre and its probability."""

    genre: str
    confidence: float


class PredictResponse(BaseModel):
    """Body of an answer."""

    predicted_genre: str
    predicted_index: int
    confidence: float
    top_predictions: list[TopPrediction]


@app.get("/health")
def health() -> dict[str, str]:
    """Return that the service is up."""
    return {"status": "ok"}


@app.post("/predict")
def predict(request: PredictRequest) -> PredictResponse:
    """Predict one row."""
    rows = scaler.transform(np.array([request.features]))
    with torch.no_grad():
        probabilities = torch.softmax(model(torch.tensor(rows, dtype=torch.float32)), dim=1)[0]
    values, indices = torch.topk(probabilities, 3)
    top = [
        TopPrediction(genre=genres[i.item()], confidence=v.item())
        for v, i in zip(values, indices, strict=True)
    ]
    return PredictResponse(
        predicted_genre=top[0].genre,
        predicted_index=indices[0].item(),
        confidence=top[0].confidence,
        top_predictions=top,
    )
