"""What an engine reads of a checkpoint beside its weights.

A swap replaces weights only: tokenizer, processor, architecture and stop tokens must be those with which the engine
started. Two checkpoints are compared by what their files say to it, in whichever file they say it, so that the
comparison is the same in both directions. Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_READ = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "adapter_config.json",
    "params.json",
    "tekken.json",
    "*quant*.json",
    "*.model",
    "*.tiktoken",
    "additional_chat_templates/*.jinja",
)
"""Files that are read each for itself. The others are read together, or never: README, licences, training states."""
_EXTRA = ("extra_special_tokens", "additional_special_tokens")
"""Present and former name."""
_SPELLINGS = ("vocab.json", "merges.txt", "vocab.txt")
"""Read only where there is no tokenizer.json."""
_INERT_KEYS = {
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "_from_model_config",
    "is_local",
    "local_files_only",
}
_NEUTRAL = {
    "temperature": (1,),
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "max_new_tokens": (),
}
"""Defaults of sampling that vLLM takes from a checkpoint, and the values that change nothing."""


def meaning(folder: Path) -> dict[str, str]:
    """Digests of what the files say to an engine, by the name of the file that usually says it. Raises OSError."""
    config = _content(folder / "config.json")
    tokenizer = _content(folder / "tokenizer.json")
    settings = _object(folder / "tokenizer_config.json")
    template = _template(folder, settings.pop("chat_template", None))
    settings = _with_legacy_tokens(folder, settings, tokenizer)
    alone = {file.relative_to(folder).as_posix(): file for pattern in _READ for file in folder.glob(pattern)}
    if tokenizer is None:
        alone |= {name: folder / name for name in _SPELLINGS}
    said = {
        "config.json": config,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": settings,
        "chat_template.jinja": template,
        "generation_config.json": _generation(folder, config, _token_id(tokenizer, settings.get("eos_token"))),
        **{name: _content(file) for name, file in alone.items()},
    }
    return {name: _digest(content) for name, content in said.items() if content is not None}


def _digest(content: Any) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _content(file: Path) -> Any:
    """A file's content, None if it is missing. JSON is parsed, without the keys that nothing reads."""
    if not file.is_file():
        return None
    content = file.read_bytes()
    if file.suffix != ".json":
        return content
    try:
        return json.loads(content, object_hook=_without_inert_keys, parse_int=float)
    except (ValueError, RecursionError):
        return content


def _without_inert_keys(item: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in item.items() if key not in _INERT_KEYS}
    if "torch_dtype" in kept:  # its former name
        kept.setdefault("dtype", kept.pop("torch_dtype"))
    return kept


def _object(file: Path) -> dict[str, Any]:
    content = _content(file)
    return content if isinstance(content, dict) else {}


def _template(folder: Path, of_tokenizer: object) -> object:
    """The chat template, from the first of the places in which it may stand."""
    own = _content(folder / "chat_template.jinja")
    legacy = _object(folder / "chat_template.json").get("chat_template")
    found = own.decode("utf-8", "replace") if own is not None else legacy or of_tokenizer
    return found.strip() if isinstance(found, str) else found


def _with_legacy_tokens(folder: Path, settings: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """A tokenizer's settings with what the files of former releases add, unless it lists its tokens itself."""
    legacy: dict[str, Any] = {}
    if "added_tokens_decoder" not in settings:
        known = {str(token.get("content")): token.get("id") for token in _added(tokenizer)}
        added = _object(folder / "added_tokens.json")
        legacy = _object(folder / "special_tokens_map.json")
        legacy["added_tokens"] = {text: number for text, number in added.items() if known.get(text) != number}
    said = {key: _text(value) for key, value in {**settings, **legacy}.items()}
    lists = [_text(source.get(key)) for source in (settings, legacy) for key in _EXTRA]
    extra = dict.fromkeys(str(token) for tokens in lists if isinstance(tokens, list) for token in tokens)
    kept = {key: value for key, value in said.items() if not isinstance(value, list) or key not in _EXTRA}
    return {key: value for key, value in {**kept, "special": list(extra)}.items() if value not in (None, [], {})}


def _text(token: Any) -> Any:
    """A token's text, which may be wrapped into its properties. The properties are those of tokenizer.json."""
    if isinstance(token, list):
        return [_text(one) for one in token]
    return token["content"] if isinstance(token, dict) and "content" in token else token


def _added(tokenizer: Any) -> list[dict[str, Any]]:
    found = tokenizer.get("added_tokens") if isinstance(tokenizer, dict) else None
    return [token for token in found if isinstance(token, dict)] if isinstance(found, list) else []


def _token_id(tokenizer: Any, text: object) -> object:
    return next((token.get("id") for token in _added(tokenizer) if token.get("content") == text), None)


def _generation(folder: Path, config: Any, end: object) -> dict[str, Any]:
    """Stop tokens beside the tokenizer's own, and defaults of sampling; without a file those of config.json."""
    said = _content(folder / "generation_config.json")
    if not isinstance(said, dict):
        whole = config if isinstance(config, dict) else {}
        said = {**_dict(whole.get("text_config")), **{key: value for key, value in whole.items() if value is not None}}
    stops = said.get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    defaults = {key: said[key] for key, neutral in _NEUTRAL.items() if said.get(key) not in (None, *neutral)}
    return {"stops": sorted({*map(str, stops)} - {str(end), "None"}), **defaults}


def _dict(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else {}
