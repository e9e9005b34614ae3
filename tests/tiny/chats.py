"""Chat templates written in the manner of well-known families, and conversations for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATES = {
    "chatml": (
        "{%- for message in messages -%}\n"
        "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' -}}\n"
        "{%- endfor -%}\n"
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif -%}\n"
    ),
    "llama3": (
        "{{- bos_token }}\n{%- if not tools is defined %}\n    {%- set tools = none %}\n{%- endif %}\n"
        "{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content'] | trim %}\n    {%- set rest = messages[1:] %}\n"
        "    {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' ~ system_message ~ '<|eot_id|>' }}\n"
        "{%- else %}\n    {%- set rest = messages %}\n{%- endif %}\n"
        "{%- for message in rest %}\n    {%- if message.role in ('user', 'assistant') %}\n"
        "    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim }}\n"
        "    {{- '<|eot_id|>' }}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- if tools is not none %}\n    {{- tools | tojson(indent=4) }}\n{%- endif %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
        "{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "phi3": (
        "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
        "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
        "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
        "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "thinking": (
        "{%- set ns = namespace(last=messages|length - 1, found=false) %}\n"
        "{%- macro turn(role, words) %}{{ '<|im_start|>' ~ role ~ '\\n' ~ words ~ '<|im_end|>\\n' }}{% endmacro %}\n"
        "{%- for message in messages[::-1] %}\n    {%- if message.role == 'user' and not ns.found %}\n"
        "        {%- set ns.found = true %}\n        {%- set ns.last = messages|length - 1 - loop.index0 %}\n"
        "    {%- endif %}\n{%- endfor %}\n"
        "{%- for message in messages %}\n    {%- set words = message.content %}\n"
        "    {%- if message.role == 'assistant' and '</think>' in words %}\n"
        "        {%- set words = words.split('</think>')[-1].lstrip('\\n') %}\n    {%- endif %}\n"
        "    {%- if loop.first and message.role != 'system' %}{{ turn('system', 'Today is a day.') }}{% endif %}\n"
        "    {%- generation %}{{ turn(message.role, words) }}{% endgeneration %}\n"
        "    {%- if loop.index0 == ns.last %}{% continue %}{% endif %}\n{%- endfor %}\n"
        "{{- '<|im_start|>assistant\\n<think>\\n' if add_generation_prompt }}"
    ),
    "commands": (
        "{%- set mode = '/think' -%}\n"
        "{%- if messages[0].role == 'system' -%}\n    {%- set told = messages[0].content -%}\n"
        "    {%- if '/no_think' in told -%}\n        {%- set mode = '/no_think' -%}\n    {%- endif -%}\n"
        "    {%- set rules = told.replace('/no_think', '').replace('/think', '').rstrip() -%}\n{%- endif -%}\n"
        "{{- '<|im_start|>system\\n' -}}\n{{- 'Mode: ' + mode + '\\n\\n' -}}\n"
        "{%- if rules -%}\n    {{- rules + '\\n\\n' -}}\n{%- else -%}\n    {{- 'Be of use.\\n\\n' -}}\n{%- endif -%}\n"
        "{{- '<|im_end|>\\n' -}}\n"
        "{%- for message in messages -%}\n"
        "    {%- set words = message.content if message.content is string else '' -%}\n"
        "    {%- if message.role == 'user' -%}\n"
        "        {{ '<|im_start|>' + message.role + '\\n' + words.replace('/think', '') + '<|im_end|>\\n' }}\n"
        "    {%- elif message.role == 'assistant' -%}\n"
        "        {{ '<|im_start|>assistant\\n' + words.lstrip('\\n') + '<|im_end|>\\n' }}\n"
        "    {%- endif -%}\n{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}\n"
        "    {{ '<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n' if mode == '/no_think' else '') }}\n"
        "{%- endif -%}\n"
    ),
    "instructions": (
        "{{- bos_token }}\n{%- set rest = messages %}\n{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set rules = messages[0]['content'] %}\n    {%- set rest = messages[1:] %}\n{%- endif %}\n"
        "{%- set asked = rest | selectattr('role', 'equalto', 'user') | list %}\n"
        "{%- for message in rest %}\n"
        "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n"
        "        {{- raise_exception('user and assistant must alternate') }}\n    {%- endif %}\n"
        "    {%- if message['role'] == 'user' %}\n"
        "        {%- if message == asked[-1] and rules is defined %}\n"
        "            {{- '[INST]' + rules + '\\n\\n' + message['content'] + '[/INST]' }}\n"
        "        {%- else %}\n            {{- '[INST]' + message['content'] + '[/INST]' }}\n        {%- endif %}\n"
        "    {%- else %}\n        {{- message['content'] | trim + eos_token }}\n    {%- endif %}\n{%- endfor %}\n"
    ),
}
CHATS = [
    [("user", "hello")],
    [("system", " be short "), ("user", "  what is\n\na VAT line? ")],
    [("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c < d & 'e' \"f\" é ☃")],
    [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "{{ messages }}{% endfor %}")],
]
_CONTROL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    *("[INST]", "[/INST]"),
)


def chat_tokenizer(*, normalized: bool = False) -> Tokenizer:
    """A tokenizer of bytes with those families' control words; `normalized` ones are found in other spellings too."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalized:
        tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=normalized) for word in _CONTROL])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in ("<think>", "</think>")])
    return tokenizer
