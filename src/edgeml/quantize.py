"""Verb: write a model in one or more schemes, and audit that each label is earned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.formats import (
    UNSUITED,
    Calibration,
    Converted,
    Request,
    Wishes,
    format_of,
    looks_at_inputs,
    matrix_digest,
    unused_wish,
    wishes_for,
)
from edgeml.progress import Counter, Progress, beating, silent, within
from edgeml.store import Store, alone, fresh_folder, load_variant, scratch_folder, unused
from edgeml.targets.types import Profile
from edgeml.traits import read_traits
from edgeml.types import Model, Scheme, Variant
from edgeml_runtime.records import describe, verify, write_record
from edgeml_runtime.session import kind_of
from edgeml_runtime.types import Audit, Record, VariantManifest


class Terms(Record, frozen=True, kw_only=True):
    """`strict` refuses a variant whose label is not earned; `force` replaces one that exists.

    `calibration` and `wishes` go to every scheme that has a use for them.
    """

    strict: bool = False
    force: bool = False
    calibration: Calibration | None = None
    wishes: Wishes = Wishes()


DEFAULT_TERMS = Terms()


def quantize(
    model: Model,
    schemes: Sequence[Scheme],
    *,
    profile: Profile,
    store: Store,
    terms: Terms = DEFAULT_TERMS,
    progress: Progress = silent,
) -> list[Variant]:
    """One variant a scheme, however often it is named. An existing variant of the same source is given back as it is.

    Raises EdgemlError for a wish that none of the schemes has a use for.
    """
    return list(quantized(model, schemes, profile=profile, store=store, terms=terms, progress=progress))


def quantized(
    model: Model,
    schemes: Sequence[Scheme],
    *,
    profile: Profile,
    store: Store,
    terms: Terms = DEFAULT_TERMS,
    progress: Progress = silent,
) -> Iterator[Variant]:
    """What `quantize` gives, each variant as soon as it is there: those before one that is refused are kept."""
    if refusal := unused_wish(terms.wishes, schemes):
        raise refusal
    read = Counter(progress, f"verify {model.name}", model.size_bytes)
    verify(Path(model.path), model.files, tick=read)
    same = Request(
        model=model,
        traits=read_traits(model),
        scheme=schemes[0],
        profile=profile,
        kept=store.root / model.name / "calibrated",
        calibration=terms.calibration,
        wishes=terms.wishes,
    )
    requests = [replace(same, scheme=one, wishes=wishes_for(one, terms.wishes)) for one in dict.fromkeys(schemes)]
    found = [_existing(one, store, terms) for one in requests]
    if None in found:
        from edgeml.formats.finite import check_finite

        looked = Counter(progress, f"look at the weights of {model.name}", model.size_bytes)
        check_finite((Path(model.path, file.path) for file in model.files), tick=looked)
        yield from _written(requests, store, terms, progress)
    else:
        yield from filter(None, found)


def recommended(model: Model, profile: Profile) -> tuple[Scheme, ...]:
    """The schemes that suit a model on a target, where the user named none.

    A GGUF or ONNX file keeps its format, so where the target's choice is in the other one, its schemes for the other
    kind of model are taken. What a format cannot do for this model is left out.
    """
    traits = read_traits(model)
    choices = [profile.schemes_encoder, profile.schemes_decoder]
    if kind_of(traits.task) == "decoder":
        choices.reverse()
    schemes = [Scheme.parse(name) for names in choices for name in names]
    formats = (model.format,) if model.format in ("gguf", "onnx") else (schemes[0].format,)
    fitting = [scheme for scheme in schemes if scheme.format in formats]
    return tuple(one for one in fitting if traits.architecture not in UNSUITED.get(str(one), ()))


def _existing(request: Request, store: Store, terms: Terms) -> Variant | None:
    model, scheme, profile = request.model, request.scheme, request.profile
    folder = store.variant_folder(model.name, scheme.folder_name)
    if terms.force or not (folder / "variant.json").is_file():
        return None
    found = load_variant(folder)
    made = found.manifest
    if made.source_files != model.files:
        raise EdgemlError(f"{found.name} was made from other files", hint="add --force to replace it")
    if made.built_for not in (None, profile.integer_kernels):
        message = f"{found.name} was made for {made.built_for}, and {profile.name} is {profile.integer_kernels}"
        raise EdgemlError(message, hint="add --force to replace it")
    others = (_digest(request),) if looks_at_inputs(scheme, request.wishes) else (None, _digest(request))
    if made.asked != _asked(request) or made.calibration_sha256 not in others:
        raise EdgemlError(f"{found.name} was made with other options", hint="add --force to replace it")
    _check_earned(scheme, made.audit, terms)
    return found


def _written(requests: Sequence[Request], store: Store, terms: Terms, progress: Progress) -> Iterator[Variant]:
    """One after the other, by one process at a time: two would need the memory of both, and do some work twice."""
    name = requests[0].model.name
    folder = store.root / name
    with (
        beating(progress) as alive,
        alone(folder / "quantize", alive, doing=f"quantizing {name}"),
        scratch_folder(folder / "shared") as shared,
    ):
        for one in (replace(one, shared=shared) for one in requests):
            yield _existing(one, store, terms) or _write(one, store, terms, alive)


def _asked(request: Request) -> dict[str, Any]:
    """The user's wishes, as a manifest keeps them: of a file its digest, for its path is nobody else's business."""
    plain: dict[str, Any] = to_builtins(request.wishes)
    if path := request.wishes.imatrix:
        plain["imatrix"] = matrix_digest(Path(path))
    return plain


def _digest(request: Request) -> str | None:
    return request.calibration.sha256 if request.calibration else None


def _write(request: Request, store: Store, terms: Terms, progress: Progress) -> Variant:
    folder = store.variant_folder(request.model.name, request.scheme.folder_name)
    with ExitStack() as until_replaced, fresh_folder(folder, replace=terms.force) as part:
        named = within(progress, f"{request.model.name}/{request.scheme.folder_name}")
        made = format_of(request.scheme).convert(request, part, progress=named)
        _check_earned(request.scheme, made.audit, terms)
        write_record(part / "variant.json", _manifest(request, made, part, named))
        until_replaced.enter_context(unused(folder, named))
    return load_variant(folder)


def _check_earned(scheme: Scheme, audit: Audit, terms: Terms) -> None:
    if terms.strict and not audit.earned:
        message = f"{scheme} is not earned: {'; '.join(audit.shortfalls)}"
        raise EdgemlError(message, hint="leave --strict out, or use another scheme")


def _manifest(request: Request, made: Converted, folder: Path, progress: Progress) -> VariantManifest:
    model, traits = request.model, request.traits
    digested = Counter(progress, "digest", sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    return VariantManifest(
        name=f"{model.name}/{request.scheme.folder_name}",
        model=model.ref,
        scheme=str(request.scheme),
        task=traits.task,
        architecture=traits.architecture,
        weights=made.weights,
        files=describe(folder, tick=digested),
        source_files=model.files,
        audit=made.audit,
        max_tokens=traits.max_tokens,
        graphs=made.graphs,
        start_token=traits.start_token,
        first_token=traits.first_token,
        chat_template=made.chat_template,
        pixels=traits.pixels,
        speech=traits.speech,
        pooling=traits.pooling,
        normalize=traits.normalize,
        inputs=made.inputs,
        outputs=made.outputs,
        labels=traits.labels,
        end_tokens=traits.end_tokens,
        licence=model.licence or traits.licence,
        source_quantized=traits.quantized,
        built_for=made.built_for,
        calibration_sha256=_digest(request) if made.calibrated else None,
        asked=_asked(request),
        settings=made.settings,
        notes=(*traits.notes, *made.notes),
        tools=made.tools,
    )
