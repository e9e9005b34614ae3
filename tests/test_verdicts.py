import msgspec
import numpy as np
import pytest
from scipy import stats as scipy_stats

from edgeml.errors import EdgemlError
from edgeml.stats import normal_quantile, tango_score
from edgeml.types import Run
from edgeml.verdicts import verdicts
from edgeml.verdicts.limits import limits_of
from edgeml_runtime.types import Absent, Environment, Generate, Outcome, Samples

ENVIRONMENT = Environment(machine="x86_64", system="Linux", python="3.11", threads=1, cores=1, libraries={})
SIZES = (23_000_000, 90_000_000)


def run(variant="m/onnx-int8", *, task="feature-extraction", answers=(), gold=(), samples=(), absent=(), **more):
    outcome = Outcome(environment=ENVIRONMENT, samples=tuple(samples), answers=tuple(answers), absent=tuple(absent))
    asked = {"started": "2026-01-01", "dataset": "d", "dataset_sha256": "d", "generate": Generate(), "seed": 20}
    counts = {"repeats": 1, "warmups": 0, "batch_size": 1, "context_tokens": 1}
    return Run(
        variant=variant, variant_sha256="", target="laptop", how="measured", task=task, outcome=outcome,
        gold=tuple(gold), **asked, **counts, **more,
    )  # fmt: skip


def right_or_wrong(right, variant="m/onnx-int8", **more):
    """A run whose rows are right where `right` is; the last two rows carry the labels that others point at."""
    labels = ["a"] * (len(right) - 1) + ["b"]
    wrong_row, right_row = len(right) - 1, 0
    answers = [{"nearest": right_row if one else wrong_row, "cosine": 0.9} for one in right[:-1]]
    answers.append({"nearest": wrong_row if right[-1] else right_row, "cosine": 0.9})
    return run(variant, answers=answers, gold=labels, **more)


def flipped(n, *, lost=0, gained=0, **more):
    base = [True] * (n - gained) + [False] * gained
    ours = [False] * lost + [True] * (n - lost)
    return right_or_wrong(ours, **more), right_or_wrong(base, "m/onnx-fp32", **more)


def similarity(n, *, noise=0.0, seed=1, broken=0.0, **more):
    random = np.random.default_rng(seed)
    gold = random.normal(size=n)
    base = 0.8 * gold + 0.6 * random.normal(size=n)
    ours = np.where(random.random(n) < broken, random.normal(size=n), base + noise * random.normal(size=n))
    kinds = {"task": "sentence-similarity", "gold": gold.tolist(), **more}
    return run(answers=ours.tolist(), **kinds), run("m/onnx-fp32", answers=base.tolist(), **kinds)


def text(nll, variant="m/gguf-q4_0", *, scored=None, **samples):
    values = {"perplexity": ("perplexity", "exp_mean", nll)}
    values |= {name: ("nat" if name == "kl_divergence" else "share", "mean", of) for name, of in samples.items()}
    found = [
        Samples(
            metric=name, unit=unit, values=tuple(of), statistics=(how,), unit_of_sample="chunk", method="", parts=scored
        )
        for name, (unit, how, of) in values.items()
    ]
    return run(variant, task="perplexity", samples=found)


def judge(pair, **limits):
    ours, base = pair
    asked = limits_of({name.replace("_", "-"): [text] for name, text in limits.items()})
    [found] = verdicts(ours, base, asked, sizes=SIZES)
    return found


def test_forty_rows_cannot_tell_of_one_per_cent_even_if_no_answer_flips():
    found = judge(flipped(40), max_drop="1%")

    assert (found.verdict, found.metric, found.n, found.difference) == ("cannot tell", "nearest_accuracy", 40, 0)
    assert (found.low, found.high) == pytest.approx((-0.088, 0.088), abs=1e-3)
    assert found.n_needed == 390  # 381, rounded up
    assert found.p_value == 1.0


def test_many_rows_of_which_none_flips_pass():
    found = judge(flipped(390), max_drop="1%")

    assert (found.verdict, found.bound, found.level, found.baseline) == ("pass", -0.01, 0.95, "m/onnx-fp32")
    assert found.n_needed is None
    assert found.reason is None


def test_many_lost_rows_fail_with_mcnemars_p_value():
    found = judge(flipped(400, lost=30, gained=4), max_drop="1%")

    assert found.verdict == "fail"
    assert found.high < found.bound
    assert found.p_value == pytest.approx(scipy_stats.binomtest(4, 34).pvalue)


def test_a_relative_bound_is_a_share_of_the_baselines_value_and_a_plain_one_is_not():
    pair = flipped(200, gained=100)

    assert judge(pair, max_drop="2%").bound == pytest.approx(-0.02 * 0.5)
    assert judge(pair, max_drop="0.02").bound == -0.02


def test_what_is_needed_is_what_would_decide_with_the_same_shares_of_flips():
    found = judge(flipped(200, lost=3, gained=2), max_drop="0.02")
    times = -(-found.n_needed // 200)

    assert found.verdict == "cannot tell"
    assert judge(flipped(200 * times, lost=3 * times, gained=2 * times), max_drop="0.02").verdict == "pass"
    assert judge(flipped(200 * (times - 1), lost=3 * (times - 1), gained=2 * (times - 1)), max_drop="0.02").verdict == (
        "cannot tell"
    )


@pytest.mark.parametrize(("n", "word"), [(40, "cannot tell"), (1000, "pass")])
def test_a_rank_correlation_that_is_hardly_changed_passes_with_many_rows_alone(n, word):
    found = judge(similarity(n, noise=0.03), max_drop="2%")

    assert (found.verdict, found.metric, found.statistic) == (word, "spearman", "spearman")
    assert (found.n_needed is None) == (word == "pass")


def test_a_rank_correlation_that_is_lost_fails():
    assert judge(similarity(300, noise=0.5), max_drop="1%").verdict == "fail"


def test_equal_answers_to_few_rows_do_not_pass_since_rare_failures_are_unseen():
    found = judge(similarity(60), max_drop="1%")

    assert (found.verdict, found.difference) == ("cannot tell", 0)
    assert found.low == pytest.approx(-3 * 3.84 / 63.84, abs=0.01)  # what a row costs a correlation of 0.8


def test_no_drop_passes_mostly_with_1500_rows():
    random = np.random.default_rng(3)
    words = []
    for _ in range(30):
        lost, gained, _ = random.multinomial(1500, [0.005, 0.005, 0.99])
        words.append(judge(flipped(1500, lost=lost, gained=gained), max_drop="1%").verdict)

    assert words.count("pass") > 20
    assert "fail" not in words


def test_a_relative_drop_exactly_at_the_bound_passes_in_no_more_than_the_stated_share():
    """The baseline is drawn as well. 2000 trials: the Monte Carlo error of 2.5 % is 0.35 %; three are allowed."""
    random, n, trials = np.random.default_rng(4), 200, 2000
    lost_share = 0.7 * 0.1 + 0.3 * 0.02  # with 2 % of the wrong rows gained, a tenth is lost
    base = random.binomial(n, 0.7, size=trials)
    lost, gained = random.binomial(base, lost_share / 0.7), random.binomial(n - base, 0.02)
    near = np.flatnonzero(tango_score(gained, lost, n, -0.1 * base / n) > normal_quantile(0.95))

    passed = 0
    for one in near:
        right = [True] * base[one] + [False] * (n - base[one])
        ours = [False] * lost[one] + [True] * (base[one] - lost[one] + gained[one])
        ours += [False] * (n - len(ours))
        pair = right_or_wrong(ours), right_or_wrong(right, "m/onnx-fp32")
        passed += judge(pair, max_drop="10%").verdict == "pass"

    assert passed / trials <= 0.025 + 3 * 0.0035


def test_without_right_answers_agreement_is_held_against_a_baseline_that_agrees_with_itself():
    answers = [{"nearest": index % 7, "cosine": 0.9} for index in range(400)]
    other = [{"nearest": 8, "cosine": 0.9}] * 40 + answers[40:]

    found = judge((run(answers=other), run("m/onnx-fp32", answers=answers)), max_drop="2%")

    assert (found.verdict, found.metric, found.bound) == ("fail", "fidelity.agreement", -0.02)
    assert found.difference == pytest.approx(-0.1)
    assert found.p_value is None


def test_perplexity_that_rises_is_a_drop():
    base = np.random.default_rng(1).normal(3, 0.3, 80)
    noise = np.random.default_rng(2).normal(0, 0.005, 80)

    worse = judge((text(base + 0.1 + noise), text(base, "m/gguf-f16")), max_drop="5%")
    near = judge((text(base + 0.01 + noise), text(base, "m/gguf-f16")), max_drop="5%")

    assert (worse.verdict, near.verdict) == ("fail", "pass")
    assert worse.bound == pytest.approx(0.05 * np.exp(base.mean()))
    assert worse.difference > 0


def test_what_compares_with_the_baseline_is_held_against_the_baseline_itself():
    base, values = [3.0] * 40, np.random.default_rng(1).uniform(0.01, 0.02, 40)
    pair = text(base, kl_divergence=values, same_top=1 - values), text(base, "m/gguf-f16")

    assert judge(pair, max_drop="kl_divergence=0.05").verdict == "pass"
    assert judge(pair, max_drop="kl_divergence=0.001").verdict == "fail"
    assert judge(pair, max_drop="same_top=5%").verdict == "pass"


def test_few_rows_cannot_tell_and_say_how_few():
    found = judge(flipped(9), max_drop="1%")

    assert (found.verdict, found.n, found.low) == ("cannot tell", 9, None)
    assert found.reason == "9 rows are too few; it takes 10 at least"


def test_a_metric_that_is_absent_cannot_tell_and_says_why():
    absent = [Absent(metric="energy", reason="no energy sensor", hint="")]
    pair = flipped(40, absent=absent)

    reason = "m/onnx-int8 has no macro_f1: feature-extraction does not give it here"
    assert judge(pair, max_drop="macro_f1=1%").reason == reason
    assert judge(pair, max_energy="1J").reason == "m/onnx-int8 has no energy: no energy sensor"


def test_a_drop_without_a_baseline_cannot_tell():
    ours, _ = flipped(40)

    assert judge((ours, None), max_drop="1%").reason == "there is no baseline to compare with"


def test_rows_that_nothing_pairs_are_refused():
    with pytest.raises(EdgemlError, match="nothing pairs them"):
        judge((flipped(40)[0], flipped(41)[1]), max_drop="1%")


def test_marked_samples_decide_nothing():
    ours, base = text([3.0] * 40), text([3.0] * 40, "m/gguf-f16")
    [sample] = ours.outcome.samples
    marked = run(task="perplexity", samples=[Samples(**{**_fields(sample), "marks": ("the machine swapped",)})])

    found = judge((marked, base), max_drop="5%")

    assert (found.verdict, found.reason) == ("cannot tell", "its samples are marked: the machine swapped")


def _fields(record):
    return {name: getattr(record, name) for name in record.__struct_fields__}


def sampled(values, variant="m/onnx-int8", *, metric="batch.shift", unit_of_sample="sampled row", **more):
    one = Samples(
        metric=metric, unit="1", values=tuple(values), statistics=("mean",), unit_of_sample=unit_of_sample, method=""
    )
    return run(variant, samples=[one], **more)


def test_rows_that_a_check_sampled_are_paired_where_both_runs_drew_them_alike():
    ours, base = sampled([0.001] * 200), sampled([0.0] * 200, "m/onnx-fp32")

    assert judge((ours, base), max_drop="batch.shift=0.05").verdict == "pass"
    assert judge((sampled([0.2] * 200), base), max_drop="batch.shift=0.05").verdict == "fail"


def test_sampled_rows_of_another_seed_or_number_pair_with_nothing():
    base = sampled([0.0] * 200, "m/onnx-fp32")
    other = msgspec.structs.replace(base, seed=21)

    drawn = judge((sampled([0.0] * 200), other), max_drop="batch.shift=0.05")
    fewer = judge((sampled([0.0] * 100), base), max_drop="batch.shift=0.05")

    assert drawn.reason == "the rows that it was tried on were drawn by another seed than the baseline's"
    assert "100 rows against 200" in fewer.reason


def test_sampled_rows_have_no_slices():
    slices = {"slices": {"language": ("de",) * 200}}
    pair = sampled([0.0] * 100, **slices), sampled([0.0] * 100, "m/onnx-fp32", **slices)

    assert judge(pair, max_drop_worst_slice="batch.shift=0.05").reason == "it was tried on some rows only: no slices"


def test_a_relative_rise_of_a_share_counts_what_is_unsure_of_the_baselines():
    """Truth at the bound, both runs drawn apart: 10 % passed where the baseline's share was taken for certain."""
    random, words = np.random.default_rng(1), []
    for _ in range(300):
        base, ours = random.random(300) < 0.2, random.random(300) < 0.4
        kind = {"metric": "contract.truncated", "unit_of_sample": "row"}
        pair = sampled(ours.astype(float), **kind), sampled(base.astype(float), "m/onnx-fp32", **kind)
        words.append(judge(pair, max_drop="contract.truncated=100%").verdict)

    assert words.count("pass") <= 300 * 0.025 + 3 * 2.7
    assert words.count("fail") <= 300 * 0.025 + 3 * 2.7


def test_no_share_is_allowed_of_a_baseline_of_nothing():
    kind = {"metric": "contract.truncated", "unit_of_sample": "row"}
    pair = sampled([0.0] * 400, **kind), sampled([0.0] * 400, "m/onnx-fp32", **kind)

    assert judge(pair, max_drop="contract.truncated=10%").reason == (
        "the baseline's is 0, and any share of that is 0; allow an amount: --max-drop contract.truncated=0.01"
    )


def test_what_is_not_known_keeps_the_limits_own_amount_direction_and_unit():
    pair = run(task="perplexity"), run("m/gguf-f16", task="perplexity")

    assert judge(pair, max_drop="0.5").bound == 0.5
    assert judge(pair, max_drop="0.5").unit == "perplexity"
    assert judge((run(), None), max_latency="5ms").unit == "ms"


def test_the_same_question_gets_the_same_verdict():
    assert judge(similarity(100, noise=0.1), max_drop="5%") == judge(similarity(100, noise=0.1), max_drop="5%")


def sliced(n, lost, *, small=0):
    """Two slices of `n` rows, `lost` of the second; a third of `small`."""
    names = ("de",) * n + ("en",) * n + ("fr",) * small
    ours = [True] * n + [False] * lost + [True] * (n - lost + small)
    more = {"slices": {"language": names}}
    return right_or_wrong(ours, **more), right_or_wrong([True] * len(names), "m/onnx-fp32", **more)


def test_a_slice_that_lost_fails_though_the_average_passes():
    pair = sliced(1000, 60)
    found = judge(pair, max_drop_worst_slice="3%")

    assert (found.verdict, found.slice, found.n) == ("fail", "language=en", 1000)
    assert found.level == pytest.approx(0.975)
    assert judge(pair, max_drop="5%").verdict == "pass"


def test_all_slices_must_pass_and_the_worst_is_named():
    found = judge(sliced(400, 3), max_drop_worst_slice="3%")

    assert (found.verdict, found.slice, found.level) == ("pass", "language=en", 0.95)
    assert "the worst of 2 slices" in found.method


def test_one_slice_of_few_rows_makes_it_impossible_to_tell():
    found = judge(sliced(400, 0, small=5), max_drop_worst_slice="3%")

    assert (found.verdict, found.slice) == ("cannot tell", "language=fr")
    assert found.reason == "5 rows of language=fr are too few; it takes 10 at least"


def test_a_slice_that_fails_weighs_more_than_one_that_is_too_small():
    assert judge(sliced(1000, 60, small=5), max_drop_worst_slice="3%").verdict == "fail"


def test_a_slice_that_fails_alone_but_might_by_chance_as_one_of_many_cannot_tell():
    lost = next(lost for lost in range(1, 60) if judge(flipped(100, lost=lost), max_drop="1%").verdict == "fail")
    names = {"slices": {"row": tuple(f"{index // 100:02}" for index in range(2000))}}
    ours = [False] * lost + [True] * (2000 - lost)
    pair = right_or_wrong(ours, **names), right_or_wrong([True] * 2000, "m/onnx-fp32", **names)

    found = judge(pair, max_drop_worst_slice="1%")

    assert (found.verdict, found.level) == ("cannot tell", pytest.approx(0.9975))


def test_without_a_slice_column_the_worst_slice_cannot_tell():
    assert judge(flipped(40), max_drop_worst_slice="1%").reason == "no column is a slice; --slice COLUMN"
