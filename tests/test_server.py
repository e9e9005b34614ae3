"""The endpoint as its clients see it: OpenAI's own client, and plain HTTP."""

from __future__ import annotations

import base64
import json

import jsonschema
import numpy as np
import openai
import pytest

from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.feedback.store import items_of
from edgeml_runtime.session import Said, open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Generate
from tiny.gguf import bert_gguf, llama_gguf
from tiny.graphs import decoder_variant
from tiny.labels import classifier_variant
from tiny.seq2seq import seq2seq_variant
from tiny.serving import served
from tiny.variants import gguf_variant, onnx_variant

CHATML = "{% for message in messages %}<|im_start|>{{ message.role }}<|im_end|>{% endfor %}"
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["house", "box"]}, "parts": {"type": "array", "items": {"type": "boolean"}}},
    "required": ["kind", "parts"],
    "additionalProperties": False,
}
SCHEMA["properties"]["parts"]["maxItems"] = 2


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    llama = llama_gguf(root / "llama.gguf", width=64, type="F32", context=2048, template=CHATML)
    return {
        "chat": gguf_variant(root / "chat", llama, max_tokens=1024),
        "onnx": onnx_variant(root / "onnx").path,
        "bert": gguf_variant(root / "bert", bert_gguf(root / "bert.gguf"), task="feature-extraction", pooling="mean"),
        "plain": decoder_variant(root / "plain"),
        "labels": classifier_variant(root / "labels").path,
        "seq2seq": seq2seq_variant(root / "seq2seq"),
    }


@pytest.fixture(scope="module")
def chat(folders):
    with served(folders["chat"]) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def encoder(folders):
    with served(folders["onnx"]) as endpoint:
        yield endpoint


def client(endpoint, key="none"):
    return openai.OpenAI(base_url=endpoint.url, api_key=key, max_retries=0, timeout=20)


@pytest.fixture(scope="module")
def writer(chat):
    with client(chat) as found:
        yield found


def test_openai_s_client_gets_the_answer_that_the_session_gives(chat, writer, folders):
    made = writer.chat.completions.create(model="tiny/gguf-f16", messages=HELLO, max_tokens=12)

    session = open_session(folders["chat"], threads=1)
    prompt = session.said([Said("user", "hello")])
    expected = session.generate(prompt, Generate(max_new_tokens=12))
    session.close()
    assert made.choices[0].message.content == expected.text
    assert made.choices[0].finish_reason == "length"
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (len(prompt), 12)
    assert [one.id for one in writer.models.list()] == ["tiny/gguf-f16"]


def test_a_stream_has_the_same_text_as_the_whole_answer_and_ends_with_what_it_took(writer):
    asked = {"model": "tiny/gguf-f16", "messages": HELLO, "max_tokens": 30}
    whole = writer.chat.completions.create(**asked)
    parts = list(writer.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == whole.choices[0].message.content
    assert len(parts) > 5
    assert parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert parts[-1].usage.completion_tokens == 30


def test_what_changes_no_answer_may_be_sent(chat):
    absent = ("functions", "function_call", "audio", "prediction", "web_search_options", "tools", "stop", "logit_bias")
    more = dict.fromkeys(absent) | {"modalities": ["text"], "verbosity": "low", "functions": []}
    for options in ({"include_usage": None}, None, {"include_usage": True}):
        asked = {"messages": HELLO, "max_tokens": 1, "stream_options": options} | more
        assert chat.post("/v1/chat/completions", asked).status == 200
        assert chat.post("/v1/chat/completions", asked | {"stream": True}).status == 200
    for changed in ({"audio": {"voice": "x"}}, {"modalities": ["audio"]}, {"functions": [{}]}):
        assert chat.post("/v1/chat/completions", {"messages": HELLO} | changed).status == 400


def test_a_stop_word_ends_the_answer_before_it_in_a_stream_too(writer):
    asked = {"model": "tiny/gguf-f16", "messages": HELLO, "max_tokens": 40}
    text = writer.chat.completions.create(**asked).choices[0].message.content
    stop = text[7:10]
    made = writer.chat.completions.create(**asked, stop=[stop, "never"]).choices[0]
    parts = writer.chat.completions.create(**asked, stop=stop, stream=True)

    assert (made.message.content, made.finish_reason) == (text[: text.find(stop)], "stop")
    assert "".join(part.choices[0].delta.content or "" for part in parts) == made.message.content


def test_answers_are_drawn_by_their_seed_where_a_temperature_is_asked_for(writer, folders):
    asked = {"model": "tiny/gguf-f16", "messages": HELLO, "max_tokens": 24, "top_p": 0.9}

    def said(**more):
        return writer.chat.completions.create(**asked, **more).choices[0].message.content

    greedy, drawn = said(), said(temperature=1.5, seed=-4)
    assert said(temperature=0, seed=9) == greedy == said(seed=3)
    assert said(temperature=1.5, seed=-4) == drawn != greedy
    assert len({said(temperature=1.5) for _ in range(4)}) > 1  # without a seed each by chance

    session = open_session(folders["chat"], threads=1)
    options = Generate(max_new_tokens=24, temperature=1.5, top_p=0.9, seed=-4)
    assert session.generate(session.said([Said("user", "hello")]), options).text == drawn
    session.close()


def test_a_conversation_has_its_turns_in_the_prompt(writer, folders):
    said = [("system", "be short"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    messages = [{"role": role, "content": words} for role, words in said]
    made = writer.chat.completions.create(model="tiny/gguf-f16", messages=messages, max_tokens=5)

    session = open_session(folders["chat"], threads=1)
    prompt = session.said([Said(*one) for one in said])
    assert made.usage.prompt_tokens == len(prompt)
    assert made.choices[0].message.content == session.generate(prompt, Generate(max_new_tokens=5)).text
    session.close()


def test_an_answer_keeps_to_a_json_schema(writer):
    format = {"type": "json_schema", "json_schema": {"name": "address", "schema": SCHEMA, "strict": True}}
    made = writer.chat.completions.create(model="tiny/gguf-f16", messages=HELLO, response_format=format, max_tokens=200)
    jsonschema.validate(json.loads(made.choices[0].message.content), SCHEMA)

    free = writer.chat.completions.create(
        model="tiny/gguf-f16", messages=HELLO, response_format={"type": "json_object"}, max_tokens=60
    )
    assert free.choices[0].message.content.startswith("{")


def test_a_completion_goes_on_from_the_prompt(writer, folders):
    made = writer.completions.create(model="tiny/gguf-f16", prompt="rent", max_tokens=6)
    parts = writer.completions.create(model="tiny/gguf-f16", prompt="rent", max_tokens=6, stream=True)

    session = open_session(folders["chat"], threads=1)
    tokens = [session.start_token, *session.tokenize("rent")]
    assert made.choices[0].text == session.generate(tokens, Generate(max_new_tokens=6)).text
    assert "".join(part.choices[0].text for part in parts) == made.choices[0].text
    session.close()


def test_vectors_come_as_numbers_and_in_base64_and_are_the_session_s(encoder, folders):
    texts = ["a pump", "rent for march"]
    with client(encoder) as found:
        packed = found.embeddings.create(model="tiny/onnx-fp32", input=texts)  # the client asks for base64 itself
        plain = found.embeddings.create(model="tiny/onnx-fp32", input=texts, encoding_format="float")
    session = open_session(folders["onnx"], threads=1)
    expected = session.embed(texts)

    np.testing.assert_allclose([one.embedding for one in packed.data], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([one.embedding for one in plain.data], expected, rtol=1e-5, atol=1e-6)
    assert packed.usage.prompt_tokens == sum(session.count_tokens(text) for text in texts)
    raw = encoder.post("/v1/embeddings", {"input": "a pump", "encoding_format": "base64"}).json
    assert len(base64.b64decode(raw["data"][0]["embedding"])) == 4 * expected.shape[1]


@pytest.mark.parametrize(
    ("name", "task", "row"),
    [
        ("onnx", "feature-extraction", {"text": "a pump"}),
        ("onnx", "sentence-similarity", {"sentence1": "a pump", "sentence2": "a bump"}),
        ("bert", "feature-extraction", {"text": "a"}),
        ("labels", "text-classification", {"text": "a pump"}),
        ("seq2seq", "text2text-generation", {"text": "abc"}),
        ("plain", "text-generation", {"text": "abc"}),
    ],
)
def test_predict_answers_as_the_command_does(folders, name, task, row):
    with served(folders[name], max_new_tokens=6) as endpoint:
        found = endpoint.post("/v1/predict", {"rows": [row, row]}).json
    session = open_session(folders[name], threads=1)
    expected = task_of(task).predict(session, row, Generate(max_new_tokens=6))
    session.close()

    assert found["task"] == task
    assert found["answers"] == [expected] * 2


def test_columns_that_the_task_does_not_read_are_left_alone(encoder):
    found = encoder.post("/v1/predict", {"rows": [{"text": "a", "id": 7, "note": None}]}).json
    assert (found["task"], len(found["answers"][0])) == ("feature-extraction", 8)


def test_a_beginning_that_came_before_is_not_read_again_and_changes_no_answer(folders):
    long = "You keep books. " * 30
    asked = [{"messages": [{"role": "system", "content": long}, {"role": "user", "content": text}]} for text in "abc"]
    with served(folders["chat"], kept_bytes=0) as endpoint:
        cold = []
        for one in asked:
            cold.append(endpoint.post("/v1/chat/completions", one | {"max_tokens": 20}).json)
            endpoint.post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2})  # takes the context
    with served(folders["chat"]) as endpoint:
        warm = [endpoint.post("/v1/chat/completions", one | {"max_tokens": 20}).json for one in asked]
        endpoint.post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2})  # takes the context
        again = endpoint.post("/v1/chat/completions", asked[0] | {"max_tokens": 20}).json

    def texts(made):
        return [one["choices"][0]["message"]["content"] for one in made]

    def reused(made):
        return [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in made]

    assert texts(warm) == texts(cold)
    assert texts([again]) == texts(cold[:1])
    assert reused(cold) == [0, 0, 0]
    assert reused([*warm, again]) == [0, 512, 512, 512]


def test_health_readiness_and_metrics_are_told(encoder):
    assert encoder.ask("GET", "/health").text == "alive\n"
    assert encoder.ask("GET", "/ready").text == "ready\n"
    encoder.post("/v1/embeddings", {"input": "a"})
    told = encoder.ask("GET", "/metrics")

    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = told.text.splitlines()
    for start in (
        'edgeml_requests_total{route="/v1/embeddings",status="200"} ',
        'edgeml_request_seconds_bucket{route="/v1/embeddings",le="+Inf"} ',
        'edgeml_request_seconds_count{route="/v1/embeddings"} ',
        "edgeml_queue_length ",
        'edgeml_tokens_total{kind="read"} ',
        'edgeml_memory_bytes{kind="anonymous"} ',
    ):
        assert float(next(line for line in lines if line.startswith(start)).rpartition(" ")[2]) >= 0


def test_feedback_is_kept_where_the_settings_want_it_and_has_no_route_otherwise(folders, encoder, tmp_path):
    posted = {"input": {"text": "a pump"}, "answer": {"label": "travel"}, "correction": {"label": "parts"}}
    assert encoder.post("/v1/feedback", posted).status == 404

    settings = FeedbackSettings(file=str(tmp_path / "feedback.sqlite"), low_confidence=1.0)
    with served(folders["labels"], feedback=settings) as endpoint:
        made = endpoint.post("/v1/feedback", posted)
        wrong = endpoint.post("/v1/feedback", {"input": {}, "answer": 1, "correction": 2})
        endpoint.post("/v1/predict", {"rows": [{"text": "rent"}]})
    items = items_of((tmp_path / "feedback.sqlite").read_bytes(), None, where="the test")

    assert (made.status, wrong.status) == (201, 400)
    assert [(item.kind, item.input) for item in items] == [
        ("correction", {"text": "a pump"}),
        ("low-confidence", {"text": "rent"}),
    ]
    assert items[0].id == made.json["id"]


def test_an_answer_that_feedback_cannot_keep_is_given_anyway(folders, tmp_path, capfd):
    settings = FeedbackSettings(file=str(tmp_path / "feedback.sqlite"), low_confidence=1.0, item_bytes=100)
    with served(folders["labels"], feedback=settings) as endpoint:
        assert endpoint.post("/v1/predict", {"rows": [{"text": "rent"}]}).status == 200
    assert "is not kept: the feedback has" in capfd.readouterr().err


def test_a_model_without_a_chat_template_takes_one_text_with_its_instruction(folders):
    with served(folders["plain"], max_new_tokens=4) as endpoint:
        said = [{"role": "system", "content": "short"}, {"role": "user", "content": "abc"}]
        made = endpoint.post("/v1/chat/completions", {"messages": said})
        more = endpoint.post("/v1/chat/completions", {"messages": [*said, *said]})
        schema = endpoint.post("/v1/chat/completions", {"messages": said, "response_format": {"type": "json_object"}})

    assert made.status == 200
    assert (more.status, more.error["param"]) == (400, "messages")
    assert (schema.status, "use a gguf variant" in schema.error["message"]) == (400, True)
