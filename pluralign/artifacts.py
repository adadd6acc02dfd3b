"""Save and load the types: one folder each, written atomically, with a manifest that names what it holds.

A folder holds `manifest.json` (type, scalars, versions, content hash, and the key of the inputs it was made
from), `arrays.npz` and one Parquet file per table. A folder that was cut off while being written never takes
the place of a good one; a file changed afterwards is found by its hash.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet

from pluralign import types
from pluralign.errors import InputError

T = TypeVar("T")
MANIFEST = "manifest.json"
PACKAGES = ("pluralign", "numpy", "jax", "numpyro", "cvxpy", "torch", "transformers", "peft", "accelerate", "datasets")


def versions() -> dict[str, str]:
    """Return the installed version of every package that a result depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def digest(*parts: Any) -> str:
    """Return a short content hash of arrays, bytes, strings and JSON values, in this order."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, bytes):
            sha.update(part)
        else:
            sha.update(json.dumps(part, sort_keys=True, default=str).encode())
        sha.update(b"\0")
    return sha.hexdigest()[:16]


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file so that a reader sees all of it or the old one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON atomically; NaN and infinity become null, since JSON has none."""
    return write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Return `value` as plain JSON: dataclasses and arrays become objects and lists, functions `module:name`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, FunctionType | type):
        return f"{value.__module__}:{value.__qualname__}"
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def replace_folder(temporary: Path, path: Path) -> Path:
    """Put a finished folder in the place of `path`; the old one, if any, is gone only once the new one stands."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)
    return path


def save(value: Any, path: str | Path, *, key: str | None = None) -> Path:
    """Write one of `pluralign.types` to the folder `path`.

    Args:
        value: an instance of a type in `pluralign.types`.
        path: folder to make or replace.
        key: hash of the inputs that `value` was made from; `key_of` reads it back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.chmod(temporary, 0o755)
        arrays: dict[str, np.ndarray] = {}
        tables: dict[str, Any] = {}
        encoded = _encode(value, "", arrays, tables)
        np.savez(temporary / "arrays.npz", **arrays)  # pyright: ignore[reportArgumentType]
        for name, table in tables.items():
            pyarrow.parquet.write_table(table.with_format("arrow")[:], temporary / f"{name}.parquet")
        files = {p.name: digest(p.read_bytes()) for p in sorted(temporary.iterdir())}
        manifest = {"value": encoded, "files": files, "key": key, "versions": versions()}
        manifest["hash"] = digest(encoded, files)
        write_json(temporary / MANIFEST, manifest)
        return replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # moved away by now, unless writing failed


def load(path: str | Path, kind: type[T]) -> T:
    """Read what `save` wrote.

    Raises:
        InputError: no such folder, not a `kind`, or a file was changed since.
    """
    path = Path(path)
    manifest = _manifest(path)
    if manifest is None:
        raise InputError(f"{path} holds no artifact ({MANIFEST} is missing); was the run that makes it finished?")
    name = manifest["value"]["$type"]
    if name != kind.__name__:
        raise InputError(f"{path} holds a {name}, not a {kind.__name__}.")
    for file, expected in manifest["files"].items():
        if digest((path / file).read_bytes()) != expected:
            raise InputError(f"{path / file} was changed since it was written; delete {path} and run again.")
    with np.load(path / "arrays.npz", allow_pickle=False) as arrays:
        return _decode(manifest["value"], dict(arrays), path)


def key_of(path: str | Path) -> str | None:
    """Return the key of the inputs that the artifact at `path` was made from; None if there is none."""
    manifest = _manifest(Path(path))
    return manifest.get("key") if manifest is not None else None


def hash_of(path: str | Path) -> str:
    """Return the content hash of the artifact at `path`."""
    manifest = _manifest(Path(path))
    if manifest is None:
        raise InputError(f"{path} holds no artifact.")
    return manifest["hash"]


def _manifest(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise InputError(f"{path / MANIFEST} is not JSON ({error}); delete {path} and run again.") from error


def _encode(value: Any, name: str, arrays: dict, tables: dict) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: _encode(getattr(value, f.name), f"{name}{f.name}.", arrays, tables)
            for f in dataclasses.fields(value)
        }
        return {"$type": type(value).__name__, **fields}
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"$array": name}
    if hasattr(value, "to_parquet"):
        tables[name.rstrip(".")] = value
        return {"$table": name.rstrip(".")}
    if isinstance(value, Path):
        return {"$path": str(value)}
    if isinstance(value, dict):
        return {k: _encode(v, f"{name}{k}.", arrays, tables) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v, f"{name}{i}.", arrays, tables) for i, v in enumerate(value)]
    return plain(value)


def _decode(value: Any, arrays: dict[str, np.ndarray], path: Path) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v, arrays, path) for v in value)
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return arrays[value["$array"]]
    if "$path" in value:
        return Path(value["$path"])
    if "$table" in value:
        from datasets import Dataset

        # Read through pyarrow: `Dataset.from_parquet` would copy the table into a cache in the home directory.
        return Dataset(pyarrow.parquet.read_table(path / f"{value['$table']}.parquet"))
    decoded = {k: _decode(v, arrays, path) for k, v in value.items() if k != "$type"}
    if "$type" not in value:
        return decoded
    kind = getattr(types, value["$type"])
    names = {f.name for f in dataclasses.fields(kind)}
    needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    if not needed <= set(decoded) <= names:  # fields with a default may be younger than the artifact
        raise InputError(f"{path} was written by another version of pluralign; delete it and run again.")
    return kind(**decoded)
