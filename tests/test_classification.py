"""Labels of texts and of words: the same answers as PyTorch, the same scores as scikit-learn and seqeval."""

import json
import logging
import random
import shutil
import sys
import warnings

import numpy as np
import pytest

from edgeml.bench import Conditions, bench
from edgeml.dataset import dataset_for, read_dataset
from edgeml.download import download
from edgeml.errors import EdgemlError
from edgeml.formats.gguf.conversion import traits as gguf_traits
from edgeml.formats.onnx import graph as onnx_graph
from edgeml.package import bundle_path, package
from edgeml.papers.model_card import model_card
from edgeml.quantize import quantize
from edgeml.render import as_text
from edgeml.scores import gold, scorer_of, scores, unscored
from edgeml.scores.token_classification import entities, f1
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.traits import folder_traits
from edgeml.types import Model, ModelRef, Scheme
from edgeml_runtime.__main__ import main
from edgeml_runtime.backends.onnx_classifier import OnnxTagger
from edgeml_runtime.records import describe
from edgeml_runtime.selftest import compare, record
from edgeml_runtime.session import kind_of, open_session
from edgeml_runtime.tasks import NAMES, ready, task_of
from edgeml_runtime.types import Generate, Job
from tiny import orders, trained
from tiny.families import CLASSIFIERS, TAGGERS, family_folder
from tiny.gguf import bert_gguf
from tiny.labels import LABELS as TINY_LABELS
from tiny.labels import TAGS as TINY_TAGS
from tiny.labels import classifier_source, classifier_variant
from tiny.trained import in_torch
from tiny.variants import onnx_variant

LABELS = ("fuel", "rent", "travel costs")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-PER", "I-ORG-X", "B", "I")
TEXTS = ("rent for march", "two litres of fuel", "x", "a ticket, and 3 more")
KINDS = ("text-classification", "token-classification")


def job(task, rows, **fields):
    own = {"variant": "x", "target": "laptop", "threads": 1, "warmups": 1, "repeats": 3, "seed": 1}
    return Job(task=task, rows=tuple(ready(task, rows, "x")), **{**own, **fields})


def quiet(step, done, total):
    pass


def texts(*lines):
    return [{"text": line} for line in lines]


@pytest.fixture
def classifier(tmp_path):
    return open_session(classifier_variant(tmp_path / "classifier").path, threads=1)


@pytest.fixture
def tagger(tmp_path):
    made = classifier_variant(tmp_path / "tagger", task="token-classification", max_tokens=12)
    return open_session(made.path, threads=1)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


def of(task, answers, expected):
    return {one.metric: one for one in scores(task, answers, expected, Generate())}


def value(score):
    return float(score.statistic(*map(np.asarray, score.columns)))


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("labels", [2, 9])
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(rows, labels):
    from sklearn.metrics import accuracy_score, f1_score

    draw = random.Random(rows * labels)
    wanted, given = ([f"label {draw.randrange(labels)}" for _ in range(rows)] for _ in range(2))
    answers = [{"label": label, "score": 0.5} for label in given]

    found = of("text-classification", answers, wanted)

    assert value(found["accuracy"]) == pytest.approx(accuracy_score(wanted, given))
    assert value(found["macro_f1"]) == pytest.approx(f1_score(wanted, given, average="macro"))
    assert found["accuracy"].is_right_or_wrong
    assert not found["macro_f1"].is_right_or_wrong


def test_resamples_of_macro_f1_are_computed_at_once_as_one_by_one():
    random = np.random.default_rng(0)
    given, wanted = random.integers(0, 5, (2, 3, 4, 20)).astype(float)
    statistic = of("text-classification", [{"label": "a"}], ("a",))["macro_f1"].statistic

    together = statistic(given, wanted)

    alone = [[statistic(given[i, j], wanted[i, j]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(together, alone)


@pytest.mark.parametrize("seed", range(30))
def test_entities_and_their_f1_are_those_of_seqeval(seed):
    from seqeval.metrics import accuracy_score, f1_score
    from seqeval.metrics.sequence_labeling import get_entities

    draw = random.Random(seed)
    lengths = [draw.randrange(1, 12) for _ in range(20)]
    wanted, given = ([draw.choices(TAGS, k=length) for length in lengths] for _ in range(2))
    wanted[0], given[0] = ["B-PER", "I-PER", "O", "S-PER"], ["B-PER", "I-PER", "O", "S-PER"]

    found = of("token-classification", [{"tags": tags} for tags in given], [tuple(tags) for tags in wanted])

    for tags in given:
        ours = {(kind or "_", first, last) for kind, first, last in entities(tags)}
        assert ours == set(get_entities(tags))
    assert value(found["entity_f1"]) == pytest.approx(f1_score(wanted, given))
    assert value(found["token_accuracy"]) == pytest.approx(accuracy_score(wanted, given))
    assert len(found["entity_f1"].columns[0]) == 20  # a row is what is resampled


def test_rows_without_any_entity_have_no_f1_rather_than_zero():
    found = of("token-classification", [{"tags": ["O", "O"]}], [("O", "O")])

    assert np.isnan(value(found["entity_f1"]))
    assert value(found["token_accuracy"]) == 1
    counts = np.array([[[1, 0], [0, 0]], [[2, 0], [0, 0]], [[1, 1], [0, 0]]], float)
    np.testing.assert_array_equal(f1(*counts), [0.5, np.nan])


def test_tags_without_a_beginning_are_types_whose_neighbours_are_one_entity():
    assert entities(["PER", "PER", "O", "LOC", "PER"]) == {("PER", 0, 1), ("LOC", 3, 3), ("PER", 4, 4)}


@pytest.mark.parametrize(
    ("given", "label"),
    [("fuel", "fuel"), (2, "travel costs"), ("1", "rent"), ("LABEL_0", "fuel")],
)
def test_a_right_label_may_be_given_by_name_or_by_place(given, label):
    rows = [{"text": "a", "label": given}]

    assert gold("text-classification", rows, LABELS) == (label,)
    assert gold("token-classification", [{"tokens": ["a"], "tags": [given]}], LABELS) == ((label,),)


@pytest.mark.parametrize("given", [3, "LABEL_3", "-1", "Rent", "rents", True, 1.0, "²"])
def test_a_label_that_the_model_does_not_know_is_refused_with_the_nearest(given):
    rows = [{"text": "a", "label": "fuel"}, {"text": "a", "label": given}]

    with pytest.raises(EdgemlError, match=r"row 2 has the label .*, which the model does not know") as caught:
        gold("text-classification", rows, LABELS)
    assert "the nearest of its 3 labels is " in caught.value.hint
    if given in ("Rent", "rents"):
        assert "is 'rent'" in caught.value.hint


def test_a_name_that_looks_like_a_place_is_a_name():
    assert gold("text-classification", [{"text": "a", "label": "0"}], ("1", "0")) == ("0",)


@pytest.mark.parametrize("tags", [["O"], "O", "", "[]", "O O O", None, 7])
def test_a_row_with_more_or_fewer_tags_than_tokens_is_refused(tags):
    rows = [{"tokens": ["a", "b"], "tags": "O O"}, {"tokens": ["a", "b"], "tags": tags}]

    with pytest.raises(EdgemlError, match=r"row 2 has (1 tag for 2 tokens|\d tags for 2 tokens|no tags, others have)"):
        gold("token-classification", rows, TAGS)


@pytest.mark.parametrize("cell", [["two", "words"], '["two", "words"]', "two  words", " two words\n"])
def test_words_are_a_list_or_json_or_stand_between_spaces(cell):
    [row] = ready("token-classification", [{"tokens": cell, "tags": "O O"}], "x.csv")

    assert row["tokens"] == ["two", "words"]
    assert gold("token-classification", [row]) == (("O", "O"),)


def test_a_plain_text_is_cut_into_words_and_has_no_score():
    rows = ready("token-classification", [{"text": "[a b] 3"}, {"text": "c"}], "x.txt")

    assert [row["tokens"] for row in rows] == [["[a", "b]", "3"], ["c"]]
    [absent] = unscored("token-classification", gold("token-classification", rows, TAGS))
    assert (absent.metric, absent.reason) == ("entity_f1", "the data has no column 'tags'")


@pytest.mark.parametrize("cell", [[1, 2], "[1, 2]", None, 4, ["a", None], {"a": 1}])
def test_tokens_that_are_no_words_are_refused_with_their_row(cell):
    rows = [{"tokens": "a b"}, {"tokens": cell}]

    with pytest.raises(EdgemlError, match=r"'tokens' in row 2 of x\.jsonl are no words"):
        ready("token-classification", rows, "x.jsonl")


@pytest.mark.parametrize("rows", [[{"words": "a"}], [{"tokens": "a"}, {"text": "a"}], [{"text": "a"}, {"tokens": "a"}]])
def test_rows_that_lack_the_column_of_the_first_are_refused(rows):
    with pytest.raises(EdgemlError, match=r"has no column '(tokens|text)' in row"):
        ready("token-classification", rows, "x.jsonl")


def test_answers_are_the_same_when_their_labels_are():
    assert scorer_of("text-classification").essence({"label": "rent", "score": 0.4}) == "rent"
    assert scorer_of("token-classification").essence({"tags": ["O", "B-LOC"]}) == "O B-LOC"


def test_the_answer_is_the_likeliest_label_and_its_softmax(classifier):
    found = task_of("text-classification").answers(classifier, job("text-classification", texts(*TEXTS)), quiet)

    logits = classifier.classify(TEXTS).astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert [answer["label"] for answer in found.values] == [TINY_LABELS[index] for index in chances.argmax(1)]
    assert [answer["score"] for answer in found.values] == pytest.approx(chances.max(1), rel=1e-5)
    assert len({answer["label"] for answer in found.values}) > 1
    assert {sample.metric for sample in found.samples} == {"throughput", "truncated", "tokens"}


def test_a_label_does_not_depend_on_what_else_is_in_the_batch(classifier, tagger):
    for index, text in enumerate(TEXTS):
        np.testing.assert_allclose(classifier.classify(TEXTS)[index], classifier.classify([text])[0], atol=1e-5)
        words = [one.split() for one in TEXTS]
        np.testing.assert_allclose(tagger.tag(words)[index].logits, tagger.tag([words[index]])[0].logits, atol=1e-5)


def test_a_words_tag_is_that_of_its_first_token(tagger):
    [one], [other] = tagger.tag([["rent", "x"]]), tagger.tag([["r", "x"]])

    assert one.words == (0, 1)
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-6)  # the graph looks at single letters


def test_words_that_are_cut_or_have_no_token_are_outside_and_told(tagger):
    rows = [{"tokens": ["abcdefg", "\x00", "hij", "klm", "nop"]}, {"tokens": ["a"]}]

    found = task_of("token-classification").answers(tagger, job("token-classification", rows), quiet)

    [tagged] = tagger.tag([rows[0]["tokens"]])
    assert tagged.words == (0, 2)  # 10 letters fit between the special tokens
    tags = [TINY_TAGS[index] for index in tagged.logits.argmax(1)]
    assert found.values[0] == {"tags": [tags[0], "O", tags[1], "O", "O"]}
    assert found.warnings == (
        "1 of 2 texts in 2 rows are cut at 12 tokens",
        "3 of 6 words were cut off or have no token, and count as O",
    )


def test_words_are_read_as_after_a_space_by_a_tokenizer_of_bytes(tagger):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    lines = ["the tip of the tree", "then the rest", "tip then"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    spaced = tokenizer.encode(" the tip").ids

    made = OnnxTagger(tagger.manifest, tagger._session, tokenizer)

    assert made.count_tokens(["the", "tip"]) == len(spaced)
    assert made._tokenizer.encode(["the", "tip"], is_pretokenized=True).ids == spaced


@pytest.mark.parametrize("task", KINDS)
def test_latency_is_that_of_single_texts(tmp_path, task):
    session = open_session(classifier_variant(tmp_path / "variant", task=task).path, threads=1)

    task_of(task).first(session, job(task, texts(*TEXTS)))
    [latency] = task_of(task).cost(session, job(task, texts(*TEXTS)))

    assert (latency.metric, len(latency.values), len(latency.warmups)) == ("latency", 3, 1)
    assert latency.method.endswith("in, logits out (tokenizer, graph), batch of one, monotonic clock")
    assert task_of(task).work(session, job(task, texts(*TEXTS)))["steady"]() == 1


@pytest.mark.parametrize("task", [name for name in NAMES if name.startswith(("text", "token", "feature"))])
def test_a_session_of_another_kind_is_refused_with_its_own_task(tmp_path, task):
    own = {"feature-extraction": "sentence-similarity"}.get(task, task)
    folders = {
        "sentence-similarity": onnx_variant(tmp_path / "encoder"),
        **{kind: classifier_variant(tmp_path / kind, task=kind) for kind in KINDS},
    }
    for kind, variant in folders.items():
        if kind != own:
            with pytest.raises(EdgemlError) as caught:
                task_of(task).first(open_session(variant.path, threads=1), job(task, texts(*TEXTS)))
            assert caught.value.hint == f"edgeml bench --task {kind}"


@pytest.mark.parametrize("task", KINDS)
def test_a_model_whose_answer_does_not_depend_on_its_input_is_broken(tmp_path, task):
    session = open_session(classifier_variant(tmp_path / "variant", task=task, constant=True).path, threads=1)

    with pytest.raises(EdgemlError, match="is broken: every text gets the same vector"):
        task_of(task).answers(session, job(task, texts("abc def", "ghi jkl")), quiet)


@pytest.mark.parametrize("task", KINDS)
def test_logits_and_labels_of_different_number_are_refused(tmp_path, task):
    session = open_session(classifier_variant(tmp_path / "variant", task=task, logits=4).path, threads=1)

    with pytest.raises(EdgemlError, match="gives 4 logits for 3 labels"):
        task_of(task).first(session, job(task, texts(*TEXTS)))


def test_a_bench_of_a_classifier_has_its_scores_and_costs(store, tmp_path):
    first = classifier_variant(store.root / "tiny" / "onnx-fp32", name="tiny/onnx-fp32")
    second = classifier_variant(store.root / "tiny" / "onnx-int8", name="tiny/onnx-int8", seed=1)
    data = tmp_path / "lines.csv"
    data.write_text("text,label\n" + "".join(f"line {number} of rent,{number % 3}\n" for number in range(12)))
    dataset = read_dataset(data, task="text-classification", columns={})
    conditions = Conditions(task="text-classification", profile=profile(None), threads=1, warmups=1, repeats=12)

    report = bench([first, second], dataset, conditions, store=store, baseline=first)

    metrics = {one.metric for one in report.measurements if one.variant == "tiny/onnx-int8"}
    assert {"accuracy", "macro_f1", "latency", "throughput", "memory_peak"} <= metrics
    assert {one.metric for one in report.differences} >= {"accuracy", "macro_f1"}
    with pytest.raises(EdgemlError, match="row 1 has the label '7', which the model does not know"):
        bench([first], dataset_of(tmp_path, "text,label\nrent,7\n"), conditions, store=store)


def dataset_of(tmp_path, content):
    (tmp_path / "other.csv").write_text(content)
    return read_dataset(tmp_path / "other.csv", task="text-classification", columns={})


@pytest.mark.parametrize("task", KINDS)
def test_without_data_some_lines_are_measured(task):
    dataset = dataset_for(task, None, {}, limit=3)

    assert len(dataset.rows) == 3
    assert gold(task, dataset.rows, LABELS) == ()


@pytest.mark.parametrize(
    ("task", "answers"),
    [("text-classification", {"label", "score"}), ("token-classification", {"tags"})],
)
def test_a_bundle_passes_its_self_test_and_predicts(store, tmp_path, capsys, task, answers):
    variant = classifier_variant(store.variant_folder("tiny", "onnx-fp32"), task=task)
    bundle = bundle_path(store, package(variant, store=store, profile=profile("laptop"), kind="dir", wheels=False))
    (tmp_path / "lines.txt").write_text("rent for march\n3 tickets\n")
    capsys.readouterr()

    assert main(["selftest", str(bundle)]) == 0
    assert "agreement 1.000000" in capsys.readouterr().out
    assert main(["predict", str(bundle), "--input", str(tmp_path / "lines.txt")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) for line in lines] == [answers, answers]
    if task == "token-classification":
        assert [len(line["tags"]) for line in lines] == [3, 2]
    assert main(["info", str(bundle)]) == 0
    told = capsys.readouterr().out
    assert f"labels    3: {', '.join(variant.manifest.labels)}\n" in told
    assert "32 tokens a text; what is longer is cut" in told


@pytest.mark.parametrize("task", KINDS)
def test_a_classifier_that_answers_otherwise_fails_its_self_test(tmp_path, task):
    goldens = record(classifier_variant(tmp_path / "here", task=task).path)

    assert compare(tmp_path / "here", goldens) > 0.9999
    with pytest.raises(EdgemlError, match="answers differently here"):
        compare(classifier_variant(tmp_path / "there", task=task, seed=1).path, goldens)


def test_the_card_of_a_classifier_names_its_labels_and_says_nothing_of_vectors(tmp_path):
    card = model_card(classifier_variant(tmp_path / "variant", labels=("a|b", "c", "d")).manifest, profile("pi5"))

    assert "| labels | 3: a\\|b, c, d |" in card
    many = tuple(f"breed {number}" for number in range(1000))
    assert classifier_variant(tmp_path / "many", labels=many).manifest.labels_in_short.endswith("19, and 980 more")
    assert "pooling" not in card
    assert "Reads at most 32 tokens of a text; what is longer is cut." in card
    assert "pipeline_tag: text-classification" in card


def model_of(folder, format="safetensors"):
    files = describe(folder)
    return Model(name="tiny", ref=str(folder), path=str(folder), files=files, format=format, downloaded="2026-01-01")


def refused(folder, store, scheme="onnx:fp32", format="onnx"):
    with pytest.raises(EdgemlError) as caught:
        quantize(model_of(folder, format), [Scheme.parse(scheme)], profile=profile("laptop"), store=store)
    return caught.value


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_a_classifier_of_several_labels_or_of_a_number_is_refused_by_name(tmp_path, store, format):
    many = classifier_source(tmp_path / "many", problem_type="multi_label_classification")
    number = classifier_source(tmp_path / "number", logits=1, id2label={"0": "LABEL_0"})

    assert "many gives a text any number of labels (multi_label_classification)" in refused(many, store).message
    assert "number gives a number rather than one label" in refused(number, store, format=format).message


@pytest.mark.parametrize(
    ("task", "logits", "config", "message"),
    [
        ("text-classification", 4, {}, "gives 4 logits, but its config.json names 3 labels"),
        ("token-classification", 2, {}, "gives 2 logits, but its config.json names 3 labels"),
        (
            "token-classification",
            3,
            {"architectures": ["BertForSequenceClassification"]},
            "gives logits of 3 axes, where batch and labels are needed",
        ),
        (
            "text-classification",
            3,
            {"architectures": ["BertForTokenClassification"]},
            "gives logits of 2 axes, where batch, tokens and labels are needed",
        ),
    ],
)
def test_a_foreign_graph_that_does_not_fit_its_configuration_is_refused(tmp_path, store, task, logits, config, message):
    folder = classifier_source(tmp_path / "model", task=task, logits=logits, **config)

    assert message in refused(folder, store).message


def test_gguf_refuses_a_classifier_and_points_to_onnx(tmp_path, store):
    folder = classifier_source(tmp_path / "model")

    error = refused(folder, store, "gguf:q8_0", format="safetensors")

    assert error.message == "tiny is a BertForSequenceClassification, whose labels edgeml cannot keep in GGUF"
    assert "onnx:" in error.hint
    with pytest.raises(EdgemlError, match="holds a reranker"):
        gguf_traits(bert_gguf(tmp_path / "ranks.gguf", width=64, layers=1, pooling=4))


def test_a_configuration_with_transformers_own_two_labels_names_none(tmp_path):
    folder = classifier_source(tmp_path / "model", id2label=None)

    assert folder_traits(folder).labels == ("LABEL_0", "LABEL_1")


def sessions_of(model, store):
    schemes = [Scheme.parse("onnx:fp32"), Scheme.parse("onnx:int8")]
    made = quantize(model, schemes, profile=profile("laptop"), store=store)
    assert all(variant.manifest.audit.earned for variant in made)
    assert made[1].manifest.audit.share_quantized > 0.9
    operators = {node.op_type for node in onnx_graph.load(made[1].path / "model.onnx").graph.node}
    relative = made[1].manifest.architecture.startswith(("DebertaV2", "ModernBert", "MPNet"))  # positions, inside it
    assert ("QAttention" in operators) != relative
    return made, [open_session(variant.path, threads=1) for variant in made]


def exported(folder, tmp_path):
    """The model's fp32 export with its small files, which is a source as well; in this process, where PyTorch is."""
    goal = tmp_path / "exported"
    goal.mkdir()
    kind = kind_of(folder_traits(folder).task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        logging.disable()  # else pytest keeps every step of the tracer
        orders.convert(folder, goal, tmp_path, kind=kind, scheme="fp32")
        logging.disable(logging.NOTSET)
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copy(folder / name, goal)
    return goal


def word_rows(logits, word_ids):
    """The logits of each word's first token."""
    for row, ids in zip(logits, word_ids, strict=True):
        yield np.stack([row[ids.index(word)] for word in range(max(one for one in ids if one is not None) + 1)])


def cosines(one, other):
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


@pytest.mark.real
@pytest.mark.parametrize("architecture", [*CLASSIFIERS, *TAGGERS])
def test_a_family_gives_the_logits_that_it_gives_in_pytorch(tmp_path, store, architecture):
    folder = family_folder(tmp_path / "model", architecture)
    words = [text.split() for text in (*TEXTS, "a longer, stranger line: 12 words!")]
    expected, word_ids = in_torch(folder, words)

    made, (whole, small) = sessions_of(model_of(exported(folder, tmp_path), "onnx"), store)

    assert made[0].manifest.labels == (TINY_TAGS if architecture in TAGGERS else TINY_LABELS)
    if architecture in TAGGERS:
        expected = np.concatenate(list(word_rows(expected, word_ids)))
        ours, integers = (np.concatenate([one.logits for one in session.tag(words)]) for session in (whole, small))
    else:
        ours, integers = (session.classify([" ".join(one) for one in words]) for session in (whole, small))
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert cosines(integers, expected).mean() > 0.99


@pytest.mark.real
def test_a_trained_classifier_keeps_its_answers_from_the_hub_to_the_bench(minilm_folder, tmp_path, store):
    folder = trained.intent_model(minilm_folder, tmp_path / "intents")
    lines = trained.intents()[1]
    expected, _ = trained.in_torch(folder, [text.split() for text, _ in lines])
    data = tmp_path / "lines.tsv"
    data.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in lines))

    model = download(ModelRef.parse(str(folder)), store=store)
    made, (whole, small) = sessions_of(model, store)

    texts = [text for text, _ in lines]
    np.testing.assert_allclose(whole.classify(texts), expected, atol=1e-4)
    assert cosines(small.classify(texts), expected).mean() > 0.98
    dataset = read_dataset(data, task="text-classification", columns={})
    found = figures(made, dataset, store)
    names = list(trained.INTENTS)
    right = [names[place] == label for place, (_, label) in zip(expected.argmax(1), lines, strict=True)]
    assert found["intents/onnx-fp32", "accuracy"] == pytest.approx(np.mean(right))
    assert found["intents/onnx-int8", "accuracy"] == pytest.approx(np.mean(right), abs=0.1)


@pytest.mark.real
def test_a_trained_tagger_keeps_its_entities_from_the_hub_to_the_bench(minilm_folder, tmp_path, store):
    folder = trained.tag_model(minilm_folder, tmp_path / "tags")
    lines = trained.sentences()[1]
    words = [words for words, _ in lines]
    expected = list(word_rows(*trained.in_torch(folder, words)))
    data = tmp_path / "words.jsonl"
    data.write_text("".join(json.dumps({"tokens": words, "tags": " ".join(tags)}) + "\n" for words, tags in lines))

    made, (whole, small) = sessions_of(download(ModelRef.parse(str(folder)), store=store), store)

    for ours, integers, want in zip(whole.tag(words), small.tag(words), expected, strict=True):
        np.testing.assert_allclose(ours.logits, want, atol=1e-4)
        assert cosines(integers.logits, want).mean() > 0.9
    found = figures(made, read_dataset(data, task="token-classification", columns={}), store)
    right = [
        trained.TAGS[place] == tag
        for want, (_, tags) in zip(expected, lines, strict=True)
        for place, tag in zip(want.argmax(1), tags, strict=True)
    ]
    assert found["tags/onnx-fp32", "token_accuracy"] == pytest.approx(np.mean(right))
    assert found["tags/onnx-int8", "entity_f1"] > 0.4


def figures(variants, dataset, store):
    """The figures of a bench, by variant and metric; its table is printed, for `pytest -s`."""
    task = variants[0].manifest.task
    conditions = Conditions(task=task, profile=profile(None), threads=2, warmups=5, repeats=30)
    report = bench(variants, dataset, conditions, store=store, baseline=variants[0])
    sys.stdout.write(f"\n{as_text([report])}\n")
    return {(one.variant, one.metric): one.value for one in report.measurements if one.slice is None}
