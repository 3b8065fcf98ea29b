#!/usr/bin/python3
"""Holds the documents to the tree.

  check_docs.py links           every link, heading, path and test that a document
                                names exists
  check_docs.py headers         client/README.md names every header of the client
                                library, and it and client.h calls that are in them
  check_docs.py snippets        every C++ block shown is, line by line, a region of
                                readme_test.cc, which is compiled and run
  check_docs.py commands BUILD  every shell command shown exists and has the flags shown,
                                by its --help; grpcurl stands only where a test runs it
  check_docs.py settings BUILD  server/README.md has the settings and defaults of
                                `modelstored --help`, no more and no fewer

Needs nothing but python3-minimal.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COOKBOOK = "deploy/grpcurl-cookbook.md"  # its commands are run by cookbook_test
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "client/README.md",
             "client/torch/README.md", "proto/CLIENTS.md", "server/README.md",
             "storage/FORMAT.md", COOKBOOK]
HEADERS = "client/include/modelstore"
# Named though they are not there: directories to come, and the stems and folders that
# the table of includes and the text name.
PLANNED = {"client/formats", "client/cli", "proto/contract/status_codec", "tests/fuzz/findings"}


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


def anchors(text):
    """The names under which a page shows its headings to links."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def check_links():
    problems = []
    for document in DOCUMENTS:
        text = read(document)
        if not text:
            problems.append(f"{document} does not exist")
        folder = os.path.dirname(document)
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
            if "://" in target:
                continue
            path = os.path.normpath(os.path.join(folder, target)) if target else document
            if not os.path.exists(os.path.join(ROOT, path)):
                problems.append(f"{document}: link to {target}, which does not exist")
            elif anchor and anchor not in anchors(read(path)):
                problems.append(f"{document}: {path} has no heading #{anchor}")
        # `storage/catalog.h`: anything in backticks that begins with a folder of the tree.
        for path in re.findall(r"`((?:proto|storage|server|client|tests|deploy)/[\w./-]*\w)/?`", text):
            if path not in PLANNED and not os.path.exists(os.path.join(ROOT, path)):
                problems.append(f"{document}: names {path}, which does not exist")
        # `tests/client/save_test.cc` (SomeTest): a test of that file.
        for path, test in re.findall(r"`(tests/[\w./-]+)` \((\w+)\)", text):
            if not re.search(rf"\bTEST(_F|_P)?\(\w+,\s*{test}\)", read(path)):
                problems.append(f"{document}: {path} has no test {test}")
    return problems


def check_headers():
    """Each row of the table: a link to a header, then calls in backticks."""
    document = "client/README.md"
    problems, named = [], set()
    for header, calls in re.findall(r"^\| \[([\w.]+)\]\(include/[^)]*\) \|(.*)\|.*\|$",
                                    read(document), re.MULTILINE):
        named.add(header)
        text = read(f"{HEADERS}/{header}")
        for call in re.findall(r"`(\w+)`", calls):
            if not re.search(rf"\b{call}\b", text):
                problems.append(f"{document}: {header} has no {call}")
    for header in sorted(os.listdir(os.path.join(ROOT, HEADERS))):
        if header.endswith(".h") and header not in named:
            problems.append(f"{document} does not name {header}")
    # The list at the top of client.h: `//   policy.h        CheckpointPolicy: ...`.
    for header, calls in re.findall(r"^//   (\w+\.h) +(.*)$", read(f"{HEADERS}/client.h"),
                                    re.MULTILINE):
        for call in re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", calls):
            if not re.search(rf"\b{call}\b", read(f"{HEADERS}/{header}")):
                problems.append(f"client.h: {header} has no {call}")
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
    problems, shown = [], []
    compiled = regions()
    for document in DOCUMENTS:
        for title, lines in blocks(read(document), "cpp"):
            # The test has a port of its own.
            lines = [l.strip().replace('"localhost:7070"', "address") for l in lines]
            lines = [l for l in lines if l and not l.startswith("#include")]
            shown.append(lines)
            if lines not in compiled.values():
                problems.append(f"{document}, {title!r}: this C++ is no region of "
                                "readme_test.cc:\n  " + "\n  ".join(lines))
    for name, lines in compiled.items():
        if lines not in shown:
            problems.append(f"readme_test.cc: no document shows the region [{name}]")
    return problems


# Commands that other tests run: the first word, and where.
RUN_ELSEWHERE = {
    "grpcurl": "readme_test runs each by reflection",
    "docker": "deploy/test-image builds and runs the Dockerfile with buildah",
}
GRPCURL_DOCUMENTS = ["README.md", "client/README.md"]  # which readme_test reads


def run(words, limit=60):
    result = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=limit)
    return result.returncode, result.stdout.decode(errors="replace")


def check_commands(build):
    problems, count = [], 0
    for document in DOCUMENTS:
        if document == COOKBOOK:
            continue
        for title, lines in blocks(read(document), "sh"):
            for line in lines:
                words = line.split("#")[0].split()
                if not words:
                    continue
                count += 1
                first = words[0]
                if first == "grpcurl" and document not in GRPCURL_DOCUMENTS:
                    problems.append(f"{document}, {title!r}: no test runs {line}")
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


def check_settings(build):
    """`--port INT:INT in [0 - 65535]=7070 (Env:...)` against `| `--port` | `7070` |`."""
    document = "server/README.md"
    code, text = run([os.path.join(build, "server", "modelstored"), "--help"])
    if code != 0:
        return [f"modelstored --help exits {code}"]
    told = {}
    for flag, rest in re.findall(r"^  (--[\w-]+)(.*) \(Env:\w+\)$", text, re.MULTILINE):
        default = re.search(r"=([^\s=]+)$", rest)
        told[flag] = default.group(1) if default else ""
    told.pop("--config", None)
    shown = dict(re.findall(r"^\| `(--[\w-]+)` \|(?: `([^`]*)`)? \|", read(document),
                            re.MULTILINE))
    problems = [f"{document}: {flag} is {shown.get(flag)!r}, in --help {told.get(flag)!r}"
                for flag in sorted(told.keys() | shown.keys())
                if told.get(flag) != shown.get(flag)]
    return problems if len(told) > 20 else ["modelstored --help tells hardly any setting"]


def main():
    checks = {"links": check_links, "headers": check_headers, "snippets": check_snippets,
              "commands": check_commands, "settings": check_settings}
    problems = checks[sys.argv[1]](*sys.argv[2:])
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
