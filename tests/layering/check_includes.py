#!/usr/bin/env python3
"""Holds every #include to the table "Who may include whom" of ARCHITECTURE.md.

    check_includes.py <root>        prints each forbidden edge; exits 1 if any
    check_includes.py --self-test   proves that it finds what it should
"""

import pathlib
import re
import sys
import tempfile

HEADING = "## Who may include whom"
ROOMS = ("proto", "storage", "server", "client", "tests", "deploy")
SOURCES = (".h", ".cc", ".hpp", ".cpp", ".inc")

# How the headers of a package begin. Listed ones alone may be named in the
# table; a header of a package that is not listed is refused everywhere.
PACKAGES = {
    "absl": ("absl/",),
    "protobuf": ("google/protobuf/",),
    "grpc++": ("grpc/", "grpc++/", "grpcpp/"),
    "rocksdb": ("rocksdb/",),
    "torch": ("torch/", "ATen/", "c10/", "caffe2/"),
    "spdlog": ("spdlog/", "fmt/"),
    "CLI11": ("CLI/",),
    "re2": ("re2/",),
    "xxhash": ("xxhash.h", "xxh3.h", "xxh_x86dispatch.h"),
    "httplib": ("httplib.h",),
    "libzip": ("zip.h",),
    "gtest": ("gtest/", "gmock/"),
}
GENERATED = ("modelstore/storage/v1", "modelstore/v1", "modelstore/rpc", "google/rpc")
SYSTEM = ("sys/", "linux/", "netinet/", "arpa/", "net/", "bits/", "asm/")

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)


def read_rules(text):
    """The table as {folder: [(target, [prefixes it is confined to])]}."""
    section = text.split(HEADING, 1)
    if len(section) != 2:
        raise ValueError(f'no section "{HEADING}"')
    rules = {}
    for line in section[1].split("\n## ", 1)[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        names = re.findall(r"`([^`]+)`", cells[0])
        if not line.startswith("|") or len(cells) != 2 or not names:
            continue
        allowed = []
        for clause in cells[1].split(";"):
            targets, _, confined = clause.partition(" in `")
            where = re.findall(r"`([^`]+)`", "`" + confined) if confined else []
            found = re.findall(r"`([^`]+)`", targets)
            if not found:
                raise ValueError(f"no name in backticks: {clause!r}")
            allowed += [(target, where) for target in found]
        for name in names:
            rules[name.rstrip("/")] = allowed
    if not rules:
        raise ValueError(f'no table under "{HEADING}"')
    return rules


def classify(root, header, angled):
    """What an included header is: the name that the table must allow, or None
    for the standard library and the system."""
    for package, prefixes in PACKAGES.items():
        if header.startswith(prefixes):
            return package
    for generated in GENERATED:
        if re.fullmatch(re.escape(generated) + r"/\w+(\.grpc)?\.pb\.h", header):
            return generated
    if header.startswith(ROOMS):
        return header
    if (root / "client/include" / header).is_file():
        return f"client/include/{header}"
    if angled and (header.startswith(SYSTEM) or re.fullmatch(r"[a-z0-9_]+(\.h)?", header)):
        return None
    return f"unknown {header}"


def row_of(rules, path):
    rows = [row for row in rules if path.startswith(row + "/")]
    return max(rows, key=len) if rows else None


def allows(rules, row, path, target):
    if target.startswith(row + "/") and row_of(rules, target) == row:
        return True
    for allowed, where in rules[row]:
        if where and not path.startswith(tuple(where)):
            continue
        if allowed == "everything" or target == allowed:
            return True
        if target.startswith(allowed.rstrip("/") + "/"):
            return True
    return False


def check(root):
    """Returns (number of includes seen, list of forbidden edges)."""
    root = pathlib.Path(root)
    rules = read_rules((root / "ARCHITECTURE.md").read_text())
    seen, problems = 0, []
    for room in ROOMS:
        for file in sorted((root / room).rglob("*")):
            if file.suffix not in SOURCES or not file.is_file():
                continue
            path = file.relative_to(root).as_posix()
            row = row_of(rules, path)
            if row is None:
                problems.append(f"{path}: no row of the table is for it")
                continue
            text = file.read_text(errors="replace")
            for match in INCLUDE.finditer(text):
                seen += 1
                target = classify(root, match[2], match[1] == "<")
                if target is not None and not allows(rules, row, path, target):
                    line = text.count("\n", 0, match.start()) + 1
                    problems.append(f"{path}:{line}: `{row}` may not include {match[2]}")
    return seen, problems


SELF_TEST_TABLE = f"""
{HEADING}

| from | may include |
| --- | --- |
| `proto/contract` | generated `modelstore/v1`, `absl`; `grpc++` in `proto/contract/status` alone |
| `storage` | `proto/contract/digest.h`; `rocksdb` in `storage/rocksdb/` alone |
| `client` | `proto/contract`; `torch` in `client/torch/` and `client/include/modelstore/t.h` alone |
| `client/cli` | `client/include` |
| `tests` | `everything` |

## Next

| `storage` | `everything` |
"""

# (file, include, whether the table allows it)
SELF_TEST_CASES = [
    ("proto/contract/a.h", '"proto/contract/b.h"', True),
    ("proto/contract/a.cc", '"modelstore/v1/x.pb.h"', True),
    ("proto/contract/a.cc", '"modelstore/storage/v1/x.pb.h"', False),
    ("proto/contract/a.cc", '"absl/status/status.h"', True),
    ("proto/contract/a.cc", "<vector>", True),
    ("proto/contract/a.cc", "<sys/mman.h>", True),
    ("proto/contract/a.cc", "<boost/any.hpp>", False),
    ("proto/contract/a.cc", '"nowhere.h"', False),
    ("proto/contract/a.cc", "<grpcpp/grpcpp.h>", False),
    ("proto/contract/status.cc", "<grpcpp/grpcpp.h>", True),
    ("proto/contract/a.cc", '"storage/a.h"', False),
    ("storage/a.cc", '"storage/rocksdb/b.h"', True),
    ("storage/a.cc", '"proto/contract/digest.h"', True),
    ("storage/a.cc", '"proto/contract/status.h"', False),
    ("storage/a.cc", '"rocksdb/db.h"', False),
    ("storage/rocksdb/a.cc", '"rocksdb/db.h"', True),
    ("storage/a.cc", '"client/a.h"', False),
    ("client/a.cc", '"storage/a.h"', False),
    ("client/a.cc", '"server/a.h"', False),
    ("client/a.cc", "<torch/torch.h>", False),
    ("client/torch/a.cc", "<ATen/ATen.h>", True),
    ("client/include/modelstore/t.h", "<torch/torch.h>", True),
    ("client/cli/a.cc", '"modelstore/t.h"', True),
    ("client/cli/a.cc", '"client/internal/a.h"', False),
    ("client/cli/a.cc", '"proto/contract/digest.h"', False),
    ("tests/a.cc", '"server/a.h"', True),
    ("server/a.cc", "<vector>", False),  # a room without a row
]


def self_test():
    failures = 0
    for path, include, allowed in SELF_TEST_CASES:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "ARCHITECTURE.md").write_text(SELF_TEST_TABLE)
            for name in ("client/include/modelstore/t.h", path):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text("")
            (root / path).write_text(f"// text\n#include {include}\n")
            problems = check(root)[1]
        if allowed != (not problems):
            print(f"{path} including {include}: expected allowed={allowed}, got {problems}")
            failures += 1
    for text in ("", HEADING + "\nno table\n"):
        try:
            read_rules(text)
            print(f"accepted a document without the table: {text!r}")
            failures += 1
        except ValueError:
            pass
    print(f"{len(SELF_TEST_CASES)} cases, {failures} failures")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    seen, problems = check(sys.argv[1])
    print("\n".join(problems))
    print(f"{seen} includes, {len(problems)} of them not in the table")
    # A walk that finds nothing proves nothing.
    return 1 if problems or seen < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
