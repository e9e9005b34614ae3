"""What is read of a model is read, or refused in one sentence: at once, within memory, and without a crash."""

import pytest

from fuzz.readers import MODELS, READERS
from fuzz.running import SEED, faults

CASES = {"llama.cpp": 3, "sides": 12, "records": 15}


@pytest.mark.filterwarnings("ignore:Ignoring unknown external data key")  # of keys that onnx does not know
@pytest.mark.parametrize("name", MODELS)
def test_a_spoiled_model_is_read_or_refused_in_a_sentence(tmp_path, name):
    found = list(faults(READERS[name], tmp_path, count=CASES.get(name, 25), seed=SEED))
    assert not found, "\n".join(f"{name} {one.case}: {one.what}" for one in found)
