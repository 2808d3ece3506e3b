"""The client of EvoQuality Service, blocking or asynchronous.

    from evoquality import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.score("photo.jpg").score)
        for item in client.score_stream(["a.jpg", "b.jpg"]):
            print(item.index, item.result or item.problem)

    operators = Client("http://127.0.0.1:8001", key=key)
    operators.promote("v0123456789ab")

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from evoquality.answers import __version__
from evoquality.calls import Call, ImageSource, encode_image
from evoquality.client import AsyncClient, Client
from evoquality.retries import ServiceError

__all__ = ["AsyncClient", "Call", "Client", "ImageSource", "ServiceError", "__version__", "encode_image"]
