"""Request bodies of two kinds: multipart/form-data with files, or application/json with base64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from service.api.problems import describe
from service.errors import InvalidRequest

_MAX_FIELDS = 8
_MAX_FIELD_BYTES = 4096

Options = TypeVar("Options", bound=BaseModel)


async def read_body(
    request: Request, whole: type[Options], files: Sequence[str], most: int = 1
) -> tuple[Options, list[bytes | str]]:
    """Reads a request's options and its images (bytes, or base64 text).

    `whole` is the model of the JSON body, `files` the names of its image fields; a list of images holds up to `most`.
    Raises InvalidRequest; HTTPException 415 for any other kind of body.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = parse(whole, await request.body())
        return body, [image for name in files for image in _listed(getattr(body, name))]
    if kind == "multipart/form-data":
        room = len(files) if most == 1 else most + 1  # one more than a list takes, so that its model reports it
        limits = {"max_files": room, "max_fields": _MAX_FIELDS, "max_part_size": _MAX_FIELD_BYTES}
        async with request.form(**limits) as form:
            images = {name: await _files(form, name) for name in files}
            return _fields(form, whole, images, most), [image for name in files for image in images[name]]
    raise HTTPException(415)


def parse(model: type[Options], body: bytes) -> Options:
    """Reads a message from JSON. Raises InvalidRequest, which names the field but does not repeat its value."""
    try:
        return model.model_validate_json(body, extra="forbid")
    except ValidationError as error:
        raise InvalidRequest(describe(error)) from None


def both_forms(whole: type[BaseModel], files: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI description of a body with both forms."""
    as_json = _schema(whole)
    file = {"type": "string", "format": "binary", "description": "An image file."}
    properties = {**as_json["properties"], **{name: _as_files(as_json["properties"][name], file) for name in files}}
    forms = {"multipart/form-data": {**as_json, "properties": properties}, "application/json": as_json}
    return _request_body(forms)


def json_form(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI description of a JSON body that the route reads itself."""
    return _request_body({"application/json": _schema(model)})


def _request_body(schemas: Mapping[str, Any]) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


def _schema(model: type[BaseModel]) -> Any:
    """The JSON schema of a model with its references inlined; in an OpenAPI document they would not resolve."""
    whole = model.model_json_schema()
    named = whole.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(named[part["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in part.items()}

    return inlined(whole)


def _as_files(schema: dict[str, Any], file: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "items": file} if schema.get("type") == "array" else file


def _listed(images: str | list[str]) -> list[str]:
    return images if isinstance(images, list) else [images]


def _fields(form: FormData, whole: type[Options], images: Mapping[str, Sequence[bytes]], most: int) -> Options:
    """Builds the model from the form's fields, with stand-ins for the images, whose bytes are not text."""
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in fields:
            raise InvalidRequest("A field of the form is given twice.")
        if name not in images:
            fields[name] = value
    stand_ins = {name: "file" if most == 1 else ["file"] * len(files) for name, files in images.items()}
    try:
        return whole.model_validate({**fields, **stand_ins})
    except ValidationError as error:
        raise InvalidRequest(describe(error)) from None


async def _files(form: FormData, name: str) -> list[bytes]:
    files = [file for file in form.getlist(name) if isinstance(file, UploadFile)]
    if not files or len(files) < len(form.getlist(name)):
        raise InvalidRequest(f"{name}: send the image as a file of the form.")
    return [await file.read() for file in files]
