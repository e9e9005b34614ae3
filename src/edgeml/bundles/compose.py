"""A bundle as a folder for `docker compose` or `podman-compose`: the image, and a service that may do little else."""

from __future__ import annotations

import json
from pathlib import Path

from edgeml.bundles.image import around
from edgeml.bundles.image.archive import repository
from edgeml.bundles.image.base import STATE, USER
from edgeml.bundles.image.contents import HEALTHY, PORT, SETTINGS, TOKEN
from edgeml_runtime.feedback.device import NAME

SUFFIX = ".compose"
_COMPOSE = """\
# {name}: load the image, make a token, start it, as README.md says.
name: {project}
services:
  model:
    # By its contents: the tag is how the digest begins. From a registry, EDGEML_IMAGE=registry/name@{digest}
    image: ${{EDGEML_IMAGE:-{tag}}}
    pull_policy: ${{EDGEML_PULL:-never}}
    platform: {platform}
    restart: unless-stopped
    user: "{user}:{user}"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    pids_limit: 256
    mem_limit: ${{EDGEML_MEMORY:-0}} # 0 is none: measure first, edgeml bench tells memory
    tmpfs: ["/tmp:size=64m,mode=1777,noexec,nosuid,nodev"]
    volumes:
      - feedback:/{state}
      - ./serve.toml:/{settings}:ro
    secrets: [token]
    ports: ["127.0.0.1:${{EDGEML_PORT:-{port}}}:{port}"]
    healthcheck:
      test: {test}
      interval: 30s
      timeout: 10s
      start_period: 60s
      retries: 3
volumes:
  feedback: {{}}
secrets:
  token:
    file: ./token
"""
_SETTINGS = """\
# How the endpoint serves. A container is reached by its own address, so the token is needed; compose.yaml lets only
# this machine reach it.
host = "0.0.0.0"
port = {port}
token_file = "{token}"

# Feedback is off. These lines keep it in the volume:
# [feedback]
# file = "/{state}/{feedback}"
"""
_README = """\
# {name}

```sh
docker load -i {archive}      # or: podman load -i {archive}
openssl rand -hex 32 > token && sudo chown {user} token && sudo chmod 400 token
docker compose up -d --wait
docker compose run --rm model selftest .
curl http://127.0.0.1:{port}/health
```

The image is `{tag}`, its digest `{digest}`, for {platform}.
From a registry: `EDGEML_IMAGE=registry/name@{digest} EDGEML_PULL=missing docker compose up -d`.
"""


def seal(folder: Path) -> Path:
    """The folder with `compose.yaml`, beside the bundle's."""
    return around.folder_around(folder, SUFFIX, _texts)


def _texts(image: around.Image) -> dict[str, str]:
    words = {
        "name": image.bundle.name,
        "project": repository(image.bundle),
        "archive": around.ARCHIVE,
        "tag": image.tag,
        "digest": image.digest,
        "platform": image.platform,
        "user": USER,
        "state": STATE,
        "feedback": NAME,
        "settings": SETTINGS,
        "port": PORT,
        "token": TOKEN,
        "test": json.dumps(["CMD", "/usr/bin/python3", "-c", HEALTHY]),
    }
    texts = {"compose.yaml": _COMPOSE, "serve.toml": _SETTINGS, "README.md": _README}
    return {name: text.format(**words) for name, text in texts.items()}


read, same, unpack = around.read, around.same, around.unpack
