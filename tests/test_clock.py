from edgeml_runtime.meters.clock import steady_s


def test_warmups_and_repeats_are_kept_apart_and_take_the_items_in_turn():
    seen = []

    warmups, repeats = steady_s(seen.append, ["a", "b"], warmups=1, repeats=4)

    assert seen == ["a", "b", "a", "b", "a"]
    assert (len(warmups), len(repeats)) == (1, 4)
    assert all(value >= 0 for value in warmups + repeats)
