# ruff: noqa: E501 (templates are long lines)
"""Templates in the manner of some families, written for these tests."""

from collections.abc import Callable

import pytest

from pyggml_server.templates import PromptRenderer
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.vocabulary import ModelFacts

_HERMES = """\
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}
{%- for call in m.tool_calls %}{% if not loop.first or m.content %}{{ "\\n" }}{% endif %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

_MISTRAL = """\
{{ bos_token }}
{%- for m in messages %}
{%- if m.role == "user" %}
{%- if loop.last and tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif -%}
[INST]{{ m.content }}[/INST]
{%- elif m.tool_calls %}[TOOL_CALLS][
{%- for call in m.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception("ids have nine characters") }}{% endif %}
{{- {"name": call.function.name, "arguments": call.function.arguments, "id": call.id} | tojson }}
{%- if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}
{%- elif m.role == "assistant" %}{{ m.content }}{{ eos_token }}
{%- elif m.role == "tool" %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]
{%- else %}{{ raise_exception("role " + m.role) }}{% endif %}
{%- endfor %}"""

_LLAMA = """\
{%- for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.tool_calls %}
{%- if m.tool_calls | length > 1 %}{{ raise_exception("one call at once") }}{% endif %}
{%- set call = m.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}' }}
{%- else %}{{ m.content }}{% endif %}<|eot_id|>
{%- endfor %}
{%- if tools %}{{ tools | tojson }}<|python_tag|>{% endif %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

_DEEPSEEK = """\
{%- for m in messages %}
{%- if m.role == "user" %}<｜User｜>{{ m.content }}
{%- else %}<｜Assistant｜>{{ m.content }}
{%- if m.tool_calls %}<｜tool▁calls▁begin｜>
{%- for call in m.tool_calls %}<｜tool▁call▁begin｜>{{ call.function.name }}<｜tool▁sep｜>
{{- call.function.arguments | tojson }}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>{% endif %}{{ eos_token }}
{%- endif %}{% endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- if add_generation_prompt %}<｜Assistant｜><think>
{% endif %}{# </think> #}"""

_HARMONY = """\
{%- for m in messages %}<|start|>{{ m.role }}<|channel|>final<|message|>{{ m.content }}<|end|>{% endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""

_SOURCES = {
    "hermes": _HERMES,
    "mistral": _MISTRAL,
    "llama": _LLAMA,
    "deepseek": _DEEPSEEK,
    "harmony": _HARMONY,
    "texts": "{% for m in messages %}{{ m.role }} {{ m.content }}{% for c in m.tool_calls %}[{{ c.function.name + ' ' +"
    " c.function.arguments }}]{% endfor %};{% endfor %}{% for tool in tools %}{{ tool }}{% endfor %}",
    "strict": "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}{{ m.role }}:{{ m.content }};{% endfor %}",
    "plain": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
}


@pytest.fixture(scope="session")
def family() -> Callable[[str], PromptRenderer]:
    """Gives the renderer of a family by name."""
    found = {
        name: PromptRenderer(JinjaWriter(source, bos="<s>", eos="</s>"), ModelFacts(bos="<s>", eos="</s>"))
        for name, source in _SOURCES.items()
    }
    return found.__getitem__
