"""A bundle's folder with a `Modelfile` in it, from which Ollama takes a GGUF. The bundle still runs by itself."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgeml.bundles import dir as folders
from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import read_header
from edgeml_runtime.bundle import VARIANT, read_bundle
from edgeml_runtime.records import read_record
from edgeml_runtime.types import VariantManifest

SUFFIX = ".ollama"
MODELFILE = "Modelfile"
README = "OLLAMA.md"
_CONTEXT_TOKENS = 4096  # as the bundle's own endpoint has it: a longer one takes more memory
_TEMPLATE_KEY = "tokenizer.chat_template"


class Family(NamedTuple):
    """A family of chat templates: the marks by which llama.cpp recognises it, how Ollama writes it, where turns end."""

    marks: tuple[str, ...]
    template: str
    stops: tuple[str, ...]


_CHATML = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
_LLAMA_3 = (
    "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
FAMILIES = {
    "ChatML": Family(("<|im_start|>",), _CHATML, ("<|im_end|>",)),
    "Llama 3": Family(("<|start_header_id|>", "<|end_header_id|>"), _LLAMA_3, ("<|eot_id|>",)),
}


def seal(folder: Path) -> Path:
    """The folder itself, under another name and with a `Modelfile`; refused where the variant is no GGUF."""
    manifest = read_record(folder / VARIANT / "variant.json", VariantManifest)
    if not manifest.scheme.startswith("gguf:"):
        hint = "quantize it --to gguf:q8_0, or package --as oci"
        raise EdgemlError(f"Ollama runs GGUF alone, and {manifest.name} is {manifest.scheme}", hint=hint)
    (folder / MODELFILE).write_text(modelfile(folder, manifest), encoding="utf-8")
    (folder / README).write_text(_readme(folder), encoding="utf-8")
    folders.seal(folder)
    return folder.rename(folder.with_name(folder.name + SUFFIX))


read = folders.read


def same(made: Path, present: Path) -> bool:
    """Whether bundle and Modelfile are equal."""
    if not (present / MODELFILE).is_file():
        return False
    return folders.same(made, present) and (made / MODELFILE).read_bytes() == (present / MODELFILE).read_bytes()


def unpack(path: Path, folder: Path) -> Path:
    """The bundle's folder; refused where the Modelfile is not the one that follows from it."""
    goal = folders.unpack(path, folder)
    manifest = read_record(goal / VARIANT / "variant.json", VariantManifest)
    texts = {MODELFILE: modelfile(goal, manifest), README: _readme(goal)}
    for name, text in texts.items():
        if not (goal / name).is_file() or (goal / name).read_text(encoding="utf-8") != text:
            raise EdgemlError(f"{path / name} is not the file that was packed", hint="copy the bundle again")
        (goal / name).unlink()
    return goal


def modelfile(folder: Path, manifest: VariantManifest) -> str:
    """What Ollama is to know: the same chat template as llama.cpp takes for it, greedy answers, the licence's texts."""
    lines = [
        f"# {manifest.name} of {manifest.model}",
        f"FROM ./{VARIANT}/{manifest.weights}",
        "PARAMETER temperature 0",
    ]
    if manifest.max_tokens and manifest.task == "text-generation":
        lines.append(f"PARAMETER num_ctx {min(manifest.max_tokens, _CONTEXT_TOKENS)}")
    name = family_of(str(read_header(folder / VARIANT / manifest.weights).metadata.get(_TEMPLATE_KEY, "")))
    if name:
        found = FAMILIES[name]
        lines += [f"# {name}, as llama.cpp recognises it", f'TEMPLATE """{found.template}"""']
        lines += [f'PARAMETER stop "{stop}"' for stop in found.stops]
    else:
        lines.append("# No TEMPLATE: Ollama's own detection decides, from what the GGUF says of itself.")
    texts = sorted(path for path in (folder / "licences").rglob("*") if path.is_file())
    words = (text for path in texts if '"""' not in (text := path.read_text(encoding="utf-8", errors="replace")))
    return "\n".join([*lines, *(f'LICENSE """{text}"""' for text in words)]) + "\n"


def family_of(template: str) -> str | None:
    """The family that a chat template belongs to, where it is one that can be written for Ollama."""
    return next((name for name, one in FAMILIES.items() if all(mark in template for mark in one.marks)), None)


def _readme(folder: Path) -> str:
    name = read_bundle(folder).name
    return f"""\
# {name} for Ollama

```sh
ollama create {name} -f {MODELFILE}
ollama run {name} "Hello"
```

`{MODELFILE}` has no SYSTEM: add one for your task. `sh run.sh selftest` tests the model without Ollama.
"""
