"""What goes wrong: each fault of a client's has its 4xx with the reason, and harms nobody else's request."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import select
import socket
import string
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.server.batching import Batcher
from edgeml_runtime.server.refusals import RefusedError
from edgeml_runtime.server.schemas import check_schema
from edgeml_runtime.server.settings import Settings, read_settings, read_token
from edgeml_runtime.server.work import Ask, Line
from tiny.gguf import llama_gguf
from tiny.serving import served
from tiny.variants import gguf_variant, onnx_variant

CHATML = "{% for message in messages %}<|im_start|>{{ message.role }}<|im_end|>{% endfor %}"
HELLO = [{"role": "user", "content": "hello"}]
CHAT, EMBED, PREDICT = "/v1/chat/completions", "/v1/embeddings", "/v1/predict"
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    llama = llama_gguf(root / "llama.gguf", width=64, type="F32", context=4096, template=CHATML)
    return {
        "chat": gguf_variant(root / "chat", llama, max_tokens=4096),
        "onnx": onnx_variant(root / "onnx").path,
    }


@pytest.fixture(scope="module")
def chat(folders):
    with served(folders["chat"], request_bytes=60_000, read_timeout_s=0.3, context_tokens=200) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def encoder(folders):
    with served(folders["onnx"], request_bytes=60_000, read_timeout_s=0.3, rows=4) as endpoint:
        yield endpoint


@pytest.mark.parametrize(
    ("body", "status", "told", "place"),
    [
        (b"{", 400, "not JSON", None),
        (b"", 400, "not JSON", None),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', 400, "UTF-8", None),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, "not JSON", None),
        (b"[" * 50_000, 400, "nested deeper than 64", None),
        (b"[" * 100 + b"]" * 100, 400, "nested deeper than 64", None),
        (b'{"messages": NaN}', 400, "not JSON", None),
        ({"messages": "hello"}, 400, "Expected `array`, got `str`", "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "got `int`", "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "Invalid enum value", "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]}, 400, "Invalid enum", None),
        ({"messages": []}, 400, "the messages are empty", "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "the messages are empty", "messages"),
        ({"messages": HELLO, "temprature": 1}, 400, "unknown field `temprature`", None),
        ({"messages": HELLO, "temperature": 2.1}, 400, "temperature is 2.1, and must be from 0 to 2", "temperature"),
        ({"messages": HELLO, "temperature": -1}, 400, "must be from 0 to 2", "temperature"),
        ({"messages": HELLO, "top_p": 1.5}, 400, "top_p is 1.5, and must be from 0 to 1", "top_p"),
        ({"messages": HELLO, "top_p": 0}, 400, "set temperature to 0", "top_p"),
        ({"messages": HELLO, "seed": 2**63}, 400, "seed is 9.22337e+18, and must be from", "seed"),
        ({"messages": HELLO, "seed": 1.5}, 400, "got `float`", "seed"),
        ({"messages": HELLO, "stop": ["a", "b", "c", "d", "e"]}, 400, "stop takes up to 4 words", "stop"),
        ({"messages": HELLO, "n": 2}, 400, "one answer a request", "n"),
        ({"messages": HELLO, "max_tokens": 0}, 400, "must be 1 or more", "max_tokens"),
        ({"messages": HELLO, "max_tokens": 2**70}, 400, "", None),
        ({"messages": HELLO, "stop": [""]}, 400, "none that is empty", "stop"),
        ({"messages": HELLO, "tools": [{}]}, 400, "tools are not known here", "tools"),
        ({"messages": HELLO, "max_tokens": 190}, 400, "and 190 new ones do not fit the 200", None),
        ({"messages": [{"role": "user", "content": "a" * 300}]}, 400, "tokens and 1 new ones do not fit the 200", None),
        ({"messages": [{"role": "user", "content": "a" * 7000}]}, 400, "7000 characters", None),
        ({"messages": [{"role": "user", "content": "".join(map(chr, range(0xE000, 0xF900)))}]}, 400, "private", None),
        ({"messages": HELLO, "model": "gpt-4o"}, 404, "the model here is tiny/gguf-f16", "model"),
        ({"messages": HELLO, "response_format": {"type": "json_schema"}}, 400, "there is no json_schema", None),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_the_reason_and_the_place(chat, body, status, told, place):
    for more in ({}, {"stream": True}):
        found = chat.post(CHAT, body | more if isinstance(body, dict) else body)
        assert found.status == status, found.text
        assert told in found.error["message"]
        assert place is None or found.error["param"] == place
    assert chat.post(CHAT, {"messages": HELLO, "max_tokens": 1}).status == 200


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}]},
        {"$ref": "https://example.com/x.json"},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**7},
        {"type": "string", "pattern": "^(((a+)+)+$"},
        {"type": "string", "pattern": "^a{1,1000000}$"},
        {"type": "string", "pattern": "^(a?){999}$"},
        {"type": "string", "pattern": "(a|b)*" * 3000},
        {"type": "string", "pattern": f"^(({'|'.join(string.ascii_letters)})?){{100}}$"},
        {"type": "string", "maxLength": 10**30, "minLength": 2.5},
        {"type": "nonsense"},
        {"enum": []},
        {"not": {}},
        {"type": "object", "properties": {str(number): {} for number in range(1500)}},
    ],
)
def test_a_schema_that_nothing_can_be_held_to_ends_neither_the_process_nor_the_time(chat, schema):
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    began_s = time.monotonic()
    found = chat.post(CHAT, {"messages": HELLO, "max_tokens": 2, "response_format": format})
    assert found.status in (200, 400), found.text
    assert time.monotonic() - began_s < 2
    assert chat.post(CHAT, {"messages": HELLO, "max_tokens": 1}).status == 200


def test_a_schema_with_a_usual_pattern_and_long_values_is_taken():
    iban = {"type": "string", "pattern": "^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$", "default": {"maxLength": 10**6}}
    check_schema({"type": "object", "properties": {"iban": iban}, "examples": [{"pattern": "a" * 999}]}, "schema")


@pytest.mark.parametrize(
    ("path", "body", "told", "place"),
    [
        (EMBED, {"input": ""}, "a text is empty", "input[0]"),
        (EMBED, {"input": []}, "there is no text", "input"),
        (EMBED, {"input": ["a", " "]}, "a text is empty", "input[1]"),
        (EMBED, {"input": [1, 2]}, "Expected `str`, got `int`", "input[0]"),
        (EMBED, {"input": ["a"] * 5}, "5 are too many", "input"),
        (EMBED, {"input": ["a", "b" * 99]}, "text 1 has 101 tokens, and tiny/onnx-fp32 reads 32", None),
        (EMBED, {"input": "a", "dimensions": 3}, "the vectors have 8 dimensions", "dimensions"),
        (EMBED, {"input": "a", "encoding_format": "int8"}, "Invalid enum value", "encoding_format"),
        (EMBED, {"input": "a " * 600}, "1200 characters", None),
        (PREDICT, {"rows": []}, "there are no rows", "rows"),
        (PREDICT, {"rows": [{"txt": "a"}]}, "no column 'text' in row 1", "rows"),
        (PREDICT, {"rows": [{"text": 7}]}, "is no text", "rows"),
        (PREDICT, {"rows": [{"text": "a"}] * 5}, "5 are too many", "rows"),
        (PREDICT, {"rows": [{"text": "b" * 99}]}, "text 0 has 101 tokens", None),
        (PREDICT, {"rows": [{"text": "a"}], "task": "text-generation"}, "sentence-similarity alone", "task"),
        (PREDICT, {"rows": [["a"]]}, "Expected `object`, got `array`", "rows[0]"),
    ],
)
def test_texts_and_rows_that_cannot_be_read_are_refused(encoder, path, body, told, place):
    found = encoder.post(path, body)
    assert (found.status, told in found.error["message"]) == (400, True), found.text
    assert place is None or found.error["param"] == place


def test_other_routes_methods_and_types_are_refused(encoder):
    assert encoder.ask("GET", "/v1/nothing").status == 404
    assert encoder.ask("GET", EMBED).status == 405
    assert encoder.ask("POST", EMBED, b'{"input": "a"}', content_type="text/plain").status == 415
    other = encoder.post(CHAT, {"messages": HELLO})
    assert (other.status, "POST /v1/embeddings" in other.error["message"]) == (404, True)


def test_a_body_that_is_too_large_is_refused_and_read_on_for_a_while(encoder):
    found = encoder.post(EMBED, b" " * 60_001)
    assert (found.status, found.error["message"]) == (413, "the body has more than 60000 bytes")
    declared = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    assert encoder.raw(declared + b"content-length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413")


def test_a_client_that_is_slow_with_its_headers_or_its_body_is_told_so_and_closed(encoder):
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    assert encoder.raw(b"").startswith(b"HTTP/1.1 408")
    assert encoder.raw(head).startswith(b"HTTP/1.1 408")
    found = encoder.raw(head + b"content-length: 100\r\n\r\n{")
    assert found.startswith(b"HTTP/1.1 408")
    assert b"the body took longer than 0.3 s" in found
    assert encoder.raw(b"\x16\x03\x01 no http\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("sent_as", [b"content-length: 1000000", b"transfer-encoding: chunked"])
def test_who_is_refused_before_the_body_holds_no_connection_by_sending_it_slowly(folders, sent_as):
    with served(folders["onnx"], token=TOKEN, connections=1, read_timeout_s=0.2) as endpoint:
        with socket.create_connection(("127.0.0.1", endpoint.port), timeout=2) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n" + sent_as + b"\r\n\r\n1")
            assert connection.recv(65536).startswith(b"HTTP/1.1 401")
            connection.sendall(b"0")
            with suppress(ConnectionError):  # and no timeout
                while connection.recv(65536):
                    pass
        assert endpoint.ask("GET", "/health").status == 200


def test_who_is_refused_before_the_body_may_send_it_and_ask_again(encoder):
    asked = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", encoder.port), timeout=5) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhe")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")
        connection.sendall(b"llo")
        connection.sendall(asked)
        assert b"".join(iter(lambda: connection.recv(65536), b"")).endswith(b"alive\n")


def test_more_connections_than_allowed_are_turned_away(folders):
    with served(folders["onnx"], connections=3) as endpoint:
        health = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        with ExitStack() as kept:
            for _ in range(3):
                kept.enter_context(socket.create_connection(("127.0.0.1", endpoint.port)))
            assert endpoint.raw(health).startswith(b"HTTP/1.1 429")
        assert endpoint.raw(health).startswith(b"HTTP/1.1 200")


ASKED = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"


@contextmanager
def slow_reader(folder, keeps, **settings):
    """An endpoint, and a connection to it; the system keeps so many bytes that are not read, twice."""
    with served(folder, system_keeps=keeps, **settings) as endpoint, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, keeps)
        connection.connect(("127.0.0.1", endpoint.port))
        yield endpoint, connection


@pytest.mark.parametrize("times", [10, 5000])  # of which all are taken in, or not
def test_who_reads_nothing_of_an_answer_holds_no_connection(folders, times):
    with slow_reader(folders["onnx"], 4096, connections=1, write_timeout_s=0.2) as (endpoint, connection):
        connection.settimeout(0.1)
        with suppress(OSError):
            connection.sendall(ASKED * times)
        ended = select.poll()
        ended.register(connection, select.POLLHUP)  # nothing is read, and so only a reset is seen
        assert ended.poll(5000)
        assert endpoint.ask("GET", "/metrics").status == 200


def test_who_reads_slowly_gets_all_of_every_answer(folders):
    with slow_reader(folders["onnx"], 65536, write_timeout_s=0.2) as (_, connection):
        connection.sendall(ASKED * 300)
        came = b""
        while came.count(b"HTTP/1.1 200") < 300 and (more := connection.recv(4096)):
            came += more
            time.sleep(0.002)
        assert came.count(b"HTTP/1.1 200") == 300


def test_who_reads_an_answer_for_longer_than_may_be_left_unread_gets_all_of_it(folders):
    content = json.dumps({"input": ["a"] * 600}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with slow_reader(folders["onnx"], 4096, write_timeout_s=0.2, rows=600) as (_, connection):
        connection.sendall(head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(content) + content)
        came, began_s = b"", time.monotonic()
        while more := connection.recv(4096):
            came += more
            time.sleep(0.015)
        assert time.monotonic() - began_s > 0.4  # of which the system keeps little: it waits for the reader all along
        assert len(json.loads(came.partition(b"\r\n\r\n")[2])["data"]) == 600


def test_only_this_machine_s_names_reach_a_loopback_endpoint(encoder):
    assert encoder.ask("GET", "/v1/models", host="127.0.0.1:8080").status == 200
    assert encoder.ask("GET", "/v1/models", host="LOCALHOST").status == 200
    assert encoder.ask("GET", "/v1/models", host="[::1]:80").status == 200
    for name in ("evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "[::2]", ""):
        assert encoder.ask("GET", "/v1/models", host=name).status == 403, name
    assert "access-control-allow-origin" not in encoder.ask("GET", "/v1/models", origin="http://a.b").headers


def test_without_the_token_nothing_is_told_but_that_the_process_lives(folders):
    with served(folders["onnx"], token=TOKEN) as endpoint:
        for shown in (
            "",
            "Bearer",
            "Bearer x",
            f"Basic {TOKEN}",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Bearer \xff",
        ):
            found = endpoint.ask("GET", "/v1/models", authorization=shown)
            assert (found.status, found.error["code"]) == (401, "invalid_api_key"), shown
        assert endpoint.ask("GET", "/metrics").status == 401
        assert endpoint.ask("GET", "/health").status == endpoint.ask("GET", "/ready").status == 200
        assert endpoint.ask("GET", "/v1/models", authorization=f"Bearer {TOKEN}").status == 200


def test_a_full_line_turns_requests_away_with_the_time_to_come_back_and_harms_none_in_it(folders):
    with served(folders["chat"], queue=2) as endpoint, ThreadPoolExecutor(12) as clients:
        asked = {"messages": HELLO, "max_tokens": 250}
        alone = endpoint.post(CHAT, asked).json["choices"][0]["message"]["content"]
        found = list(clients.map(lambda _: endpoint.post(CHAT, asked), range(12)))

    served_well = [one for one in found if one.status == 200]
    busy = [one for one in found if one.status == 429]
    assert len(served_well) + len(busy) == 12
    assert len(served_well) >= 3
    assert busy
    assert all(one.json["choices"][0]["message"]["content"] == alone for one in served_well)
    assert all(int(one.headers["retry-after"]) >= 1 for one in busy)
    assert busy[0].error["code"] == "queue_full"


def test_an_answer_that_takes_too_long_ends_and_the_next_one_is_served(folders):
    with served(folders["chat"], time_limit_s=0.4) as endpoint:
        long = {"messages": [{"role": "user", "content": "hello " * 100}], "max_tokens": 3300}
        whole = endpoint.post(CHAT, long)
        assert (whole.status, whole.error["message"]) == (503, "the answer takes longer than 0.4 s")
        stream = endpoint.post(CHAT, long | {"stream": True})
        assert stream.status == 200
        last = stream.text.strip().rpartition("\n")[2]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "time_limit"
        assert endpoint.post(CHAT, {"messages": HELLO, "max_tokens": 1}).status == 200


def test_what_is_not_answered_when_the_endpoint_ends_is_refused_with_the_reason(folders, capfd):
    long = {"messages": [{"role": "user", "content": "hello " * 100}], "max_tokens": 3300}
    with ThreadPoolExecutor(2) as clients:
        with served(folders["chat"], stop_s=0.1) as endpoint:
            found = [clients.submit(endpoint.post, CHAT, long | {"stream": stream}) for stream in (True, False)]
            while len(endpoint.service.line._open) < 2 or not endpoint.service.line.waiting:
                time.sleep(0.001)
        one, other = sorted((one.result() for one in found), key=lambda answer: answer.status)
    assert (one.status, other.status) in [(200, 503), (503, 503)]  # the one that streams may not have begun
    assert other.error["code"] == "stopping"
    assert '"code":"stopping"' in one.text
    assert "Cancelled" not in capfd.readouterr().err


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_the_model(folders, stream):
    body = json.dumps({"messages": HELLO, "max_tokens": 4000, "stream": stream}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with served(folders["chat"]) as endpoint:
        with socket.create_connection(("127.0.0.1", endpoint.port)) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            if stream:
                assert b"200 OK" in connection.recv(100)
            else:
                time.sleep(0.1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        began_s = time.monotonic()
        assert endpoint.post(CHAT, {"messages": HELLO, "max_tokens": 1}).status == 200
        assert time.monotonic() - began_s < 0.5


def test_hundreds_of_random_requests_get_no_5xx(chat, encoder):
    luck = random.Random(20)
    seen = set()
    for _ in range(150):
        for endpoint, path, body in (
            (chat, CHAT, {"messages": HELLO, "max_tokens": 2, "stream": False, "stop": ["a"], "seed": 1}),
            (encoder, PREDICT, {"rows": [{"text": "a"}], "task": "feature-extraction", "model": "tiny/onnx-fp32"}),
        ):
            found = endpoint.post(path, mutated(luck, body))
            seen.add(found.status)
            assert found.status < 500, found.text
    assert {200, 400} <= seen


def mutated(luck: random.Random, body):
    """The body with something else in it, as JSON or as bytes that are none."""
    content = json.dumps(replaced(luck, body)).encode()
    if luck.random() < 0.4:
        at = luck.randrange(len(content))
        content = content[:at] + luck.randbytes(luck.randrange(4)) + content[at + luck.randrange(3) :]
    return content


def replaced(luck: random.Random, value):
    strange = [
        None,
        True,
        -1,
        0,
        1e300,
        2**80,
        "",
        "\0",
        "x" * 500,
        [],
        {},
        [[]],
        {"a": {}},
        "\ufdd0\U0010ffff",
        "\u202e",
    ]
    if luck.random() < 0.15:
        return luck.choice(strange)
    if isinstance(value, dict):
        more = {luck.choice(string.ascii_letters): luck.choice(strange)} if luck.random() < 0.1 else {}
        return {key: replaced(luck, one) for key, one in value.items() if luck.random() > 0.05} | more
    return [replaced(luck, one) for one in value] if isinstance(value, list) else value


def test_logs_hold_nothing_that_was_asked_answered_or_shown(folders, capfd):
    canary = "canary7391"
    with served(folders["chat"], token=TOKEN) as endpoint:
        shown = {"authorization": f"Bearer {TOKEN}"}
        asked = {"messages": [{"role": "user", "content": canary}], "max_tokens": 5}
        answer = endpoint.post(CHAT, asked, **shown).json["choices"][0]["message"]["content"]
        endpoint.post(CHAT, {"messages": [{"role": canary, "content": canary}]}, **shown)
        endpoint.post(f"/{canary}?q={canary}", asked, **shown)
        endpoint.ask("GET", "/v1/models", authorization=f"Bearer {canary}")
        endpoint.raw(canary.encode() + b"\r\n\r\n")
        endpoint.service.told = broken
        assert endpoint.post(PREDICT, {"rows": [{"text": canary}], "max_new_tokens": 1}, **shown).status == 500
    told = capfd.readouterr().err

    assert "POST /v1/chat/completions 200" in told
    assert canary not in told
    assert TOKEN not in told
    assert answer not in told


async def broken(row, task, answer):
    raise ValueError(row["text"])


def test_a_bug_keeps_its_places_in_the_code_and_not_its_message():
    from edgeml_runtime.server.logs import Placed

    try:
        raise ValueError("secret")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "Exception in ASGI application\n", (), sys.exc_info())
    told = Placed().format(record)
    assert "ValueError" in told
    assert "test_server_faults.py" in told
    assert "secret" not in told


def test_a_host_that_others_reach_needs_a_token_that_only_its_owner_reads(tmp_path):
    with pytest.raises(EdgemlError, match="no token protects it"):
        read_settings(None, host="0.0.0.0")
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    settings = read_settings(None, host="0.0.0.0", token_file=str(path))
    with pytest.raises(EdgemlError, match="others may read the token"):
        read_token(settings)
    path.chmod(0o600)
    assert read_token(settings) == TOKEN
    path.write_text("short")
    with pytest.raises(EdgemlError, match="no word of 16 characters"):
        read_token(settings)
    assert read_token(Settings()) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("qeue = 3", "unknown field `qeue`"),
        ("queue = 0", r"`int` >= 1 - at `\$.queue`"),
        ("port = 70000", r"`int` <= 65535 - at `\$.port`"),
        ('queue = "a"', "got `str`"),
        ("queue =", "cannot read"),
        ("[feedback]\nfle = 'a'", r"unknown field `fle` - at `\$.feedback`"),
    ],
)
def test_a_configuration_is_strict(tmp_path, text, told):
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(EdgemlError, match=told):
        read_settings(tmp_path / "serve.toml")


def test_a_configuration_that_is_not_there_or_too_deep_is_told_of_in_one_sentence(tmp_path):
    path = tmp_path / "serve.toml"
    with pytest.raises(EdgemlError) as caught:
        read_settings(path)
    assert caught.value.message == f"cannot read {path}: No such file or directory"
    path.write_text(f"port = {'[' * 5000}")
    with pytest.raises(EdgemlError, match="cannot read"):
        read_settings(path)


def test_what_the_command_line_says_goes_before_the_file(tmp_path):
    (tmp_path / "serve.toml").write_text("port = 1\nqueue = 3\ntime_limit_s = 5")
    settings = read_settings(tmp_path / "serve.toml", port=2, host=None)
    assert (settings.port, settings.queue, settings.time_limit_s, settings.host) == (2, 3, 5.0, "127.0.0.1")


def test_what_asyncio_tells_of_a_bug_shows_no_argument():
    from edgeml_runtime.server.logs import Placed

    said = "Exception in callback Queue.put_nowait('secret')\nhandle: <Handle Queue.put_nowait('secret')>"
    told = Placed().format(logging.LogRecord("asyncio", logging.ERROR, "", 0, said, (), None))

    assert told.endswith("error a bug that asyncio tells of")


def test_texts_of_a_request_that_was_turned_away_are_not_embedded():
    async def run():
        line = Line(waiting=1, time_limit_s=10)
        batcher, free, read = Batcher(_Reading(), 2048), threading.Event(), _Reading.read
        read.clear()
        running = asyncio.ensure_future(line.answer(Ask(lambda _: free.wait()), asyncio.Future()))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(line.answer(batcher.ask(["a"]), asyncio.Future()))
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await line.answer(batcher.ask(["turned away"]), asyncio.Future())
        free.set()
        await asyncio.gather(running, waiting)
        line.close()
        return refused.value.status, read

    assert asyncio.run(run()) == (429, ["a"])


@pytest.mark.parametrize(("at_once", "let_in"), [(4, (4, 3, 4)), (5, (4, 1, 4))])
def test_a_burst_may_fill_the_queue_and_once_it_was_too_much_few_wait_until_nobody_does(at_once, let_in):
    """One runs and three may wait; when one is left, four more come, and when none is, four again."""

    async def run():
        line, gate = Line(waiting=3, standing=1, time_limit_s=10), threading.Semaphore(0)

        async def let(count):
            asks = [Ask(lambda _: gate.acquire(timeout=5)) for _ in range(count)]
            tasks = [asyncio.ensure_future(line.answer(ask, asyncio.Future())) for ask in asks]
            await asyncio.sleep(0)
            refused = [task for task in tasks if task.done() and isinstance(task.exception(), RefusedError)]
            return count - len(refused)

        async def until(left):
            gate.release(len(line._open) - left)
            while len(line._open) > left:  # what is done is told to the loop
                await asyncio.sleep(0)

        found = []
        for count, left in ((at_once, 1), (4, 0), (4, 0)):
            found.append(await let(count))
            await until(left)
        line.close()
        return tuple(found)

    assert asyncio.run(run()) == let_in


class _Reading:
    """An encoder that remembers what it was given."""

    read: ClassVar[list[str]] = []
    manifest = SimpleNamespace(max_tokens=8, name="reading")

    def count_tokens(self, text):
        return 1

    def embed(self, texts):
        self.read.extend(texts)
        return np.zeros((len(texts), 2), np.float32)
