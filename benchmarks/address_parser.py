"""The address parser of `recipes/address-parser` against the CRF of usaddress, trained on the same addresses.

    python benchmarks/address_parser.py [--rounds 5]

usaddress lives in an environment of its own (`peers/usaddress.txt`), made on the first run. Its CRF is trained anew,
with its own features and its trainer's own settings, on the train split that the recipe's model was trained on, since
the model that the package ships was trained on the test split too; once more with the regularization that is best on
the dev split, since the recipe had dev at hand. Both then label the words of the test split, and are judged by edgeml's
scorer. Differences are paired by address: bootstrap for entity F1, Tango's interval and
McNemar's exact test for whole addresses. Timed: one address at a time on one thread, words in and tags out, in fresh
processes in turn. Goal: a higher entity F1 on all addresses, with an interval above zero.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import ROOT, child, interleaved, ratio, store

from edgeml.conditions import SEED
from edgeml.download import download
from edgeml.quantize import quantize
from edgeml.scores import token_classification as judge
from edgeml.stats import difference, interval, mcnemar_p, paired_shares
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.types import ModelRef, Scheme, Variant
from edgeml_runtime.records import sha256
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks.token_classification import predict
from edgeml_runtime.types import Generate

RECIPE = ROOT / "recipes" / "address-parser"
MODEL, DATA = RECIPE / "model" / "us-address-parser", RECIPE / "data"
PEERS = Path(__file__).parent / "peers"
OURS, THEIRS = "edgeml onnx:int8", "usaddress CRF, same rows"
FP32, TUNED, STOCK = "edgeml onnx:fp32", "usaddress CRF, tuned on dev", "usaddress CRF, as shipped"
TIMED = """
import json, statistics, sys, time
from pathlib import Path
from edgeml_runtime.records import sha256
from edgeml_runtime.session import open_session
folder, lines = sys.argv[1:]
session = open_session(Path(folder), threads=1)
texts = [json.loads(line)["tokens"] for line in Path(lines).read_text(encoding="utf-8").splitlines()]
times = []
for text in [*texts[:50], *texts]:
    begin = time.perf_counter()
    session.tag([text])
    times.append((time.perf_counter() - begin) * 1000)
print(json.dumps(statistics.median(times[50:])))
"""

Tags = list[list[str]]


def crf(*arguments: str) -> str:
    """What the peer's script prints, in an environment that is made once."""
    folder = store().root.parent / "usaddress"
    python = folder / "env" / "bin" / "python"
    if not (folder / "made").exists():
        venv.create(folder / "env", with_pip=True, clear=True)
        quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(PEERS / "usaddress.txt")]
        subprocess.run([str(python), *quiet], check=True, stdout=sys.stderr)
        (folder / "made").touch()
    command = [str(python), str(PEERS / "usaddress_crf.py"), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def digest(files: Sequence[Path]) -> str:
    """Twelve letters that stand for the content of some files."""
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:12]


def trained(verb: str, *splits: str) -> Path:
    """A CRF of the peer's verb `train` or `tune`, in the benchmarks' cache; made once for these splits."""
    files = [DATA / f"{split}.jsonl" for split in splits]
    made = store().root.parent / "usaddress" / f"{verb}-{digest(files)}.crfsuite"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        part = made.with_suffix(".part")
        crf(verb, str(part), *map(str, files))
        part.replace(made)
    return made


def crf_tags(model: Path | str) -> Tags:
    """What a CRF says of the test split."""
    return [json.loads(line) for line in crf("tags", str(model), str(DATA / "test.jsonl")).splitlines()]


def our_variants() -> list[Variant]:
    """The trained model in int8 and in full precision; a model that was trained anew has a store of its own."""
    own = Store(store().root.parent / "usaddress" / digest(sorted(MODEL.iterdir())))
    model = download(ModelRef.parse(str(MODEL)), store=own)
    schemes = [Scheme.parse("onnx:int8"), Scheme.parse("onnx:fp32")]
    return quantize(model, schemes, profile=profile(None), store=own)


def our_tags(variant: Variant, rows: Sequence[dict[str, Any]]) -> Tags:
    """What a variant says of the rows."""
    session = open_session(variant.path, threads=1)
    return [predict(session, row, Generate())["tags"] for row in rows]


def spans(tags: Tags, rows: Sequence[dict[str, Any]], kept: Sequence[int]) -> list[tuple[float, ...]]:
    """The scorer's counts of the kept rows."""
    chosen = [rows[at] for at in kept]
    answers = [{"tags": tags[at]} for at in kept]
    return list(judge.scores(answers, judge.read_gold(chosen), Generate())[0].columns)


def exact(tags: Tags, rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether every word of an address has its tag."""
    return [given == list(row["tags"]) for given, row in zip(tags, rows, strict=True)]


def slices(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """The places of all rows, and of each kind's and state's, the largest first."""
    found: dict[str, list[int]] = {}
    for column in ("kind", "state"):
        named: dict[str, list[int]] = {}
        for at, row in enumerate(rows):
            named.setdefault(f"{column} {row[column]}", []).append(at)
        found |= dict(sorted(named.items(), key=lambda pair: -len(pair[1])))
    return {"all": list(range(len(rows))), **found}


def told(sides: dict[str, Tags], rows: Sequence[dict[str, Any]]) -> None:
    """Each side over all rows, then ours against theirs by slice."""
    print(
        f"  {len(rows)} addresses of the test split; entity F1 and whole addresses right, each with its 95 % interval"
    )
    everything = list(range(len(rows)))
    for name, tags in sides.items():
        f1 = interval(spans(tags, rows, everything), judge.f1, seed=SEED)
        right = exact(tags, rows)
        print(f"  {name:<28} F1 {f1.value:.4f} [{f1.low:.4f}, {f1.high:.4f}]   whole {sum(right) / len(right):.4f}")
    print(f"  {STOCK} learnt these very rows: that line is no comparison")
    print(f"  {'slice':<22} {'n':>4}  {OURS:>17}  {THEIRS:>25}  difference")
    for name, kept in slices(rows).items():
        ours, theirs = (spans(sides[side], rows, kept) for side in (OURS, THEIRS))
        values = [interval(one, judge.f1, seed=SEED).value for one in (ours, theirs)]
        apart = difference(ours, theirs, judge.f1, seed=SEED)
        bounds = "too few for an interval" if apart.low is None else f"[{apart.low:+.4f}, {apart.high:+.4f}]"
        print(f"  {name:<22} {len(kept):>4}  {values[0]:>17.4f}  {values[1]:>25.4f}  {apart.value:+.4f} {bounds}")


def paired(other: str, sides: dict[str, Tags], rows: Sequence[dict[str, Any]]) -> None:
    """Ours against another: entity F1 and whole addresses, paired by address."""
    everything = list(range(len(rows)))
    our_counts, their_counts = (spans(sides[one], rows, everything) for one in (OURS, other))
    f1 = difference(our_counts, their_counts, judge.f1, seed=SEED)
    ours, theirs = (exact(sides[one], rows) for one in (OURS, other))
    gained = sum(our and not their for our, their in zip(ours, theirs, strict=True))
    lost = sum(their and not our for our, their in zip(ours, theirs, strict=True))
    apart = paired_shares(gained, lost, len(rows))
    print(f"  {OURS} against {other}: entity F1 {f1.value:+.4f} [{f1.low:+.4f}, {f1.high:+.4f}]")
    print(
        f"    whole addresses {apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]: right only here {gained}, "
        f"only there {lost}, McNemar's exact p {mcnemar_p(gained, lost):.3g}"
    )


def main() -> None:
    """Print both sides, by slice, with size and latency."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for path, script in ((DATA / "test.jsonl", "prepare.py"), (MODEL / "config.json", "train.py")):
        if not path.exists():
            print(f"left out: {path} is not there; python {RECIPE / script} makes it (train.py in minutes)")
            return
    test = DATA / "test.jsonl"
    rows = [json.loads(line) for line in test.read_text(encoding="utf-8").splitlines()]
    int8, fp32 = our_variants()
    same, tuned = trained("train", "train"), trained("tune", "train", "dev")
    sides = {
        OURS: our_tags(int8, rows),
        FP32: our_tags(fp32, rows),
        THEIRS: crf_tags(same),
        TUNED: crf_tags(tuned),
        STOCK: crf_tags("stock"),
    }
    told(sides, rows)
    for theirs in (THEIRS, TUNED):
        paired(theirs, sides, rows)
    ours_bytes, theirs_bytes = (int8.path / "model.onnx").stat().st_size, same.stat().st_size
    print(
        f"  files: {ours_bytes / 1e6:.1f} MB against {theirs_bytes / 1e6:.2f} MB, ratio {ours_bytes / theirs_bytes:.0f}"
    )
    times = {
        OURS: lambda: child(TIMED, str(int8.path), str(test)),
        THEIRS: lambda: float(json.loads(crf("time", str(same), str(test)))),
    }
    ratio(interleaved(times, rounds), OURS, THEIRS, unit="ms", goal="none, a CRF is the smaller and the quicker")


if __name__ == "__main__":
    main()
