"""Pooled states on disk, found by content: the same texts, read the same way by the same weights."""

import hashlib
import io
import os
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from pluralign import artifacts
from pluralign.errors import InputError

PARTS = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")


def identity(model: str, gguf_file: str | None) -> str:
    """Return what tells these weights from any others: a content hash of a folder, the commit of a hub name.

    Raises:
        InputError: the model is neither a folder nor to be had from the hub.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        files = sorted(f for f in folder.iterdir() if f.suffix in PARTS or f.name == gguf_file)
        if gguf_file and not (folder / gguf_file).is_file():
            raise InputError(f"{folder} has no file {gguf_file!r}; it has {sorted(f.name for f in folder.iterdir())}.")
        stats = [(f, f.stat()) for f in files]
        return artifacts.digest([(f.name, _content(f, s.st_size, s.st_mtime_ns)) for f, s in stats])
    import huggingface_hub

    try:
        path = huggingface_hub.hf_hub_download(model, gguf_file or "config.json")
    except (OSError, ValueError) as error:  # all that the hub raises: not found, gated, offline, not a name
        raise InputError(
            f"model {model!r} is not a local folder, and the Hugging Face hub does not give it "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]}). Check the spelling (a path is taken from "
            "the current directory), the network, or HF_TOKEN if the model is gated; without a network, download it "
            "elsewhere and give the folder."
        ) from error
    parts = Path(path).parts
    return parts[parts.index("snapshots") + 1]


@lru_cache(maxsize=1024)
def _content(path: Path, size: int, modified: int) -> str:
    """Hash a file once for each of its versions."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def root() -> Path:
    """Return the folder in which pluralign keeps what is dear to compute."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluralign"


def _path(key: str) -> Path:
    return root() / "states" / f"{key}.npz"


def load(key: str, rows: int) -> dict[str, np.ndarray] | None:
    """Return what was saved under `key`; None if nothing was, or what is there cannot be read."""
    try:
        # Through memory: numpy forgets to close the file of an archive that is broken.
        with np.load(io.BytesIO(_path(key).read_bytes()), allow_pickle=False) as arrays:
            found = dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None
    return found if "states" in found and len(found["states"]) == rows else None


def save(key: str, arrays: dict[str, np.ndarray]) -> None:
    """Write so that a reader sees a whole file or none.

    Raises:
        InputError: the folder cannot be written.
    """
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{key}.")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write the cache {path.parent} ({error}); point XDG_CACHE_HOME elsewhere or set cache = false."
        ) from error
