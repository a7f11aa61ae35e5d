"""The Hub's keys: the offline root, the key that mints, and each site's hash key. Files only; what they sign is ``protocol``'s business.

Invariant: private keys are files that only their owner can read, a command refuses one that others may read, and none is ever overwritten.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from ingest.errors import IngestError
from protocol import keys
from protocol.keys import Manifest, ManifestKey
from provisioning.files import PRIVATE_FILE, PUBLIC_FILE, make_private_folder, read_private, write_file

__all__ = ["HubKeys", "HubKeysError", "create", "load_private", "open_keys", "site_key"]

SITE_KEY_BYTES = 32


class HubKeysError(IngestError):
    """Keys that are missing, open to others, or in the way; the message says which file and what next."""


@dataclass(frozen=True, slots=True)
class HubKeys:
    """A folder: ``root.key`` (belongs in a safe), ``root.pub`` (pinned in gateways), ``mint.key``, ``manifest.cose``, ``sites/*.key``."""

    folder: Path

    @property
    def root_public(self) -> bytes:
        """The 32 bytes that gateways pin."""
        return (self.folder / "root.pub").read_bytes()

    @property
    def manifest(self) -> bytes:
        """The signed key manifest, newest version."""
        return (self.folder / "manifest.cose").read_bytes()

    def mint_key(self) -> Ed25519PrivateKey:
        """Return the key that signs tokens. Raises ``ProvisioningError`` when its file is missing or open to others."""
        return load_private(self.folder / "mint.key")


def create(folder: Path, *, now_s: int) -> HubKeys:
    """Make root and mint keys and the first manifest. Raises ``HubKeysError`` when keys are there: overwriting them would orphan tokens."""
    if (folder / "root.pub").exists():
        raise HubKeysError(f"{folder} holds keys already; a new mint key is added by a new manifest, not by new files")
    make_private_folder(folder)
    root, mint = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = _public(mint)
    manifest = Manifest(1, (ManifestKey(keys.key_id(public), public, now_s),))
    for name, key in (("root.key", root), ("mint.key", mint)):
        write_file(folder / name, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=PRIVATE_FILE)
    write_file(folder / "manifest.cose", keys.sign_manifest(manifest, root), mode=PUBLIC_FILE)
    write_file(folder / "root.pub", _public(root), mode=PUBLIC_FILE)  # last: its presence says that the folder is whole
    return HubKeys(folder)


def open_keys(folder: Path) -> HubKeys:
    """Return the keys in ``folder``. Raises ``HubKeysError`` when there are none."""
    if not (folder / "root.pub").exists():
        raise HubKeysError(f"{folder} holds no keys; make them with: icecap tokens keys {folder}")
    return HubKeys(folder)


def load_private(path: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 key in a PEM file. Raises ``ProvisioningError`` when it is missing or open, ``HubKeysError`` for another kind."""
    key = load_pem_private_key(read_private(path), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise HubKeysError(f"{path} is no Ed25519 key")
    return key


def site_key(hub: HubKeys, site: str) -> bytes:
    """Return a site's hash key, made on first use: under it the cloud and the site's gateways name a token, and nobody else can."""
    path = hub.folder / "sites" / f"{site}.key"
    if not path.exists():
        make_private_folder(path.parent)
        write_file(path, os.urandom(SITE_KEY_BYTES), mode=PRIVATE_FILE)
    return read_private(path)


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
