"""The public client is the package `evoquality` in this folder; code in this repository may import it from here too."""

from evoquality import AsyncClient, Call, Client, ImageSource, ServiceError, encode_image

__all__ = ["AsyncClient", "Call", "Client", "ImageSource", "ServiceError", "encode_image"]
