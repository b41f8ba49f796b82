"""Hostile templates: none may run long, use much memory, reach into Python, or bring the process down."""

import resource
import time

import pytest

from pyggml.chat import ChatTemplate, TemplateLimits
from pyggml.errors import TemplateError

LIMITS = TemplateLimits(steps=200_000, output=1_000_000, memory=8_000_000, seconds=2.0)
DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(64) %}{% set ns.x = STEP %}{% endfor %}"


def grow(start: str, step: str, end: str = "") -> str:
    return DOUBLING.replace("START", start).replace("STEP", step) + end


ENDLESS = {
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "loops with a false condition": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}"
    "{% endfor %}",
    "recursive loop": "{% for i in [[]] recursive %}{{ loop([i]) }}{% endfor %}",
    "self-containing list": "{% set l = [1] %}{% for x in l %}{% set _ = l.append(x) %}{% endfor %}",
    "macros that call twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "nested map": "{% set r = range(99999) | list %}{% for i in r %}{{ r | map('string') | list | length }}"
    "{% endfor %}",
    "select": "{% for i in range(99999) %}{{ range(99999) | select('odd') | list | length }}{% endfor %}",
    "sort": "{% set r = range(99999) | list %}{% for i in r %}{% set _ = r | sort %}{% endfor %}",
    "membership": "{% set r = range(99999) | list %}{% for i in r %}{{ -1 in r }}{% endfor %}",
    "list.index": "{% set r = range(99999) | list %}{% for i in r %}{{ r.count(-1) }}{% endfor %}",
    "slices": "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{{ s[1:] | length }}{% endfor %}",
    "string": "{{ 'a' * 10 ** 10 }}",
    "list": "{{ [1] * 10 ** 10 }}",
    "power": "{{ 10 ** 99999999 }}",
    "product": grow("10", "ns.x * ns.x"),
    "plus": grow("'a'", "ns.x + ns.x"),
    "lists plus": grow("[1]", "ns.x + ns.x"),
    "tilde": grow("'a'", "ns.x ~ ns.x"),
    "replace method": grow("'aa'", "ns.x.replace('a', ns.x)"),
    "replace filter": grow("'aa'", "ns.x | replace('a', ns.x)"),
    "join method": grow("'aa'", "ns.x.join(ns.x)"),
    "join filter": grow("'aa'", "ns.x | join(ns.x)"),
    "join same": grow("'aa'", "[ns.x, ns.x] | join"),
    "set block": grow("'a'", "0") + "{% set x = 'a' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40,
    "macro output": "{% macro f(s) %}{{ s }}{{ s }}{% endmacro %}" + grow("'a'", "f(ns.x)"),
    "format method": grow("'{0}{0}'", "ns.x.format(ns.x)"),
    "format percent": grow("'%(a)s%(a)s'", "ns.x % {'a': ns.x}"),
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format computed width": "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "percent computed width": "{{ '%*d' % (10 ** 9, 1) }}",
    "percent precision": "{{ '%.1000000000f' % 1.0 }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "center filter": "{{ 'a' | center(10 ** 9) }}",
    "indent filter": "{{ ('\n' * 999999) | indent(10 ** 6) }}",
    "batch filter": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "slice filter": "{{ [1] | slice(10 ** 9) | list }}",
    "round filter": "{{ 1 | round(10 ** 9, 'floor') }}",
    "sum of lists": "{{ [[1], [2]] | sum(start=[]) }}",
    "ljust": "{{ 'a'.ljust(10 ** 9) }}",
    "zfill": "{{ 'a'.zfill(10 ** 9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10 ** 9) }}",
    "to_bytes": "{{ (5).to_bytes(10 ** 9, 'big') }}",
    "translate": "{{ 'a'.translate({97: 'b' * 999}) }}",
    "json indent": "{{ [1] | tojson(indent=10 ** 9) }}",
    "memory in a list": "{% set l = [] %}{% for i in range(99999) %}{% set _ = l.append('a' * 99999) %}{% endfor %}",
    "tree printed": grow("[]", "[ns.x, ns.x]", "{{ ns.x }}"),
    "tree as string": grow("[]", "[ns.x, ns.x]", "{{ ns.x | string | length }}"),
    "tree as JSON": grow("[]", "[ns.x, ns.x]", "{{ ns.x | tojson | length }}"),
    "tree joined": grow("[]", "[ns.x, ns.x]", "{{ ('' ~ ns.x) | length }}"),
    "trees compared": grow("[]", "[ns.x, ns.x]", "{% set a = ns.x %}") + grow("[]", "[ns.x, ns.x]", "{{ a == ns.x }}"),
    "trees tested": grow("[]", "[ns.x, ns.x]", "{% set a = ns.x %}")
    + grow("[]", "[ns.x, ns.x]", "{{ a is eq(ns.x) }}"),
    "trees sorted": grow("[]", "[ns.x, ns.x]", "{% set a = ns.x %}")
    + grow("[]", "[ns.x, ns.x]", "{{ [a, ns.x] | sort }}"),
    "trees in loop.changed": grow("[]", "[ns.x, ns.x]", "{% set a = ns.x %}")
    + grow("[]", "[ns.x, ns.x]", "{% for y in [a, ns.x] %}{{ loop.changed(y) }}{% endfor %}"),
    "tuple tree": grow("(1, 2)", "(ns.x, ns.x)", "{{ {ns.x: 1} | length }}"),
    "tuple tree through items": grow("(1, 2)", "({ns.x: ns.x}.items() | first)"),
    "deep tuple": "{% set ns = namespace(x=(1,)) %}{% for i in range(99999) %}"
    "{% set ns.x = {1: ns.x}.items() | first %}{% endfor %}{{ {ns.x: 1} }}",
    "deep list": "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}"
    "{{ ns.x }}",
    "output": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "time format": "{{ strftime_now('%c' * 999) }}",
}

FORBIDDEN = {
    "class": "{{ ''.__class__.__mro__ }}",
    "class by filter": "{{ ('' | attr('__class__')).mro() }}",
    "class by item": "{{ ''['__class__'].mro() }}",
    "class by format": "{{ '{0.__class__.mro}'.format('') }}",
    "class by format_map": "{{ '{x.__class__.mro}'.format_map({'x': ''}) }}",
    "globals": "{{ raise_exception.__globals__.x }}",
    "environment": "{{ self._TemplateReference__context.environment.x }}",
    "change of a message": "{{ messages[0].update({'role': 'x'}) }}",
    "code object": "{% macro f() %}{% endmacro %}{{ f._func.__code__.x }}",
    "random": "{{ [1, 2] | random }}",
    "lipsum": "{{ lipsum(n=9) }}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_template_is_stopped(source: str) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(TemplateError):
        ChatTemplate(source, limits=LIMITS).render([{"role": "user", "content": "x"}])
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 128 * 1024  # KiB on Linux


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_python_is_out_of_reach(source: str) -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_a_long_template_is_refused() -> None:
    with pytest.raises(TemplateError, match="at most 262144"):
        ChatTemplate("x" * 262_145)


def test_time_is_limited() -> None:
    template = ChatTemplate("{% for i in range(90000) %}{% endfor %}" * 9, limits=TemplateLimits(seconds=0.01))
    with pytest.raises(TemplateError, match=r"more than 0\.01 seconds"):
        template.render([])


def test_a_long_conversation_is_within_the_limits() -> None:
    source = (
        "{% for m in messages %}{{ '<' ~ m.role ~ '>' + m.content.strip().split('</think>')[-1] | trim ~ '\n' }}"
        "{% if not loop.last and messages[loop.index].role == m.role %}{{ raise_exception('twice') }}{% endif %}"
        "{% for n in messages[loop.index0:] if n.role == 'tool' %}{{ n.content }}{% endfor %}{% endfor %}"
    )
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": "word " * 2000} for n in range(400)]
    prompt = ChatTemplate(source).render(messages)
    assert prompt.count("<user>") == 200 and len(prompt) > 4_000_000 - 10_000
