import json

import pytest

from edgeml.errors import EdgemlError
from edgeml.traits import folder_traits

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "max_position_embeddings": 512,
    "decoder_start_token_id": 0,
}


def folder(tmp_path, **files):
    for name, content in {"config": CONFIG, **files}.items():
        path = tmp_path / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path


def sentence_transformer(tmp_path, **files):
    modules = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}]
    return folder(tmp_path, modules=modules, **files)


def test_sentence_transformers_own_limit_comes_before_the_tokenizer_files(tmp_path):
    made = sentence_transformer(
        tmp_path,
        sentence_bert_config={"max_seq_length": 256},
        tokenizer_config={"model_max_length": 512},
        tokenizer={"truncation": {"max_length": 128}},
    )

    assert folder_traits(made).max_tokens == 256


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config": {"model_max_length": 384}}, 384),
        ({"tokenizer_config": {"model_max_length": 10**30}, "tokenizer": {"truncation": {"max_length": 100}}}, 100),
        ({"tokenizer_config": {"model_max_length": 4096}}, 512),  # never more than there are positions
        ({}, 512),
        ({"config": {**CONFIG, "model_type": "roberta", "max_position_embeddings": 514}}, 512),
    ],
)
def test_the_sequence_limit_is_the_first_stated_and_never_above_the_positions(tmp_path, files, expected):
    assert folder_traits(folder(tmp_path, **files)).max_tokens == expected


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls"), ("pooling_mode_lasttoken", "last")],
)
def test_pooling_is_read_from_its_module(tmp_path, mode, pooling):
    config = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": False, mode: True}

    traits = folder_traits(sentence_transformer(tmp_path, **{"1_Pooling__config": config}))

    assert (traits.pooling, traits.task, traits.normalize) == (pooling, "sentence-similarity", False)


def test_a_pooling_that_edgeml_cannot_do_is_refused_by_name(tmp_path):
    config = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}
    with pytest.raises(EdgemlError, match="pools by pooling_mode_max_tokens, pooling_mode_mean_tokens"):
        folder_traits(sentence_transformer(tmp_path, **{"1_Pooling__config": config}))


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("BertForTokenClassification", "token-classification"),
        ("BertModel", "feature-extraction"),
    ],
)
def test_the_task_follows_from_the_architecture(tmp_path, architecture, task):
    assert folder_traits(folder(tmp_path, config={**CONFIG, "architectures": [architecture]})).task == task


def test_labels_keep_the_order_of_their_numbers(tmp_path):
    labels = {str(number): f"L{number}" for number in (10, 2, 0, 1)}
    config = {**CONFIG, "architectures": ["BertForSequenceClassification"], "id2label": labels}

    assert folder_traits(folder(tmp_path, config=config)).labels == ("L0", "L1", "L2", "L10")


def test_a_source_that_is_already_quantized_is_named(tmp_path):
    config = {**CONFIG, "quantization_config": {"quant_method": "gptq"}}

    assert folder_traits(folder(tmp_path, config=config)).quantized == "gptq"


def test_a_model_without_any_limit_is_refused(tmp_path):
    config = {"architectures": ["BertModel"], "model_type": "bert"}
    with pytest.raises(EdgemlError, match="states no sequence limit"):
        folder_traits(folder(tmp_path, config=config))


def test_a_broken_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EdgemlError, match=r"cannot read .*config\.json"):
        folder_traits(tmp_path)


def test_a_module_that_would_be_left_out_is_refused(tmp_path):
    kinds = ("Transformer", "Pooling", "Dense")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]

    with pytest.raises(EdgemlError, match="has a Dense module, which edgeml cannot run"):
        folder_traits(folder(tmp_path, modules=modules))


def test_settings_that_are_no_object_are_refused(tmp_path):
    with pytest.raises(EdgemlError, match=r"config\.json holds no settings"):
        folder_traits(folder(tmp_path, config=[]))
