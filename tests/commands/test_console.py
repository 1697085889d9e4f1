"""What the command line does when nobody can read its output, or its user stops it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.builders.checkpoints import weights, write_model

COMMAND = [sys.executable, "-m", "isotone.cli.main"]


def run(*arguments, encoding="utf-8", **options):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        check=False,
        env=environment,
        **options,
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_stdout_lacks_are_escaped(language_models, encoding):
    for arguments in (
        ("generate", language_models.dense, "☃ é the", "--max-tokens", 20, "--temperature", 2.0),
        ("inspect", language_models.clustered),
        ("verify", language_models.clustered),
        ("--help",),
    ):
        done = run(*arguments, encoding=encoding)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode(encoding)


def test_an_error_message_is_escaped_too(tmp_path):
    done = run("inspect", tmp_path / "☃", encoding="ascii")
    assert done.returncode == 2
    assert b"\\u2603" in done.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_that_went_away_is_told_by_the_exit_code(language_models, form):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "inspect", language_models.clustered, *form],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


INTERRUPTED = """
import sys
import isotone.cli.commands.{module} as command
from isotone.cli import main

def interrupted(*_args, **_options):
    raise KeyboardInterrupt

command.{name} = interrupted
sys.argv = ["isotone", *sys.argv[1:]]
main.main()
"""


@pytest.mark.parametrize(
    ("module", "name", "arguments", "says"),
    [
        ("compress", "at_work", ("compress", "DENSE", "OUT"), "the same command again"),
        ("inspect", "print_json", ("inspect", "CLUSTERED", "--json"), "nothing was written"),
    ],
)
def test_an_interrupted_command_says_whether_it_goes_on(
    language_models, tmp_path, module, name, arguments, says
):
    given = {
        "DENSE": str(language_models.dense),
        "CLUSTERED": str(language_models.clustered),
        "OUT": str(tmp_path / "out"),
    }
    program = INTERRUPTED.format(module=module, name=name)
    done = subprocess.run(
        [sys.executable, "-c", program, *(given.get(a, a) for a in arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("isotone: interrupted; ")
    assert says in line


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_more_shards_than_a_process_may_open(tmp_path):
    shards = [{f"layers.{i}.weight": weights(40, 40, seed=i)} for i in range(150)]
    write_model(tmp_path / "model", *shards, config={})
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80)); "
        "from isotone.cli.main import main; main()"
    )

    def isotone(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", limited, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    isotone("compress", tmp_path / "model", tmp_path / "out", "--bits", "4")
    isotone("verify", tmp_path / "out", "--against", tmp_path / "model")
    isotone("inspect", tmp_path / "out", "--json")
    isotone("decompress", tmp_path / "out", tmp_path / "dense")
    assert len(list((tmp_path / "dense").glob("*.safetensors"))) >= 1
