"""Make data/train.jsonl, data/dev.jsonl and data/test.jsonl of the addresses that usaddress was trained on.

    python recipes/address-parser/prepare.py [--archive usaddress-0.5.16.tar.gz] [--to FOLDER]

The source archive of usaddress 0.5.16 (MIT) is found by pip, so that its mirrors and proxies hold, and kept in edgeml's
cache. Only its bytes are read: nothing in it is unpacked to the disk, built or run. Its digest is pinned below.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import addresses
from addresses import Row

from edgeml.console import Bars
from edgeml.errors import EdgemlError
from edgeml.progress import Progress, silent
from edgeml.sources.pip import run_pip
from edgeml.store import cache_folder

HERE = Path(__file__).parent
VERSION = "0.5.16"
NAME = f"usaddress-{VERSION}.tar.gz"
SHA256 = "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6"
LABELLED = "training/labeled.xml"  # what the package's own model is trained on
MOST_BYTES = 1 << 24  # of the archive, and of a file in it: both are under a megabyte
SPLITS = ("train", "dev", "test")
ABOUT = f"""\
about: Words of US addresses, each with the label that people gave it.
origin: training/labeled.xml in the source archive of usaddress {VERSION}
licence: mit
collected: by the authors of usaddress and its users; published on 2025-08-07
split: each address once; addresses that differ only in numbers, case and punctuation lie in one split
languages: [en]
personal_data: addresses, some with the name of a firm or a person
"""


def main() -> None:
    """Write the splits and print what is in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, help=f"{NAME}, where this machine cannot fetch it")
    parser.add_argument("--to", type=Path, default=HERE / "data")
    options = parser.parse_args()
    bars = Bars()
    try:
        content = verified(options.archive.read_bytes(), str(options.archive)) if options.archive else fetched(bars)
        bars.close()
        splits = split(members(content, (LABELLED,))[LABELLED])
        write(splits, members(content, ("LICENSE",))["LICENSE"], options.to)
    except (EdgemlError, OSError) as error:
        bars.close()
        hint = f"\nhint: {error.hint}" if isinstance(error, EdgemlError) else ""
        sys.exit(f"error: {error}{hint}")
    for name in SPLITS:
        kinds = Counter(row["kind"] for row in splits[name])
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        print(f"{options.to / name}.jsonl: {len(splits[name])} addresses; {told}")


def fetched(progress: Progress = silent) -> bytes:
    """The archive from edgeml's cache, or else from pip's index; raises EdgemlError when neither has the right one."""
    kept = cache_folder() / "address-parser" / NAME
    if kept.exists() and hashlib.sha256(content := kept.read_bytes()).hexdigest() == SHA256:
        return content
    content = verified(downloaded(link(progress), progress), NAME)
    kept.parent.mkdir(parents=True, exist_ok=True)
    placed(kept, content)
    return content


def link(progress: Progress) -> str:
    """Where pip finds the source archive. pip itself is not asked to fetch it, for it would run the build script."""
    with TemporaryDirectory(prefix="edgeml-") as folder:
        finding = ["index", "versions", "--no-binary=:all:", "-vv", "usaddress"]
        run_pip(finding, Path(folder), step="find usaddress", progress=progress)
        log = (Path(folder) / "pip.log").read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"Found link (\S+/{re.escape(NAME)})[#\s]", log)
    if not found:
        raise EdgemlError(f"pip's index has no {NAME}", hint="get the file by other means and name it with --archive")
    return found[1]


def downloaded(url: str, progress: Progress) -> bytes:
    """The bytes at an address that pip named."""
    hint = "check the network, or get the file by other means and name it with --archive"
    if not url.startswith(("https://", "http://", "file://")):
        raise EdgemlError(f"{url} is no address to fetch from", hint=hint)
    got = io.BytesIO()
    try:
        with urlopen(url, timeout=60) as response:
            while (chunk := response.read(1 << 16)) and got.tell() <= MOST_BYTES:
                got.write(chunk)
                progress("download", got.tell(), int(response.headers.get("content-length") or 0))
    except (OSError, HTTPException) as error:
        raise EdgemlError(f"cannot fetch {url}: {error}", hint=hint) from error
    return got.getvalue()


def verified(content: bytes, where: str) -> bytes:
    """The content, if it is the pinned archive."""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        problem = f"{where} is not the archive that this was written for: SHA-256 {found[:16]}..., not {SHA256[:16]}..."
        raise EdgemlError(problem, hint=f"get {NAME} as its index has it, and name it with --archive")
    return content


def members(archive: bytes, wanted: Sequence[str]) -> Mapping[str, bytes]:
    """Files of the archive by their path below its one folder; nothing is written to the disk."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                name = member.name.partition("/")[2]
                if name in wanted and member.isfile() and member.size <= MOST_BYTES:
                    stream = tar.extractfile(member)
                    assert stream is not None
                    found[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise EdgemlError(f"the archive cannot be read: {error}", hint="fetch it again") from error
    if missing := sorted(set(wanted) - set(found)):
        raise EdgemlError(f"the archive has no {', '.join(missing)}", hint=f"give {NAME} as its index has it")
    return found


def split(labelled: bytes) -> dict[str, list[Row]]:
    """The hand-labelled addresses by split, each address once, families of addresses in one split."""
    rows = addresses.without_duplicates(addresses.read_xml(labelled, LABELLED), seen=set())
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in addresses.with_slices(rows):
        splits[addresses.split_of(row["tokens"])].append(row)
    return splits


def write(splits: Mapping[str, Sequence[Row]], licence: bytes, folder: Path) -> None:
    """A JSON line a row, the labels that occur, what it all is, and its licence; each file is whole or not there."""
    labels = sorted({tag for rows in splits.values() for row in rows for tag in row["tags"]})
    texts = {f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in rows) for name, rows in splits.items()}
    texts |= {"labels.json": json.dumps(labels, indent=1) + "\n", "data.yaml": ABOUT}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**{name: text.encode() for name, text in texts.items()}, "LICENSE": licence}.items():
        placed(folder / name, content)


def placed(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


if __name__ == "__main__":
    main()
