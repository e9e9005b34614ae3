"""Sounds are read and heard as Whisper's own processor hears them, refused where they cannot be, and written down."""

import base64
import json
import struct
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeml.calibration import read_calibration
from edgeml.dataset import dataset_for
from edgeml.errors import EdgemlError
from edgeml.formats.onnx.graph import load, save
from edgeml.formats.onnx.speech import lookups_of_places, products_of_frames
from edgeml.package import bundle_path, package
from edgeml.quantize import quantize, recommended
from edgeml.scores import gold, scores
from edgeml.scores.automatic_speech_recognition import changes, plain
from edgeml.speech import read_speech
from edgeml.store import Store, load_variant
from edgeml.targets import profile
from edgeml.traits import read_traits
from edgeml.types import Model, Scheme
from edgeml.verdicts.unseen import cost_of_a_row
from edgeml_runtime.__main__ import main
from edgeml_runtime.errors import EdgemlError as RuntimeRefusal
from edgeml_runtime.feedback.types import read_posted
from edgeml_runtime.mel import Ear, filters
from edgeml_runtime.records import describe
from edgeml_runtime.selftest import compare, record
from edgeml_runtime.server.predict import Predict, answers, checked
from edgeml_runtime.server.work import GivenUpError
from edgeml_runtime.session import open_session
from edgeml_runtime.sound import read_wave, resampled
from edgeml_runtime.tasks import task_of
from edgeml_runtime.tones import SOUNDS, tone
from edgeml_runtime.types import Generate, Job, Sound, Speech
from edgeml_runtime.worker import run
from tiny.graphs import graph_model
from tiny.serving import served
from tiny.speech import SOUND, TASK, sound_folder, speech_variant, wav, whisper_folder

WHISPER = Sound(sampling_hz=16_000, fft_size=400, hop=160, mel_bins=80, window_s=1)


def model_of(folder):
    known = {"name": "tiny", "ref": str(folder), "path": str(folder), "format": "safetensors"}
    return Model(files=describe(folder), downloaded="2026-01-01", **known)


def sine(hz, rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    return speech_variant(tmp_path_factory.mktemp("speech") / "one")


@pytest.mark.parametrize(("width", "step"), [(1, 1 / 127), (2, 1e-4), (3, 1e-6), (4, 1e-7)])
def test_samples_of_every_width_are_read(width, step):
    found = read_wave(wav(sine(440, 8000), hz=8000, width=width))

    assert (found.hz, found.seconds, found.samples.dtype) == (8000, 0.5, np.float32)
    assert np.abs(found.samples - sine(440, 8000)).max() < step


def test_several_channels_become_their_mean():
    left, right = sine(440, 8000), sine(300, 8000)

    found = read_wave(wav(np.stack([left, right], axis=1), hz=8000))

    assert np.abs(found.samples - (left + right) / 2).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_a_tone_of_another_rate_is_the_same_tone(rate):
    found = resampled(read_wave(wav(sine(1000, rate), hz=rate, width=4)), 16_000)

    wanted = sine(1000, 16_000)
    assert len(found) == len(wanted)
    assert np.abs(found - wanted)[200:-200].max() < 1e-3


def test_what_the_new_rate_cannot_hold_is_gone():
    found = resampled(read_wave(wav(sine(9000, 48_000), hz=48_000, width=4)), 16_000)

    assert np.abs(found)[200:-200].max() < 1e-4


def header(*, kind=1, channels=1, hz=16_000, bits=16, data=b"\0" * 64, **others):
    """A WAV file; `others` are the sizes that its header says, `before` and `after` are parts around its samples."""
    frame = others.get("frame", channels * bits // 8)
    form = struct.pack("<HHIIHH", kind, channels, hz, hz * frame & 0xFFFFFFFF, frame, bits) + others.get("more", b"")
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + others.get("before", b"")
    body += b"data" + struct.pack("<I", others.get("size", len(data))) + data + others.get("after", b"")
    return b"RIFF" + struct.pack("<I", others.get("riff", len(body))) + body


LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no WAV file"),
        (b"ID3\x03 an mp3 file", "no WAV file"),
        (wav(sine(440, 16_000))[:20], "no WAV file"),
        (wav(sine(440, 16_000))[:40], "it ends early"),
        (b"RF64" + header()[4:], "does not begin as one"),
        (header().replace(b"fmt ", b"junk"), "it ends early"),
        (header()[:12] + b"\0" * 100_000, "it ends early"),
        (header(kind=7, bits=8), "unknown format: 7"),
        (header(kind=0xFFFE), "unknown format: 65534"),
        (header(kind=0xFFFE, more=b"\x16\0\x10\0\4\0\0\0\1\0" + b"x" * 14), "unknown format: 65534"),
        (header(kind=3, bits=32, data=struct.pack("<f", np.nan)), "floats that are no sound"),
        (header(kind=3, bits=64, data=struct.pack("<d", -1e300)), "floats that are no sound"),
        (header(kind=3, bits=16), r"16 bits \(floats\)"),
        (header(channels=0), "0 channels"),
        (header(channels=9999, data=b"\0" * 9999 * 4), "9999 channels"),
        (header(bits=40, data=b"\0" * 50), "of 40 bits"),
        (header(bits=24, frame=4), "4 bytes a frame, and 3 are one"),
        (header(hz=1), "at 1 Hz"),
        (header(hz=0), "at 0 Hz"),
        (header(bits=64), "of 64 bits"),
        (header(data=b""), "holds no sound"),
        (header(data=b"", after=LIST), "holds no sound"),
        (header(data=b"", size=0xFFFFFFFF), "holds no sound"),
        (header(size=6400), "holds 32 of the 3200 samples"),
        (header(size=0x7FFFEFFE), "holds 32 of the 1073739775 samples"),
    ],
)
def test_what_is_no_whole_plain_wav_file_is_refused(content, message):
    with pytest.raises(RuntimeRefusal, match=message):
        read_wave(content)


RAMP = struct.pack("<32h", *range(0, 3200, 100))
UNKNOWN = {
    "FFmpeg to a pipe": {"before": LIST, "size": 0xFFFFFFFF, "riff": 0xFFFFFFFF},
    "arecord to a pipe": {"size": 0x80000000, "riff": 0x80000024},
    "SoX to a pipe": {"size": 0x7FFFF000, "riff": 0x7FFFF024},
    "GStreamer, killed": {"size": 0, "riff": 0},
    "Python's wave, killed": {"size": 0, "riff": 36},
}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("broken_off", [b"", b"\1"])
def test_a_recording_whose_header_does_not_know_its_length_is_all_that_is_there(name, broken_off):
    found = read_wave(header(data=RAMP + broken_off, **UNKNOWN[name]))

    assert found.samples.tolist() == pytest.approx(np.arange(0, 3200, 100) / 32768)
    with pytest.raises(RuntimeRefusal, match=r"at most 0\.001 s are heard"):
        read_wave(header(data=RAMP, **UNKNOWN[name]), most_s=0.001)


@pytest.mark.parametrize(
    "parts",
    [
        {"riff": 0},
        {"after": LIST},
        {"frame": 0},
        {"before": LIST},
        {"before": b"LIST\3\0\0\0abc\0"},
        {"before": b"LIST\3\0\0\0abc"},  # without the byte that makes it even
        {"before": b"JUNK\1\0\0\0x" + LIST},
    ],
)
def test_what_stands_around_the_samples_is_no_part_of_them(parts):
    assert read_wave(header(data=RAMP, **parts)).samples.tolist() == pytest.approx(np.arange(0, 3200, 100) / 32768)


@pytest.mark.parametrize(("kind", "bits", "type"), [(1, 32, "<i4"), (3, 32, "<f4"), (3, 64, "<f8")])
@pytest.mark.parametrize("extended", [False, True])
def test_floats_and_the_longer_form_of_a_header_are_read(kind, bits, type, extended):
    wanted = sine(440, 16_000)
    data = (wanted * (2**31 - 1) if kind == 1 else wanted).astype(type).tobytes()
    guid = struct.pack("<HHIH", 22, 24, 4, kind) + bytes.fromhex("000000001000800000aa00389b71")

    found = read_wave(
        header(kind=0xFFFE, more=guid, bits=bits, data=data) if extended else header(kind=kind, bits=bits, data=data)
    )

    assert np.abs(found.samples - wanted).max() < 1e-7


def test_a_refused_format_is_told_how_to_be_made_plain():
    with pytest.raises(RuntimeRefusal) as caught:
        read_wave(b"OggS")

    assert "ffmpeg -i" in caught.value.hint


def test_any_broken_bytes_are_read_or_refused():
    whole = tone("a low tone")
    random = np.random.default_rng(1)
    for _ in range(300):
        broken = bytearray(whole[: random.integers(1, 400)])
        for place in random.integers(0, len(broken), 4):
            broken[place] = random.integers(256)
        with suppress(RuntimeRefusal):
            read_wave(bytes(broken))


def test_bands_are_triangles_of_equal_area_on_slaneys_scale():
    found = filters(WHISPER)

    assert found.shape == (201, 80)
    assert found.min() == 0
    # Slaney's scale is linear below 1 kHz, 200/3 Hz a mel; of 80 bands up to 8 kHz each is 45.245640 / 81 mels wide.
    assert 40 * found[:, 30].argmax() == pytest.approx(31 * 45.245640 / 81 * 200 / 3, abs=20)
    assert found[:, 79].max() * 40 < found[:, 30].max() * 40  # higher bands are wider, and so lower


def test_silence_is_as_low_as_it_gets_and_ends_every_shorter_sound():
    ear = Ear(WHISPER)

    assert np.unique(ear.hear(np.zeros(0, np.float32))) == pytest.approx([(-10 + 4) / 4])
    heard = ear.hear(read_wave(wav(sine(440, 16_000))).samples)
    assert heard.shape == (80, 100)
    assert heard[:, 60:].max() == pytest.approx(heard.max() - 2)  # 8 below the maximum, divided by 4
    assert heard[:, 20].argmax() == 11  # the band around 440 Hz


def test_a_sound_is_heard_as_it_was_when_compared_with_the_models_own_processor():
    heard = Ear(WHISPER).hear(read_wave(tone("a hum in noise")).samples)

    # WhisperFeatureExtractor(chunk_length=1) of Transformers 5.23, the same bands and places.
    wanted = [
        [1.1376, 1.1376, 1.1350, 1.1392, 1.1478],
        [0.4219, 0.4785, 0.3785, 0.4739, 0.3612],
        [0.5395, 0.5244, 0.5353, 0.5146, 0.5456],
        [0.4861, 0.5688, 0.5478, 0.5413, 0.5713],
    ]
    assert np.abs(heard[1::26, 3:60:14] - wanted).max() < 1e-4


@pytest.mark.real
def test_a_sound_is_heard_as_the_models_own_processor_hears_it():
    from transformers import WhisperFeatureExtractor

    own = WhisperFeatureExtractor(feature_size=128, chunk_length=1)
    ear = Ear(Sound(sampling_hz=16_000, fft_size=400, hop=160, mel_bins=128, window_s=1))
    for name in SOUNDS:
        samples = resampled(read_wave(tone(name)), 16_000)
        wanted = own(samples, sampling_rate=16_000, return_tensors="np").input_features[0]
        assert np.abs(ear.hear(samples) - wanted).max() < 1e-4


def test_an_answer_follows_from_the_sound(variant):
    session = open_session(variant, threads=1)
    made = [session.transcribe(tone(name), Generate(max_new_tokens=8)) for name in SOUNDS]

    assert len({one.tokens for one in made}) > 3
    assert {(one.prompt_tokens, one.finish_reason, len(one.token_times_s)) for one in made} == {(2, "length", 8)}


def test_what_is_written_again_with_its_answer_known_is_the_same(variant):
    session = open_session(variant, threads=1)
    made = session.transcribe(tone("clicks"), Generate(max_new_tokens=8))

    found = session.logits(tone("clicks"), made.tokens)

    assert found.shape[0] == 9
    assert tuple(found[:-1].argmax(1)) == made.tokens


def test_an_answer_ends_at_its_end_token_and_has_none_that_are_never_written(tmp_path, variant):
    plainly = open_session(variant, threads=1).transcribe(tone("clicks"), Generate(max_new_tokens=8)).tokens

    def answer(name, **fields):
        session = open_session(speech_variant(tmp_path / name, **fields), threads=1)
        return session.transcribe(tone("clicks"), Generate(max_new_tokens=8))

    heard = {"sound": SOUND, "start_tokens": (0, 1)}
    ended = answer("ended", end_tokens=(plainly[1],))
    assert (ended.tokens, ended.finish_reason) == (plainly[:1], "stop")
    assert plainly[1] not in answer("never", speech=Speech(**heard, never=(plainly[1],))).tokens
    first = answer("first", speech=Speech(**heard, not_first=(plainly[0],))).tokens
    assert first[0] != plainly[0]
    untimed = answer("times", speech=Speech(**heard, first_timestamp=min(plainly)))
    assert (untimed.tokens, untimed.text) == (plainly, "")
    assert len(answer("short", max_tokens=5).tokens) == 3


def test_what_an_answer_cannot_be_held_to_is_refused(variant):
    session = open_session(variant, threads=1)

    for options in (Generate(schema={}), Generate(instruction="Translate"), Generate(stop=("x",))):
        with pytest.raises(RuntimeRefusal, match="without an instruction, a schema or stop words"):
            session.transcribe(tone("clicks"), options)


def test_a_sound_longer_than_the_window_is_refused_with_both_lengths(variant):
    with pytest.raises(RuntimeRefusal, match=r"lasts 2\.5 s, and at most 1 s are heard"):
        open_session(variant, threads=1).transcribe(wav(sine(440, 8000, 2.5), hz=8000), Generate())


def test_a_variant_that_does_not_say_how_it_hears_is_refused(tmp_path):
    with pytest.raises(RuntimeRefusal, match="names no way to hear"):
        open_session(speech_variant(tmp_path / "deaf", speech=None), threads=1)


def job_of(variant, folder, **fields):
    rows = dataset_for(TASK, folder, {}, limit=None).rows
    options = {"generate": Generate(max_new_tokens=6), "warmups": 1, "repeats": 0} | fields
    return Job(variant=str(variant), task=TASK, target="x", threads=1, seed=1, rows=rows, **options)


def test_every_sound_is_timed_and_answered_in_its_row(tmp_path, variant):
    outcome = run(job_of(variant, sound_folder(tmp_path / "sounds")))

    samples = {one.metric: one for one in outcome.samples}
    session = open_session(variant, threads=1)
    wanted = [session.transcribe(tone(name), Generate(max_new_tokens=6)).text for name in SOUNDS]
    assert [one["text"] for one in outcome.answers] == wanted
    assert len(samples["latency"].values) == len(SOUNDS)
    speeds = [0.75 / ms * 1000 for ms in samples["latency"].values]
    assert samples["throughput"].values == pytest.approx(speeds)
    assert outcome.warnings == ("7 of 7 answers were cut at 6 tokens or the model's limit",)


def test_another_machine_computes_the_logits_of_a_sounds_first_token(tmp_path, variant):
    outcome = run(job_of(variant, sound_folder(tmp_path / "sounds", 2), trace=True))

    wanted = open_session(variant, threads=1).logits(tone(SOUNDS[1]), ())
    assert outcome.trace[1].shape == wanted.shape
    assert outcome.trace[1].data == wanted.astype("<f4").tobytes()


def test_a_model_of_texts_hears_nothing_and_one_that_hears_reads_no_texts(tmp_path, variant):
    session = open_session(variant, threads=1)

    with pytest.raises(RuntimeRefusal, match="generates no text"):
        task_of("text-generation").predict(session, {"text": "x"}, Generate())


def test_data_is_a_folder_with_texts_beside_or_rows_that_name_files(tmp_path):
    folder = sound_folder(tmp_path / "sounds", 3)
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps({"wav": f"{n}.wav", "said": SOUNDS[n]}) + "\n" for n in range(3)))

    found = dataset_for(TASK, folder, {}, limit=None)
    named = dataset_for(TASK, table, {"wav": "file", "said": "expected"}, limit=None)

    assert [row["expected"] for row in found.rows] == list(SOUNDS[:3])
    assert (found.rows, found.sha256) == (named.rows, named.sha256)
    assert len(dataset_for(TASK, folder, {}, limit=2).rows) == 2
    (folder / "1.txt").unlink()
    with pytest.raises(EdgemlError, match="row 2 has no expected"):
        gold(TASK, dataset_for(TASK, folder, {}, limit=None).rows)


def test_data_that_cannot_be_heard_is_named(tmp_path):
    with pytest.raises(EdgemlError, match="needs data") as caught:
        dataset_for(TASK, None, {}, limit=None)
    assert "FOLDER" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgemlError, match=r"no \.wav files"):
        dataset_for(TASK, tmp_path / "empty", {}, limit=None)
    folder = sound_folder(tmp_path / "sounds", 2)
    (folder / "1.wav").write_bytes(b"OggS")
    with pytest.raises(EdgemlError, match=r"1\.wav \(row 2\): it is no WAV file"):
        dataset_for(TASK, folder, {}, limit=None)
    (folder / "1.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(EdgemlError, match=r"1\.txt cannot be read as UTF-8"):
        dataset_for(TASK, folder, {}, limit=None)
    with pytest.raises(EdgemlError, match="takes no calibration inputs yet"):
        read_calibration(folder, task=TASK, columns={})


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("abc", "abc", 0)],
)
def test_the_fewest_changes_are_counted(ours, theirs, count):
    assert changes(ours, theirs) == count


def test_texts_are_compared_without_punctuation_and_capitals():
    assert plain(" Good morning, Ms. O'Neill — 3 €! ") == "good morning ms o neill 3"


def test_error_rates_are_of_all_words_together():
    answers = [{"text": "the cat sat on the mat"}, {"text": "A dog!"}]

    found = {one.metric: one for one in scores(TASK, answers, ("the cat sat on a mat", "a dog"), Generate())}

    assert found["wer"].columns == ((1.0, 0.0), (6.0, 2.0))
    assert found["wer"].statistic(*map(np.array, found["wer"].columns)) == pytest.approx(1 / 8)
    assert found["cer"].columns[1] == (20.0, 5.0)
    assert cost_of_a_row(found["wer"]) == pytest.approx(2 * (36 + 4) / 8 / 8)
    assert scores(TASK, answers, (), Generate()) == []


def settings(folder, heard, written, **config):
    folder.mkdir(parents=True)
    known = {"architectures": ["WhisperForConditionalGeneration"], "max_target_positions": 448} | config
    (folder / "config.json").write_text(json.dumps(known))
    heard = {"feature_extractor_type": "WhisperFeatureExtractor"} | heard
    (folder / "preprocessor_config.json").write_text(json.dumps(heard))
    if written:
        (folder / "generation_config.json").write_text(json.dumps(written))
    return folder


MANY = {
    "decoder_start_token_id": 50258,
    "lang_to_id": {"<|en|>": 50259, "<|de|>": 50261},
    "task_to_id": {"translate": 50358, "transcribe": 50359},
    "no_timestamps_token_id": 50363,
    "suppress_tokens": [1, 2, -1],
    "begin_suppress_tokens": [220, 50257],
    "eos_token_id": 50257,
}
ONE = {
    "decoder_start_token_id": 50257,
    "forced_decoder_ids": [[1, 50362]],
    "no_timestamps_token_id": 50362,
    "suppress_tokens": None,
}


def test_how_answers_begin_is_read_from_the_models_files(tmp_path):
    many = read_speech(settings(tmp_path / "many", {"feature_size": 128}, MANY))
    german = read_speech(settings(tmp_path / "german", {}, MANY | {"language": "<|de|>"}))
    one = read_speech(settings(tmp_path / "one", {}, ONE))
    old = read_speech(settings(tmp_path / "old", {}, None, **ONE))

    assert many.sound == Sound(sampling_hz=16_000, fft_size=400, hop=160, mel_bins=128, window_s=30)
    assert (many.language, many.start_tokens) == ("en", (50258, 50259, 50359, 50363))
    assert (many.never, many.not_first, many.first_timestamp) == ((1, 2), (220, 50257), 50364)
    assert (german.language, german.start_tokens[1]) == ("de", 50261)
    assert (one.language, one.start_tokens, one.never) == (None, (50257, 50362), ())
    assert old == one


def test_language_and_task_are_those_that_newer_or_older_settings_name(tmp_path):
    asked = {
        "forced": {"forced_decoder_ids": [[1, 50261], [2, 50358]]},
        "unknown": {"forced_decoder_ids": [[1, None], [2, 50359]]},
        "newer": {"forced_decoder_ids": [[1, 50261], [2, 50358]], "task": "transcribe"},
        "translating": {"language": "de", "task": "translate"},
    }
    found = {name: read_speech(settings(tmp_path / name, {}, MANY | one)).start_tokens for name, one in asked.items()}

    assert found == {
        "forced": (50258, 50261, 50358, 50363),
        "unknown": (50258, 50259, 50359, 50363),
        "newer": (50258, 50259, 50359, 50363),
        "translating": (50258, 50261, 50358, 50363),
    }


@pytest.mark.real
def test_a_language_may_be_named_in_full(tmp_path):
    found = read_speech(settings(tmp_path / "many", {}, MANY | {"language": "german"}))

    assert (found.language, found.start_tokens[1]) == ("de", 50261)


@pytest.mark.parametrize(
    ("heard", "written", "message"),
    [
        ({"feature_extractor_type": "ClapFeatureExtractor"}, MANY, "hears by a ClapFeatureExtractor"),
        ({"do_normalize": True}, MANY, "with do_normalize"),
        ({"hop_length": 0}, MANY, "cannot read .*preprocessor_config.json"),
        ({"chunk_length": "30"}, MANY, "cannot read .*preprocessor_config.json"),
        ({}, MANY | {"language": "xx"}, "no language 'xx'"),
        ({}, {"eos_token_id": 1}, "with which token an answer begins"),
        ({}, MANY | {"suppress_tokens": {}}, "cannot read .*generation_config.json"),
    ],
)
def test_a_model_that_cannot_be_followed_is_refused_with_its_reason(tmp_path, heard, written, message):
    with pytest.raises(EdgemlError, match=message):
        read_speech(settings(tmp_path / "model", heard, written))


def test_a_folder_of_whisper_is_for_speech_recognition(tmp_path):
    folder = settings(tmp_path / "model", {}, MANY)
    (folder / "model.safetensors").write_bytes(b"")

    traits = read_traits(model_of(folder))

    assert (traits.task, traits.max_tokens, traits.end_tokens) == (TASK, 448, (50257,))
    assert traits.notes == (
        "every sound is taken to be in the language en: another one is set as language in its generation_config.json",
    )
    assert {one.format for one in recommended(model_of(folder), profile("pi5"))} == {"onnx"}
    (folder / "config.json").write_text('{"architectures": ["WhisperForConditionalGeneration"]}')
    with pytest.raises(EdgemlError, match="does not say how much it writes"):
        read_traits(model_of(folder))


def test_static_integers_are_refused_before_calibration_is_asked_for(tmp_path):
    folder = settings(tmp_path / "model", {}, MANY)
    save_file({"w": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")

    for scheme, message in (("onnx:int8-static", "not made of models that hear"), ("gguf:q8_0", "no Whisper")):
        with pytest.raises(EdgemlError, match=message):
            quantize(
                model_of(folder), [Scheme.parse(scheme)], profile=profile("laptop"), store=Store(tmp_path / "made")
            )


def test_goldens_are_made_of_sounds_that_anybody_may_have(variant):
    goldens = record(variant)

    assert goldens.texts == SOUNDS
    assert compare(variant, goldens) == 1.0
    with pytest.raises(RuntimeRefusal, match="that hears cannot be texts"):
        record(variant, ["a", "b"])


def test_a_model_that_hears_nothing_is_called_broken(tmp_path):
    from onnx import load_model, numpy_helper, save_model

    folder = speech_variant(tmp_path / "deaf")
    for name in ("encoder.onnx", "decoder.onnx"):
        model = load_model(folder / name)
        for tensor in model.graph.initializer:
            if tensor.name == "mix":
                tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), "mix"))
        save_model(model, folder / name)

    with pytest.raises(RuntimeRefusal, match="does not depend on what it reads"):
        record(folder)


def test_predict_reads_the_files_that_rows_name(tmp_path, variant, capsys):
    folder = sound_folder(tmp_path / "sounds", 2)
    (folder / "rows.jsonl").write_text('{"file": "1.wav"}\n')
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "variant").symlink_to(variant)

    assert main(["predict", str(bundle), "--input", str(folder / "rows.jsonl")]) == 0

    wanted = open_session(variant, threads=1).transcribe(tone(SOUNDS[1]), Generate()).text
    assert json.loads(capsys.readouterr().out) == wanted


@pytest.fixture(scope="module")
def endpoint(variant):
    with served(variant) as found:
        yield found


def test_the_endpoint_writes_down_sounds_that_are_sent(endpoint, variant):
    rows = [{"audio": base64.b64encode(tone(name)).decode()} for name in SOUNDS[:2]]

    found = endpoint.post("/v1/predict", {"rows": rows, "max_new_tokens": 6})

    session = open_session(variant, threads=1)
    wanted = [session.transcribe(tone(name), Generate(max_new_tokens=6)).text for name in SOUNDS[:2]]
    assert (found.status, found.json["answers"]) == (200, wanted)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file": "/etc/passwd"}, "audio must be a WAV file in base64"),
        ({"text": "x"}, "audio must be a WAV file in base64"),
        ({"audio": "no base64!"}, "audio must be a WAV file in base64"),
        ({"audio": base64.b64encode(b"OggS").decode()}, "audio: it is no WAV file"),
        ({"audio": base64.b64encode(wav(np.zeros(20_000))).decode()}, "audio: it lasts 1.2 s, and at most 1 s"),
    ],
)
def test_the_endpoint_refuses_what_is_no_sound_that_it_can_hear(endpoint, row, message):
    found = endpoint.post("/v1/predict", {"rows": [row]})

    assert found.status == 400
    assert message in found.error["message"]


def test_a_sound_whose_answer_nobody_waits_for_is_written_no_further(variant):
    session, seen = open_session(variant, threads=1), []
    rows = [{"audio": base64.b64encode(tone(SOUNDS[0])).decode()}]
    asked = Predict(rows=tuple(rows), max_new_tokens=12)
    task, ready = checked(asked, session.manifest)

    class GoneAfterTwo:
        def is_set(self):
            seen.append(1)
            return len(seen) > 2

    ask = SimpleNamespace(given_up=GoneAfterTwo())
    with pytest.raises(GivenUpError):
        answers(session, asked, task, ready, ask, context_tokens=100, max_new_tokens=100)

    assert len(session.transcribe(tone(SOUNDS[0]), Generate(max_new_tokens=12)).tokens) > 3
    assert len(seen) == 3


def test_feedback_keeps_no_sounds():
    body = {"input": {"file": "x"}, "answer": "a", "correction": "b", "task": TASK}

    with pytest.raises(RuntimeRefusal, match="this task reads sounds"):
        read_posted(json.dumps(body).encode(), most_bytes=1000)


def convolving(*, stride, pads, wide=3):
    from onnx import helper

    random = np.random.default_rng(5)
    weight, bias = (random.standard_normal(shape).astype(np.float32) for shape in ((6, 4, wide), (6,)))
    places = (17 + sum(pads) - wide) // stride + 1
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[stride], pads=list(pads))]
    return graph_model(nodes, {"x": [1, 4, 17]}, {"y": [1, 6, places]}, {"w": weight, "b": bias})


@pytest.mark.parametrize(("stride", "pads"), [(1, (1, 1)), (2, (1, 1)), (3, (2, 0)), (2, (0, 0))])
def test_a_convolution_over_time_becomes_a_product_with_the_same_answer(tmp_path, stride, pads):
    model, x = convolving(stride=stride, pads=pads), np.random.default_rng(6).standard_normal((1, 4, 17))
    before = answer_of(model, tmp_path / "before.onnx", x)

    products_of_frames(model)

    assert "Conv" not in {node.op_type for node in model.graph.node}
    assert answer_of(model, tmp_path / "after.onnx", x) == pytest.approx(before, abs=1e-5)


def answer_of(model, path, x):
    from edgeml_runtime.backends.onnx import open_graph

    save(model, path)
    return open_graph(path, threads=1).run(None, {"x": np.asarray(x, np.float32)})[0]


def test_tables_of_places_become_lookups_with_the_same_answer(tmp_path):
    from onnx import helper

    table = np.random.default_rng(7).standard_normal((5, 4)).astype(np.float32)
    places = np.array([[[2], [0], [2], [1], [4]]])
    nodes = [
        helper.make_node("GatherND", ["table", "places"], ["found"]),
        helper.make_node("Add", ["x", "other"], ["sum"]),
        helper.make_node("Add", ["sum", "found"], ["y"]),
    ]
    stored = {"table": table, "other": table[::-1].copy(), "places": places}
    model = graph_model(nodes, {"x": [1, 5, 4]}, {"y": [1, 5, 4]}, stored)
    x = np.ones((1, 5, 4))
    before = answer_of(model, tmp_path / "before.onnx", x)

    lookups_of_places(model)

    assert [node.op_type for node in model.graph.node].count("Gather") == 2
    assert answer_of(model, tmp_path / "after.onnx", x) == pytest.approx(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Whisper in PyTorch, and its variants."""
    import transformers

    root = tmp_path_factory.mktemp("whisper")
    folder = whisper_folder(root / "model")
    schemes = [Scheme.parse(name) for name in ("onnx:fp32", "onnx:int8")]
    store = Store(root / "artifacts")
    variants = quantize(model_of(folder), schemes, profile=profile("laptop"), store=store)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    return folder, model, variants


@pytest.mark.real
def test_what_is_written_equals_transformers_token_by_token(made):
    import transformers

    folder, model, (full, _) = made
    processor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    session = open_session(full.path, threads=1)
    written = set()
    for name in SOUNDS:
        samples = resampled(read_wave(tone(name)), 16_000)
        heard = processor(samples, sampling_rate=16_000, return_tensors="pt").input_features
        wanted = model.generate(heard, language="en", task="transcribe", max_new_tokens=40)[0].tolist()
        found = session.transcribe(tone(name), Generate(max_new_tokens=40)).tokens
        assert list(found) == wanted
        written.add(found)
    assert len(written) > 3


@pytest.mark.real
def test_eight_bits_are_earned_and_answer_nearly_alike(made):
    _, _, (full, small) = made
    sessions = [open_session(one.path, threads=1) for one in (full, small)]
    near = []
    for name in SOUNDS:
        tokens = sessions[0].transcribe(tone(name), Generate(max_new_tokens=8)).tokens
        ours, theirs = (session.logits(tone(name), tokens).ravel() for session in sessions)
        near.append(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))

    assert small.manifest.audit.earned
    assert small.manifest.size_bytes < full.manifest.size_bytes / 2
    assert min(near) > 0.98
    assert {node.op_type for node in load(small.path / "encoder.onnx").graph.node} & {"Conv", "ConvInteger"} == set()


@pytest.mark.real
def test_the_bundle_answers_where_torch_cannot_be_imported(made, tmp_path):
    _, _, (_, small) = made
    store = Store(tmp_path / "artifacts")
    packed = package(load_variant(small.path), store=store, profile=profile(None), kind="dir", wheels=False)
    folder = sound_folder(tmp_path / "sounds", 2)
    (folder / "rows.jsonl").write_text('{"file": "0.wav"}\n{"file": "1.wav"}\n')
    code = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
    code += "from edgeml_runtime.__main__ import main\nsys.exit(main(sys.argv[1:]))"

    def tried(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        ).stdout

    bundle = str(bundle_path(store, packed))
    assert "self-test passed" in tried("selftest", bundle)
    assert len(tried("predict", bundle, "--input", str(folder / "rows.jsonl")).splitlines()) == 2
