"""Recorded numbers of other implementations, typed, and the comparison with ours.

`load_goldens("smollm2")` and `load_goldens("gemma3-270m")` hold what llama.cpp computed, `load_embeddings()`
what transformers computed. `explain` says whether a difference of ours is of the size that llama.cpp shows
against itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

DATA = Path(__file__).parent / "data"
FLASH_CHOICES = (True, False)

NEAR_TIE = 0.5
"""Margin (in logits) up to which taking the runner-up is no error: README.md, "llama.cpp against itself"."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prompt. Mappings are keyed by flash attention on/off; `logits` and `top_*` then by position."""

    name: str
    text: str
    parse_special: bool
    prompt_ids: Ids
    greedy_ids: Mapping[bool, Ids]
    """The next 128 tokens, end-of-text ignored."""
    runner_up_ids: Mapping[bool, Ids]
    """Second best token at each step."""
    margins: Mapping[bool, Floats]
    """Logit of the chosen token minus that of the runner-up, at each step."""
    greedy_logits: Mapping[bool, Floats]
    """Logit of the chosen token at each step."""
    positions: tuple[int, ...]
    """Ascending indices into the prompt; the last one is the prompt's last token."""
    sample_ids: Ids
    """Fixed vocabulary ids at which `logits` were kept, ascending."""
    logits: Mapping[bool, Mapping[int, Floats]]
    """Logits at `sample_ids`."""
    top_ids: Mapping[bool, Mapping[int, Ids]]
    """The 32 best ids, best first."""
    top_values: Mapping[bool, Mapping[int, Floats]]
    """Logits of `top_ids`."""
    exact_logits: Mapping[int, Floats]
    """By position: what transformers computes in float32 from the dequantised weights, at `sample_ids`."""
    exact_best: Mapping[int, int]
    """By position: the best id of that computation."""


@dataclass(frozen=True, kw_only=True)
class Goldens:
    """All cases of one model and who computed them."""

    model: str
    metadata: Mapping[str, object]
    cases: tuple[Case, ...]

    def case(self, name: str) -> Case:
        """The case called `name`.

        Raises:
            KeyError: there is none.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(f"{self.model} has no case {name!r}: {', '.join(case.name for case in self.cases)}")


@dataclass(frozen=True, kw_only=True)
class EmbeddingGoldens:
    """Sentences and their mean-pooled, L2-normalised embeddings, numpy shape (sentences, 384)."""

    metadata: Mapping[str, object]
    sentences: tuple[str, ...]
    token_ids: tuple[Ids, ...]
    """Ids with [CLS] and [SEP]."""
    embeddings: Floats


@dataclass(frozen=True, kw_only=True)
class Report:
    """How our numbers compare with one case; prints as one line."""

    name: str
    flash: bool
    first_divergence: int | None
    """Step of the first other token, None if all compared tokens are equal."""
    margin_there: float | None
    """Recorded margin at that step."""
    near_tie: bool
    """The margin is within the threshold and our token is the recorded runner-up."""
    compared_tokens: int
    compared_positions: int
    max_difference: float
    """Largest |ours − recorded| over sampled ids and recorded top 32 of the given positions; NaN if none."""
    mean_difference: float
    same_best: int
    """Positions at which our best id is the recorded best."""
    from_exact: float
    """Mean |ours − float32 computation| over the sampled ids of the given positions; NaN if none."""
    recorded_from_exact: float
    """The same for the recorded logits: ours should be no further away."""

    @property
    def explained(self) -> bool:
        """True if the tokens agree or part at a near tie."""
        return self.first_divergence is None or self.near_tie

    def __str__(self) -> str:
        if self.first_divergence is None:
            tokens = f"{self.compared_tokens} tokens equal"
        else:
            kind = "near tie" if self.near_tie else "NOT a near tie"
            tokens = f"other token at step {self.first_divergence}, margin {self.margin_there:.4f}: {kind}"
        flash = "on" if self.flash else "off"
        return (
            f"{self.name} (flash {flash}): {tokens}; logits differ by at most {self.max_difference:.4f}, "
            f"{self.mean_difference:.5f} on average, "
            f"same best id at {self.same_best}/{self.compared_positions}; "
            f"from float32: ours {self.from_exact:.4f}, recorded {self.recorded_from_exact:.4f}"
        )


def load_goldens(model: str) -> Goldens:
    """Recorded results of "smollm2" or "gemma3-270m".

    Raises:
        FileNotFoundError: nothing is recorded for that model.
    """
    metadata, arrays = _read(DATA / f"{model}.npz", model)
    exact_metadata, exact = _read(DATA / f"{model}-exact.npz", model)
    metadata["exact"] = exact_metadata
    cases = tuple(_case(entry, arrays, exact) for entry in metadata.pop("cases"))
    return Goldens(model=model, metadata=metadata, cases=cases)


def load_embeddings(model: str = "all-minilm-l6-v2") -> EmbeddingGoldens:
    """Recorded sentence embeddings.

    Raises:
        FileNotFoundError: nothing is recorded for that model.
    """
    metadata, arrays = _read(DATA / f"{model}.npz", model)
    sentences = tuple(metadata.pop("sentences"))
    ids = np.split(arrays["token_ids"], np.cumsum(arrays["token_counts"])[:-1])
    return EmbeddingGoldens(
        metadata=metadata, sentences=sentences, token_ids=tuple(ids), embeddings=arrays["embeddings"]
    )


def explain(
    case: Case,
    our_tokens: Sequence[int] | Ids,
    our_logits: Mapping[int, Floats],
    *,
    flash: bool = True,
    near_tie: float = NEAR_TIE,
) -> Report:
    """Compare a greedy run and logits of ours with `case`.

    Args:
        case: the recorded case.
        our_tokens: our greedy continuation of `case.prompt_ids`; may be shorter than the recorded one.
        our_logits: full vocabulary rows by position, positions out of `case.positions`; may be empty.
        flash: which recorded run to compare with.
        near_tie: largest margin, in logits, at which choosing the runner-up counts as explained.

    Raises:
        ValueError: more tokens than recorded, or a position that was not recorded.
    """
    recorded = case.greedy_ids[flash]
    if len(our_tokens) > len(recorded):
        raise ValueError(f"{case.name}: {len(our_tokens)} tokens given, {len(recorded)} recorded")
    ours = np.asarray(our_tokens, np.int32)
    different = np.flatnonzero(ours != recorded[: len(ours)])
    step = int(different[0]) if different.size else None
    margin = None if step is None else float(case.margins[flash][step])
    tie = margin is not None and margin <= near_tie and ours[step] == case.runner_up_ids[flash][step]
    gaps = [_gaps(case, position, row, flash=flash) for position, row in our_logits.items()]
    joined = np.concatenate(gaps) if gaps else np.array([np.nan], np.float32)
    sampled = {position: row[case.sample_ids] for position, row in our_logits.items()}
    recorded_rows = {position: case.logits[flash][position] for position in our_logits}
    return Report(
        name=case.name,
        flash=flash,
        first_divergence=step,
        margin_there=margin,
        near_tie=bool(tie),
        compared_tokens=len(ours),
        compared_positions=len(our_logits),
        max_difference=float(joined.max()),
        mean_difference=float(joined.mean()),
        same_best=sum(int(row.argmax() == case.top_ids[flash][pos][0]) for pos, row in our_logits.items()),
        from_exact=_from_exact(case, sampled),
        recorded_from_exact=_from_exact(case, recorded_rows),
    )


def _gaps(case: Case, position: int, row: Floats, *, flash: bool) -> Floats:
    """|ours − recorded| at the sampled ids and the recorded best ids of one position."""
    if position not in case.logits[flash]:
        raise ValueError(f"{case.name}: position {position} was not recorded, only {case.positions}")
    ids = np.concatenate([case.sample_ids, case.top_ids[flash][position]])
    values = np.concatenate([case.logits[flash][position], case.top_values[flash][position]])
    gaps: Floats = np.abs(row[ids].astype(np.float32) - values)
    return gaps


def _from_exact(case: Case, rows: Mapping[int, Floats]) -> float:
    """Mean distance of sampled logits, by position, from the float32 computation."""
    gaps = [np.abs(row - case.exact_logits[position]).mean() for position, row in rows.items()]
    return float(np.mean(gaps)) if gaps else float("nan")


def _read(path: Path, model: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Metadata and arrays of one file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: nothing is recorded for {model!r}; see tests/parity/README.md")
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    metadata: dict[str, Any] = json.loads(arrays.pop("metadata").tobytes().decode("utf-8"))
    return metadata, arrays


def _case(
    entry: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], exact: Mapping[str, npt.NDArray[Any]]
) -> Case:
    name: str = entry["name"]
    positions = tuple(int(position) for position in arrays[f"{name}/positions"])

    def by_flash(field: str) -> dict[bool, npt.NDArray[Any]]:
        return dict(zip(FLASH_CHOICES, arrays[f"{name}/{field}"], strict=True))

    def by_position(field: str) -> dict[bool, dict[int, npt.NDArray[Any]]]:
        return {flash: dict(zip(positions, rows, strict=True)) for flash, rows in by_flash(field).items()}

    return Case(
        name=name,
        text=entry["text"],
        parse_special=entry["parse_special"],
        prompt_ids=arrays[f"{name}/prompt_ids"],
        greedy_ids=by_flash("greedy_ids"),
        runner_up_ids=by_flash("runner_up_ids"),
        margins=by_flash("margins"),
        greedy_logits=by_flash("greedy_logits"),
        positions=positions,
        sample_ids=arrays["sample_ids"],
        logits=by_position("logits"),
        top_ids=by_position("top_ids"),
        top_values=by_position("top_values"),
        exact_logits=dict(zip(positions, exact[f"{name}/logits"], strict=True)),
        exact_best=dict(zip(positions, exact[f"{name}/best_id"].tolist(), strict=True)),
    )
