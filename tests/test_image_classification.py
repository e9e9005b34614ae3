"""Pictures are read as their model's own processor reads them, named where they cannot be, and get labels."""

import hashlib
import io
import json
import logging
import warnings

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from edgeml.dataset import dataset_for
from edgeml.download import runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.formats.onnx import conversion as onnx_format
from edgeml.package import bundle_path, package
from edgeml.preprocessing import PROCESSORS, read_pixels
from edgeml.quantize import quantize, recommended
from edgeml.scores import scores
from edgeml.store import Store, load_variant
from edgeml.suggestions import after_quantize
from edgeml.targets import profile
from edgeml.types import Model, Scheme
from edgeml_runtime.__main__ import main
from edgeml_runtime.patterns import PATTERNS, picture
from edgeml_runtime.pixels import decoded, numbers
from edgeml_runtime.records import describe, read_record
from edgeml_runtime.selftest import compare, record
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Generate, Job, Pixels, VariantManifest
from edgeml_runtime.worker import run
from tiny import orders
from tiny.pictures import (
    SETTINGS,
    SHAPES,
    SIDE,
    drawn,
    image_model,
    image_variant,
    picture_folder,
    recipe,
    save_image_model,
)

TASK = "image-classification"
RED, GREEN, BLUE = (200, 10, 20), (0, 180, 10), (5, 0, 220)


def png(colour, size=(9, 7)):
    found = io.BytesIO()
    Image.new("RGB", size, colour).save(found, "PNG")
    return found.getvalue()


def colours(folder):
    """Three files and a table that names them, with labels."""
    folder.mkdir()
    for name, colour in {"red": RED, "green": GREEN, "blue": BLUE}.items():
        (folder / f"{name}.png").write_bytes(png(colour))
    table = folder / "rows.csv"
    table.write_text("file,label\nred.png,red\ngreen.png,green\nblue.png,red\n")
    return table


def model_of(folder, *, format="safetensors"):
    files = describe(folder)
    return Model(name="tiny", ref=str(folder), path=str(folder), files=files, format=format, downloaded="2026-01-01")


def with_recipe(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def own_processor(settings):
    """Transformers' processor for Pillow of that configuration."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(settings, backend="pil", local_files_only=True)


PLAIN = {"resample": 2, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.3, 0.2]}
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}, "do_center_crop": True}
RECIPES = {
    "ViT": {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 32}},
    "ViT of old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 24},
    "ViT as it is": {"image_processor_type": "ViTImageProcessorFast", "size": 24, "do_normalize": False},
    "ViT, cut": {"image_processor_type": "ViTImageProcessor", "size": 40, "do_center_crop": True, "crop_size": 32},
    "DeiT": {"image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 36}, "crop_size": 31},
    "DeiT of old": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 37, "crop_size": 32, "resample": 3},
    "DeiT, whole": {"image_processor_type": "DeiTImageProcessor", "size": 24, "do_center_crop": False},
    "Bit": {"image_processor_type": "BitImageProcessor", **CROPPED, "resample": 3},
    "ConvNext": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 32, "crop_pct": 0.8},
    "ConvNext, large": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
    "MobileNetV1": {"image_processor_type": "MobileNetV1ImageProcessor", **CROPPED},
    "MobileNetV2": {"image_processor_type": "MobileNetV2ImageProcessor", **CROPPED, "rescale_factor": 0.007},
}


@pytest.mark.real
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [(48, 40), (37, 61), (20, 20)])
def test_the_numbers_are_those_of_transformers_own_processor(tmp_path, name, size):
    folder = with_recipe(tmp_path / "model", **PLAIN | RECIPES[name])
    picture = drawn("circle", 1).resize(size)
    content = io.BytesIO()
    picture.save(content, "PNG")

    expected = own_processor(folder)(picture, return_tensors="np")["pixel_values"][0]

    np.testing.assert_allclose(numbers(content.getvalue(), read_pixels(folder)), expected, atol=1e-5)


def test_a_picture_that_keeps_its_proportions_is_cut_out_of_the_centre():
    recipe = Pixels(
        height=2, width=2, shortest_edge=4, resample="nearest", scale=0.5, mean=(1.0, 2, 3), std=(1.0, 2, 4)
    )
    stripes = Image.new("RGB", (7, 4))
    for place in range(7):
        stripes.paste((place, place, place), (place, 0, place + 1, 4))
    content = io.BytesIO()
    stripes.save(content, "PNG")

    red, green, blue = numbers(content.getvalue(), recipe)

    assert red.tolist() == [[2 / 2 - 1, 3 / 2 - 1]] * 2
    assert green.tolist() == [[(2 / 2 - 2) / 2, (3 / 2 - 2) / 2]] * 2
    assert blue.tolist() == [[(2 / 2 - 3) / 4, (3 / 2 - 3) / 4]] * 2


def test_every_processor_that_is_supported_is_compared():
    assert set(PROCESSORS) <= {name.partition(" ")[0].removesuffix(",") for name in RECIPES}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "reads pictures by a CLIPImageProcessor, which edgeml cannot"),
        ({"image_processor_type": None}, "reads pictures by a None"),
        ({"do_resize": False}, "takes pictures of any size"),
        ({"do_center_crop": True, "crop_size": 33}, "cuts 33 by 33 pixels out of pictures of 32 by 24"),
        ({"resample": 17}, "lacks or misstates"),
        ({"size": {"width": 3}}, "lacks or misstates 'height'"),
        ({"image_mean": [1]}, "lacks or misstates"),
        ({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 8}, "crop_size": 9}, "cuts 9 by 9"),
        (
            {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 8}, "do_center_crop": False},
            "pictures of any size",
        ),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(tmp_path, settings, message):
    folder = with_recipe(tmp_path / "model", **PLAIN | RECIPES["ViT"] | settings)

    with pytest.raises(EdgemlError, match=message):
        read_pixels(folder)


def test_a_model_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(EdgemlError, match=r"has no preprocessor_config\.json that can be read"):
        read_pixels(tmp_path)


def test_a_picture_is_upright_and_rgb_before_it_is_read():
    recipe = Pixels(height=2, width=2, resample="nearest", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    lying = Image.new("L", (2, 2), 0)
    lying.putpixel((0, 0), 255)
    content = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, clockwise
    lying.save(content, "TIFF", exif=exif)

    found = numbers(content.getvalue(), recipe)

    assert found.tolist() == [[[0, 255], [0, 0]]] * 3


def test_a_table_names_pictures_beside_it_with_and_without_labels(tmp_path):
    table = colours(tmp_path / "data")
    lines = tmp_path / "data" / "lines.txt"
    lines.write_text("red.png\nblue.png\n")

    rows = dataset_for(TASK, table, {}, limit=None).rows

    assert [row["label"] for row in rows] == ["red", "green", "red"]
    assert rows[0]["file"] == str(tmp_path / "data" / "red.png")
    assert [row["file"][-8:] for row in dataset_for(TASK, lines, {}, limit=None).rows] == ["/red.png", "blue.png"]
    (tmp_path / "data" / "other.tsv").write_text("path\tkind\nred.png\tred\n")
    mapped = dataset_for(TASK, tmp_path / "data" / "other.tsv", {"path": "file", "kind": "label"}, limit=None)
    assert mapped.rows[0]["label"] == "red"


def test_a_folder_is_data_whose_sub_folders_are_labels_each_in_turn(tmp_path):
    folder = picture_folder(tmp_path / "shapes", 3)
    (folder / "circle" / "notes.txt").write_text("no picture")

    labelled = dataset_for(TASK, folder, {}, limit=4)
    plain = dataset_for(TASK, folder / "circle", {}, limit=None)

    assert [row["label"] for row in labelled.rows] == [*SHAPES, "circle"]
    assert [set(row) for row in plain.rows] == [{"file"}] * 3


def test_the_digest_follows_the_pictures_and_their_labels(tmp_path):
    table = colours(tmp_path / "data")
    digests = {dataset_for(TASK, table, {}, limit=None).sha256}
    (tmp_path / "data" / "red.png").write_bytes(png((201, 10, 20)))
    digests.add(dataset_for(TASK, table, {}, limit=None).sha256)
    table.write_text(table.read_text().replace("blue.png,red", "blue.png,blue"))
    digests.add(dataset_for(TASK, table, {}, limit=None).sha256)

    assert len(digests) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"cannot read .*green.png \(row 2\): No such file"),
        (
            lambda path: path.write_bytes(b"GIF, perhaps"),
            r"green.png \(row 2\): a picture cannot be decoded: no format",
        ),
        (lambda path: path.write_bytes(png(RED)[:40]), r"green.png \(row 2\): a picture cannot be decoded"),
        (lambda path: path.write_bytes(b""), r"green.png \(row 2\): a picture cannot be decoded"),
    ],
)
def test_a_picture_that_cannot_be_read_is_named_with_its_row(tmp_path, damage, message):
    table = colours(tmp_path / "data")
    damage(tmp_path / "data" / "green.png")

    with pytest.raises(EdgemlError, match=message):
        dataset_for(TASK, table, {}, limit=None)


def test_a_folder_without_pictures_or_with_two_kinds_of_them_is_refused(tmp_path):
    with pytest.raises(EdgemlError, match="there are no pictures in"):
        dataset_for(TASK, tmp_path, {}, limit=None)
    picture_folder(tmp_path / "mixed", 1)
    (tmp_path / "mixed" / "more.png").write_bytes(png(RED))
    with pytest.raises(EdgemlError, match="pictures beside its sub-folders"):
        dataset_for(TASK, tmp_path / "mixed", {}, limit=None)


def job(variant, rows, **fields):
    own = {"warmups": 1, "repeats": 4, "seed": 0, "threads": 1, "target": "laptop"}
    return Job(variant=str(variant), task=TASK, rows=rows, **own | fields)


def test_each_picture_gets_its_likeliest_label_and_its_cost_is_measured(tmp_path):
    data = dataset_for(TASK, colours(tmp_path / "data"), {}, limit=None)

    outcome = run(job(image_variant(tmp_path / "variant"), data.rows, batch_size=2))

    assert [answer["label"] for answer in outcome.answers] == ["red", "green", "blue"]
    assert outcome.answers[0]["score"] == pytest.approx(
        np.exp(200 / 255) / np.exp([200 / 255, 10 / 255, 20 / 255]).sum()
    )
    found = {sample.metric: sample for sample in outcome.samples}
    assert (found["latency"].unit_of_sample, len(found["latency"].values)) == ("image", 4)
    assert "decoding" in found["latency"].method
    assert (found["throughput"].unit, len(found["throughput"].values)) == ("image/s", 2)


def test_answers_are_scored_as_those_of_texts_are(tmp_path):
    answers = [{"label": "red", "score": 0.9}, {"label": "green", "score": 0.5}, {"label": "blue", "score": 0.6}]

    found = {score.metric: score for score in scores(TASK, answers, ("red", "green", "red"), Generate())}

    assert found["accuracy"].columns == ((1.0, 1.0, 0.0),)
    assert "macro_f1" in found


def test_a_model_that_answers_all_pictures_alike_is_called_broken(tmp_path):
    data = dataset_for(TASK, colours(tmp_path / "data"), {}, limit=None)
    blind = Pixels(height=8, width=8, resample="bilinear", scale=0.0, mean=(0.0,) * 3, std=(1.0,) * 3)

    with pytest.raises(EdgemlError, match="is broken"):
        run(job(image_variant(tmp_path / "variant", pixels=blind), data.rows))


def test_a_picture_that_is_gone_since_is_named(tmp_path):
    session = open_session(image_variant(tmp_path / "variant"), threads=1)

    with pytest.raises(EdgemlError, match=r"gone\.png: cannot read it"):
        task_of(TASK).predict(session, {"file": str(tmp_path / "gone.png")}, Generate())


def test_a_variant_that_does_not_say_how_it_reads_pictures_is_refused(tmp_path):
    with pytest.raises(EdgemlError, match="does not say how pictures are read"):
        open_session(image_variant(tmp_path / "variant", pixels=None), threads=1)


def test_a_model_of_texts_reads_no_pictures(tmp_path):
    from tiny.variants import onnx_variant

    with pytest.raises(EdgemlError, match="reads no pictures"):
        run(job(onnx_variant(tmp_path / "variant").path, ({"file": "a.png"},)))


def test_integers_of_a_convolutional_net_are_refused_before_it_is_exported(tmp_path):
    folder = with_recipe(tmp_path / "model", **recipe("ResNetForImageClassification"))
    (folder / "config.json").write_text(json.dumps({"architectures": ["ResNetForImageClassification"]}))
    model, store = model_of(folder), Store(tmp_path / "artifacts")

    with pytest.raises(EdgemlError, match="onnx:int8 of tiny, a convolutional net, needs calibration images"):
        quantize(model, [Scheme.parse("onnx:int8")], profile=profile("laptop"), store=store)
    assert [str(one) for one in recommended(model, profile("laptop"))] == ["onnx:fp32"]


@pytest.mark.parametrize("scheme", ["gguf:q8_0", "gguf:f16"])
def test_a_classifier_of_pictures_is_refused_for_gguf_by_name(tmp_path, scheme):
    folder = with_recipe(tmp_path / "model", **recipe("ViTForImageClassification"))
    (folder / "config.json").write_text(json.dumps({"architectures": ["ViTForImageClassification"]}))

    with pytest.raises(EdgemlError, match="ViTForImageClassification"):
        quantize(model_of(folder), [Scheme.parse(scheme)], profile=profile("laptop"), store=Store(tmp_path / "a"))


def test_patches_and_positions_become_what_the_quantizer_knows_and_answers_stay(tmp_path):
    import onnxruntime as ort
    from onnx import helper

    from edgeml.formats.onnx.image import lookups_of_positions, products_of_patches
    from tiny.graphs import graph_model

    chance = np.random.default_rng(0)
    stored = {
        "weight": chance.standard_normal((5, 3, 4, 2)).astype(np.float32),
        "bias": chance.standard_normal(5).astype(np.float32),
        "flat": np.array([0, 5, -1]),
        "places": chance.standard_normal((1, 12, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "weight", "bias"], ["patches"], strides=[4, 2]),
        helper.make_node("Reshape", ["patches", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Add", ["turned", "places"], ["logits"]),
    ]
    model = graph_model(nodes, {"pixel_values": ["batch", 3, 12, 8]}, {"logits": ["batch", 12, 5]}, stored)
    picture = {"pixel_values": chance.standard_normal((2, 3, 12, 8)).astype(np.float32)}
    before = ort.InferenceSession(model.SerializeToString()).run(None, picture)[0]

    products_of_patches(model)
    lookups_of_positions(model)

    assert not {"Conv"} & {node.op_type for node in model.graph.node}
    assert {"MatMul", "Gather"} <= {node.op_type for node in model.graph.node}
    after = ort.InferenceSession(model.SerializeToString()).run(None, picture)[0]
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "settings"),
    [([13, 8], {}), ([12, 8], {"pads": [0, 0, 1, 0]}), ([12, 8], {"strides": [2, 2]}), (["high", 8], {})],
    ids=["not covered", "padded", "overlapping", "of any size"],
)
def test_a_convolution_of_another_kind_stays(size, settings):
    from onnx import helper

    from edgeml.formats.onnx.image import products_of_patches
    from tiny.graphs import graph_model

    node = helper.make_node("Conv", ["pixel_values", "weight"], ["logits"], **{"strides": [4, 2]} | settings)
    shapes = {"pixel_values": ["batch", 3, *size]}, {"logits": ["batch", 5, "rows", "columns"]}
    model = graph_model([node], *shapes, {"weight": np.ones((5, 3, 4, 2), np.float32)})

    products_of_patches(model)

    assert [one.op_type for one in model.graph.node] == ["Conv"]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("ready"), wheels=False)


def packed(tmp_path, **options):
    """A bundle's folder, of the tiny classifier of colours."""
    store = Store(tmp_path / "artifacts")
    variant = load_variant(image_variant(store.variant_folder("tiny", "onnx-fp32")))
    return bundle_path(store, package(variant, store=store, profile=profile(None), kind="dir", **options))


def test_a_bundle_tests_itself_on_drawn_pictures_and_predicts_those_of_a_file(ready, tmp_path, capsys):
    table = colours(tmp_path / "data")
    (tmp_path / "data" / "lines.txt").write_text("red.png\nblue.png\n")
    capsys.readouterr()

    assert main(["selftest", str(ready)]) == 0
    assert f"{len(PATTERNS)} pictures: agreement 1.000000" in capsys.readouterr().out
    for data, labels in ((table, ["red", "green", "blue"]), (tmp_path / "data" / "lines.txt", ["red", "blue"])):
        assert main(["predict", str(ready), "--input", str(data)]) == 0
        assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == labels
    assert main(["info", str(ready)]) == 0
    assert "pictures, resized to 8 by 8 pixels" in capsys.readouterr().out
    assert "Sees pictures as 8 by 8 pixels." in (ready / "MODEL_CARD.md").read_text()
    assert "pillow==" in (ready / "requirements.txt").read_text()


def test_a_prediction_of_a_file_that_is_no_picture_names_it(ready, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("lines.txt\n")

    assert main(["predict", str(ready), "--input", str(tmp_path / "lines.txt")]) == 3
    assert "lines.txt: a picture cannot be decoded" in capsys.readouterr().err


def test_a_classifier_that_sees_otherwise_fails_its_self_test(tmp_path):
    goldens = record(image_variant(tmp_path / "here"))
    pixels = read_record(tmp_path / "here" / "variant.json", VariantManifest).pixels
    image_variant(tmp_path / "there", pixels=replace(pixels, mean=(0.9, 0.0, 0.0)))

    assert compare(tmp_path / "here", goldens) > 0.9999
    with pytest.raises(EdgemlError, match="answers differently here"):
        compare(tmp_path / "there", goldens)


def test_lines_of_text_are_no_goldens_of_a_model_that_reads_pictures(tmp_path):
    with pytest.raises(EdgemlError, match="goldens of a model that reads pictures cannot be texts"):
        record(image_variant(tmp_path / "variant"), ["one", "two"])


def test_the_drawn_pictures_are_all_different_and_always_the_same():
    contents = [picture(name) for name in PATTERNS]

    assert len(set(contents)) == len(PATTERNS)
    assert len({decoded(content).size for content in contents}) == 1
    # What has ever been packed must be drawn again for ever.
    assert hashlib.sha256(b"".join(contents)).hexdigest().startswith("e96f0cdc44051a30")


def test_the_next_step_fetches_what_decodes_pictures_too(tmp_path):
    store = Store(tmp_path / "artifacts")
    variant = load_variant(image_variant(store.variant_folder("tiny", "onnx-fp32")))

    assert after_quantize(variant, profile("pi5"), store) == ["edgeml download --runtime onnx-image --target pi5"]
    assert after_quantize(variant, profile(None), store)[0] == "edgeml bench tiny --data FOLDER"
    with pytest.raises(EdgemlError, match="image-classification needs data") as caught:
        dataset_for(TASK, None, {}, limit=None)
    assert "FOLDER" in caught.value.hint


@pytest.mark.real
def test_a_bundle_sees_in_an_empty_environment_without_a_network(tmp_path):
    import subprocess
    import venv

    runtime_wheels(profile(None), "onnx-image")
    bundle, table = packed(tmp_path), colours(tmp_path / "data")
    venv.create(tmp_path / "empty", with_pip=False)
    alone = ["unshare", "-rn", "env", "-i", f"PATH={tmp_path / 'empty'}/bin:/usr/bin:/bin", "sh"]

    for arguments, said in (
        (("selftest",), "self-test passed"),
        (("predict", "--input", str(table)), '"label": "red"'),
    ):
        command = [*alone, str(bundle / "run.sh"), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


class Models:
    """Each class's folder, and its export in fp32, made once in this process: PyTorch takes long to load."""

    def __init__(self, root):
        self.root = root

    def folder(self, architecture):
        path = self.root / architecture
        return path if path.exists() else save_image_model(image_model(architecture), path)

    def shared(self, architecture):
        path = self.root / f"{architecture}.shared"
        if not path.exists():
            path.mkdir()
            scratch = self.root / f"{architecture}.first"
            scratch.mkdir()
            self.convert(architecture, scratch, path, "fp32")
        return path

    def convert(self, architecture, folder, shared, scheme):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
            logging.disable()  # else pytest keeps every step of the tracer
            source = self.folder(architecture)
            orders.convert(source, folder, shared, kind="image", scheme=scheme)
            logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Models(tmp_path_factory.mktemp("models"))


def logits_of(graph, batch):
    import onnxruntime as ort

    return ort.InferenceSession(graph).run(["logits"], {"pixel_values": batch})[0]


@pytest.mark.real
@pytest.mark.parametrize("architecture", SETTINGS)
def test_a_batch_of_pictures_gets_the_logits_of_pytorch(models, tmp_path, architecture):
    import torch

    folder = models.folder(architecture)
    recipe = read_pixels(folder)
    batch = np.stack([numbers(_png_of(shape, seed), recipe) for seed, shape in enumerate(SHAPES)])
    model = image_model(architecture).eval()
    with torch.no_grad():
        expected = model(torch.tensor(batch)).logits.numpy()

    models.convert(architecture, tmp_path, models.shared(architecture), "fp32")

    assert np.abs(expected).max() > 1e-2  # else a mistake would not show
    np.testing.assert_allclose(logits_of(tmp_path / "model.onnx", batch), expected, atol=1e-4 * np.abs(expected).max())
    for index in range(len(batch)):
        alone = logits_of(tmp_path / "model.onnx", batch[index : index + 1])[0]
        np.testing.assert_allclose(alone, expected[index], atol=1e-4 * np.abs(expected).max())


def _png_of(shape, seed):
    content = io.BytesIO()
    drawn(shape, seed).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("architecture", SETTINGS)
def test_every_family_that_is_tested_is_supported(architecture):
    assert architecture in onnx_format.CLASSES["image"]


@pytest.mark.real
def test_every_weight_of_a_vision_transformer_becomes_an_integer(models, tmp_path):
    from edgeml.formats.onnx.audit import audit

    models.convert("ViTForImageClassification", tmp_path, models.shared("ViTForImageClassification"), "int8")

    found = audit(tmp_path / "model.onnx", "int8")
    assert (found.earned, found.shortfalls) == (True, ())
    assert found.share_quantized > 0.97
    assert found.parameters == audit(tmp_path / "model.onnx", "fp32").parameters


def trained(architecture, *, steps, rate):
    """A model of that class that tells circles, squares and triangles apart."""
    import torch

    model = image_model(architecture)
    recipe = Pixels(
        height=SIDE, width=SIDE, resample="bilinear", scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.5, 0.3, 0.2)
    )
    made = [(numbers(_png_of(shape, seed), recipe), place) for seed in range(600) for place, shape in enumerate(SHAPES)]
    pixels = torch.tensor(np.stack([one for one, _ in made]))
    labels = torch.tensor([place for _, place in made])
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_uniform_(parameter.flatten(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    torch.set_num_threads(1)  # such small products only wait for each other
    for step in range(steps):
        chosen = torch.randint(0, len(labels), (64,), generator=torch.Generator().manual_seed(step))
        loss = model(pixels[chosen], labels=labels[chosen]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A trained vision transformer with its variants, and pictures that it has not seen."""
    from edgeml.download import download
    from edgeml.types import ModelRef

    root = tmp_path_factory.mktemp("shapes")
    folder = save_image_model(trained("ViTForImageClassification", steps=250, rate=2e-3), root / "shapes-vit")
    store = Store(root / "artifacts")
    model = download(ModelRef.parse(str(folder)), store=store)
    schemes = recommended(model, profile("laptop"))
    variants = quantize(model, schemes, profile=profile("laptop"), store=store)
    return store, variants, picture_folder(root / "unseen", 40, seed=5000)


@pytest.mark.real
def test_integers_cost_a_trained_model_little_and_bench_says_how_little(shapes):
    from edgeml.bench import bench
    from edgeml.conditions import Conditions

    store, variants, folder = shapes
    conditions = Conditions(task=TASK, profile=profile("laptop"), threads=1, repeats=20, batch_size=8)
    dataset = dataset_for(TASK, folder, {}, limit=None)

    report = bench(variants, dataset, conditions, store=store, baseline=variants[0])

    assert [one.manifest.scheme for one in variants] == ["onnx:fp32", "onnx:int8"]
    value = {(one.variant, one.metric, one.statistic): one.value for one in report.measurements}
    whole, small = (one.name for one in variants)
    assert value[whole, "accuracy", "mean"] > 0.9
    assert value[small, "accuracy", "mean"] > 0.9
    (change,) = [one for one in report.differences if one.metric == "accuracy"]
    assert abs(change.difference) < 0.05
    assert value[small, "size", "once"] < 0.5 * value[whole, "size", "once"]
    assert variants[1].manifest.audit.earned
