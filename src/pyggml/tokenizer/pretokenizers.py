"""How each named kind of BPE cuts text into words before it merges: ``tokenizer.ggml.pre`` as data.

A GGUF file does not carry the regular expressions of its tokenizer, only a name for them. The names and what
they stand for are facts fixed by llama.cpp's ``llama-vocab.cpp`` and by the ``tokenizer.json`` that each
model was published with. Where the two differ (llama.cpp's regex engine lacks ``\\p{Lu}``, possessive
quantifiers and set intersection), the published expression is kept, because the model was trained with it. That
shows in tiny_aya, cohere2moe, youtu and kimi-k2, where llama.cpp does not part "iPhone" as the published ones do.

All patterns are in Oniguruma syntax and are applied one after the other: each cuts every piece that the ones
before left, a match and the text between matches both becoming pieces of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from pyggml.errors import TokenizerError

__all__ = ["PRE_TOKENIZERS", "PreTokenizer", "find_pre_tokenizer"]


@dataclass(frozen=True)
class PreTokenizer:
    """One way to cut text into words, and the defaults that go with its name."""

    patterns: tuple[str, ...]
    """Oniguruma expressions, applied in this order."""
    ignore_merges: bool = False
    """A word that is itself a token is taken whole, without merging."""
    add_bos: bool = False
    """Default of ``tokenizer.ggml.add_bos_token``."""
    force_bos: bool = False
    """BOS is added even when the file says otherwise (Gemma 4's files say so wrongly)."""
    add_sep: bool = False
    """Default of ``tokenizer.ggml.add_sep_token``."""
    default_bos: bool = True
    """False if a file without ``bos_token_id`` has no BOS."""
    byte_level: bool = True
    """Tokens are spelled in GPT-2's byte alphabet; else in UTF-8 with ``<0xXX>`` tokens for the rest."""
    escape_spaces: bool = False
    """Spaces are spelled U+2581 in the vocabulary."""
    ranked: bool = False
    """A file without merges orders them by token id, as tiktoken does."""


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _SPACES
_NO_DIGITS_OR_NEWLINE = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PUNCTUATION_RUN = r" ?[^\s\p{L}\p{N}]+"
_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_CJK_AND_KANA = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
_CJK_AND_HANGUL = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"
_LINES = r"[^\n]+|[\n]+"
_BLOOM = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+"


def _words(letters: str, digits: str, *, contractions: str = _CONTRACTIONS + "|") -> str:
    """The family that began with cl100k: contractions, words, numbers, punctuation, line ends, spaces."""
    words = f"{_NO_DIGITS_OR_NEWLINE}{letters}+|{digits}"
    return rf"{contractions}{words}|{_PUNCTUATION_RUN}[\r\n]*|\s*[\r\n]+|{_SPACES}"


def _cased_words(digits: str, suffix: str, *, upper: str = _UPPER, lower: str = _LOWER, tail: str = r"[\r\n/]*") -> str:
    """The family that began with o200k: a word also ends where lower case turns to upper."""
    start = _NO_DIGITS_OR_NEWLINE
    words = f"{start}{upper}*{lower}+{suffix}|{start}{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}|{_PUNCTUATION_RUN}{tail}|\s*[\r\n]+|{_SPACES}"


def _digits_from_the_right(digit: str, *, end: str = "") -> tuple[str, str, str]:
    """Groups of three counted from the last digit.

    Three passes keep this linear in the run; the usual lookahead per group is quadratic.
    """
    run = rf"(?<!{digit}){digit}++{end}"
    return (run, rf"\A{digit}{{1,2}}(?=(?:{digit}{{3}})+\z)", rf"{digit}{{3}}")


def _deepseek3(newlines: str) -> str:
    words = rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+"
    return f"{words}{newlines}|{_SPACES}"


_CL100K = _words(r"\p{L}", r"\p{N}{1,3}")
_QWEN2 = _words(r"\p{L}", r"\p{N}")
_O200K = _cased_words(r"\p{N}{1,3}", _CONTRACTIONS + "?")
_HAN_FREE = r"&&[^\p{Han}]]"
_DEEPSEEK_LETTERS = (
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}"
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}"
    r"\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}"
    r"\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}"
    r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}"
    r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}"
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}"
    r"\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}"
    r"\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}"
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}"
    r"\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}"
    r"\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}"
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}"
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"
)
_DEEPSEEK_PUNCTUATION = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"
# The published \s+$, but linear: only the start of a run of spaces can begin a match.
_TRAILING_SPACE = r"(?<!\s)\s++$"
# llama.cpp begins the compatibility ideographs at U+8C48, the normalised form of U+F900.
_AFMOE_SCRIPTS = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}"
    r"\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}"
    r"\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
)
_YOUTU_SCRIPTS = (
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}"
    r"\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}"
    r"\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
)

_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_GPT2_KIND = PreTokenizer((_GPT2,))
_DIGITS_THEN_GPT2 = PreTokenizer((r"\p{N}", _GPT2))
_CL100K_KIND = PreTokenizer((_CL100K,))
_QWEN2_KIND = PreTokenizer((_QWEN2,))
_O200K_KIND = PreTokenizer((_O200K,))
_BLOOM_KIND = PreTokenizer((_BLOOM,))
_RAW_LINES = PreTokenizer((_LINES,), byte_level=False, escape_spaces=True)
_DEEPSEEK3_KIND = PreTokenizer((r"\p{N}{1,3}", _CJK_AND_KANA, _deepseek3(r"[\r\n]*|\s*[\r\n]+")))
_BAILING = (
    rf"'(?i:[sdmt]|ll|ve|re)|{_NO_DIGITS_OR_NEWLINE}\p{{L}}+|\p{{N}}"
    rf"|{_PUNCTUATION_RUN}[\r\n]*|\s*[\r\n]|{_SPACES}"
)
_SEED_CODER = (
    rf"{_CONTRACTIONS}|{_NO_DIGITS_OR_NEWLINE}\p{{L}}+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|{_SPACES}"
)
_EXAONE_MOE = (
    rf"{_CONTRACTIONS}|{_NO_DIGITS_OR_NEWLINE}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+"
    rf"|\p{{N}}|{_PUNCTUATION_RUN}[\r\n/]?|\s*[\r\n]|{_SPACES}"
)
_QWEN35 = (
    rf"{_CONTRACTIONS}|{_NO_DIGITS_OR_NEWLINE}[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}"
)
_JAIS2 = _CL100K.removesuffix(_SPACES) + (
    "|".join(rf"\s{{{2**power}}}(?!\S)" for power in range(9, 1, -1)) + r"|\s{1,2}(?!\S)|\s{1}"
)
_KIMI_K2 = r"[\p{Han}]+|" + _cased_words(
    r"\p{N}{1,3}",
    _CONTRACTIONS + "?",
    upper=_UPPER.removesuffix("]") + _HAN_FREE,
    lower=_LOWER.removesuffix("]") + _HAN_FREE,
    tail=r"[\r\n]*",
)


def _rows() -> Iterator[tuple[str, PreTokenizer]]:
    """Names (space separated, as ``tokenizer.ggml.pre`` spells them) with their kind."""
    yield "default", _DEFAULT
    yield (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        replace(_CL100K_KIND, ignore_merges=True, add_bos=True),
    )
    yield "dbrx smaug-bpe", _CL100K_KIND
    yield "chatglm-bpe", replace(_CL100K_KIND, default_bos=False)
    yield "glm4 glm5", replace(_CL100K_KIND, default_bos=False, ignore_merges=True)
    yield "jais-2", PreTokenizer((_JAIS2,))
    yield "minicpm5", PreTokenizer((r"\p{N}{1,3}", _words(r"\p{L}", r"\p{N}+")), ignore_merges=True)
    yield (
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais "
        "exaone4 trillion granite-docling",
        _GPT2_KIND,
    )
    yield "jina-v1-en jina-v2-code roberta-bpe", replace(_GPT2_KIND, add_sep=True)
    yield "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", _DIGITS_THEN_GPT2
    yield "falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))
    yield "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2", _QWEN2_KIND
    yield "qwen35", PreTokenizer((_QWEN35,))
    yield "ufakzeka", PreTokenizer((_words(r"\p{L}", r"\p{N}", contractions=""),))
    yield "laguna", PreTokenizer((_LINES, _QWEN2))
    yield "gpt-4o llama4 kanana2 talkie minimax-m2", _O200K_KIND
    yield "granite-embed-multi-97m", replace(_O200K_KIND, ignore_merges=True)
    yield "tekken", PreTokenizer((_cased_words(r"\p{N}", ""),), ignore_merges=True, add_bos=True)
    yield "tiny_aya cohere2moe", PreTokenizer((*_digits_from_the_right(r"\d", end=r"(?!\w)"), _O200K))
    yield (
        "youtu",
        PreTokenizer((_YOUTU_SCRIPTS, _cased_words(r"\p{N}", _CONTRACTIONS + "?")), ignore_merges=True),
    )
    yield "kimi-k2", PreTokenizer((_KIMI_K2,), ranked=True)
    yield "superbpe", PreTokenizer(_digits_from_the_right(r"\p{N}"))
    yield (
        "afmoe",
        PreTokenizer((*_digits_from_the_right(r"\p{N}"), _AFMOE_SCRIPTS, _deepseek3(r"[\r\n]*|\s*[\r\n]+"))),
    )
    yield "deepseek-v3 hunyuan-dense joyai-llm hy_v4", _DEEPSEEK3_KIND
    yield "spark2_5", PreTokenizer((r"\p{N}{1,3}", _CJK_AND_KANA, _deepseek3(r"|[\r\n]"), r"\p{N}"))
    yield (
        "deepseek-llm",
        PreTokenizer(
            (r"[\r\n]", _DEEPSEEK_LETTERS, _DEEPSEEK_PUNCTUATION, _TRAILING_SPACE, _CJK_AND_HANGUL, r"\p{N}+")
        ),
    )
    yield "deepseek-coder", PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_AND_HANGUL, r"\p{N}"))
    yield "bailingmoe bailingmoe2 llada-moe", PreTokenizer((_BAILING,))
    yield "seed-coder", PreTokenizer((_SEED_CODER,))
    yield "exaone-moe", PreTokenizer((_EXAONE_MOE,))
    yield "poro-chat bloom gpt3-finnish", _BLOOM_KIND
    yield "viking", PreTokenizer((_BLOOM, r"\p{N}"))
    yield (
        "chameleon",
        PreTokenizer(
            (
                "<sentinel:[0-9]+>",
                "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                r"([\t\n]|    |  )",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
    )
    yield "gemma4 granite-embed-multi-311m", replace(_RAW_LINES, force_bos=True)
    yield "sarvam-moe", _RAW_LINES
    yield "whitespace", PreTokenizer((r"\S+",), byte_level=False)


PRE_TOKENIZERS: MappingProxyType[str, PreTokenizer] = MappingProxyType(
    {name: kind for names, kind in _rows() for name in names.split()}
)
"""Every name of ``tokenizer.ggml.pre`` that llama.cpp knows, with its kind."""


def find_pre_tokenizer(name: str) -> PreTokenizer:
    """The kind called ``name``; an empty name means "default", as in llama.cpp.

    Raises:
        TokenizerError: the name is not in the table.
    """
    try:
        return PRE_TOKENIZERS[name or "default"]
    except KeyError:
        raise TokenizerError(
            f"tokenizer.ggml.pre is {name!r}, a pre-tokenizer that this version does not know; "
            "the model needs a newer pyggml"
        ) from None
