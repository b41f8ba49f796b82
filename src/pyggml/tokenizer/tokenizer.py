"""The tokenizer of a GGUF file: text to ids and back."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pyggml.errors import TokenizerError
from pyggml.tokenizer.pieces import piece_table
from pyggml.tokenizer.vocab import Algorithm, TokenType, Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from pyggml.tokenizer.encoders import Encoder

__all__ = ["Tokenizer"]


class Tokenizer:
    """Text to token ids and back, by the rules of one vocabulary. Safe to share between threads."""

    def __init__(self, vocab: Vocabulary, cache_dir: Path | None) -> None:
        """Use :meth:`from_metadata`."""
        self._vocab = vocab
        self._cache_dir = cache_dir
        self._built: Encoder | None = None
        self._building = Lock()
        self._table: list[bytes] | None = None
        self._special_ids = frozenset(vocab.ids_of(TokenType.CONTROL, TokenType.UNKNOWN))
        self._before = [id for id in (self._first_id(),) if id is not None]
        self._after = [id for id in (self._last_id(),) if id is not None]

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, object], *, cache_dir: str | Path | None = None, defer: bool = False
    ) -> "Tokenizer":
        """Build the tokenizer that the ``tokenizer.*`` keys of a GGUF file describe.

        Args:
            metadata: the file's metadata; numeric arrays may be numpy arrays or lists, invalid UTF-8 in
                strings must be spelled as surrogate escapes.
            cache_dir: folder that keeps what is slow to compute from a vocabulary (the merges of
                SentencePiece vocabularies, half a second for 262,144 pieces) under a digest of it.
            defer: build what encodes when the first text is encoded. It takes most of the time and memory, and who
                only decodes never needs it; what is wrong with it is then raised by :meth:`encode`.

        Raises:
            TokenizerError: the metadata holds no vocabulary, or one that is broken or not supported.
        """
        tokenizer = cls(read_vocabulary(metadata), Path(cache_dir) if cache_dir is not None else None)
        if not defer:
            _ = tokenizer._encoder
        return tokenizer

    @property
    def _encoder(self) -> "Encoder":
        if self._built is None:
            with self._building:
                if self._built is None:
                    self._built = _build_encoder(self._vocab, self._cache_dir)
        return self._built

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of ``text``.

        Args:
            text: any string; lone surrogates count as U+FFFD.
            add_special: put BOS, EOS or SEP round it as the vocabulary demands.
            parse_special: read the texts of control tokens in ``text`` as those tokens. Turn it off for text
                that is not to be trusted with them.

        Long texts are encoded without holding the GIL.
        """
        ids = self._encoder.encode(_repair(text), parse_special=parse_special)
        if add_special and (self._before or self._after):
            return [*self._before, *ids, *self._after]
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of ``ids``, bytes that are not UTF-8 as U+FFFD.

        The one space that the vocabulary puts before a text is taken off again. Use
        :class:`~pyggml.tokenizer.StreamDecoder` for text that arrives token by token.

        Args:
            ids: token ids.
            skip_special: leave out control and unknown tokens; else they appear as their text.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        if skip_special:
            ids = (id for id in ids if id not in self._special_ids)
        data = self.decode_bytes(ids)
        if self.strips_leading_space and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ``ids`` stand for, exactly: special tokens as their text, no space removed.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        return b"".join(map(self.token_bytes, ids))

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one token stands for; they need not be whole characters.

        Raises:
            TokenizerError: ``id`` is not in the vocabulary.
        """
        if self._table is None:
            self._table = piece_table(self._vocab)
        if 0 <= id < len(self._table):
            return self._table[id]
        raise self._out_of_range(id)

    def token_text(self, id: int) -> str:
        """The token as the vocabulary spells it (``Ġthe``, ``▁the``, ``<0x0A>``).

        Raises:
            TokenizerError: ``id`` is not in the vocabulary.
        """
        self._check(id)
        return self._vocab.tokens[id]

    def token_type(self, id: int) -> TokenType:
        """The type of a token.

        Raises:
            TokenizerError: ``id`` is not in the vocabulary.
        """
        self._check(id)
        return TokenType(int(self._vocab.types[id]))

    def token_id(self, text: str) -> int | None:
        """The id of the token that the vocabulary spells ``text``, or None."""
        return self._vocab.index.get(text)

    def is_control(self, id: int) -> bool:
        """Whether the token is a control token, which readers of the output do not see.

        Raises:
            TokenizerError: ``id`` is not in the vocabulary.
        """
        return self.token_type(id) is TokenType.CONTROL

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        return len(self._vocab.tokens)

    @property
    def special_ids(self) -> frozenset[int]:
        """Control and unknown tokens: those that ``skip_special`` leaves out."""
        return self._special_ids

    @property
    def eog_ids(self) -> frozenset[int]:
        """Tokens after which generation ends."""
        return self._vocab.special.eog

    @property
    def adds_bos(self) -> bool:
        """Whether ``encode`` puts a token before the text."""
        return bool(self._before)

    @property
    def adds_eos(self) -> bool:
        """Whether ``encode`` puts a token after the text."""
        return bool(self._after)

    @property
    def strips_leading_space(self) -> bool:
        """Whether decoding takes one space off the start of a text, because encoding put it there."""
        vocab = self._vocab
        if vocab.algorithm is Algorithm.UNIGRAM:
            return vocab.add_space_prefix or vocab.remove_extra_whitespaces
        return vocab.add_space_prefix if vocab.algorithm is Algorithm.SPM else self._is_wordpiece

    @property
    def bos_id(self) -> int | None:
        """Beginning of the sequence."""
        return self._vocab.special.ids["bos"]

    @property
    def eos_id(self) -> int | None:
        """End of the sequence."""
        return self._vocab.special.ids["eos"]

    @property
    def eot_id(self) -> int | None:
        """End of a turn."""
        return self._vocab.special.ids["eot"]

    @property
    def eom_id(self) -> int | None:
        """End of a message that expects a tool's answer."""
        return self._vocab.special.ids["eom"]

    @property
    def pad_id(self) -> int | None:
        """Padding."""
        return self._vocab.special.ids["pad"]

    @property
    def unk_id(self) -> int | None:
        """Stands for text that cannot be encoded."""
        return self._vocab.special.ids["unk"]

    @property
    def sep_id(self) -> int | None:
        """Separator of two texts."""
        return self._vocab.special.ids["sep"]

    @property
    def cls_id(self) -> int | None:
        """The token whose output classifies a text; BERT's BOS."""
        cls = self._vocab.special.ids["cls"]
        return self.bos_id if cls is None and self._is_wordpiece else cls

    @property
    def mask_id(self) -> int | None:
        """The token to be guessed in masked language models."""
        return self._vocab.special.ids["mask"]

    @property
    def fim_prefix_id(self) -> int | None:
        """Fill in the middle: what comes before the gap follows."""
        return self._vocab.special.ids["fim_prefix"]

    @property
    def fim_suffix_id(self) -> int | None:
        """Fill in the middle: what comes after the gap follows."""
        return self._vocab.special.ids["fim_suffix"]

    @property
    def fim_middle_id(self) -> int | None:
        """Fill in the middle: the gap follows."""
        return self._vocab.special.ids["fim_middle"]

    @property
    def fim_pad_id(self) -> int | None:
        """Fill in the middle: padding."""
        return self._vocab.special.ids["fim_pad"]

    @property
    def fim_repo_id(self) -> int | None:
        """Fill in the middle: the name of a repository follows."""
        return self._vocab.special.ids["fim_rep"]

    @property
    def fim_file_id(self) -> int | None:
        """Fill in the middle: another file of the repository follows."""
        return self._vocab.special.ids["fim_sep"]

    @property
    def _is_wordpiece(self) -> bool:
        return self._vocab.algorithm is Algorithm.WORDPIECE

    def _first_id(self) -> int | None:
        if self._vocab.algorithm is Algorithm.RWKV:
            return None
        return self.bos_id if self._vocab.add_bos or self._is_wordpiece else None

    def _last_id(self) -> int | None:
        if self._is_wordpiece:
            return self.sep_id
        if self._vocab.algorithm is Algorithm.RWKV:
            return None
        return self.eos_id if self._vocab.add_eos else None

    def _check(self, id: int) -> None:
        if not 0 <= id < len(self._vocab.tokens):
            raise self._out_of_range(id)

    def _out_of_range(self, id: int) -> TokenizerError:
        return TokenizerError(f"token id {id} is not in the vocabulary of {self.n_vocab} tokens")


def _build_encoder(vocab: Vocabulary, cache_dir: Path | None) -> "Encoder":
    # Imported here: a process that only decodes does without the tokenizers library.
    match vocab.algorithm:
        case Algorithm.BPE:
            from pyggml.tokenizer.bpe import build_bpe

            return build_bpe(vocab, cache_dir=cache_dir)
        case Algorithm.SPM:
            from pyggml.tokenizer.spm import build_spm

            return build_spm(vocab, cache_dir=cache_dir)
        case Algorithm.WORDPIECE:
            from pyggml.tokenizer.wordpiece import build_wordpiece

            return build_wordpiece(vocab)
        case Algorithm.UNIGRAM:
            from pyggml.tokenizer.unigram import build_unigram

            return build_unigram(vocab)
        case Algorithm.RWKV:
            from pyggml.tokenizer.rwkv import RwkvEncoder

            return RwkvEncoder(vocab)


def _repair(text: str) -> str:
    """``text`` with surrogate pairs joined and lone surrogates as U+FFFD, since neither is encodable."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
