#!/usr/bin/python3
"""Holds the documents to the tree.

  check_docs.py links     every link and path that a document names exists
  check_docs.py snippets  every C++ block of README.md is, line by line, a region
                          of readme_test.cc, which is compiled and run
  check_docs.py commands  every shell command shown is run by a test; for scripts
                          that a test cannot run from within ctest, their --help

Needs nothing but python3-minimal.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "storage/FORMAT.md"]


def read(path):
    if not os.path.exists(os.path.join(ROOT, path)):
        return ""  # check_links() tells
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def blocks(text, language):
    """(heading or bold text before it, lines) of each fenced block."""
    found, title, inside, lines = [], "", None, []
    for line in text.splitlines():
        fence = re.match(r"```(\w*)", line)
        if fence and inside is None:
            inside, lines = fence.group(1) or "none", []
        elif fence:
            if inside == language:
                found.append((title, lines))
            inside = None
        elif inside is not None:
            lines.append(line)
        elif re.match(r"\s*(#|\*\*)", line):
            title = line.strip("#* \t").split("**")[0].strip()
    return found


def check_links():
    problems = []
    for document in DOCUMENTS:
        text = read(document)
        if not text:
            problems.append(f"{document} does not exist")
        folder = os.path.dirname(document)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" in target:
                continue
            if not os.path.exists(os.path.join(ROOT, folder, target)):
                problems.append(f"{document}: link to {target}, which does not exist")
        # `storage/catalog.h`: anything in backticks that begins with a folder of
        # the tree and names a file by its extension.
        for path in re.findall(r"`((?:proto|storage|server|client|tests|deploy)/[\w./-]+\.\w+)`", text):
            if not os.path.exists(os.path.join(ROOT, path)):
                problems.append(f"{document}: names {path}, which does not exist")
        # `tests/client/save_test.cc` (SomeTest): a test of that file.
        for path, test in re.findall(r"`(tests/[\w./-]+)` \((\w+)\)", text):
            if not re.search(rf"\bTEST(_F|_P)?\(\w+,\s*{test}\)", read(path)):
                problems.append(f"{document}: {path} has no test {test}")
    return problems


def regions():
    found, name, lines = {}, None, []
    for line in read("tests/docs/readme_test.cc").splitlines():
        mark = re.match(r"\s*// \[(.+)\]$", line)
        if mark and mark.group(1) == "end":
            found[name] = lines
            name = None
        elif mark:
            name, lines = mark.group(1), []
        elif name:
            lines.append(line.strip())
    return found


def check_snippets():
    problems = []
    compiled = regions()
    shown = blocks(read("README.md"), "cpp")
    for title, lines in shown:
        # The test has a port of its own.
        lines = [l.strip().replace('"localhost:7070"', "address") for l in lines]
        lines = [l for l in lines if l and not l.startswith("#include")]
        if lines not in compiled.values():
            problems.append(f"README.md, {title!r}: this C++ is no region of readme_test.cc:\n  "
                            + "\n  ".join(lines))
    if len(shown) < 2:
        problems.append("README.md shows less than two C++ examples")
    return problems


# Commands that other tests run: the first word, and where.
RUN_ELSEWHERE = {
    "grpcurl": "readme_test runs each by reflection",
    "docker": "deploy/test-image builds and runs the Dockerfile with buildah",
    "buildah": "deploy/test-image",
    "git": "needs a network",
    "cd": "",
}


def run(words, limit=60):
    result = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=limit)
    return result.returncode, result.stdout.decode(errors="replace")


def check_commands(build):
    problems, count = [], 0
    for document in DOCUMENTS:
        for title, lines in blocks(read(document), "sh"):
            for line in lines:
                words = line.split("#")[0].split()
                if not words:
                    continue
                count += 1
                first = words[0]
                if first in RUN_ELSEWHERE:
                    continue
                where = first.replace("build/relwithdebinfo", build)
                path = os.path.join(ROOT, where)
                if not os.access(path, os.X_OK):
                    problems.append(f"{document}, {title!r}: {first} cannot be run")
                    continue
                code, text = run([path, "--help"])
                if code != 0:
                    problems.append(f"{document}: {first} --help exits {code}")
                for word in words[1:]:
                    # Every flag shown is one that the help tells about.
                    flag = word.split("=")[0]
                    if flag.startswith("--") and flag not in text:
                        problems.append(f"{document}: {first} has no {flag}:\n{text}")
    if count < 5:
        problems.append("the documents show hardly any command")
    return problems


def main():
    what = sys.argv[1]
    if what == "links":
        problems = check_links()
    elif what == "snippets":
        problems = check_snippets()
    else:
        problems = check_commands(sys.argv[2])
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
