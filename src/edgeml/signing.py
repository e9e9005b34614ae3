"""Signatures of a bundle's folder, in the format of the OpenSSF's model-signing, with an elliptic-curve key in PEM.

Nothing here touches the network. The same folder and key give the same bytes: the nonce follows from them (RFC 6979).
"""

from __future__ import annotations

import base64
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.bundles.dir import SIGNATURE
from edgeml.errors import EdgemlError
from edgeml_runtime.records import parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_MAKE = "openssl ecparam -genkey -name prime256v1 -noout -out key.pem; openssl ec -in key.pem -pubout -out pub.pem"


def sign(folder: Path, key: Path) -> None:
    """Write `model.sig` into a folder: every other file in it is signed.

    Raises EdgemlError for a key that cannot be read, has a password, or is of another kind.
    """
    _require()
    from model_signing import signing

    private = _private_key(key)
    goal = folder / SIGNATURE
    config: Any = signing.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_signer(private_key=key).set_hashing_config(_hashing()).sign(folder, goal)
    goal.write_text(_without_chance(goal.read_text(encoding="utf-8"), private), encoding="utf-8")


def check_signature(folder: Path, key: Path) -> str:
    """The fingerprint of the public key, once it was seen to have signed exactly the files of a folder.

    Raises EdgemlError where the folder has no signature, or one of another key or of other files.
    """
    _require()
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    own = _fingerprint(key)
    found = signed_by(folder)
    if found is None:
        hint = "ask whoever packed it for a signed one; your own: edgeml package --sign KEY --force"
        raise EdgemlError(f"{folder.name} has no signature", hint=hint)
    if found != own:
        message = f"{folder.name} is signed by another key than {key}"
        raise EdgemlError(message, hint="ask whoever packed it for their public key")
    config: Any = verifying.Config()  # type: ignore[no-untyped-call]
    try:
        config.use_elliptic_key_verifier(public_key=key).set_hashing_config(_hashing()).verify(
            folder, folder / SIGNATURE
        )
        _require_all(folder)
    except InvalidSignature as error:
        message = f"the signature of {folder.name} is not by the key that it names"
        raise EdgemlError(message, hint="do not use this bundle: ask for it again") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message = f"the signature of {folder.name} is not of these files: {_first_line(error)}"
        raise EdgemlError(message, hint="do not use this bundle: ask for it again") from error
    return own


def signed_by(folder: Path) -> str | None:
    """The fingerprint (SHA-256 of its PEM) of the key that a folder's signature names; nothing is checked."""
    path = folder / SIGNATURE
    if not path.is_file():
        return None
    try:
        hint = parse_json(path.read_bytes())["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError) as error:
        raise EdgemlError(f"{path.name} is no signature of a model", hint="ask for the bundle again") from error
    if not re.fullmatch(r"[0-9a-f]{64}", str(hint)):
        raise EdgemlError(f"{path.name} names no key", hint="ask for the bundle again")
    return str(hint)


def _require_all(folder: Path) -> None:
    """Raise EdgemlError for a file that a statement leaves out: whoever signs can name paths that are to be ignored."""
    envelope = json.loads((folder / SIGNATURE).read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    signed = {one["name"] for one in statement["predicate"]["resources"]}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    if missing := sorted(found - signed - {SIGNATURE}):
        message = f"the signature of {folder.name} leaves out {missing[0]}"
        raise EdgemlError(message, hint="do not use this bundle: ask for one that is signed as a whole")


def _require() -> None:
    if find_spec("model_signing") is None:
        hint = "in a clone of edgeml: pip install -e '.[ship]'"
        raise EdgemlError("the Python package model-signing, which signatures need, is missing", hint=hint)


def _hashing() -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)  # type: ignore[no-untyped-call]


def _private_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint=_MAKE) from error
    except TypeError as error:
        message = f"{path} is encrypted, and edgeml asks for no password"
        raise EdgemlError(message, hint=f"decrypt a copy: openssl ec -in {path} -out plain.pem") from error
    except ValueError as error:
        raise EdgemlError(f"{path} is no private key in PEM", hint=_MAKE) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise EdgemlError(f"{path} is no key on a curve of {', '.join(_CURVES)}", hint=_MAKE)
    return key


def _fingerprint(path: Path) -> str:
    import hashlib

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="name the signer's public key") from error
    except ValueError as error:
        hint = "of your own key: openssl ec -in key.pem -pubout -out pub.pem"
        raise EdgemlError(f"{path} is no public key in PEM", hint=hint) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise EdgemlError(f"{path} is no key on a curve of {', '.join(_CURVES)}", hint="name the signer's public key")
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _without_chance(text: str, key: EllipticCurvePrivateKey) -> str:
    """The same signature file, its statement in one fixed order, signed with a nonce that follows from it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    plain = json.loads(text)
    envelope = plain["dsseEnvelope"]
    payload = json.dumps(json.loads(base64.b64decode(envelope["payload"])), sort_keys=True).encode()
    kind = envelope["payloadType"]
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload  # what DSSE has signed
    algorithm = getattr(hashes, _CURVES[key.curve.name])()
    signature = key.sign(signed, ECDSA(algorithm, deterministic_signing=True))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(plain, sort_keys=True) + "\n"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
