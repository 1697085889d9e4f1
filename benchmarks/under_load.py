"""Run tests again and again while busy loops keep the cores from them, and count what fails.

    python benchmarks/under_load.py [TESTS ...] [--times 10] [--busy 2]

A test that waits for luck instead of for an event fails here sooner or later. By default these are
the tests that kill processes and nodes, and those that run on several processes. The exit code is 1
if any run failed.
"""

import argparse
import re
import subprocess
import sys
import time

TESTS = (
    "tests/engine",
    "tests/commands/test_on_ray.py",
    "tests/commands/test_study.py",
    "tests/checkpoint/files",
    "tests/checkpoint/staging",
    "tests/healing/test_interruptions.py",
    "tests/healing/test_processes.py",
    "tests/study",
)


def main() -> None:
    """Print a line for each run, and the tests that failed in any."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tests", nargs="*", default=TESTS, metavar="TESTS")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--busy", type=int, default=2, help="the number of busy loops")
    given = parser.parse_args()
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(given.busy)
    ]
    failed: list[str] = []
    n_passed = 0
    try:
        for number in range(given.times):
            started = time.monotonic()
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *given.tests]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            failed += re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
            n_passed += run.returncode == 0
            last = (run.stdout.strip() or run.stderr.strip()).splitlines()[-1]
            print(f"{number + 1}: {last}, {time.monotonic() - started:.0f} s", flush=True)
    finally:
        for loop in loops:
            loop.kill()
    for name in sorted(set(failed)):
        print(f"{name}: failed {failed.count(name)} of {given.times} times")
    print(f"{n_passed} of {given.times} runs passed")
    sys.exit(n_passed < given.times)


if __name__ == "__main__":
    main()
