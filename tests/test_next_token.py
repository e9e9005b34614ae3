"""The next token: the likeliest, or one drawn as often as the model thinks it likely, the same for the same seed."""

import numpy as np
import pytest
from scipy import stats

from edgeml_runtime.backends.gguf_grammar import Grammar
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.next_token import NextToken, candidates
from edgeml_runtime.session import open_session
from edgeml_runtime.types import Generate
from tiny.gguf import llama_gguf
from tiny.graphs import decoder_variant
from tiny.variants import gguf_variant

LOGITS = np.array([0.5, 2.0, -1.0, 2.0, 0.0, 1.0], np.float32)


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum()


def drawn(logits, count, **options):
    choice = NextToken(Generate(**options))
    return [choice.choose(logits) for _ in range(count)]


def fits(tokens, expected):
    """The probability of counts so far from the expected ones (chi-square)."""
    counts = np.bincount(tokens, minlength=len(expected))
    assert not counts[expected == 0].any()
    some = expected > 0
    return stats.chisquare(counts[some], expected[some] * len(tokens)).pvalue


def test_without_a_temperature_the_likeliest_is_taken_and_of_equals_the_lowest():
    assert drawn(LOGITS, 3, seed=5) == [1, 1, 1]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_tokens_are_drawn_as_often_as_the_softmax_says(temperature):
    tokens = drawn(LOGITS, 6000, temperature=temperature, seed=1)

    assert fits(tokens, softmax(LOGITS / temperature)) > 0.01


def test_a_models_own_logits_are_drawn_as_often_as_its_softmax_says(tmp_path):
    session = open_session(decoder_variant(tmp_path / "decoder"), threads=1)
    prompt = session.prompt(None, "abc")
    expected = softmax(session.logits(prompt)[-1] / 0.5)
    tokens = [
        session.generate(prompt, Generate(max_new_tokens=1, temperature=0.5, seed=seed)).tokens[0]
        for seed in range(1500)
    ]

    likely = expected * len(tokens) >= 5  # what chi-square needs
    counts = np.bincount(tokens, minlength=len(expected))
    rest = len(tokens) - counts[likely].sum()
    observed, wanted = [*counts[likely], rest], [*expected[likely], 1 - expected[likely].sum()]
    assert stats.chisquare(observed, np.array(wanted) * len(tokens)).pvalue > 0.01
    assert likely.sum() > 10


def test_top_k_leaves_the_likeliest_and_of_equals_the_lowest():
    expected = softmax(LOGITS)
    ids, probabilities = candidates(LOGITS, Generate(temperature=1.0, top_k=3))

    assert ids.tolist() == [1, 3, 5]
    np.testing.assert_allclose(probabilities, expected[[1, 3, 5]] / expected[[1, 3, 5]].sum())
    assert candidates(LOGITS, Generate(temperature=1.0, top_k=1))[0].tolist() == [1]
    assert candidates(LOGITS, Generate(temperature=1.0, top_k=99))[0].tolist() == list(range(6))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_top_p_leaves_the_fewest_that_make_up_so_much(temperature, top_p):
    logits = np.random.default_rng(3).standard_normal(200).astype(np.float32) * 3
    ids, probabilities = candidates(logits, Generate(temperature=temperature, top_p=top_p))

    expected = softmax(logits.astype(np.float64) / temperature)
    order = sorted(range(200), key=lambda token: (-expected[token], token))
    fewest = next(count for count in range(1, 201) if expected[order[:count]].sum() >= top_p)
    assert ids.tolist() == order[:fewest]
    np.testing.assert_allclose(probabilities, expected[ids] / expected[ids].sum(), rtol=1e-9)


@pytest.mark.real
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.8), (20, 1.0), (20, 0.8), (5, 0.3)])
def test_what_may_be_drawn_is_what_transformers_draws_from(top_k, top_p):
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = np.random.default_rng(3).standard_normal(200).astype(np.float32) * 3
    ids, probabilities = candidates(logits, Generate(temperature=1.7, top_k=top_k, top_p=top_p))

    scores = TemperatureLogitsWarper(1.7)(None, torch.from_numpy(logits.astype(np.float64))[None])
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    kept = TopPLogitsWarper(top_p)(None, scores)[0].numpy() if top_p < 1 else scores[0].numpy()
    assert set(ids.tolist()) == set(np.flatnonzero(np.isfinite(kept)).tolist())
    np.testing.assert_allclose(probabilities, softmax(kept)[ids], rtol=1e-9)


def test_top_p_counts_what_top_k_left():
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))

    assert candidates(logits, Generate(temperature=1.0, top_k=2, top_p=0.55))[0].tolist() == [0]  # 0.4 of 0.7
    assert candidates(logits, Generate(temperature=1.0, top_p=0.55))[0].tolist() == [0, 1]


def test_the_same_seed_draws_the_same_and_another_draws_otherwise():
    wanted = {"temperature": 1.0, "top_p": 0.95}

    assert drawn(LOGITS, 50, seed=7, **wanted) == drawn(LOGITS, 50, seed=7, **wanted)
    assert drawn(LOGITS, 50, seed=7, **wanted) != drawn(LOGITS, 50, seed=8, **wanted)
    assert drawn(LOGITS, 50, seed=-1, **wanted) == drawn(LOGITS, 50, seed=-1, **wanted)


@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 100.0])
def test_any_temperature_draws_a_token_that_may_come(temperature):
    logits = np.array([3.0, -np.inf, 3.5, -np.inf], np.float32)

    tokens = set(drawn(logits, 200, temperature=temperature))

    assert tokens <= {0, 2}
    assert temperature == 100.0 or tokens == {2}


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 1, "top_p": 0.5}])
@pytest.mark.parametrize("logits", [[1.0, np.nan], [1.0, np.inf], [-np.inf, -np.inf]])
def test_logits_that_are_no_numbers_are_refused(logits, options):
    with pytest.raises(EdgemlError, match="no numbers to choose a token by"):
        drawn(np.array(logits, np.float32), 1, **options)


def test_a_schema_does_not_hide_that_logits_are_no_numbers(tmp_path):
    session = open_session(gguf_variant(tmp_path / "model", llama_gguf(tmp_path / "tiny.gguf", width=64)), threads=1)
    grammar = Grammar(session._model, {"type": "string"})
    logits = np.zeros(session._model.tokens, np.float32)
    logits[7] = np.nan

    with pytest.raises(EdgemlError, match="no numbers to choose a token by"):
        grammar.best(logits)
    with pytest.raises(EdgemlError, match="no numbers to choose a token by"):
        NextToken(Generate(temperature=1.0)).choose(grammar.allowed(np.full_like(logits, np.nan)))


@pytest.mark.parametrize("top_p", [1e-300, 1e-20, 1e-9, float(np.nextafter(1, 0))])
@pytest.mark.parametrize("temperature", [5e-324, 1.0, 100.0])
def test_among_equals_the_smallest_top_p_leaves_one_and_the_largest_all(top_p, temperature):
    for top_k in range(1, 60):
        ids, probabilities = candidates(
            np.zeros(60, np.float32), Generate(temperature=temperature, top_k=top_k, top_p=top_p)
        )
        assert ids.tolist() == list(range(1 if top_p < 0.01 else top_k))
        assert probabilities.sum() == pytest.approx(1)
