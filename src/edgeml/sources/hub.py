"""Models of a hub, through its own client: pins the commit, fetches what a conversion needs, checks every digest.

The client (huggingface_hub 2.4) takes a half snapshot or a flipped byte in its cache for whole, and drops what it has
of a file when it is interrupted. So files are verified here against the hub's digests, large ones are resumed here,
and a receipt is written last. Knows nothing of other sources.
"""

from __future__ import annotations

import hashlib
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.sources import Consent, Fetched
from edgeml.sources.contents import check_sides, choose, read_card
from edgeml.sources.headers import check_shards, check_weights
from edgeml.sources.hub_errors import explained
from edgeml.sources.receipts import Tally, keep, recall
from edgeml.store import PART, cache_folder
from edgeml.types import ModelRef
from edgeml_runtime.records import CHUNK_BYTES, describe_file
from edgeml_runtime.types import File, Record

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIMEOUT_S = 10.0


class Place(Record, frozen=True, kw_only=True):
    """Which hub and which of its caches; absent means as the client's environment variables say."""

    endpoint: str | None = None
    cache: Path | None = None


def fetch(ref: ModelRef, *, consent: Consent, progress: Progress, place: Place = Place()) -> Fetched:  # noqa: B008 - frozen
    """The model at a commit, in the hub's cache. A commit that is here already needs no connection.

    Raises EdgemlError when the hub refuses, cannot be reached, or sends other bytes than it announced.
    """
    from huggingface_hub import is_offline_mode

    if is_offline_mode() or _COMMIT.fullmatch(ref.revision or ""):
        known = _known(ref, consent=consent, progress=progress, offline=is_offline_mode())
        if known:
            return known
    with explained(ref):
        fetched = _download(ref, place, consent=consent, progress=progress)
    for revision in {ref.revision, fetched.ref.revision}:
        keep(_receipt(ref.id, revision), fetched)
    return fetched


def _known(ref: ModelRef, *, consent: Consent, progress: Progress, offline: bool) -> Fetched | None:
    """What an earlier download left, still whole; without a connection, anything else is an error."""
    missing: EdgemlError | None = None
    try:
        found = recall(_receipt(ref.id, ref.revision), progress=progress)
    except EdgemlError as error:
        found, missing = None, error
    if found:
        choice = choose((file.path for file in found.files), consent=consent, where=str(ref))
        check_sides(found.path, choice, consent=consent, where=str(ref))
    elif offline:
        message = f"{ref} is not completely here, and HF_HUB_OFFLINE forbids to fetch it"
        raise EdgemlError(message, hint=f"unset HF_HUB_OFFLINE, then: edgeml download {ref}") from missing
    return found


def _download(ref: ModelRef, place: Place, *, consent: Consent, progress: Progress) -> Fetched:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=place.endpoint)
    info = api.model_info(ref.id, revision=ref.revision, files_metadata=True, timeout=_TIMEOUT_S)
    if not _COMMIT.fullmatch(info.sha or ""):
        raise EdgemlError(f"the hub names no commit for {ref}", hint="check HF_ENDPOINT")
    pinned = ModelRef(source="hf", id=ref.id, revision=info.sha)
    listing = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    choice = choose(listing, consent=consent, where=str(ref))
    tally = Tally(progress, "download", sum(listing[name].size or 0 for name in choice.files))
    snapshot = _Snapshot(pinned, place, tally)
    files = [snapshot.file(listing[name]) for name in choice.sides]
    check_sides(snapshot.folder, choice, consent=consent, where=str(ref))
    files += [snapshot.file(listing[name]) for name in choice.weights]
    check_weights(snapshot.folder, choice.weights)
    check_shards(snapshot.folder, choice.files)
    card = read_card(snapshot.folder)
    return Fetched(
        ref=pinned,
        path=snapshot.folder,
        files=tuple(sorted(files, key=lambda file: file.path)),
        format=choice.format,
        licence=card.licence,
        task=info.pipeline_tag or card.task,
    )


class _Snapshot:
    """One commit in the hub's cache, filled file by file."""

    def __init__(self, ref: ModelRef, place: Place, tally: Tally) -> None:
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.file_download import repo_folder_name

        assert ref.revision
        self._repo = ref.id
        self._commit = ref.revision
        self._endpoint = place.endpoint
        self._cache = place.cache or Path(HF_HUB_CACHE)
        self._tally = tally
        folder_name = repo_folder_name(repo_id=ref.id, repo_type="model")
        self._blobs = self._cache / folder_name / "blobs"
        self._locks = self._cache / ".locks" / folder_name
        self.folder = self._cache / folder_name / "snapshots" / self._commit

    def file(self, wanted: RepoSibling) -> File:
        """One file in the snapshot, with the bytes that the hub announced."""
        from huggingface_hub import hf_hub_download

        found = self._intact(wanted)
        if found is None and wanted.lfs and not self._offers_xet(wanted):
            found = self._resumed(wanted)
        path = hf_hub_download(
            self._repo,
            wanted.rfilename,
            revision=self._commit,
            cache_dir=self._cache,
            endpoint=self._endpoint,
            tqdm_class=_bar(self._tally),
        )
        return found or self._checked(Path(path), wanted)

    def _intact(self, wanted: RepoSibling) -> File | None:
        """What the cache has of this file already; a broken one is removed, so that it is fetched again."""
        pointer = self.folder / wanted.rfilename
        blob = self._blobs / _digest(wanted)
        path = pointer if pointer.exists() else blob
        if not path.exists():
            return None
        found = describe_file(path, wanted.rfilename, tick=self._tally.add)
        if _is(path, found, wanted):
            return found
        self._tally.add(-found.size_bytes)
        for broken in (path.resolve(), blob, pointer):
            broken.unlink(missing_ok=True)
        return None

    def _resumed(self, wanted: RepoSibling) -> File:
        """Fetch a large file into a part that outlives an interruption, and give it to the cache once it is whole."""
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public, but not re-exported by name

        for folder in (self._blobs, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        blob = self._blobs / _digest(wanted)
        part = blob.with_name(blob.name + PART)
        with WeakFileLock(self._locks / f"{blob.name}.lock"):  # the client's own lock of this blob
            if blob.exists():  # another process had the lock and has just fetched it
                return self._checked(blob, wanted)
            self._append(part, wanted)
            found = self._checked(part, wanted)
            os.replace(part, blob)
        return found

    def _append(self, part: Path, wanted: RepoSibling) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not re-exported by name

        url = hf_hub_url(self._repo, wanted.rfilename, revision=self._commit, endpoint=self._endpoint)
        with part.open("ab") as file:
            if file.tell() > (wanted.size or 0):
                file.truncate(0)
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=build_hf_headers(headers={"Accept-Encoding": "identity"}),  # a compressed stream has no ranges
                expected_size=wanted.size,
                tqdm_class=_bar(self._tally),
            )

    def _checked(self, path: Path, wanted: RepoSibling) -> File:
        found = describe_file(path, wanted.rfilename)
        if not _is(path, found, wanted):
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise EdgemlError(
                f"{wanted.rfilename} of {self._repo} came with other bytes than the hub announced",
                hint="run it again; if it stays, check proxies and HF_ENDPOINT",
            )
        return found

    def _offers_xet(self, wanted: RepoSibling) -> bool:
        """Whether the file comes in chunks by the client's own xet transfer, which knows how to go on."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.constants import HF_HUB_DISABLE_XET

        if HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
            return False
        url = hf_hub_url(self._repo, wanted.rfilename, revision=self._commit, endpoint=self._endpoint)
        return get_hf_file_metadata(url, endpoint=self._endpoint).xet_file_data is not None


def _digest(wanted: RepoSibling) -> str:
    """The hub's digest: SHA-256 of a large file, git's id of a small one; also the blob's name in the cache."""
    digest = wanted.lfs.sha256 if wanted.lfs else wanted.blob_id
    if wanted.size is None or not (_SHA256 if wanted.lfs else _COMMIT).fullmatch(digest or ""):
        raise EdgemlError(f"the hub gives no digest for {wanted.rfilename}", hint="check HF_ENDPOINT")
    return cast("str", digest)


def _is(path: Path, found: File, wanted: RepoSibling) -> bool:
    if found.size_bytes != wanted.size:
        return False
    return _digest(wanted) == (found.sha256 if wanted.lfs else _git_id(path))


def _git_id(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _bar(tally: Tally) -> Any:
    """A progress bar class as the client wants it, that adds to the tally instead of drawing."""

    class Bar:
        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            tally.add(initial)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def update(self, count: float | None = 1) -> None:
            tally.add(int(count or 0))

        def update_transfer(self, count: float) -> None:
            """Bytes on the wire, which the client reports besides those that reach the file."""

        def close(self) -> None:
            """Nothing is drawn."""

    return Bar


def _receipt(repo: str, revision: str | None) -> Path:
    return cache_folder() / "hub" / repo.replace("/", "--") / f"{quote(revision or 'main', safe='')}.json"
