"""Write LICENSES.txt: the crates that a wheel contains, where their sources are, and their licences.

python engine/licenses.py, after a change of Cargo.lock
"""

import re
import subprocess
from pathlib import Path

ENGINE = Path(__file__).parent
LICENSES = ENGINE / "LICENSES.txt"
TARGETS = [  # as .github/workflows/release.yml builds them
    f"{machine}-{system}" for machine in ("x86_64", "aarch64") for system in ("unknown-linux-gnu", "unknown-linux-musl")
]
RULE = "=" * 79


def licenses() -> str:
    """Return the text of LICENSES.txt.

    Raises:
        FileNotFoundError: A crate has no licence file: find its text, and add it here.
    """
    parts = [
        "The engine in this package is linked from the crates below and the Rust standard library (MIT OR Apache-2.0,\n"
        "https://github.com/rust-lang/rust). Where a crate leaves the choice, it is used under the MIT licence.\n"
        "Sources: https://crates.io/crates/NAME/VERSION, unchanged.\n"
    ]
    for name, version, license_ in crates():
        (folder,) = _registry().glob(f"*/{name}-{version}")
        parts.append(f"{RULE}\n{name} {version} ({license_})\n{RULE}\n\n{_text(folder)}\n")
    return "\n".join(parts)


def crates() -> list[tuple[str, str, str]]:
    """List name, version and licence of all crates that end up in a wheel: none that only build or test it."""
    command = [
        "cargo",
        "tree",
        "--locked",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]
    for target in TARGETS:
        command += ["--target", target]
    lines = subprocess.run(command, cwd=ENGINE, capture_output=True, text=True, check=True).stdout.splitlines()
    found = set()
    for line in filter(None, lines):
        package, _, license_ = line.removesuffix(" (*)").partition("|")
        name, version, *folder = package.split()
        if not folder:  # as the engine itself has
            found.add((name, version.removeprefix("v"), license_))
    return sorted(found)


def _registry() -> Path:
    return Path.home() / ".cargo/registry/src"


def _text(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if re.match(r"licen[sc]e|copying", path.name, re.IGNORECASE))
    files = [path for path in files if "mit" in path.name.lower()] or files
    if not files:
        raise FileNotFoundError(f"{folder} has no licence file")
    return "\n\n".join(path.read_text().strip() for path in files)


if __name__ == "__main__":
    LICENSES.write_text(licenses())
