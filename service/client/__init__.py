"""The service from Python, blocking or asynchronous.

    with Client("http://127.0.0.1:8000") as client:
        print(client.score(Path("photo.jpg")).score)
        for item in client.score_stream([Path("a.jpg"), Path("b.jpg")]):
            print(item.index, item.result or item.problem)

    operators = Client("http://127.0.0.1:8001", key=key)
    operators.promote("v0123456789ab")

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from service.client.calls import Call, ImageSource, encode_image
from service.client.client import AsyncClient, Client
from service.client.retries import ServiceError

__all__ = ["AsyncClient", "Call", "Client", "ImageSource", "ServiceError", "encode_image"]
