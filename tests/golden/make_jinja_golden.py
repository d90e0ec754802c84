#!/usr/bin/env python3
"""Makes jinja_golden.jsonl: small templates, rendered by Jinja2 with the settings of transformers.

    python3 tests/golden/make_jinja_golden.py       (needs jinja2)

A line is {"template", "variables", "text" or "error", "spans"}: spans are those of {% generation %} blocks, in bytes.
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
CLOCK = datetime.datetime(2025, 3, 4, 5, 6, 7)
CHAT = {
    "messages": [
        {"role": "system", "content": "  Be brief. \n"},
        {"role": "user", "content": "naïve 你好 <b>&amp;</b> 'q' \"d\" \\n \u00a0\u2028"},
        {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4", "tool_calls": [
            {"type": "function", "function": {"name": "add", "arguments": {"b": 2.5, "a": 1, "t": [True, None, "x\n"]}}}]},
        {"role": "tool", "content": "3.5"},
        {"role": "assistant", "content": "ça va?"},
    ],
    "tools": [{"type": "function", "function": {"name": "add", "parameters": {"B": 1, "a": {"ü": 1e-07}, "c": 1e16}}}],
    "bos_token": "<s>",
}
CHATML = """{{ bos_token }}{% for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{% else %}
{{- message.content | trim + '<|im_end|>' }}
    {%- endif %}
{{ '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
EXPRESSIONS = """
1 == 1.0 == true|'a' 'b'|-7 // 2|-7 % 3|7 / 2|1e16|1e-5|123456789.0|2.50|[1, 'a', "it's", none, true, 1.5]|{'a': 1, 2: [(1,), ()]}
'x' if false|('a' ~ 1 ~ none)|messages[-1].content[::-1]|messages[1].content[2:-3]|messages[1].content | length|u|u is defined
messages[0].nope is defined|messages[0]['content'] | trim|messages[1].content | tojson|tools | tojson|tools | tojson(indent=2)
tools | tojson(ensure_ascii=true)|tools | tojson(separators=(',', ':'))|tools[0].function.parameters | tojson(sort_keys=true)
tools[0].function.parameters | dictsort|messages[2].content.split('</think>')[-1].lstrip('\\n')|' a  b '.split()|'a,b,,c'.split(',', 2)
'xxaxx'.strip('x')|'Straße ΑΣ' | upper|'ΑΣ' | lower|'éa B' | capitalize|messages | map(attribute='role') | join(', ')
messages | selectattr('role', 'equalto', 'user') | list | length|'<' + ('x' | safe)|('x' | safe) ~ '<'|'<b>' | escape
[3, 1, 2] | sort|['b', 'A', 'a'] | unique | list|['b', 'A'] | sort|[1, 2] | min|range(5) | list|range(5, 0, -2) | list|'3.7' | int|'x' | int(9)
strftime_now('%d %b %Y %A %j')|'{} {x} {1}'.format(1, 2, x='y')|'a\\nb\\n\\nc' | indent(2)|u | default('d')|'' | default('d', true)
messages[2].items() | list | length|messages[2].tool_calls[0].function.arguments|'a' in 'cat'|'z' not in ['a']|'b' in {'b': 1}|not u
[] or 'x'|1 and 0|1 < 2 < 3|u is iterable|'a' is sequence|1 is sequence|true is number|none is none|{} is mapping|'x' * 3|[1] * 2
'a' + 1|u.v|none + 1|1 in 'a'|[1] | tojson | length|u | tojson|messages.append(1)|raise_exception('no')|'a' | nope|range(3) | map('string') | join
none | selectattr('a') | list|0 | map('upper') | list|none | list|'{x} {0} {{}}'.format(1, x=2)
"a\\u00e9\\x41\\t'" | tojson|['\\x7f\\u2028\\x01', '\U0001f600'] | tojson(ensure_ascii=true)|['\\x7f\\u2028\\x01\\t'] | string|(1, 2)[0]|'abc'[5]|'abc'[1]
messages | first | items | list|{'a': 1}.get('b', 2)|{'a': 1}.a|{'items': 1}['items']|'aXbX'.replace('X', 'y', 1)|'a' < 'b'|[1, 2] == [1, 2]|'x'.startswith(('y', 'x'))
' a b  c '.split(none, 1)|' a b '.split(maxsplit=0)|{'a': 1}.keys()|{'a': 1}.values()|1.0 // 0.1|-4.0 % 2.0|4 % -2.0|-1.5 // 0.5|7 // -2.0|7.5 % -2
namespace({'a': 1}, a=2).a|namespace({}, {}).a|'+1.5' | float|'+-5' | int|'1_000' | int|'1_000.5' | float|'_1' | int|'ßx' | capitalize|'ǆX'.capitalize()
[[1, [7, 8]]].0.1.0|[1] | first(2)|{'b': 1, 'a': 2} | dictsort(by='value')|{'b': 1} | dictsort(by='odd')|strftime_now('%-d.%-m.%y %I:%M %p %U %e %F %c')
'aaab' in 'aaaab'|'aab'.find('ab')|'aXaXa'.count('aX')|'xyzx'.strip('zyx')|'éaé'.strip('é')|[] | last is defined|(1, 2) | last|'1' | float(2)|'q' | float(2)
""".strip().split("\n")
TEMPLATES = [
    CHATML,
    "{%- macro m(a, b='x', c=none) %}\n  [{{ a }}{{ b }}{{ c }}]\n{%- endmacro %}\n{{ m(1) }} {{ m(1, c=2) }} {{ m('q', 'r', 's') }}",
    "{% set ns = namespace(n=0, l=[]) %}{% for m in messages if m.role != 'tool' %}{% set x = loop.index %}{% set ns.n = ns.n + x %}"
    "{% set ns.l = ns.l + [loop.last, loop.revindex0] %}{{ loop.previtem.role if loop.previtem is defined }}{% endfor %}{{ ns.n }}{{ ns.l }}{{ x }}",
    "{% for a, b in {'k': 1, 'l': 2}.items() %}{{ a }}={{ b }}{{ ', ' if not loop.last }}{% else %}none{% endfor %}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in [] %}{% else %}empty{% endfor %}",
    "{% set x %}  a{{ bos_token }}  {% endset %}[{{ x }}]{% set y | trim | upper %} b {% endset %}[{{ y }}]",
    "{% filter trim | upper %}  a {{ bos_token }} {% endfilter %}",
    "a  \n  {# c #}  \n  {% if true %}  \n b \n  {%- endif -%}  \n  c {{ 1 }}\n\n  {{- 2 -}}  \n d\n  {#- c -#}\n e {%+ if true %}\nf{% endif %}\n\n",
    "a\r\nb\rc{% if true %}\r\nd{% endif %}\r\n",
    "{{ {'a': {'b': '}}'}}['a'] }}{{ '%}' }}{{ messages[0].content.strip() }}",
    "{% if x is not defined %}u{% endif %}{% if x is undefined and not false %}v{% endif %}{{ (1, 2,) }}{{ 1, 2 }}",
    "{% macro outer() %}{% for m in messages %}{{ inner(m.role) }}{% endfor %}{% endmacro %}{% macro inner(r) %}<{{ r }}>{% endmacro %}{{ outer() }}",
    "{% if false %}{{ 1 | from_json }}{% endif %}ok",
    "{% for a in [1] %}{% for b in [1] %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}{% endfor %}",
    "{% set n = namespace({1: 2, 'x': 0}) %}{% set n.x = 3 %}{% set n.y = 4 %}{{ n.x }}{{ n.y }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% set n = namespace(c=0) %}{% macro m() %}{% set n.c = n.c + 1 %}{% endmacro %}{{ dict(k=m, z=m()).k() }}{{ n.c }}",
]


def split_expressions():
    """Lines hold expressions with `|` between them; a filter has blanks around its bar."""
    for line in EXPRESSIONS:
        part = ""
        for i, c in enumerate(line):
            if c == "|" and line[i - 1 : i] != " ":
                yield part
                part = ""
            else:
                part += c
        yield part


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
        text = caller()
        start = len("".join(self.environment.written).encode())
        self.environment.spans.append([start, start + len(text.encode())])
        return text


def render(template, variables):
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.globals.update(raise_exception=raise_exception, strftime_now=CLOCK.strftime)
    env.written, env.spans = [], []
    for part in env.from_string(template).generate(**variables):
        env.written.append(part)
    return "".join(env.written), env.spans


def main():
    with open(HERE / "jinja_golden.jsonl", "w") as out:
        for template in TEMPLATES + ["{{ %s }}" % e for e in split_expressions()]:
            variables = dict(CHAT, add_generation_prompt=template is CHATML)
            line = {"template": template, "variables": variables}
            try:
                line["text"], line["spans"] = render(template, variables)
            except Exception as e:
                line["error"] = f"{type(e).__name__}: {e}"
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
