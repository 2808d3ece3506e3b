"""One route, two kinds of body: multipart/form-data with files, or application/json with base64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from service.api.problems import describe
from service.errors import InvalidRequest

_MAX_FIELDS = 8

Options = TypeVar("Options", bound=BaseModel)


async def read_body(
    request: Request, whole: type[Options], options: type[Options], files: Sequence[str]
) -> tuple[Options, list[bytes | str]]:
    """The options and the images (bytes, or base64 text) of a request.

    `whole` is the JSON body's model, `options` the same without the images named in `files`.
    Raises InvalidRequest; HTTPException 415 for any other kind of body.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = parse(whole, await request.body())
        return body, [getattr(body, name) for name in files]
    if kind == "multipart/form-data":
        async with request.form(max_files=len(files), max_fields=_MAX_FIELDS) as form:
            return _fields(form, options, files), [await _file(form, name) for name in files]
    raise HTTPException(415)


def parse(model: type[Options], body: bytes) -> Options:
    """A message out of JSON. Raises InvalidRequest, which names the field but does not repeat its value."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(describe(error)) from None


def both_forms(whole: type[BaseModel], files: Sequence[str]) -> dict[str, Any]:
    """What OpenAPI shall say of such a route's body."""
    as_json = _schema(whole)
    file = {"type": "string", "format": "binary", "description": "An image file."}
    properties = {**as_json["properties"], **dict.fromkeys(files, file)}
    forms = {"multipart/form-data": {**as_json, "properties": properties}, "application/json": as_json}
    return _request_body(forms)


def json_form(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI shall say of a body that its route reads itself."""
    return _request_body({"application/json": _schema(model)})


def _request_body(schemas: Mapping[str, Any]) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


def _schema(model: type[BaseModel]) -> Any:
    """A model's JSON schema without references, which inside OpenAPI would lead nowhere."""
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


def _fields(form: FormData, options: type[Options], files: Sequence[str]) -> Options:
    fields: Mapping[str, Any] = {name: value for name, value in form.multi_items() if name not in files}
    try:
        return options.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequest(describe(error)) from None


async def _file(form: FormData, name: str) -> bytes:
    file = form.get(name)
    if not isinstance(file, UploadFile):
        raise InvalidRequest(f"{name}: send the image as a file of the form.")
    return await file.read()
