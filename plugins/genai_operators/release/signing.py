"""OpenSSF model signatures with a key of our own: offline, EC P-256, no certificate authority.

Signing needs one private key; verifying trusts every public key in a folder. To rotate: add the new public key, point
the private key's path at the new one, and take the old public key away once nothing signed with it is served.
The bundle is the standard one: ``model_signing verify key --public_key KEY --signature model.sig model/`` reads it too.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_operators.exceptions import ConfigurationError, ManifestMismatch, SignatureInvalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PRIVATE_MODE = 0o600
PUBLIC_SUFFIX = ".pem"
SHORT_KEY_LENGTH = 12


def ensure_key(*, private_key: Path, trusted_keys: Path) -> Path:
    """The private key, made with its public half on first use. Several processes may race: one key comes out.

    The public key is published first, so a crash in between leaves a trusted key that nobody holds, never a signature
    that nobody trusts. An existing key is never re-published: a public key that was taken away stays away.

    :raises ConfigurationError: when the existing private key is readable by others.
    """
    if not private_key.exists():
        _create_key(private_key, trusted_keys)
    mode = stat.S_IMODE(private_key.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"the signing key {private_key} is readable by others (mode {mode:04o}). "
            f"Run `chmod 600 {private_key}`; if others may have read it, make a new one."
        )
    return private_key


def sign(directory: Path, signature: Path, *, private_key: Path, trusted_keys: Path) -> str:
    """Sign every file of a directory and write the bundle to ``signature``, which must lie outside of it.

    Costs one read of the directory and, in a fresh process, about three seconds of imports.

    :returns: the name of the key: sha256 of its public half.
    :raises ConfigurationError: when the key is missing, unfit, or its public half is not trusted.
    """
    from model_signing import signing

    ensure_key(private_key=private_key, trusted_keys=trusted_keys)
    name = key_name(_public_pem(_load_private(private_key)))
    if name not in trusted(trusted_keys):
        raise ConfigurationError(
            f"the signing key {private_key} ({name[:SHORT_KEY_LENGTH]}) is not among the trusted keys in "
            f"{trusted_keys}; nothing signed with it would be served. Add its public key there, or sign with a trusted "
            "one."
        )
    signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    temporary = signature.with_name(f".{signature.name}.{secrets.token_hex(4)}")
    signer.set_hashing_config(_hashing()).sign(directory, temporary)
    temporary.replace(signature)
    return name


def verify(directory: Path, signature: Path, *, trusted_keys: Path) -> str:
    """Check a signature against the trusted keys and the directory against the signature.

    :returns: the name of the key that signed.
    :raises SignatureInvalid: no signature, an unknown key, or a signature that is not of this key.
    :raises ManifestMismatch: the signature is good but a file is changed, missing or extra; the message names it.
    """
    from model_signing import verifying

    keys = trusted(trusted_keys)
    if not keys:
        raise ConfigurationError(f"no trusted keys in {trusted_keys}; put the public keys (PEM) of your signers there")
    name = _signer_of(signature)
    if name not in keys:
        raise SignatureInvalid(
            f"{signature} was made with the key {name[:SHORT_KEY_LENGTH]}, which is not among the {len(keys)} trusted "
            f"keys in {trusted_keys}. Sign the model with a trusted key, or add that key if you trust it."
        )
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys[name])
    try:
        verifier.set_hashing_config(_hashing()).verify(directory, signature)
    except ValueError as error:
        text = str(error)
        if text.startswith("Signature mismatch"):
            raise ManifestMismatch(
                f"{directory} is not what was signed: {text.partition(': ')[2]}. Do not use it."
            ) from error
        raise SignatureInvalid(f"{signature} does not verify: {text}. Do not use the model.") from error
    except Exception as error:
        # The library lets cryptography's and protobuf's own errors through; each of them means the same to us.
        raise SignatureInvalid(
            f"{signature} does not verify ({type(error).__name__}). Do not use the model."
        ) from error
    return name


def trusted(folder: Path) -> dict[str, Path]:
    """Public keys in a folder by name. Read each time: taking a key away works at once."""
    if not folder.is_dir():
        return {}
    return {key_name(path.read_bytes()): path for path in sorted(folder.glob(f"*{PUBLIC_SUFFIX}"))}


def key_name(public_pem: bytes) -> str:
    """sha256 of a public key's PEM: the hint that bundles carry.

    :raises ConfigurationError: for bytes that are not a PEM public key.
    """
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(public_pem)
    except ValueError as error:
        raise ConfigurationError(f"a file among the trusted keys is not a PEM public key: {error}") from error
    return sha256(_pem(key)).hexdigest()


def _signer_of(signature: Path) -> str:
    try:
        bundle = json.loads(signature.read_bytes())
        return str(bundle["verificationMaterial"]["publicKey"]["hint"])
    except FileNotFoundError as error:
        raise SignatureInvalid(f"{signature} does not exist: the model is not signed. Register it again.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureInvalid(f"{signature} is not a signature bundle made with a key: {error!r}") from error


def _hashing() -> Any:
    from model_signing import hashing

    # The library's default leaves .git* files unsigned: an added .gitattributes would pass.
    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


def _create_key(private_key: Path, trusted_keys: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = _public_pem(key)
    for folder in (private_key.parent, trusted_keys):
        folder.mkdir(parents=True, exist_ok=True)
    published = trusted_keys / f"{key_name(public_pem)[:16]}{PUBLIC_SUFFIX}"
    _write(published, public_pem, mode=0o644)
    temporary = private_key.with_name(f".{private_key.name}.{secrets.token_hex(4)}")
    _write(temporary, private_pem, mode=PRIVATE_MODE)
    try:
        os.link(temporary, private_key)
    except FileExistsError:
        published.unlink()
    finally:
        temporary.unlink()


def _write(path: Path, data: bytes, *, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _load_private(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is not an unencrypted PEM private key: {error}") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ConfigurationError(
            f"{path} is not an elliptic-curve key; make one with `openssl ecparam -name prime256v1`"
        )
    return key


def _public_pem(key: EllipticCurvePrivateKey) -> bytes:
    return _pem(key.public_key())


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
