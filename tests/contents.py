"""Say what is missing from built packages, and what is too much: a wheel's bytes, too.

python tests/contents.py dist/*

Needs nothing but Python, and the checkout that they were built of.
"""

import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENGINE = "rhai_tasks/engine/_engine.abi3.so"
LARGEST_WHEEL = 2_000_000  # bytes; docs/engine/index.md says what one has


def complaints(package: Path) -> list[str]:
    """Compare a wheel or sdist with the checkout; return a line for each difference."""
    found, wanted = (_wheel if package.suffix == ".whl" else _sdist)(package)
    size = package.stat().st_size
    return [
        *(f"{package.name} lacks {name}" for name in sorted(wanted - found)),
        *(f"{package.name} contains {name}" for name in sorted(found - wanted)),
        *([f"{package.name} has {size} bytes"] if package.suffix == ".whl" and size > LARGEST_WHEEL else []),
    ]


def _wheel(package: Path) -> tuple[set[str], set[str]]:
    """Return what it contains beside metadata, and what it should."""
    information = "-".join(package.name.split("-")[:2]) + ".dist-info"
    with zipfile.ZipFile(package) as archive:
        found = set(archive.namelist())
    metadata = {
        f"{information}/{name}"
        for name in (
            "METADATA",
            "RECORD",
            "WHEEL",
            "entry_points.txt",
            "licenses/LICENSE",
            "licenses/engine/LICENSES.txt",
            "sboms/rhai-tasks-engine.cyclonedx.json",
        )
    }
    return found, {ENGINE, *metadata, *_python()}


def _sdist(package: Path) -> tuple[set[str], set[str]]:
    with tarfile.open(package) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    meta = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    engine = {"Cargo.lock", "Cargo.toml", "LICENSES.txt", "licenses.py", "rustfmt.toml"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "engine/src").rglob("*.rs")}
    return found, meta | {f"engine/{name}" for name in engine} | sources | set(_python())


def _python() -> Iterator[str]:
    """List the files of the two packages: modules, Lua scripts, types, templates."""
    for folder in ("rhai_tasks", "bridge"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__" and path.suffix != ".so":
                yield path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    lines = [line for package in sys.argv[1:] for line in complaints(Path(package))]
    sys.exit("\n".join(lines) or None)
