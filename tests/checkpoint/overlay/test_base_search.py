"""The base of a codebook-only directory: found where it was or beside it, and no other taken."""

from __future__ import annotations

import json
import os
import socket

import pytest

from isotone.checkpoint.compressed.sealed_json import claimed_digest
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.errors import FormatError
from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import tree, write_tree
from tests.builders.overlays import copy_pair, write
from tests.builders.tampering import forge


@pytest.fixture
def copy(pair, tmp_path):
    """Of both, in a folder of their own, to be moved about."""
    return copy_pair(pair, tmp_path / "here")


def digest(directory):
    return json.loads((directory / "isotone.json").read_text())["digest"]


def base_of(directory):
    return open_compressed(directory).base.path


def test_the_end_of_a_record_tells_its_digest(pair):
    for directory in (pair.base, pair.healed):
        assert claimed_digest(directory / "isotone.json") == digest(directory)
        assert open_compressed(directory).digest == digest(directory)
    assert claimed_digest(pair.base / "config.json") is None
    assert claimed_digest(pair.base) is None
    assert claimed_digest(pair.base / "none") is None


def test_a_pair_that_is_moved_stays_together(pair, tmp_path):
    copy_pair(pair, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert base_of(tmp_path / "there" / "healed") == tmp_path / "there" / "base"


def test_a_pair_stays_together_under_other_names(copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy.base.rename(tmp_path / "elsewhere" / "ground")
    copy.healed.rename(tmp_path / "elsewhere" / "trained")
    assert base_of(tmp_path / "elsewhere" / "trained") == tmp_path / "elsewhere" / "ground"
    assert verify(tmp_path / "elsewhere" / "trained").ok
    found = second_reader.read_directory(tmp_path / "elsewhere" / "trained")
    assert found.keys() == {"a.weight", "b.experts", "c.weight", "norm.weight", "steps"}


def test_the_path_leads_out_of_the_directory_itself_not_of_a_link_to_it(copy, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "healed").symlink_to(copy.healed)
    assert base_of(tmp_path / "links" / "healed") == copy.base
    copy.base.rename(copy.base.with_name("renamed"))
    assert base_of(tmp_path / "links" / "healed") == copy.base.with_name("renamed")


def test_a_directory_written_through_a_link_finds_its_base(pair, tmp_path):
    copy = copy_pair(pair, tmp_path / "real" / "deep")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "base").symlink_to(copy.base)
    out = write(
        tmp_path / "base", tmp_path / "link" / "out", [TensorOverlay("norm.weight", kept=bytes(48))]
    )
    body = json.loads((out / "isotone.json").read_text())
    assert body["base"]["path"] == "../base"
    assert base_of(tmp_path / "real" / "deep" / "out") == copy.base


def test_from_the_working_directory(copy, monkeypatch):
    monkeypatch.chdir(copy.healed)
    assert verify(".").ok
    copy.base.rename(copy.base.with_name("renamed"))
    assert verify(".").ok
    copy.base.with_name("renamed").rename(copy.healed / "inside")
    assert "beside healed" in verify(".").failures[0]


def test_the_recorded_path_comes_first(copy):
    write_tree(copy.base.with_name("a twin"), tree(copy.base))
    assert base_of(copy.healed) == copy.base


@pytest.mark.parametrize("name", ["base.partial", ".base.replaced"])
def test_what_is_unfinished_or_on_its_way_out_is_no_base(name, copy):
    copy.base.rename(copy.base.with_name(name))
    with pytest.raises(FormatError, match="needs its base"):
        open_compressed(copy.healed)


# -- another one, or none -------------------------------------------------------------------------


def test_another_base_is_refused(pair, copy, tmp_path):
    compress(pair.model, tmp_path / "other", k=4, scale="none")
    other = digest(tmp_path / "other")[:16]
    copy.base.rename(tmp_path / "away")
    write_tree(copy.base, tree(tmp_path / "other"))
    said = f"{copy.healed}: holds only changed codebooks and needs its base, with digest "
    said += f"{digest(pair.base)[:16]}; {copy.base} has digest {other}; put the base there or "
    said += "beside healed (isotone heal --full writes a directory that needs none)"
    with pytest.raises(FormatError) as refused:
        open_compressed(copy.healed)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "left", ["nothing", "an empty folder", "a file", "no manifest", "nonsense"]
)
def test_a_missing_base_is_one_line_and_exit_code_2(left, copy, tmp_path, isotone):
    copy.base.rename(tmp_path / "away")
    found = f"{copy.base} is not there"
    if left == "a file":
        copy.base.write_text("base")
    elif left != "nothing":
        copy.base.mkdir()
        found = f"{copy.base} has no isotone.json"
    if left == "no manifest":
        (copy.base / "model.safetensors").write_bytes(b"")
    elif left == "nonsense":
        (copy.base / "isotone.json").write_text("{}")
        found = f"{copy.base / 'isotone.json'} is damaged"
    for command in (["inspect"], ["decompress"], ["generate"], ["eval"]):
        out = {"decompress": [tmp_path / "out"], "generate": ["hello"]}.get(command[0], [])
        text = ["--text", "builtin"] if command == ["eval"] else []
        run = isotone(*command, copy.healed, *out, *text)
        assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
        assert f"needs its base, with digest {json_digest(copy)}; {found}; put the base" in run.err
    run = isotone("verify", copy.healed, "--json")
    assert (run.code, run.json["ok"], len(run.json["failures"])) == (1, False, 1)


def json_digest(copy):
    return json.loads((copy.healed / "isotone.json").read_text())["base"]["digest"][:16]


def test_a_base_whose_record_was_changed_is_named_unless_there_is_a_good_one(pair, copy):
    path = copy.base / "isotone.json"
    path.write_text(path.read_text().replace('"k": 3', '"k": 2', 1))
    with pytest.raises(FormatError, match=r"base/isotone.json: was changed after it was written"):
        open_compressed(copy.healed)
    write_tree(copy.base.with_name("zz"), tree(pair.base))
    assert base_of(copy.healed) == copy.base.with_name("zz")


# -- neighbours -----------------------------------------------------------------------------------


def hostile(name, neighbour, wanted):
    """Put something unpleasant beside the directory."""
    end = f'\n "digest": "{wanted}"\n}}\n'
    file = neighbour / "isotone.json"
    if name == "a link to itself":
        neighbour.symlink_to(neighbour)
        return
    neighbour.mkdir()
    if name == "a pipe":
        os.mkfifo(file)
    elif name == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.open(neighbour, os.O_RDONLY)
            listener.bind(f"/proc/self/fd/{here}/isotone.json")
            os.close(here)
    elif name == "a folder":
        file.mkdir()
    elif name == "a link in a circle":
        file.symlink_to(file)
    elif name == "a device":
        file.symlink_to("/dev/zero")
    elif name == "not to be read":
        file.write_text(end)
        file.chmod(0)
    elif name == "too long":
        with file.open("wb") as out:
            out.seek(1 << 40)
            out.write(end.encode())
    else:
        file.write_bytes(HOSTILE[name](end))


HOSTILE = {
    "a pipe": None,
    "a socket": None,
    "a folder": None,
    "a link in a circle": None,
    "a link to itself": None,
    "a device": None,
    "not to be read": None,
    "too long": None,
    "empty": lambda _: b"",
    "bytes": lambda _: b"\xff" * 500,
    "a lie": lambda end: end.encode(),
    "a lie in JSON": lambda end: b'{\n "format_version": 3,' + end.encode(),
    "a lie of bytes": lambda end: b"\xff\xfe" + end.encode(),
    "a list": lambda end: b"[" + end.encode(),
    "deep": lambda end: b"[" * 100_000 + end.encode(),
    "a digest not at the end": lambda end: end.encode() + b"\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_neighbours_neither_stop_nor_mislead(name, copy):
    wanted = digest(copy.base)
    neighbour = copy.base.with_name("a neighbour")  # looked at first
    hostile(name, neighbour, wanted)
    copy.base.rename(copy.base.with_name("renamed"))
    assert base_of(copy.healed) == copy.base.with_name("renamed")
    copy.base.with_name("renamed").rename(copy.base.with_name("renamed.partial"))
    with pytest.raises(FormatError):
        open_compressed(copy.healed)


@pytest.mark.parametrize("name", HOSTILE)
def test_nor_does_what_lies_at_the_recorded_path(name, copy):
    wanted = digest(copy.base)
    copy.base.rename(copy.base.with_name("renamed"))
    hostile(name, copy.base, wanted)
    assert base_of(copy.healed) == copy.base.with_name("renamed")


@pytest.mark.parametrize("path", ["/etc", "../../../../../../../../proc/self", "~", "x" * 300, "é"])
def test_a_path_anywhere_is_only_looked_at(path, copy):
    if path.startswith("/"):
        path = os.path.relpath(path, copy.healed)
    forge(copy.healed, lambda body: body["base"].update(path=path))
    assert base_of(copy.healed) == copy.base
    copy.base.rename(copy.base.with_name("gone.partial"))
    with pytest.raises(FormatError, match="needs its base"):
        open_compressed(copy.healed)


def test_a_folder_that_cannot_be_listed_has_no_neighbours(copy, monkeypatch):
    def refuse(_):
        raise PermissionError

    monkeypatch.setattr(os, "listdir", refuse)
    assert base_of(copy.healed) == copy.base
    copy.base.rename(copy.base.with_name("renamed"))
    with pytest.raises(FormatError, match="needs its base"):
        open_compressed(copy.healed)


def test_a_directory_is_not_its_own_base(copy):
    forge(copy.healed, lambda body: body["base"].update(path="."))
    assert base_of(copy.healed) == copy.base
