"""What tests do to a directory behind isotone's back, and whether verify sees it."""

from __future__ import annotations

import json
from importlib import import_module

from isotone.errors import InputError
from isotone.pipeline.verify import verify


def is_refused(directory, blamed=None):
    """Whether verify finds fault; anything but an answer or an InputError is a crash.

    blamed: the directory that every failure must name.
    """
    try:
        found = verify(directory, workers=1)
    except InputError:
        return True
    assert found.ok == (not found.failures)
    assert all(str(blamed or directory) in failure for failure in found.failures)
    return not found.ok


def flips(path):
    """Flip a bit of each byte, and now and then all of them; yields its position meanwhile."""
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(content):
            change = 0xFF if position % 9 == 8 else 1 << position % 9
            file.seek(position)
            file.write(bytes([byte ^ change]))
            yield position
            file.seek(position)
            file.write(bytes([byte]))


def truncations(path):
    """Cut a file ever shorter, down to nothing; yields its length."""
    n_bytes = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        for length in reversed(range(n_bytes)):
            file.truncate(length)
            yield length


def forge_array(path, name, change):
    """Change what a safetensors file says of an array, and not one byte of its arrays."""
    content = path.read_bytes()
    n_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n_bytes])
    change(header[name])
    text = json.dumps(header, separators=(",", ":")).encode()
    assert len(text) <= n_bytes
    path.write_bytes(content[:8] + text.ljust(n_bytes) + content[8 + n_bytes :])


def forge(directory, change):
    """A manifest that someone changed who knows how its digest is made."""
    seal = import_module("isotone.checkpoint.compressed.sealed_json").seal
    body = json.loads((directory / "isotone.json").read_text())
    del body["digest"]
    change(body)
    (directory / "isotone.json").write_text(seal(body))


def set_value(kind, key, value):
    """A change to the first record of a kind."""

    def change(body):
        body[kind][0][key] = value

    return change
