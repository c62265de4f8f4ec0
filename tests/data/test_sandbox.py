"""A template that asks for more than a machine has is ended, soon, and told; one in common use is not."""

from __future__ import annotations

import time

import pytest

from gptailor.data.sandbox import bounded, spend
from gptailor.data.templates import TEMPLATES, Message, Template, open_template
from gptailor.errors import UserError

FITS = "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
LOOP = "{%% set ns = namespace(x=%s) %%}{%% for i in range(100) %%}%s{%% endfor %%}{{ ns.x }}"
LONG = "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}"


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(9) recursive %}{{ loop(range(9)) if loop.depth < 90 }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) + f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) }}",
        LOOP % ("'abc'", "{% set ns.x = ns.x + ns.x %}"),
        LOOP % ("'abc'", "{% set ns.x = ns.x ~ ns.x %}"),
        LOOP % ("'abc'", "{% set ns.x = [ns.x, ns.x] %}"),
        LOOP % ("'abc'", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}"),
        LOOP % ("'abc'", "{% set ns.x = namespace(a=ns.x, b=ns.x) %}"),
        LOOP % ("3", "{% set ns.x = ns.x * ns.x %}"),
        LOOP % ("1", "{% set ns.x = ns %}"),
        LONG + "{{ x }}{% endfor %}",
        LONG + "{% set y %}{{ x }}{{ x }}{% endset %}{% endfor %}",
        LONG + "{% set y = x[1:] %}{% endfor %}",
        LONG + "{% if x == x ~ 'a' %}{% endif %}{% endfor %}",
        LONG + "{% if x is in x %}{% endif %}{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%*d' % (10000000000, 1) }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ '{0:{1[0]}}'.format(1, [10000000000]) }}",
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{{ range(100000) | join('b' * 100000) }}",
        "{{ ('b' * 100000).join(range(100000) | map('string')) }}",
        "{{ ([[1] * 2000] * 2000) | sum(start=[]) }}",
        "{{ messages | tojson(indent=10000000000) }}",
        "{{ messages | map(attribute='content') | map('center', 10000000) | list }}",
        "{{ " + "(" * 50000 + "1" + ")" * 50000 + " }}",
        "{% if 1 %}" * 3000,
        "{{ " + "a." * 40000 + "b }}",
        "{{ lipsum(n=100000000) }}",
        "x" * 200_001,
    ],
    ids=lambda bomb: bomb[:60],
)
def test_a_bomb_is_refused_within_seconds(bomb: str) -> None:
    begun = time.process_time()
    with pytest.raises(UserError, match="template t"):
        Template("t", bomb + FITS)
    assert time.process_time() - begun < 8


@pytest.mark.parametrize("name", TEMPLATES)
def test_long_conversations_are_well_within_the_bounds(name: str) -> None:
    turns = 300 if name in ("chatml", "phi3") else 1
    messages = [Message(role, "word " * 1000) for _ in range(turns) for role in ("user", "assistant")]
    assert open_template(name).render(messages).count("word") == 2000 * turns


def test_a_rendering_has_its_own_units() -> None:
    for _ in range(3):
        with bounded():
            spend(15_000_000)
            with bounded():
                spend(15_000_000)
            with pytest.raises(Exception, match="far more"):
                spend(15_000_000)
