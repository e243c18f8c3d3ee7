#!/usr/bin/env python3
"""Runs test suites of other projects, unchanged, against the software driver.

    softcuda/suites/run.py [SUITE ...] [--work DIR] [--driver DIR]

A suite is fetched from its registry by name and version, copied out, built and run with
LD_LIBRARY_PATH at the software driver. Each test's result is compared with
`expected/SUITE.txt`: tests that do not pass, each with its reason. A failure that is not listed
fails the suite, and so do a listed test that passes, a listed test that does not exist and a test
that reports nothing (a crash, a hang). The table at the end says how many passed, and the number
below which a suite fails whatever is listed.

Needs only the standard library, cargo, gcc and pip; the suite `ffmpeg` the program of that name.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Why a test may be excluded. The first word or words of a reason are one of these.
REASONS = (
    "needs a compiled kernel",
    "needs a module image",
    "compares hardware speeds",
    "ignored upstream",
    "broken upstream",
    "CUDA arrays and textures",
    "green contexts",
    "nvrtc",
    "needs a nested cargo build",
)
# Whether such a test passes is up to the machine it runs on, so either result is right.
EITHER_RESULT = "compares hardware speeds"

LIBCLANG = "libclang==18.1.1"
HEADERS = ("nvidia-cuda-runtime==13.3.29", "nvidia-cuda-crt==13.3.33", "nvidia-curand==10.4.5.25")


@dataclass
class Outcome:
    """What a suite's run gave: the tests it has, and the result of each that reported one."""

    listed: list = field(default_factory=list)
    results: dict = field(default_factory=dict)
    crashes: list = field(default_factory=list)


class Workplace:
    """The folders that suites are fetched into and built in; kept, so a second run is quick."""

    def __init__(self, root: Path, driver: Path):
        self.root = root
        self.driver = driver
        target = os.environ.get("CARGO_TARGET_DIR")
        self.target = Path(target).resolve() / "suites" if target else root / "target"
        self.log = None

    def environment(self, **more) -> dict:
        """The caller's environment with the software driver first and without our own flags."""
        inherited = {
            k: v
            for k, v in os.environ.items()
            if k not in ("RUSTFLAGS", "RUSTDOCFLAGS", "VIRTUAL_ENV")
        }
        inherited["LD_LIBRARY_PATH"] = str(self.driver)
        inherited["CARGO_TARGET_DIR"] = str(self.target)
        inherited["CARGO_TERM_COLOR"] = "never"
        return inherited | {k: str(v) for k, v in more.items()}

    def run(self, command, cwd, env, timeout):
        """Runs a command, logs its output, and returns the output and the failure, if any."""
        self.log.write(f"\n$ {' '.join(map(str, command))}\n")
        self.log.flush()
        start = self.log.tell()
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        trouble = None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            trouble = f"no end after {timeout} s, killed"
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            log.seek(start)
            output = log.read()
        if trouble is None and code < 0:
            trouble = f"ended by {signal.Signals(-code).name}"
        return output, code, trouble

    def must(self, command, cwd, env, timeout=1200):
        """A step without which the suite cannot be judged."""
        output, code, trouble = self.run(command, cwd, env, timeout)
        if code != 0:
            tail = "\n".join(output.splitlines()[-15:])
            raise RuntimeError(
                f"{' '.join(map(str, command))}: {trouble or f'exit {code}'}\n{tail}"
            )
        return output

    def crate(self, name: str, version: str, features: str) -> Path:
        """A copy of a crate as its registry serves it."""
        copy = self.root / f"{name}-{version}"
        if copy.exists():
            return copy
        asks = self.root / "fetch" / name
        (asks / "src").mkdir(parents=True, exist_ok=True)
        (asks / "src/lib.rs").touch()
        (asks / "Cargo.toml").write_text(
            f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n'
            f'[dependencies.{name}]\nversion = "={version}"\n{features}'
        )
        metadata = self.must(
            ["cargo", "metadata", "--format-version", "1", "--quiet"], asks, self.environment()
        )
        packages = json.loads(metadata[metadata.index('{"packages"') :].splitlines()[0])["packages"]
        manifest = next(p["manifest_path"] for p in packages if p["name"] == name)
        unfinished = self.root / f".{name}-{version}"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(Path(manifest).parent, unfinished)
        lock = HERE / "locks" / f"{name}-{version}.lock"
        if lock.exists():  # a crate published without one would be built with whatever is newest
            shutil.copy(lock, unfinished / "Cargo.lock")
        unfinished.rename(copy)
        return copy

    def python(self, name: str, packages) -> Path:
        """The folder of a virtual environment that has the packages; `bin/python` below it runs."""
        folder = self.root / f"venv-{name}"
        stamp = folder / "installed"
        wanted = "\n".join(packages)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            pip = [
                folder / "bin/python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            self.must([*pip, *packages], self.root, self.environment())
            stamp.write_text(wanted)
        return folder

    def site_packages(self, folder: Path) -> Path:
        return next(folder.glob("lib/python3*/site-packages"))


# `test a::b - should panic ... ok`; rustdoc's names hold spaces: `src/x.rs - a::b (line 3)`.
CARGO_RESULT = re.compile(
    r"^test (?P<name>\S.*?)(?: - (?:should panic|compile fail|compile))? "
    r"\.\.\. (?P<result>ok|FAILED|ignored)",
    re.M,
)
CARGO_LISTED = re.compile(
    r"^(?P<name>\S.*?)(?: - (?:should panic|compile fail|compile))?: test$", re.M
)
CARGO_BINARY = re.compile(
    r"^ +(?:Running (?:unittests )?(?P<file>\S+) \(|(?P<doc>Doc-tests) )", re.M
)
CARGO_CRASH = re.compile(r"^ *process didn't exit successfully: .*\((signal: .*)\)", re.M)


def cargo_by_binary(output: str, pattern: re.Pattern):
    """Matches of a pattern, with the short name of the test binary whose output each stands in."""
    binaries = list(CARGO_BINARY.finditer(output))
    for index, binary in enumerate(binaries):
        end = binaries[index + 1].start() if index + 1 < len(binaries) else len(output)
        name = "doc" if binary["doc"] else Path(binary["file"]).stem
        for match in pattern.finditer(output, binary.end(), end):
            yield name, match


def cargo_suite(place: Workplace, crate: Path, arguments, env, timeout) -> Outcome:
    """Builds and lists a crate's tests, then runs them."""
    outcome = Outcome()
    listing = place.must(["cargo", "test", "--locked", *arguments, "--", "--list"], crate, env)
    outcome.listed = [
        f"{binary}::{match['name']}" for binary, match in cargo_by_binary(listing, CARGO_LISTED)
    ]
    output, _, trouble = place.run(
        ["cargo", "test", "--locked", *arguments, "--no-fail-fast"], crate, env, timeout
    )
    outcome.results = {
        f"{binary}::{match['name']}": match["result"]
        for binary, match in cargo_by_binary(output, CARGO_RESULT)
    }
    outcome.crashes = [
        f"{binary}: {match[1]}" for binary, match in cargo_by_binary(output, CARGO_CRASH)
    ]
    if trouble:
        outcome.crashes.append(trouble)
    return outcome


def cudarc(place: Workplace, timeout: int) -> Outcome:
    features = [
        "--no-default-features",
        "--features",
        "std,driver,fallback-dynamic-loading,cuda-13000",
    ]
    crate = place.crate(
        "cudarc",
        "0.19.10",
        "default-features = false\n"
        'features = ["std", "driver", "fallback-dynamic-loading", "cuda-13000"]\n',
    )
    # One at a time: its tests share a context, and some capture streams in the global mode, in which
    # calls of any other thread fail.
    env = place.environment(RUST_TEST_THREADS="1")
    return cargo_suite(place, crate, [*features, "--lib"], env, timeout)


def cuda_core(place: Workplace, timeout: int) -> Outcome:
    crate = place.crate("cuda-core", "0.5.0", "")
    headers = place.site_packages(place.python("headers", [LIBCLANG, *HEADERS]))
    gcc = subprocess.run(
        ["gcc", "-print-file-name=include"], capture_output=True, text=True, check=True
    )
    env = place.environment(
        LIBCLANG_PATH=headers
        / "clang/native",  # the wheel has no headers of its own: gcc's will do
        BINDGEN_EXTRA_CLANG_ARGS=f"-I{gcc.stdout.strip()}",
        CUDA_TOOLKIT_PATH=headers / "nvidia/cu13",
    )
    return cargo_suite(place, crate, [], env, timeout)


def cust(place: Workplace, kind: str, timeout: int) -> Outcome:
    crate = place.crate("cust", "0.3.2", "")
    toolkit = place.root / "toolkit"  # as much of one as its build script looks for
    (toolkit / "include").mkdir(parents=True, exist_ok=True)
    (toolkit / "include/cuda.h").touch()
    libraries = toolkit / "lib64"
    if libraries.is_symlink():
        libraries.unlink()
    libraries.symlink_to(place.driver)
    env = place.environment(CUDA_PATH=toolkit, CUDA_LIBRARY_PATH=toolkit)
    return cargo_suite(place, crate, [kind], env, timeout)


PYTEST_RESULT = re.compile(
    r"^(?P<name>\S+\.py::\S+) (?P<result>PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)", re.M
)
PYTEST_LISTED = re.compile(r"^\S+\.py::\S+$", re.M)


def cuda_python(place: Workplace, timeout: int) -> Outcome:
    folder = place.python(
        "cuda-python",
        ["cuda-python==12.6.0", "numpy==2.0.2", "pytest==9.2.0", "pytest-benchmark==5.3.1"],
    )
    tests = place.root / "cuda-python-12.6.0"
    if not tests.exists():
        shutil.copytree(place.site_packages(folder) / "cuda/tests", tests)
    # test_cython compiles Cython sources against a CUDA toolkit, test_nvrtc is all nvrtc.
    pytest = [
        folder / "bin/python",
        "-m",
        "pytest",
        "--rootdir",
        tests,
        "-p",
        "no:cacheprovider",
        "--color=no",
    ]
    pytest += ["--ignore", "test_cython.py", "--ignore", "test_nvrtc.py"]
    env = place.environment()
    outcome = Outcome()
    outcome.listed = PYTEST_LISTED.findall(
        place.must([*pytest, "--collect-only", "-q"], tests, env)
    )
    output, _, trouble = place.run([*pytest, "-v", "-ra"], tests, env, timeout)
    outcome.results = {match["name"]: match["result"] for match in PYTEST_RESULT.finditer(output)}
    if trouble:
        outcome.crashes.append(trouble)
    return outcome


def ffmpeg(place: Workplace, timeout: int) -> Outcome:
    """Frames that go to the device and come back are what they were, as Debian's ffmpeg does it."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise RuntimeError("there is no ffmpeg: apt-get install ffmpeg")
    outcome = Outcome()

    def frames(source, formats, options, env):
        """The hash of each frame, and what was said beside."""
        command = [
            program,
            "-nostdin",
            "-hide_banner",
            "-loglevel",
            "error",
            *options,
            "-f",
            "lavfi",
            "-i",
            source,
        ]
        command += ["-vf", formats, "-frames:v", "6", "-f", "framemd5", "-"]
        output, code, trouble = place.run(command, place.root, env, timeout)
        if code != 0:
            outcome.crashes.append(f"{formats}: {trouble or f'exit {code}'}")
        hashes = [line for line in output.splitlines() if re.match(r"\d+,", line)]
        return hashes, output

    for pixels in ("yuv420p", "nv12", "yuv444p", "p010le"):
        for size in ("640x360", "322x182"):
            source = f"testsrc=size={size}:rate=25"
            plain, _ = frames(source, f"format={pixels}", [], place.environment())
            for schedule in ("late", "random:7", "eager"):
                name = f"{schedule}-{pixels}-{size}"
                outcome.listed.append(name)
                env = place.environment(
                    SOFTCUDA_SCHEDULE=schedule, SOFTCUDA_CHECK="all", SOFTCUDA_COUNTERS="1"
                )
                there_and_back = f"format={pixels},hwupload,hwdownload,format={pixels}"
                device = ["-init_hw_device", "cuda=cu:0", "-filter_hw_device", "cu"]
                hashes, output = frames(source, there_and_back, device, env)
                copies = re.search(r"^softcuda: cuMemcpy2D\w* [1-9]", output, re.M)
                violation = re.search(r"^softcuda: [a-z-]+: ", output, re.M)
                same = len(plain) == 6 and hashes == plain
                outcome.results[name] = "ok" if same and copies and not violation else "FAILED"
    return outcome


@dataclass
class Suite:
    title: str
    run: object
    total: int
    floor: int
    timeout: int = 1800  # for what hangs: CI may share its cores


SUITES = {
    "cudarc": Suite("cudarc 0.19.10", cudarc, 26, 21),
    "cuda-core": Suite("cuda-core 0.5.0", cuda_core, 116, 111),
    "cust-lib": Suite(
        "cust 0.3.2 --lib", lambda place, timeout: cust(place, "--lib", timeout), 75, 70
    ),
    "cust-doc": Suite(
        "cust 0.3.2 --doc", lambda place, timeout: cust(place, "--doc", timeout), 143, 122
    ),
    "cuda-python": Suite("cuda-python 12.6.0", cuda_python, 74, 55),
    "ffmpeg": Suite("ffmpeg, Debian's", ffmpeg, 24, 24),
}


def expected(suite: str) -> dict:
    """The tests that need not pass, each with its reason, from lines `NAME # REASON`."""
    reasons = {}
    for number, line in enumerate((HERE / "expected" / f"{suite}.txt").read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, reason = line.partition(" # ")
        if not separator or not reason.startswith(REASONS):
            raise RuntimeError(
                f"expected/{suite}.txt:{number}: no reason, or one of an unknown kind: {line}"
            )
        reasons[name.strip()] = reason
    return reasons


def judge(suite: Suite, outcome: Outcome, reasons: dict):
    """The complaints about a run, and its counts: passed, excluded, failed."""
    complaints = [f"crashed: {crash}" for crash in outcome.crashes]
    passed = excluded = failed = 0
    for test in outcome.listed:
        result = outcome.results.get(test)
        if result in ("ok", "PASSED"):
            if test not in reasons:
                passed += 1
                continue
            excluded += 1
            if not reasons[test].startswith(EITHER_RESULT):
                complaints.append(f"passes, but is listed as: {reasons[test]}: {test}")
        elif result is None:
            failed += 1
            complaints.append(f"no result: {test}")
        elif test in reasons:
            excluded += 1
        else:
            failed += 1
            complaints.append(f"{result}: {test}")
    complaints += [
        f"listed, but there is no such test: {test}"
        for test in reasons
        if test not in outcome.listed
    ]
    if len(outcome.listed) != suite.total:
        complaints.append(f"has {len(outcome.listed)} tests, should have {suite.total}")
    if passed < suite.floor:
        complaints.append(f"{passed} passed, at least {suite.floor} must")
    return complaints, (passed, excluded, failed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "suite", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all by default"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".build/suites", help="where suites are kept and built"
    )
    parser.add_argument(
        "--driver", type=Path, help="a folder with libcuda.so.1; by default softcuda is built"
    )
    options = parser.parse_args()
    if unknown := set(options.suite) - set(SUITES):
        parser.error(f"no such suite: {', '.join(unknown)}")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.driver is None:
        subprocess.run([HERE.parent / "install.sh", work / "driver"], check=True)
    place = Workplace(work, (options.driver or work / "driver").resolve())

    rows, bad = [], 0
    for name in options.suite or SUITES:
        suite = SUITES[name]
        log = work / f"{name}.log"
        with open(log, "w", encoding="utf-8") as place.log:
            try:
                complaints, counts = judge(suite, suite.run(place, suite.timeout), expected(name))
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                complaints, counts = [f"could not be run: {error}"], (0, 0, suite.total)
        for complaint in complaints:
            print(f"{suite.title}: {complaint}")
        if complaints:
            bad += 1
            print(f"{suite.title}: output in {os.path.relpath(log)}")
        rows.append(
            (suite.title, *counts, suite.total, suite.floor, "FAILED" if complaints else "ok")
        )
    header = ("suite", "passed", "excluded", "failed", "total", "floor", "")
    for row in [header, *rows]:
        print("{:<20} {:>7} {:>9} {:>7} {:>6} {:>6}  {}".format(*row).rstrip())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
