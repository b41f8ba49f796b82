"""``pyggml run``."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from pyggml_server.cli.find import FoundModel, find_model
from pyggml_server.cli.options import engine_config, engine_options

__all__ = ["run"]

# Options of a stored model that the sampler knows, by Ollama's names.
_SAMPLING = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold",
    "dynatemp_range", "dynatemp_exponent", "mirostat", "mirostat_tau", "mirostat_eta", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "repeat_last_n", "dry_multiplier", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "dry_sequence_breakers", "min_keep", "seed",
)  # fmt: skip


@click.command()
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--verbose", is_flag=True, help="Print load, prefill and decode rates to standard error.")
@click.option("--system", help="System message, instead of the model's own.")
@click.option("--raw", is_flag=True, help="Give the prompt to the model as it is, without a chat template.")
@click.option("--num-ctx", type=click.IntRange(1), help="Context size in tokens [the model's parameter, or 4096]")
@click.option("--num-predict", type=int, help="Most tokens to generate; negative: no limit [no limit]")
@click.option("--stop", multiple=True, help="End before this text; may be given several times.")
@click.option("--temperature", type=float, help="[0.8; 0: always the most likely token]")
@click.option("--top-k", type=int, help="[40]")
@click.option("--top-p", type=click.FloatRange(0, 1), help="[0.9]")
@click.option("--min-p", type=click.FloatRange(0, 1), help="[0]")
@click.option("--repeat-penalty", type=float, help="[1]")
@click.option("--presence-penalty", type=float, help="[0]")
@click.option("--frequency-penalty", type=float, help="[0]")
@click.option("--repeat-last-n", type=int, help="[64]")
@click.option("--seed", type=int, help="Equal seeds give equal answers [random]")
@engine_options
def run(model: str, prompt: tuple[str, ...], **options: Any) -> None:
    """Answer PROMPT with MODEL, or talk to it when there is no PROMPT.

    MODEL is a name (fetched first if the store lacks it) or the path of a GGUF file. Text on standard input is put in
    front of PROMPT.
    """
    found = find_model(model, pull=True)
    text = " ".join(prompt)
    if not sys.stdin.isatty() and (piped := sys.stdin.read()):
        text = f"{piped}\n\n{text}" if text else piped
    with _open(found, options) as engine:
        session = _Session(engine, found, options)
        if text:
            session.answer(text)
        else:
            session.talk()


def _open(found: FoundModel, options: dict[str, Any]) -> Any:
    from pyggml.engine import Engine

    chosen = options["num_ctx"] or found.params.get("num_ctx") or 4096
    return Engine(found.path, engine_config(options, n_ctx=int(chosen)))


def _sampling(stored: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Options of the command line over those of the model over the defaults."""
    from pyggml.sampling import SamplingParams

    chosen = {name: stored[name] for name in _SAMPLING if name in stored}
    chosen |= {name: given[name] for name in _SAMPLING if given.get(name) is not None}
    if chosen.get("seed", 0) < 0:
        chosen["seed"] = None  # Ollama: -1 is random
    return SamplingParams(**chosen)


@dataclass
class _Session:
    """One conversation on the terminal."""

    engine: Any
    found: FoundModel
    options: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        from pyggml.chat import ChatTemplate
        from pyggml_server.templates import PromptRenderer

        metadata = self.engine.file.metadata
        plain = self.options["raw"] or "tokenizer.chat_template" not in metadata
        self.template = None if plain else ChatTemplate.from_metadata(metadata)
        stored = self.found.stored
        self.renderer = None
        if stored is not None and stored.template and not self.options["raw"]:
            self.renderer = PromptRenderer.for_model(stored)  # Ollama's own template comes before the file's
        self.sampling = _sampling(self.found.params, self.options)
        stops = self.options["stop"] or self.found.params.get("stop") or ()
        self.stop = (stops,) if isinstance(stops, str) else tuple(stops)
        limit = self.options["num_predict"]
        if limit is None:
            limit = self.found.params.get("num_predict", -1)
        self.max_tokens = int(limit) if int(limit) > 0 else None
        system = self.options["system"] if self.options["system"] is not None else self.found.system
        if system:
            self.messages.append({"role": "system", "content": system})
        if stored is not None and not self.options["raw"]:
            self.messages += [dict(message) for message in stored.messages]

    def talk(self) -> None:
        """Read lines until /bye or the end of input."""
        while True:
            try:
                line = click.prompt(">>>", prompt_suffix=" ", default="", show_default=False)
            except click.Abort:
                click.echo()
                return
            if line.strip() in ("/bye", "/exit"):
                return
            if line.strip():
                self.answer(line)

    def _render(self, text: str) -> str:
        asked = [*self.messages, {"role": "user", "content": text}]
        if self.renderer is not None:
            from pyggml_server.templates import Message

            return self.renderer.render_chat([Message(role=m["role"], content=m["content"]) for m in asked]).text
        if self.template is None:
            # No template: the text is continued, in a conversation after what was said before.
            said = "".join(m["content"] for m in self.messages)
            return said + text if self.options["raw"] or not said else f"{said}\n{text}"
        rendered: str = self.template.render(asked)
        return rendered

    def answer(self, text: str) -> None:
        """Stream the answer to standard output and remember it."""
        prompt = self._render(text)
        # A template that writes the beginning-of-text token itself must not get a second one.
        bos = self.engine.tokenizer.bos_id
        bos_text = self.engine.tokenizer.token_text(bos) if bos is not None else ""
        templated = self.template is not None or self.renderer is not None
        twice = templated and bool(bos_text) and prompt.startswith(bos_text)
        ids = self.engine.tokenizer.encode(prompt, add_special=not twice)
        generation = self.engine.generate(ids, self.sampling, max_tokens=self.max_tokens, stop=self.stop)
        pieces = []
        try:
            for piece in generation:
                pieces.append(piece.text)
                click.echo(piece.text, nl=False)
        except KeyboardInterrupt:
            click.echo(" [stopped]", nl=False)
        click.echo()
        self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "".join(pieces)}]
        if self.options["verbose"]:
            self._report(generation.stats)

    def _report(self, stats: Any) -> None:
        new = stats.prompt_tokens - stats.cached_tokens
        for label, value in (
            ("load duration", f"{self.engine.load_seconds:.3f} s"),
            ("prompt eval count", f"{stats.prompt_tokens} tokens ({stats.cached_tokens} cached)"),
            ("prompt eval duration", f"{stats.prompt_seconds:.3f} s"),
            ("prompt eval rate", f"{stats.prompt_rate:.2f} tokens/s" if new else "-"),
            ("eval count", f"{stats.eval_tokens} tokens"),
            ("eval duration", f"{stats.eval_seconds:.3f} s"),
            ("eval rate", f"{stats.eval_rate:.2f} tokens/s"),
            ("done reason", stats.finish_reason or "stopped"),
        ):
            click.echo(f"{label + ':':<22}{value}", err=True)
