"""Data, archives, settings and what devices say are read, or refused in one sentence: at once and within memory."""

import pytest

from fuzz.readers import MODELS, READERS
from fuzz.running import SEED, faults

CASES = {"tar": 8, "apk": 8, "bundle": 5, "deb": 15, "yaml": 8}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of pictures whose tags are damaged
@pytest.mark.parametrize("name", [name for name in READERS if name not in MODELS])
def test_a_spoiled_file_is_read_or_refused_in_a_sentence(tmp_path, name):
    found = list(faults(READERS[name], tmp_path, count=CASES.get(name, 25), seed=SEED))
    assert not found, "\n".join(f"{name} {one.case}: {one.what}" for one in found)
