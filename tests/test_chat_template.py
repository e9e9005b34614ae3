"""Chat templates: the text of Transformers, and nothing that a hostile one could want."""

import tracemalloc
from time import process_time

import pytest

from edgeml_runtime.chat_template import LONGEST_TEMPLATE, ChatTemplate, Writer
from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.session import Said
from tiny.chats import CHATS, TEMPLATES

HELLO = [Said("user", "hello")]
LONG = [Said("user", f"question {place} with some words") for place in range(400)]


def written(template, turns=HELLO, **words):
    return Writer(ChatTemplate(template=template, **words)).write(turns)


def refused(template, turns=HELLO):
    begin = process_time()
    with pytest.raises(EdgemlError) as caught:
        written(template, turns)
    assert process_time() - begin < 5
    assert "\n" not in caught.value.message
    return caught.value.message


def growing(change, start="'ab'", times=100):
    """A template that changes a value again and again."""
    loop = f"{{% for i in range({times}) %}}{{% set ns.x = {change} %}}{{% endfor %}}"
    return f"{{% set ns = namespace(x={start}) %}}{loop}{{{{ ns.x|length }}}}"


@pytest.mark.real
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_are_written_as_transformers_writes_them(name, chat):
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [Said(*turn) for turn in chat]
    messages = [{"role": role, "content": words} for role, words in chat]
    template, words = TEMPLATES[name], {"bos_token": "<s>", "eos_token": "</s>"}
    try:
        expected = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **words)[0][0]
    except Exception as error:  # noqa: BLE001 - Jinja's own, in another process's words
        with pytest.raises(UnfitError, match=str(error)[:20]):
            written(template, turns, **words)
        return
    if "strftime_now" not in template:  # which is today's there, and never changes here
        assert written(template, turns, **words) == expected


def test_a_template_is_written_with_its_tokens_and_the_beginning_of_an_answer():
    text = written(TEMPLATES["llama3"], bos_token="<s>")

    assert text.startswith("<s><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|>")
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_a_date_is_the_same_on_every_day():
    assert written("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


def test_what_a_template_refuses_is_told_in_its_own_words():
    with pytest.raises(UnfitError, match="refuses these turns: System role not supported"):
        written(TEMPLATES["gemma"], [Said("system", "short"), *HELLO])


def test_marks_of_what_a_model_wrote_are_as_if_they_were_not_there():
    assert written("{% generation %}{{ messages[0].content }}{% endgeneration %}") == "hello"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_long_conversation_stays_within_what_a_template_may_do(name):
    turns = [Said("user" if place % 2 == 0 else "assistant", turn.words) for place, turn in enumerate(LONG[:-1])]

    words = {"bos_token": "<s>", "eos_token": "</s>"}

    assert written(TEMPLATES[name], turns, **words).count("question") == len(turns)
    assert len(written(TEMPLATES[name], [Said("user", "x" * 1_000_000)], **words)) > 1_000_000


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages[0]['content'].format(messages) }}",
        "{{ '{0.__class__}'.format_map(messages[0]) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ messages|attr('append') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ messages[0].__setitem__('role', 'x') }}",
        "{% set ns = namespace(**{'__class__': 1}) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ raise_exception.__globals__.json }}",
        "{{ range.__self__.left }}",
        "{{ messages[0].content['_of']('x', bos_token) }}",
        "{{ messages[0].content.split.__func__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ strftime_now.__code__.co_code }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{% from '/etc/passwd' import x %}",
        "{% extends '/etc/passwd' %}",
        "{% block x %}{% endblock %}",
        "{% set x = (lambda: 1)() %}",
        "{{ {messages: 1} }}",
        "{{ {}[messages] }}",
        "{% do messages %}",
        "{{ messages|pprint }}",
        "{{ undefined_name.part.of_it }}",
        "{% if %}",
        "{{ 1 / 0 }}",
        "{{ messages[7]['role'].x }}",
    ],
)
def test_a_template_that_tries_to_get_out_is_refused(template):
    assert "the model's chat template cannot be used" in refused(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''|map('attr','__class__')|list }}",
        "{{ messages|map(attribute='__class__')|list }}",
        "{{ self._TemplateReference__context }}",
        "{{ joiner.__init__ }}{{ namespace.__init__ }}{{ raise_exception.__globals__ }}",
        "{{ environment }}{{ context }}{{ loop }}{{ self.x }}",
        "{{ messages[0].content.author }}{{ messages[0].content._authors }}{{ messages[0].content.split['__self__'] }}",
        "{{ config }}{{ request }}{{ os }}{{ tools }}{{ documents }}",
    ],
)
def test_what_a_template_looks_for_and_must_not_find_is_nothing(template):
    assert set(written(template)) <= set("[]UndefinedNone, TemplateReference<>")


def test_a_template_with_more_branches_than_a_compiler_takes_is_refused():
    refused("{% if 0 %}" + "{% elif 0 %}" * 7000 + "{% endif %}")


def test_a_namespace_is_written_without_what_is_in_it():
    loop = "{% for i in range(60) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}{% endfor %}"
    assert written("{% set ns = namespace(x='ab') %}" + loop + "{{ ns.x }}") == "<Namespace>"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ range(1000000000)|list }}",
        "{% for i in range(400000) %}{% for j in range(400000) %}{% endfor %}{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) if false %}{% endfor %}{% endfor %}",
        "{% set L = range(200000)|list %}{% for i in L %}{% for x in L if false %}{% endfor %}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ ['a'] * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x'|indent(1000000000) }}",
        growing("ns.x + ns.x"),
        growing("ns.x ~ ns.x"),
        growing("[ns.x, ns.x]"),
        growing("(ns.x, ns.x)"),
        growing("{'a': ns.x, 'b': ns.x}"),
        growing("ns.x + ns.x", "[1]"),
        growing("ns.x * ns.x", "3"),
        growing("ns.x|replace('a', 'aaaaaaaa')"),
        growing("ns.x.replace('', 'aaaaaaaa')"),
        growing("ns.x.replace('a', 'aaaaaaaa')"),
        growing("ns.x.join(['a', 'b', 'c', 'd'])"),
        growing("[ns.x, ns.x, ns.x]|join"),
        growing("[ns.x, ns.x, ns.x]|tojson"),
        growing("[ns.x, ns.x, ns.x]|string"),
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% set x %}" + "a" * 1000 + "{% endset %}{% for i in range(9999) %}{{ x }}{% endfor %}",
        "{% for i in range(9999) %}" + "a" * 1000 + "{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% for a in [1] %}" * 50 + "{% endfor %}" * 50,
        "x" * (LONGEST_TEMPLATE + 1),
        growing("{'a': ns.x, 'b': ns.x}.values()").replace("|length", ""),
        growing("{'a': ns.x, 'b': ns.x}.items()").replace("|length", "|string|length"),
        growing("ns.x + ns.x", times=16).replace("ns.x|length", "range(3000)|list|tojson(separators=(ns.x, ':'))"),
        growing("ns.x + ns.x", "['" + "9" * 4000 + "'|int]", times=15).replace("ns.x|length", "ns.x|tojson"),
        "{% set r = range(400000) %}{% for i in range(300) %}{{ 'x' in r }}{% endfor %}",
        "{% set r = range(400000) %}{% for i in range(300) %}{{ r|max }}{% endfor %}",
    ],
    ids=range(42),
)
def test_a_template_that_would_take_too_long_or_too_much_memory_is_refused(template):
    refused(template)
    if "macro" in template:  # takes no memory, and minutes where each piece of memory is followed
        return
    tracemalloc.start()
    try:
        refused(template)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "part",
    [
        "words.split('a')",
        "words|list|map('upper')|list",
        "words.replace('a', 'bb').split('b')",
        "words|list",
        "words ~ loop.index",
    ],
)
def test_a_long_text_lets_no_template_take_too_much_memory(part):
    change = f"{{% set ns.x = namespace(before=ns.x, part={part}) %}}"
    template = (
        f"{{% set ns = namespace(x=1) %}}{{% set words = messages[0].content %}}{{% for i in range(99999) %}}{change}"
    )
    turns = [Said("user", "a" * 10_000)]
    tracemalloc.start()
    try:
        refused(template + "{{ 1 }}{% endfor %}", turns)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
