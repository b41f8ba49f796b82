"""What the engine did, in counters that are cheap enough to stay on."""

from dataclasses import dataclass

__all__ = ["StepMetrics"]


@dataclass
class StepMetrics:
    """Counters since the engine was opened; rates are differences of two readings.

    Attributes:
        steps: batches computed for requests.
        prompt_tokens: tokens read; ``cached_tokens`` more were not, because the cache had them.
        decode_tokens: tokens of answers computed.
        drafted_tokens: tokens proposed for verification; ``accepted_tokens`` of them were right.
        sequences: sum over the steps of the sequences in the batch: over ``steps``, the mean batch.
        requests: requests that ended; ``failed`` of them with an error, ``cancelled`` by the caller.
        shifts: contexts shifted.
        preemptions: requests that lost their sequence to another and read their prompt again.
        restored_tokens: tokens whose keys and values came from a snapshot on disk.
        sample_seconds: time choosing tokens and making text of them.
        step_seconds: time in steps altogether.
    """

    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    decode_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    sequences: int = 0
    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    shifts: int = 0
    preemptions: int = 0
    restored_tokens: int = 0
    sample_seconds: float = 0.0
    step_seconds: float = 0.0
