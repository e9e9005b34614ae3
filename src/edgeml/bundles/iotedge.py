"""A bundle as a module of Azure IoT Edge: the image to push, and a deployment manifest that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeml.bundles.image import around
from edgeml.bundles.image.archive import repository
from edgeml.bundles.image.base import STATE
from edgeml.bundles.image.contents import PORT, TOKEN

SUFFIX = ".iotedge"
_RUNTIME = "1.5"  # of IoT Edge, its long-term release
_SECRETS = "/etc/edgeml/token"  # on the device


def seal(folder: Path) -> Path:
    """The folder with `deployment.json`, beside the bundle's."""
    return around.folder_around(folder, SUFFIX, _texts)


def _texts(image: around.Image) -> dict[str, str]:
    name = repository(image.bundle)
    manifest = json.dumps(_deployment(name, f"$REGISTRY/{name}@{image.digest}"), indent=2) + "\n"
    return {"deployment.json": manifest, "README.md": _readme(name, image)}


def _deployment(module: str, image: str) -> dict[str, Any]:
    """A manifest of schema 1.1; `$REGISTRY` in it is for the user to replace."""
    agent = {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25"}},
        "systemModules": {
            "edgeAgent": {
                "type": "docker",
                "settings": _settings(f"mcr.microsoft.com/azureiotedge-agent:{_RUNTIME}", {}),
            },
            "edgeHub": {
                "type": "docker",
                "status": "running",
                "restartPolicy": "always",
                "settings": _settings(f"mcr.microsoft.com/azureiotedge-hub:{_RUNTIME}", {}),
            },
        },
        "modules": {
            module: {
                "version": "1.0",
                "type": "docker",
                "status": "running",
                "restartPolicy": "always",
                "settings": _settings(image, _options()),
            }
        },
    }
    hub = {"schemaVersion": "1.1", "routes": {}, "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}
    return {
        "modulesContent": {
            "$edgeAgent": {"properties.desired": agent},
            "$edgeHub": {"properties.desired": hub},
        }
    }


def _options() -> dict[str, Any]:
    """What Docker's API is asked for: nothing is written but the volume, nothing else reaches it but this machine."""
    return {
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "HostConfig": {
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Tmpfs": {"/tmp": "size=64m,mode=1777,noexec,nosuid,nodev"},  # noqa: S108 - inside the image
            "Binds": [f"edgeml-feedback:/{STATE}", f"{_SECRETS}:{TOKEN}:ro"],
            "PortBindings": {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(PORT)}]},
        },
    }


def _settings(image: str, options: dict[str, Any]) -> dict[str, str]:
    """An image and its options, which the agent takes as a text."""
    return {"image": image, "createOptions": json.dumps(options, sort_keys=True)}


def _readme(name: str, image: around.Image) -> str:
    return f"""\
# {image.bundle.name}

```sh
skopeo copy oci-archive:{around.ARCHIVE} docker://$REGISTRY/{name}:1
sed -i "s|\\$REGISTRY|$REGISTRY|" deployment.json
az iot edge set-modules --hub-name HUB --device-id DEVICE --content deployment.json
```

`set-modules` replaces all modules of the device: add this one to your own manifest where it has others. On the device,
`{_SECRETS}` holds the endpoint's token, readable by user 65532 alone.
"""


read, same, unpack = around.read, around.same, around.unpack
