"""MiniLM with a head that is trained here, in seconds, on lines made from templates; saved as a hub holds such models.

The body stays as it is, so only the head sees the lines. Half of the names that fill the templates are kept for tests.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

Line = tuple[list[str], list[str]]

INTENTS = {
    "balance": ("how much is left on my {}", "show the balance of the {}", "what does my {} hold"),
    "block": ("block my {} now", "i lost the {} please stop it", "somebody stole my {}"),
    "limit": ("raise the limit of my {}", "i want to spend more with the {}", "lift the cap of {}"),
    "fee": ("why was i charged a fee for the {}", "the {} costs too much", "refund the fee on my {}"),
    "order": ("i would like to order a {}", "send me a new {}", "can i get another {}"),
    "close": ("close my {}", "cancel the {} for good", "i do not want the {} any more"),
}
THINGS = (
    ("credit card", "savings account", "debit card", "joint account", "business card", "deposit"),
    ("current account", "prepaid card", "safe", "gold card", "youth account", "foreign account"),
)
PEOPLE = (
    ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Emmy Noether"),
    ("Niels Bohr", "Marie Curie", "Max Planck", "Rosa Parks"),
)
PLACES = (("Paris", "New York", "Berlin", "Cape Town"), ("Lima", "Hong Kong", "Oslo", "San Jose"))
SENTENCES = (
    "PER moved to LOC in May",
    "yesterday PER left LOC",
    "the train from LOC was late",
    "PER wrote to the mayor of LOC",
    "we met PER at noon",
    "nothing happened today",
)
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def intents() -> list[list[tuple[str, str]]]:
    """Lines with their intents: 108 to train with, and as many of other things to test."""
    return [
        _shuffled((t.format(thing), name) for name, each in INTENTS.items() for t, thing in product(each, things))
        for things in THINGS
    ]


def sentences() -> list[list[Line]]:
    """Words with their tags: 96 sentences to train with, and as many of other people and places to test."""
    return [
        _shuffled(_filled(sentence, names) for sentence, *names in product(SENTENCES, *filling))
        for filling in zip(PEOPLE, PLACES, strict=True)
    ]


def intent_model(body: Path, folder: Path) -> Path:
    """MiniLM as BertForSequenceClassification over the intents."""
    import torch

    names = list(INTENTS)
    model = _model(body, folder, "BertForSequenceClassification", names)
    texts, labels = zip(*intents()[0], strict=True)
    hidden, _ = _hidden(model, body, [text.split() for text in texts])
    goal = torch.tensor([names.index(label) for label in labels])
    head = torch.nn.Sequential(model.bert.pooler.dense, torch.nn.Tanh(), model.classifier)
    _train(head, hidden[:, 0], goal)
    model.save_pretrained(folder)
    return folder


def tag_model(body: Path, folder: Path) -> Path:
    """MiniLM as BertForTokenClassification over the tags; a word's first token has its tag, others none."""
    import torch

    model = _model(body, folder, "BertForTokenClassification", list(TAGS))
    words, tags = zip(*sentences()[0], strict=True)
    hidden, word_ids = _hidden(model, body, words)
    places = [
        (row, place, TAGS.index(tags[row][word]))
        for row, ids in enumerate(word_ids)
        for place, word in enumerate(ids)
        if word is not None and word not in ids[:place]
    ]
    rows, columns, goal = torch.tensor(places).T
    _train(model.classifier, hidden[rows, columns], goal)
    model.save_pretrained(folder)
    return folder


def in_torch(folder: Path, words: list[list[str]]) -> tuple[Any, Any]:
    """The logits that PyTorch gives for a padded batch of words, and each row's word of every token."""
    import torch
    import transformers

    kind = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    ids, mask, word_ids = _encoded(folder, words)
    with torch.no_grad():
        return kind.from_pretrained(folder).eval()(input_ids=ids, attention_mask=mask).logits.numpy(), word_ids


def _shuffled(lines: Iterable[Any]) -> list[Any]:
    found = list(lines)
    random.Random(3).shuffle(found)
    return found


def _filled(sentence: str, names: list[str]) -> Line:
    words: list[str] = []
    tags: list[str] = []
    for word in sentence.split():
        parts = names[["PER", "LOC"].index(word)].split() if word in ("PER", "LOC") else [word]
        words += parts
        tags += [f"{'I' if at else 'B'}-{word}" for at in range(len(parts))] if word in ("PER", "LOC") else ["O"]
    return words, tags


def _model(body: Path, folder: Path, architecture: str, labels: list[str]) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(body / name, folder)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}
    return getattr(transformers, architecture).from_pretrained(body, **names).eval()


def _encoded(folder: Path, words: Any) -> tuple[Any, Any, list[list[int | None]]]:
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch([list(one) for one in words], is_pretokenized=True)
    ids, mask = (torch.tensor([getattr(row, name) for row in rows]) for name in ("ids", "attention_mask"))
    return ids, mask, [row.word_ids for row in rows]


def _hidden(model: Any, folder: Path, words: Any) -> tuple[Any, list[list[int | None]]]:
    import torch

    ids, mask, word_ids = _encoded(folder, words)
    with torch.no_grad():
        return model.bert(input_ids=ids, attention_mask=mask).last_hidden_state, word_ids


def _train(head: Any, given: Any, goal: Any) -> None:
    import torch

    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(given), goal).backward()
        optimizer.step()
