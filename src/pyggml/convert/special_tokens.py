"""What the files beside a vocabulary say about it: special ids, what is put around texts, the chat template."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pyggml.convert.checkpoint import Checkpoint
from pyggml.convert.fast_tokenizer import read_added_tokens
from pyggml.convert.vocabulary import AddedToken
from pyggml.errors import TokenizerError
from pyggml.gguf import GGUFWriter, ValueType

__all__ = ["TokenizerFiles"]

# the names in configurations, and those in GGUF keys
_ROLES: Final = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",  # spelled so in the key
    "pad": "padding",
    "cls": "cls",
    "mask": "mask",
}
_KEY: Final = re.compile(r"[^A-Za-z0-9]")
_MAX_TEMPLATE: Final = 4 << 20


class TokenizerFiles:
    """``tokenizer.json``, ``tokenizer_config.json``, ``generation_config.json``, ``chat_template.*`` of a folder.

    Raises:
        ModelError: a file is damaged.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint: Final = checkpoint
        self.document: Final = self._json("tokenizer.json")
        """``tokenizer.json``; empty where there is none."""
        self.config: Final = self._json("tokenizer_config.json")
        """``tokenizer_config.json``; empty where there is none."""

    def _json(self, name: str) -> dict[str, Any]:
        return self.checkpoint.json(name) if self.checkpoint.has(name) else {}

    def added_tokens(self) -> list[AddedToken]:
        """Tokens added by hand, from all files that list them; what comes later counts more.

        Raises:
            TokenizerError: an entry is broken.
        """
        found = list[AddedToken]()
        for text, id in self._json("added_tokens.json").items():
            if type(id) is not int:
                raise TokenizerError(f"added_tokens.json: {text[:40]!r} has the id {str(id)[:40]}")
            found.append(AddedToken(id, text, special=False))
        found += read_added_tokens(self.document)
        decoder = self.config.get("added_tokens_decoder")
        for id, entry in decoder.items() if isinstance(decoder, Mapping) else ():
            content = entry.get("content") if isinstance(entry, Mapping) else None
            if not isinstance(content, str) or not id.isascii() or not id.isdecimal() or len(id) > 9:
                raise TokenizerError(f"tokenizer_config.json: {id[:20]!r}: {str(entry)[:80]} is no added token")
            found.append(AddedToken(int(id), content, special=entry.get("special") is True))
        listed = self._listed()
        return [replace(token, special=token.special or token.text in listed) for token in found]

    def _listed(self) -> set[str]:
        """Texts that the configuration calls special."""
        texts = {_text(self.config.get(f"{role}_token")) for role in _ROLES}
        for key in ("additional_special_tokens", "extra_special_tokens"):
            value = self.config.get(key)
            entries = value.values() if isinstance(value, Mapping) else value
            texts |= {_text(entry) for entry in entries} if isinstance(entries, Iterable) else set()
        return {text for text in texts if text is not None}

    def write(self, writer: GGUFWriter, tokens: list[str]) -> None:
        """Add special ids, what is put around texts, and chat templates.

        Args:
            writer: Where to.
            tokens: Texts by id.
        """
        ids = self._ids(tokens)
        for role, id in ids.items():
            writer.add(f"tokenizer.ggml.{_ROLES[role]}_token_id", id)
        ends = self._json("generation_config.json").get("eos_token_id")
        if isinstance(ends, list) and ends and all(type(id) is int and 0 <= id < len(tokens) for id in ends):
            writer.add("tokenizer.ggml.eos_token_ids", ends, item=ValueType.INT32)
        for role, added in self._surroundings().items():
            writer.add(f"tokenizer.ggml.add_{role}_token", added)
        templates = dict(self._templates())
        for name, template in templates.items():
            writer.add("tokenizer.chat_template" + (f".{name}" if name != "default" else ""), template)
        if others := [name for name in templates if name != "default"]:
            writer.add("tokenizer.chat_templates", others)

    def _ids(self, tokens: list[str]) -> dict[str, int]:
        """Special ids by role: of the added tokens, else as the configuration of the model says, else by text."""
        added = {token.text: token.id for token in reversed(read_added_tokens(self.document))}
        found = {}
        for role, text in self._named().items():
            candidates = [added.get(text or ""), self.checkpoint.config.get(f"{role}_token_id")]
            if text is not None and text in tokens:
                candidates.append(tokens.index(text))
            ids = (id for id in candidates if type(id) is int and 0 <= id < len(tokens))
            if (id := next(ids, None)) is not None:
                found[role] = id
        return found

    def _named(self) -> dict[str, str | None]:
        """Texts of special tokens by role."""
        named = {role: _text(self.config.get(f"{role}_token")) for role in _ROLES}
        if self.document:
            first, last = self._ends()
            named["bos"] = named["bos"] or named["cls"] or first
            named["eos"] = named["eos"] or named["sep"] or last
        return named

    def _ends(self) -> tuple[str | None, str | None]:
        """The special tokens that the post-processor puts before and behind a text."""
        for processor in _processors(self.document.get("post_processor")):
            match processor:
                case {"type": "TemplateProcessing", "single": [first, *_, last]}:
                    return _special(first), _special(last)
        return None, None

    def _between(self) -> list[str] | None:
        """The special tokens that the post-processor puts between two texts; None where it puts nothing there."""
        for processor in _processors(self.document.get("post_processor")):
            match processor:
                case {"type": "TemplateProcessing", "pair": [*parts]}:
                    ids = [part["Sequence"].get("id") if _is_text(part) else None for part in parts]
                    if "A" in ids and "B" in ids[ids.index("A") + 2 :]:
                        between = parts[ids.index("A") + 1 : ids.index("B")]
                        return [_special(part) or "" for part in between]
        return None

    def _surroundings(self) -> dict[str, bool]:
        """Which of bos, eos and sep are put around texts; where nothing is said the defaults of the model hold."""
        found, named = dict[str, bool](), self._named()
        for processor in _processors(self.document.get("post_processor")):
            if processor.get("type") == "ByteLevel":
                found = {"bos": False, "eos": False}
            elif processor.get("type") == "RobertaProcessing":
                found = {"bos": True, "eos": True, "sep": True}
        for (role, other), text in zip((("bos", "cls"), ("eos", "sep")), self._ends(), strict=True):
            if text is not None:
                found[role] = text in (named[role], named[other])
        if (parts := self._between()) is not None:
            # the end of the first text and a separator, or only one of them
            known = [part in (named["sep"], named["eos"]) for part in parts]
            found["sep"] = any(known[1:]) or (known[0] and self._ends()[1] is None)
        for role in ("bos", "eos", "sep"):
            if isinstance(said := self.config.get(f"add_{role}_token"), bool):
                found.setdefault(role, said)
        return found

    def _templates(self) -> Iterator[tuple[str, str]]:
        value = self.config.get("chat_template")
        if value is None:
            value = self._template_file()
        match value:
            case str():
                yield "default", value
            case list():
                for entry in value:
                    match entry:
                        case {"name": str(name), "template": str(text)}:
                            yield _KEY.sub("_", name), text

    def _template_file(self) -> Any:
        path = self.checkpoint.folder / "chat_template.jinja"
        if not path.is_file():
            return self._json("chat_template.json").get("chat_template")
        if path.stat().st_size > _MAX_TEMPLATE:
            raise TokenizerError(f"{path}: is larger than {_MAX_TEMPLATE} bytes")
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start})") from None


def _text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _processors(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        inner = value.get("processors", [value])
        yield from (part for part in inner if isinstance(part, Mapping)) if isinstance(inner, list) else ()


def _is_text(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("Sequence"), Mapping)


def _special(entry: Any) -> str | None:
    match entry:
        case {"SpecialToken": {"id": str(text)}}:
            return text
    return None
