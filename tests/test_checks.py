import pytest

from edgeml.dataset import dataset_for
from edgeml_runtime.checks import AT_MOST_ROWS, NAMES, check_of, sampled
from edgeml_runtime.checks.sensitivity import _perturbed
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.perturbations import KINDS, perturb
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Generate, Job
from tiny.graphs import decoder_variant
from tiny.int8 import int8_variant
from tiny.labels import classifier_variant
from tiny.pictures import image_variant, picture_folder
from tiny.variants import onnx_variant

TEXTS = ("rent march", "rent april", "fuel", "fuel station", "post office", "post", "bank", "banking", "zebra")
LONG = "Which of the two sensors reports the higher humidity, and since when does it differ from the other one?"


def job(task="feature-extraction", texts=TEXTS, **fields):
    defaults = {"variant": "x", "target": "laptop", "threads": 1, "warmups": 0, "repeats": 1, "seed": 1}
    return Job(**{"task": task, "rows": tuple({"text": text} for text in texts), **defaults, **fields})


def pairs(*texts):
    return tuple({"sentence1": one, "sentence2": two} for one, two in texts)


def quiet(step, done, total):
    pass


def check(name, session, asked):
    answers = task_of(asked.task).answers(session, asked, quiet)
    found = check_of(name).run(session, asked, answers.values, quiet)
    return found, {sample.metric: sample for sample in found.samples}


@pytest.fixture
def session(tmp_path):
    return open_session(onnx_variant(tmp_path / "variant").path, threads=1)


@pytest.fixture
def int8(tmp_path):
    return open_session(int8_variant(tmp_path / "int8").path, threads=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_check_that_is_named_exists(name):
    assert callable(check_of(name).run)


def test_an_unknown_check_is_refused_with_the_nearest():
    with pytest.raises(EdgemlError, match="unknown check") as caught:
        check_of("sensitivty")
    assert caught.value.hint == "did you mean sensitivity?"


def test_answers_of_dynamic_int8_that_change_beside_an_outlier_are_counted_and_told(int8):
    found, by_metric = check("batch-invariance", int8, job())

    flips, shifts = by_metric["batch.flips"], by_metric["batch.shift"]
    assert 0 < sum(flips.values) < len(TEXTS)
    assert len(flips.values) == len(shifts.values) == len(TEXTS)
    assert max(shifts.values) > 0.01
    assert shifts.values[TEXTS.index("zebra")] < 1e-4  # the outlier itself sets the scale, alone and among others
    [warning] = found.warnings
    assert warning.startswith(
        f"{sum(flips.values):.0f} of 9 answers change with what else is in the batch (dynamic int8)"
    )
    assert "run batches of one, as the bundle does" in warning


def test_a_batch_without_the_outlier_is_no_reason_to_warn_of_flips(int8):
    found, by_metric = check("batch-invariance", int8, job(texts=TEXTS[:-1], batch_size=1))

    assert set(by_metric["batch.flips"].values) == {0.0}
    assert found.warnings == ()


def test_floats_answer_alike_whatever_else_is_in_the_batch(session):
    found, by_metric = check("batch-invariance", session, job())

    assert set(by_metric["batch.flips"].values) == {0.0}
    assert max(by_metric["batch.shift"].values) < 1e-6
    assert found.warnings == ()


def test_cosines_of_pairs_shift_with_the_batch_but_do_not_flip(int8):
    rows = pairs(("rent march", "rent april"), ("fuel", "fuel station"), ("zebra", "post"))
    found, by_metric = check("batch-invariance", int8, job("sentence-similarity", rows=rows))

    assert set(by_metric) == {"batch.shift"}
    assert len(by_metric["batch.shift"].values) == 3
    assert found.warnings[0].startswith("answers change by up to 0.")


def test_labels_of_a_classifier_are_tried_in_batches_and_with_changed_texts(tmp_path):
    model = open_session(classifier_variant(tmp_path / "labels").path, threads=1)

    _, in_batches = check("batch-invariance", model, job("text-classification"))
    _, changed = check("sensitivity", model, job("text-classification"))

    assert set(in_batches["batch.flips"].values) == {0.0}
    assert max(in_batches["batch.shift"].values) < 1e-6
    assert all(len(sample.values) == len(TEXTS) for sample in changed.values())
    assert {value for sample in changed.values() for value in sample.values} == {0.0, 1.0}


def test_tags_are_compared_word_by_word_and_their_spacing_is_left_alone(tmp_path):
    model = open_session(classifier_variant(tmp_path / "tags", task="token-classification").path, threads=1)
    asked = job("token-classification", rows=tuple({"tokens": text.split()} for text in (LONG, *TEXTS)))

    _, changed = check("sensitivity", model, asked)

    assert changed["sensitivity.typos"].values[0] == 1.0
    assert set(changed["sensitivity.case"].values) == set(changed["sensitivity.spacing"].values) == {0.0}
    assert "it changed 0 of 10 rows" in changed["sensitivity.spacing"].method


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_hold_spaces_stay_words(kind):
    words = ["New York", "is", "a  big", "", "city state"]

    changed = [_perturbed(words, kind, seed) for seed in range(20)]

    assert {len(one) for one in changed} == {5}
    assert {tuple(word.count(" ") for word in one) for one in changed} == {(1, 0, 2, 0, 1)}
    assert (changed[0] != words) == (kind != "spacing")


def test_pictures_are_tried_in_batches_as_texts_are(tmp_path):
    folder = picture_folder(tmp_path / "pictures", 2)
    rows = dataset_for("image-classification", folder, {}, limit=None).rows
    model = open_session(image_variant(tmp_path / "variant"), threads=1)

    _, by_metric = check("batch-invariance", model, job("image-classification", rows=rows, batch_size=3))

    assert set(by_metric["batch.flips"].values) == {0.0}
    assert len(by_metric["batch.shift"].values) == len(rows) > 3


def test_pictures_have_no_text_to_change(session):
    found = check_of("sensitivity").run(session, job("image-classification", rows=({"file": "/x.png"},)), (), quiet)

    assert [(one.metric, one.reason) for one in found.absent] == [
        ("sensitivity", "the rows of image-classification hold no text to change")
    ]


def test_batches_of_generation_are_not_tried_which_is_said(tmp_path):
    decoder = open_session(decoder_variant(tmp_path / "decoder"), threads=1)

    found = check_of("batch-invariance").run(decoder, job("text-generation"), (), quiet)

    assert [(one.metric, one.reason) for one in found.absent] == [
        ("batch.flips", "batches of text-generation are not tried")
    ]


def test_each_kind_of_change_is_tried_on_every_row(session):
    _, by_metric = check("sensitivity", session, job())

    assert set(by_metric) == {f"sensitivity.{kind}" for kind in KINDS}
    assert {len(sample.values) for sample in by_metric.values()} == {len(TEXTS)}
    assert {sample.unit_of_sample for sample in by_metric.values()} == {"row"}
    assert 0 < sum(by_metric["sensitivity.typos"].values) < len(TEXTS)
    assert set(by_metric["sensitivity.case"].values) == {0.0}  # its tokenizer takes capitals for small letters
    assert "it changed 4 of 9 rows" in by_metric["sensitivity.spacing"].method


def test_a_changed_line_is_compared_with_all_others_as_they_were(session):
    asked = job(texts=("rent march", "rent march", "fuel"))

    _, by_metric = check("sensitivity", session, asked)

    assert by_metric["sensitivity.case"].values == (0.0, 0.0, 0.0)  # its double is still the nearest


def test_a_cosine_that_moves_counts_by_how_much(session):
    asked = job("sentence-similarity", rows=pairs(("rent march", "rent april"), ("4471", "0815")))

    _, by_metric = check("sensitivity", session, asked)

    moved, unmoved = by_metric["sensitivity.typos"].values
    assert 0 < moved < 1
    assert unmoved == 0.0  # a number has no letters to mistype


def test_generated_answers_are_compared_as_well(tmp_path):
    decoder = open_session(decoder_variant(tmp_path / "decoder"), threads=1)

    _, by_metric = check("sensitivity", decoder, job("text-generation", generate=Generate(max_new_tokens=4)))

    assert all(set(sample.values) <= {0.0, 1.0} for sample in by_metric.values())
    assert sum(by_metric["sensitivity.typos"].values) > 0


def test_a_task_without_rows_has_no_sensitivity(session):
    found = check_of("sensitivity").run(session, job("perplexity", rows=(), text="x"), (), quiet)

    assert [one.metric for one in found.absent] == ["sensitivity"]


def test_of_many_rows_some_are_drawn_by_the_seed():
    many = job(texts=[str(number) for number in range(AT_MOST_ROWS + 1)])

    rows, unit = sampled(many)

    assert (len(rows), unit) == (AT_MOST_ROWS, "sampled row")
    assert rows == sampled(many)[0] == sorted(set(rows))
    assert sampled(job())[1] == "row"


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_change_and_another_seed_another(kind):
    assert perturb(LONG, kind, 20) == perturb(LONG, kind, 20)
    assert len({perturb(LONG, kind, seed) for seed in range(20)}) > 1
    assert all(perturb(LONG, kind, seed) != LONG for seed in range(20))


def test_a_typo_comes_every_twenty_letters_and_moves_or_drops_one():
    for seed in range(50):
        changed = perturb(LONG, "typos", seed)
        assert 0 <= len(LONG) - len(changed) <= 4  # 84 letters
        assert changed.split()[0]
        assert len(changed.split()) == len(LONG.split())


def test_changed_case_keeps_every_letter_and_changed_spacing_every_word_character():
    for seed in range(50):
        assert perturb(LONG, "case", seed).lower() == LONG.lower()
        assert perturb(LONG, "spacing", seed).replace(" ", "") == LONG.replace(" ", "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "4471", "a", "ß", "e\u0301", "日本語", " "])
def test_any_text_can_be_asked_for_a_change(kind, text):
    assert isinstance(perturb(text, kind, 1), str)


def test_a_list_of_words_keeps_its_number_and_its_spacing():
    words = LONG.split()

    assert all(len(_perturbed(words, kind, seed)) == len(words) for kind in KINDS for seed in range(20))
    assert _perturbed(words, "spacing", 1) == words
