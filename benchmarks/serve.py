"""What the endpoint costs beside the bare session, and what it does under load.

    python benchmarks/serve.py [FOLDER] [--requests 10000] [--threads 1]

FOLDER is a variant's; without one, all-MiniLM-L6-v2 in int8 and SmolLM2-135M in Q4_0 are served in turn. Printed are
ratios and differences of one machine, never asserted. Steps: an embedding (or eight tokens) by the session alone and
through HTTP, alternating; twice the load that two clients in turn make, against eight tenths of it, with requests of
one text and of eight: where a text takes as long as the HTTP around it, that is what is overloaded; the memory before
and after 10,000 requests (1,000 where each writes tokens); for GGUF, the first token after a long prompt, read for the
first time and again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import SMOLLM, variants

from edgeml_runtime.session import is_encoder, open_session
from edgeml_runtime.types import Generate

TEXT = "rent of the office for march, paid late"
LONG = "You keep the books of a small firm and name one account for every line that you are given. " * 36


def main() -> None:
    """Run the steps that each variant allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for folder in [options.folder] if options.folder else defaults():
        print(f"  {folder.name} of {folder.parent.name}", flush=True)
        steps(folder, options.threads, options.requests)


def defaults() -> list[Path]:
    """An encoder, and a model that writes."""
    made = [*variants("onnx:int8"), *variants("gguf:q4_0", ref=SMOLLM)]
    return [variant.path for variant in made]


def steps(folder: Path, threads: int, requests: int | None) -> None:
    """Serve a variant, and ask."""
    session = open_session(folder, threads=threads)
    encodes = is_encoder(session.manifest)
    command = [sys.executable, "-P", "-m", "edgeml_runtime", "serve", str(folder), "--port", "0"]
    with (
        subprocess.Popen([*command, "--threads", str(threads)], stderr=subprocess.PIPE, text=True) as child,
        ThreadPoolExecutor(1) as drain,
    ):
        try:
            assert child.stderr is not None
            port = next(int(line.rpartition(":")[2]) for line in child.stderr if "is served at" in line)
            drain.submit(Counter, child.stderr)
            what = request(encodes=encodes)
            overhead(bare(session, encodes=encodes), asker(port, what), pairs=1000 if encodes else 30)
            for texts in (1, 8) if encodes else (1,):
                overload(port, request(encodes=encodes, texts=texts), texts)
            growth(asker(port, what), child.pid, requests or (10_000 if encodes else 1_000))
            if not encodes:
                beginnings(port)
        finally:
            child.terminate()


def bare(session: Any, *, encodes: bool) -> Callable[[], Any]:
    """One request's work, without the endpoint."""
    if encodes:
        return lambda: session.embed([TEXT])
    return lambda: session.generate(session.prompt(None, TEXT), Generate(max_new_tokens=8))


def asker(port: int, what: tuple[str, bytes]) -> Callable[[], int]:
    """One request over a connection that stays open; its status."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    path, body = what

    def ask() -> int:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status

    return ask


def request(*, encodes: bool, texts: int = 1) -> tuple[str, bytes]:
    """Path and body."""
    if encodes:
        return "/v1/embeddings", json.dumps({"input": [TEXT] * texts, "encoding_format": "base64"}).encode()
    return "/v1/predict", json.dumps({"rows": [{"text": TEXT}], "max_new_tokens": 8}).encode()


def overhead(alone: Callable[[], Any], ask: Callable[[], int], pairs: int) -> None:
    """Medians of calls in turn, so that a drift of the machine meets both."""
    times: dict[str, list[float]] = {"session": [], "endpoint": []}
    for _ in range(pairs):
        for name, call in (("session", alone), ("endpoint", ask)):
            began_s = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - began_s) * 1000)
    session, endpoint = (statistics.median(times[name]) for name in ("session", "endpoint"))
    print(f"p50: endpoint - session {endpoint - session:.2f} ms; endpoint / session {endpoint / session:.2f}")


def overload(port: int, what: tuple[str, bytes], texts: int, seconds: float = 10.0) -> None:
    """Requests at eight tenths of the rate that two clients in turn are answered at, then at twice that rate."""
    capacity = len(paced(port, None, 2, seconds / 2, what=what)[200]) / (seconds / 2)
    calm = paced(port, 0.8 * capacity, 64, seconds, what=what)
    found = paced(port, 2 * capacity, 64, seconds, what=what)
    told = {status: len(times) for status, times in sorted(found.items())}
    rate = len(found[200]) / seconds / capacity
    print(f"twice the load, {texts} a request: answered / capacity {rate:.2f}; of {sum(told.values())}: {told}")
    print(f"  at 0.8 of the load: { ({status: len(times) for status, times in sorted(calm.items())}) }")
    ratios = {name: at(found[200]) / at(calm[200]) for name, at in (("p50", statistics.median), ("p95", tail))}
    print("  latency of the answered at twice / at 0.8: " + ", ".join(f"{n} {r:.2f}" for n, r in ratios.items()))


def tail(times: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(times, n=20)[-1]


def paced(
    port: int, rate: float | None, clients: int, seconds: float, *, what: tuple[str, bytes]
) -> dict[int, list[float]]:
    """Seconds of each response by its status; without a rate, each client asks as soon as it is answered."""
    found: dict[int, list[float]] = {200: []}
    end_s = time.perf_counter() + seconds

    def client(number: int) -> None:
        ask = asker(port, what)
        next_s = time.perf_counter() + (number / rate if rate else 0)
        while time.perf_counter() < end_s:
            if rate:
                time.sleep(max(0.0, next_s - time.perf_counter()))
                next_s += clients / rate
            began_s = time.perf_counter()
            status = ask()
            found.setdefault(status, []).append(time.perf_counter() - began_s)

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(client, range(clients)))
    return found


def growth(ask: Callable[[], int], pid: int, requests: int) -> None:
    """Anonymous memory after a tenth of the requests, and after all."""
    for _ in range(requests // 10):
        ask()
    before = anonymous(pid)
    for _ in range(requests - requests // 10):
        ask()
    print(f"memory after {requests} requests / after {requests // 10}: {anonymous(pid) / before:.3f}")


def anonymous(pid: int) -> int:
    """KiB, as the kernel counts."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def beginnings(port: int) -> None:
    """Time to the first part of a stream, with a system message that is new, and that came before."""
    first = [streamed(port, f"{number} {LONG}") for number in range(5)]
    streamed(port, LONG)
    again = [streamed(port, LONG) for _ in range(5)]
    print(f"first token, a known beginning / a new one: {statistics.median(again) / statistics.median(first):.3f}")


def streamed(port: int, system: str) -> float:
    """Seconds to the first bytes of the answer."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"{TEXT} {os.urandom(4).hex()}"}]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    began_s = time.perf_counter()
    body = json.dumps({"messages": messages, "max_tokens": 4, "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read(1)
    took_s = time.perf_counter() - began_s
    response.read()
    connection.close()
    return took_s


if __name__ == "__main__":
    main()
