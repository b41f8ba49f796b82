"""Which template writes a model's prompts, what the model can do, and the prompts themselves."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyggml.chat import TemplateLimits
from pyggml.errors import TemplateError
from pyggml.gguf import GGUFWriter
from pyggml_server.names import Name
from pyggml_server.store import ModelDetails, StoredModel
from pyggml_server.templates import Message, PromptRenderer, ToolCall
from pyggml_server.templates.choice import choose_writers
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.vocabulary import ModelFacts
from pyggml_server.templates.writers import PlainWriter

Family = Callable[[str], PromptRenderer]

_GO = "{{ range .Messages }}{{ .Content }}{{ end }}"
_GO_TOOLS = "{{ .Tools }}" + _GO
_JINJA = "{% for m in messages %}{{ m.content }}{% endfor %}"
_JINJA_TOOLS = _JINJA + "{% if tools %}{{ tools | tojson }}{% endif %}"


def stored(path: Path, **fields: object) -> StoredModel:
    return StoredModel(Name.parse("m"), "0" * 64, None, ModelDetails(), (), path, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("go", "jinja", "kind"),
    [
        (_GO, None, GoWriter),
        (_GO, _JINJA, GoWriter),
        (_GO_TOOLS, _JINJA_TOOLS, GoWriter),
        (_GO, _JINJA_TOOLS, JinjaWriter),
        (_GO, _JINJA + "<think></think>", JinjaWriter),
        ("{{ broken", _JINJA, JinjaWriter),
        (_GO, "{% broken", GoWriter),
        (None, _JINJA, JinjaWriter),
        (None, "{% broken <|im_start|> <|im_end|>", GoWriter),
        (None, "{% broken", PlainWriter),
        (None, None, PlainWriter),
        ("  ", None, PlainWriter),
    ],
)
def test_choice(go: str | None, jinja: str | None, kind: type) -> None:
    writer, _ = choose_writers(ModelFacts(chat_template=jinja), go, label="m")
    assert type(writer) is kind


def test_files(smollm2_path: Path, gemma3_path: Path, minilm_path: Path) -> None:
    smol = PromptRenderer.for_model(stored(smollm2_path))
    assert (smol.capabilities, smol.facts.bos, smol.think_tags) == ({"completion"}, "<|im_start|>", None)
    rendered = smol.render_generate(prompt="hi", system="be nice")
    assert rendered.text == (
        "<|im_start|>system\nbe nice<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    base = PromptRenderer.for_model(stored(gemma3_path))
    assert base.render_generate(prompt="hi").text == "hi"
    assert PromptRenderer.for_model(stored(minilm_path)).capabilities == {"embedding"}
    seeing = PromptRenderer.for_model(stored(smollm2_path, projectors=(minilm_path,), template="{{ .Suffix }}"))
    assert seeing.capabilities == {"completion", "vision", "insert"}


@pytest.mark.parametrize("prefix_key", ["fim_pre_token_id", "prefix_token_id"])
def test_facts_of_a_file(tmp_path: Path, prefix_key: str) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", architecture="llama")
    writer.add("tokenizer.ggml.tokens", ["<s>", "</s>", "a", "<pre>", "<suf>", "<mid>", "<tool_call>"])
    writer.add("tokenizer.ggml.token_type", [3, 3, 1, 3, 3, 3, 4])
    ids = {"bos_token_id": 0, "eos_token_id": 1, prefix_key: 3, "fim_suf_token_id": 4, "middle_token_id": 5}
    for key, id in ids.items():
        writer.add(f"tokenizer.ggml.{key}", id)
    writer.add("tokenizer.chat_template", "{{ tools }}{{ messages[0].content }}<tool_call></tool_call>")
    writer.write()
    renderer = PromptRenderer.for_model(stored(tmp_path / "m.gguf"))
    facts = renderer.facts
    assert (facts.architecture, facts.bos, facts.eos, facts.fim) == (
        "llama",
        "<s>",
        "</s>",
        ("<pre>", "<suf>", "<mid>"),
    )
    assert facts.controls == {"<s>": 0, "</s>": 1, "<pre>": 3, "<suf>": 4, "<mid>": 5}
    assert renderer.capabilities == {"completion", "tools", "insert"}
    # a tag that is no control token is text for every runner
    assert not renderer.sees_special


@pytest.mark.parametrize(
    ("name", "capabilities", "tags"),
    [
        ("hermes", {"completion", "tools", "thinking"}, ("<think>", "</think>")),
        ("mistral", {"completion", "tools"}, None),
        ("harmony", {"completion", "tools", "thinking"}, None),
        ("plain", {"completion"}, None),
    ],
)
def test_capabilities(family: Family, name: str, capabilities: set[str], tags: tuple[str, str] | None) -> None:
    assert (family(name).capabilities, family(name).think_tags) == (capabilities, tags)


def test_bos_is_not_added_twice(family: Family) -> None:
    assert family("mistral").render_chat([Message("user", "a")]).adds_bos
    assert not family("hermes").render_chat([Message("user", "a")]).adds_bos


def test_thinking_is_told(family: Family) -> None:
    texts = [family("hermes").render_chat([Message("user", "a")], think=think).text for think in (None, True, False)]
    assert texts[0] == texts[1] == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert texts[2] == texts[0] + "<think>\n\n</think>\n\n"


def test_earlier_thoughts_are_left_out(family: Family) -> None:
    thoughts = "<think>\nhm\n</think>\n\nyes"
    talk = [Message("user", "a"), Message("assistant", thoughts), Message("user", "b"), Message("assistant", thoughts)]
    text = family("hermes").render_chat(talk).text
    assert "<|im_start|>assistant\nyes<|im_end|>" in text and text.count("hm") == 1
    assert family("plain").render_chat(talk).text.count("hm") == 2


def test_strict_templates_get_a_form_that_they_accept(family: Family) -> None:
    call = ToolCall("call_abcdefgh", 0, "f", {"a": 1})
    talk = [Message("system", "S"), Message("user", "Q"), Message("assistant", tool_calls=[call])]
    text = family("mistral").render_chat([*talk, Message("tool", "r", tool_call_id=call.id)]).text
    assert text.startswith("<s>[INST]S\n\nQ[/INST][TOOL_CALLS]") and '"id": "call_abcdefgh"' not in text
    two = [call, ToolCall("x", 1, "g", {})]
    results = [Message("tool", "rg", tool_call_id="x"), Message("tool", "rf", tool_call_id=call.id)]
    text = family("llama").render_chat([Message("user", "Q"), Message("assistant", tool_calls=two), *results]).text
    assert text.index('"f"') < text.index("rf") < text.index('"g"') < text.index("rg")
    text = family("texts").render_chat([Message("user", "Q"), Message("assistant", tool_calls=[call])]).text
    assert text == 'user Q;assistant [f {"a": 1}];'
    text = family("strict").render_chat([Message("system", "S"), *talk[1:], Message("tool", "r")]).text
    assert text == 'user:S\n\nQ;assistant:{"name": "f", "arguments": {"a": 1}};user:r;'
    with pytest.raises(TemplateError, match="role oracle"):
        family("mistral").render_chat([Message("oracle", "x")])


def test_hostile_templates_are_tried_once() -> None:
    source = (
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}{{ tools }}<tool_call></think>"
    )
    facts = ModelFacts(chat_template=source)
    started = time.process_time()
    limits = TemplateLimits(steps=5_000)
    renderer = PromptRenderer(JinjaWriter(source, bos="", eos="", limits=limits), facts)
    assert renderer.call_shape is None and renderer.call_format.opens == ("<tool_call>",)
    with pytest.raises(TemplateError, match="steps"):
        renderer.render_chat([Message("system", "a"), Message("user", "b"), Message("user", "c")])
    assert time.process_time() - started < 5


def test_template_of_a_request(family: Family) -> None:
    renderer = family("hermes")
    assert renderer.render_chat([Message("user", "a")], template="<{{ .Prompt }}>").text == "<a>"
    assert renderer.render_generate(prompt="a", system="s", template="{{ .System }}-{{ .Prompt }}").text == "s-a"
    with pytest.raises(TemplateError, match="parsed"):
        renderer.render_chat([Message("user", "a")], template="{{")


def test_context_and_images(family: Family) -> None:
    rendered = family("plain").render_generate(prompt="b", images=2, context_text="a ")
    assert (rendered.text, rendered.n_images) == ("a user: b\n", 2)


def test_fill_in_the_middle() -> None:
    by_tokens = PromptRenderer(PlainWriter(), ModelFacts(fim=("<p>", "<s>", "<m>")))
    assert "insert" in by_tokens.capabilities
    assert by_tokens.render_generate(prompt="a", suffix="b").text == "<p>a<s>b<m>"
    go = GoWriter("{{ .Prompt }}|{{ .Suffix }}|")
    assert PromptRenderer(go, ModelFacts(), go=go).render_generate(prompt="a", suffix="b").text == "a|b|"
    with pytest.raises(TemplateError, match="middle"):
        PromptRenderer(PlainWriter(), ModelFacts()).render_generate(prompt="a", suffix="b")
