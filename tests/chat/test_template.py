"""Rendering: the dialect, the variables, the errors."""

from threading import Thread
from typing import Any

import pytest

from pyggml.chat import ChatTemplate, TemplateLimits
from pyggml.errors import TemplateError

from .reference import NOW, render

HELLO = [{"role": "user", "content": "Hello"}]
CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def test_a_conversation() -> None:
    messages = [{"role": "system", "content": "Be brief. "}, *HELLO]
    prompt = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    template = ChatTemplate(CHATML)
    assert template.render(messages) == prompt + "<|im_start|>assistant\n"
    assert template.render(messages, add_generation_prompt=False) == prompt


@pytest.mark.parametrize(
    "source",
    [
        "  {% if true %}\nx\n  {% endif %}\ny\n",
        "{{ bos_token }}{{ eos_token }}{{ unk_token }}|{{ tools is none }}{{ documents is none }}",
        "{{ messages | tojson }} {{ messages[0] | tojson(indent=2) }} {{ "
        "{'b': 1, 'a': 'é<'} | tojson(sort_keys=true) }}",
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}"
        "{% endif %}{{ i }}{% endfor %}",
        "{% for i in range(6) if i is odd %}{{ loop.index }}/{{ loop.length }}:{{ i }}"
        "{{ ',' if not loop.last }}{% endfor %}",
        "{% for i in [] %}{% else %}none{% endfor %}",
        "{% generation %}{% set x = 1 %}{{ messages[0].content }}{% endgeneration %}{{ x }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{% macro f(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) ~ f(2, b='y') }}",
        "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}",
        "{% set x %}a{{ 1 }}{% endset %}{{ x ~ 2 ~ none ~ true ~ [1, 'a'] }}",
        "{% set l = [] %}{{ l.append(1) }}{{ l.append(2) }}{{ l }}{{ l.pop() }}{{ l }}",
        "{{ 'abcdef'[1:4] }}{{ [1,2,3][::-1] }}{{ 'abc'[-1] }}{{ messages[1:] }}{{ (1, 2)[0] }}",
        "{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}{{ 'x' not in ['x'] }}{{ 1 == 1.0 }}{{ 3 >= 4 }}",
        "{{ '%s and %d' % ('a', 3) }}{{ '%s' | format('b') }}{{ '{} {x}'.format(1, x=2) }}",
        "{{ {'a': 1, ('b', 2): 3} }}{{ {'a': 1}.get('b', 'no') }}{% for k, v in {'x': 1}.items() %}"
        "{{ k }}{{ v }}{% endfor %}",
        "{{ ['b', 'a'] | sort | join(', ') }}{{ messages | map(attribute='role') | list }}{{ [1, 2] | sum }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ [3, 1] | min }}"
        "{{ ' x ' | trim | upper }}",
        "{{ 'a-b-c'.split('-') | last }}{{ 'ab'.replace('a', 'bb') }}{{ 'x'.center(5) }}|{{ 'a' * 3 }}"
        "{{ [0] * 2 }}{{ 2 ** 10 }}",
        "{{ undefined_thing }}|{{ messages[0].nothing is defined }}|{{ (undefined_thing or 'x') }}",
        "{{ strftime_now('%d %b %Y') }}{{ 'a\nb' | indent(2) }}{{ 1.5 | round | int }}{{ 'é' | tojson }}",
        "{{ '<b>' | e }}{{ 'a' | safe ~ '<' }}{{ messages | string | length }}{{ 'T' | lower }}{{ none }}",
        "{%- set (a, b) = (1, 2) -%}{{ a + b }}{% set items = messages | groupby('role') %}{{ items[0].grouper }}",
        "{% for m in messages recursive %}{{ m.content }}{% if m.children %}{{ loop(m.children) }}"
        "{% endif %}{% endfor %}",
        "{% filter upper %}a{{ 1 }}b{% endfilter %}{{ 7 // 2 }}{{ 7 % 4 }}{{ -3 }}{{ 7 / 2 }}",
    ],
)
def test_the_dialect_is_that_of_transformers(source: str) -> None:
    variables: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True}
    expected = render(source, messages=HELLO, bos_token="<s>", eos_token="</s>", **variables)
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", clock=lambda: NOW)
    assert template.render(HELLO) == expected


def test_messages_are_never_changed() -> None:
    messages = [{"role": "user", "content": "x", "list": [1]}]
    source = "{% set _ = messages[0].list.append(2) %}{% set _ = messages.pop() %}{{ _.list }}"
    template = ChatTemplate(source)
    assert template.render(messages) == template.render(messages) == "[1, 2]"
    assert messages == [{"role": "user", "content": "x", "list": [1]}]


def test_extra_variables_and_tools() -> None:
    template = ChatTemplate("{{ enable_thinking }} {{ tools[0].function.name }} {{ messages | length }}")
    assert template.render([], tools=[{"function": {"name": "f"}}], enable_thinking=False) == "False f 0"


def test_the_message_of_raise_exception_is_passed_on() -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("{{ raise_exception('Roles must alternate!') }}").render(HELLO)
    assert str(caught.value) == "Roles must alternate!"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{% if %}", "line 2"),
        ("{{ x | nonesuch }}", "nonesuch"),
        ("{% include 'other' %}", "no loader"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "cannot be compiled"),
        ("{% if true %}" * 150 + "{% endif %}" * 150, "cannot be compiled"),
    ],
)
def test_a_template_that_cannot_be_used(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        ChatTemplate(source).render(HELLO)


def test_a_failure_names_the_line() -> None:
    with pytest.raises(TemplateError, match="the chat template, line 3: UndefinedError: 'nothing' is undefined"):
        ChatTemplate("a\nb\n{{ nothing.at.all }}").render(HELLO)


def test_values_must_be_such_as_json_has() -> None:
    template = ChatTemplate("x")
    with pytest.raises(TemplateError, match="of type object"):
        template.render([{"role": "user", "content": object()}])
    with pytest.raises(TemplateError, match="of type bytes"):
        template.render(HELLO, extra=b"x")
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(TemplateError, match="nested too deeply"):
        template.render(cycle)


def test_from_metadata() -> None:
    metadata: dict[str, object] = {
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "tokenizer.chat_template.tool_use": "tools",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 7,
    }
    assert ChatTemplate.from_metadata(metadata).render(HELLO) == "<s>Hello"
    assert ChatTemplate.from_metadata(metadata, name="tool_use").render(HELLO) == "tools"
    with pytest.raises(TemplateError, match=r"tokenizer\.chat_template is missing"):
        ChatTemplate.from_metadata({})


def test_threads_have_a_budget_each() -> None:
    template = ChatTemplate("{% for i in range(2000) %}{% endfor %}{{ x }}", limits=TemplateLimits(steps=3_000))
    results: list[str] = []

    def work(name: str) -> None:
        results.extend(template.render(HELLO, x=name) for _ in range(3))

    threads = [Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted("abcd" * 3)
