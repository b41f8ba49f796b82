"""Text from tokens as they arrive, never cutting a character."""

import codecs

from pyggml.tokenizer.tokenizer import Tokenizer

__all__ = ["StreamDecoder"]


class StreamDecoder:
    """Joins the bytes of tokens into text.

    A character whose bytes are spread over several tokens comes out whole with its last byte; bytes that
    cannot be UTF-8 come out as U+FFFD. All pieces together equal :meth:`Tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, text_start: bool = True) -> None:
        """
        Args:
            tokenizer: gives the bytes of tokens.
            skip_special: leave out control and unknown tokens.
            text_start: the tokens begin a text, so the space that the vocabulary puts there is taken off;
                False for the continuation of a prompt.
        """
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if skip_special else frozenset()
        self._strip = text_start and tokenizer.strips_leading_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that is complete with this token; often empty.

        Raises:
            TokenizerError: ``id`` is not in the vocabulary.
        """
        if id in self._skip:
            return ""
        data = self._tokenizer.token_bytes(id)
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The rest: U+FFFD for a character that never was completed. The decoder then starts afresh."""
        return self._decoder.decode(b"", final=True)

    @property
    def pending(self) -> bool:
        """Whether bytes of an unfinished character are held back."""
        return bool(self._decoder.getstate()[0])
