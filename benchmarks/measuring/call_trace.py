"""Trace the calls of one command through the source files of a checkout.

    PYTHONPATH=CHECKOUT/src python benchmarks/measuring/call_trace.py MODEL OUT

The script runs `isotone compress MODEL OUT --bits 3.6 --workers 1 --json` in this process under
`sys.setprofile` and prints the calls between files of isotone as JSON: each distinct pair of
caller and callee, as a file and a function. Calls by the import system, and those made while a
module is being imported, do not count. The caller is the nearest function of isotone on the stack
of the same thread, so a function that the standard library calls back belongs to whoever called
the library. A function that runs in a thread of a pool has a file, but no caller.
"""

import argparse
import contextlib
import io
import json
import sys
import threading
from pathlib import Path
from types import FrameType

import isotone

SOURCE = str(Path(isotone.__file__).parent)
IMPORTING = "<module>"


class Trace:
    """Records distinct calls; an instance is a profile function.

    edges: pairs of (file, function), caller first; the caller is None at the root of a thread.
    """

    def __init__(self) -> None:
        self.edges: set[tuple[tuple[str, str] | None, tuple[str, str]]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call of a function of isotone."""
        if event != "call" or not frame.f_code.co_filename.startswith(SOURCE):
            return
        caller, outer = None, frame.f_back
        imported = outer is not None and outer.f_code.co_filename.startswith("<frozen importlib")
        if imported or frame.f_code.co_name == IMPORTING:
            return
        while outer is not None:
            if outer.f_code.co_filename.startswith(SOURCE):
                if outer.f_code.co_name == IMPORTING:
                    return
                caller = caller or _place(outer)
            outer = outer.f_back
        self.edges.add((caller, _place(frame)))


def _place(frame: FrameType) -> tuple[str, str]:
    code = frame.f_code
    return code.co_filename[len(SOURCE) + 1 :], code.co_qualname


def main() -> None:
    """Run the command and print its calls."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("out", metavar="OUT")
    given = parser.parse_args()
    from isotone.cli.main import main as command

    sys.argv = ["isotone", "compress", given.model, given.out, "--bits", "3.6"]
    sys.argv += ["--workers", "1", "--json"]
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        command()
    sys.setprofile(None)
    threading.setprofile(None)
    if not printed.getvalue().startswith("{"):
        raise SystemExit("isotone compress failed")
    print(json.dumps(sorted(trace.edges, key=str)))


if __name__ == "__main__":
    main()
