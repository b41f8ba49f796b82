"""The prompts and sentences whose results are recorded. Changing one means recording again (README.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text and whether special tokens spelt out in it are to be recognised."""

    name: str
    text: str
    parse_special: bool = False


_CODE = '''\
def binary_search(items: list[int], wanted: int) -> int | None:
    """Return the index of `wanted` in the sorted list `items`, or None."""
    low, high = 0, len(items) - 1
    while low <= high:
        middle = (low + high) // 2
        if items[middle] == wanted:
            return middle
'''

_GERMAN_AND_JAPANESE = (
    "Die größte Brücke über den Fluss wurde 1897 eröffnet. Nach dem Hochwasser musste sie zweimal "
    "erneuert werden, und seither fährt täglich eine Straßenbahn darüber.\n"
    "東京の地下鉄は世界で最も混雑する鉄道の一つです。\n"
    "Auf Deutsch heißt das: Die U-Bahn von"
)

_CHAT_SMOLLM2 = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nHow do tides work? Answer in two sentences.<|im_end|>\n"
    "<|im_start|>assistant\n"
)

_CHAT_GEMMA = "<start_of_turn>user\nHow do tides work? Answer in two sentences.<end_of_turn>\n<start_of_turn>model\n"

_MIXED_LIST = """\
Shopping list, 12 March 2024:
1. 2 × 500 g flour (€1.29 each)
2. crème fraîche — 200 ml, <5 % fat
3. 🍎🍏 apples, 1.5kg @ 2,49/kg
4. \tHDMI cable [type "A"], 3.0m
5. привет, мир! / 你好，世界！ / مرحبا
6. https://example.org/a?b=c&d=%20e#f
7. x² + y² = z²; π ≈ 3.14159; ∑ᵢ aᵢ
8."""


def prompts(model: str) -> list[Prompt]:
    """The six prompts of `model` ("smollm2" or "gemma3-270m").

    Raises:
        ValueError: a model without recorded prompts.
    """
    chats = {"smollm2": _CHAT_SMOLLM2, "gemma3-270m": _CHAT_GEMMA}
    if model not in chats:
        raise ValueError(f"no prompts for {model!r}: one of {', '.join(sorted(chats))}")
    return [
        Prompt(name="factual", text="The capital of France is"),
        Prompt(name="code", text=_CODE),
        Prompt(name="non-english", text=_GERMAN_AND_JAPANESE),
        Prompt(name="chat", text=chats[model], parse_special=True),
        Prompt(name="long-prose", text=(DATA / "prose.txt").read_text(encoding="utf-8").rstrip("\n")),
        Prompt(name="mixed-list", text=_MIXED_LIST),
    ]


def sentences() -> list[str]:
    """Twelve texts for the embedding model: short, long, near duplicates, other scripts, odd characters."""
    prose = (DATA / "prose.txt").read_text(encoding="utf-8")
    return [
        "The cat sits on the mat.",
        "A cat is sitting on a rug.",
        "Interest rates rose by half a percentage point on Thursday.",
        "How do I undo the last commit in git without losing my changes?",
        "def add(a: int, b: int) -> int:\n    return a + b",
        "Die Katze sitzt auf der Matte.",
        "El precio del pan subió un 12 % en enero.",
        "猫がマットの上に座っている。",
        "Кошка сидит на коврике, а дождь идёт.",
        "naïve café — “quotes”, emoji 🐈 and\ttabs; PUNCTUATION!?",
        "x",
        # about 230 word pieces: near the 256 that the model was trained to take
        prose[: prose.index("I came back to Harrow Bay")][-980:].strip(),
    ]
