#!/usr/bin/env python3
"""Holds the API's text to its own rules.

    check_api.py <folder of .proto files>

Every method says whether it is safe to retry and which errors it has; lists are
paged; a stream of an operation has progress and one result; an enum's values begin
with its name; times are no bare numbers; comments are more than half of all lines; no
file is over 600 lines.
"""

import pathlib
import re
import sys

# They have no errors but those that the service lists for every method.
WITHOUT_ERRORS = {"CollectGarbage", "GetServerInfo", "GetStats"}
# Streams that are not operations with an end.
OPEN_STREAMS = {"WatchModelResponse", "LoadCheckpointResponse"}

METHOD = re.compile(
    r"((?:^  //.*\n)*)^  rpc (\w+)\((stream )?(\w+)\)\s*returns \((stream )?([\w.]+)\);", re.M
)


def message(text, name):
    """The body of a top-level message, without its closing brace."""
    found = re.search(r"^message %s \{\n(.*?)^\}" % name, text, re.M | re.S)
    return found[1] if found else ""


def check_method(text, match):
    comment, name, _, request, streams, response = match.groups()
    if not comment:
        yield f"{name}: no comment"
    if not re.search(r"[Ss]afe\s+(// )?to\s+(// )?retry", comment):
        yield f"{name}: does not say whether it is safe to retry"
    if "Errors" not in comment and name not in WITHOUT_ERRORS:
        yield f"{name}: lists no errors"
    body = message(text, request)
    if name.startswith("List"):
        if "page_size" not in body or "page_token" not in body:
            yield f"{name}: {request} is not paged"
        if "next_page_token" not in message(text, response):
            yield f"{name}: {response} has no next_page_token"
    if streams and response not in OPEN_STREAMS:
        answer = message(text, response)
        for field in ("Progress progress = ", "Result result = "):
            if field not in answer:
                yield f"{name}: {response} has no `{field.split()[1]}`"


def check_names(text):
    for name, body in re.findall(r"^ *enum (\w+) \{\n(.*?)^ *\}", text, re.M | re.S):
        # DType is DTYPE, as one word.
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"
        for value in re.findall(r"^ *(\w+) = \d+;", body, re.M):
            if name != "NullValue" and not value.startswith(prefix):
                yield f"{name}: {value} does not begin with {prefix}"
    for field in re.findall(r"^ *(?:optional |repeated )?u?int\d+ (\w+_seconds) = ", text, re.M):
        yield f"{field}: not a google.protobuf.Duration"


def check(texts):
    text = "\n".join(texts.values())
    methods = list(METHOD.finditer(text))
    problems = [p for match in methods for p in check_method(text, match)]
    problems += check_names(text)
    if len(methods) != len(re.findall(r"^\s+rpc ", text, re.M)):
        problems.append("a method is written in a form that this check does not read")
    lines = [line for line in text.splitlines() if line.strip()]
    comments = [line for line in lines if "//" in line]
    if 2 * len(comments) <= len(lines):
        problems.append(f"comments are {len(comments)} of {len(lines)} lines: over half asked")
    problems += [f"{n}: over 600 lines" for n, t in texts.items() if t.count("\n") > 600]
    return methods, problems, len(comments) / len(lines)


def main():
    texts = {p.name: p.read_text() for p in sorted(pathlib.Path(sys.argv[1]).glob("*.proto"))}
    methods, problems, share = check(texts)
    print("\n".join(problems))
    print(f"{len(methods)} methods, {share:.0%} comments, {len(problems)} problems")
    # The check must see what it is for: without its comments nothing passes.
    bare = {n: re.sub(r"^\s*//.*\n", "", t, flags=re.M) for n, t in texts.items()}
    if len(check(bare)[1]) < len(methods):
        print("the check passes methods without comments")
        return 1
    if len(list(check_names("enum Origin {\n  SAVED = 1;\n}\n  int64 age_seconds = 1;\n"))) != 2:
        print("the check passes values without their enum's name")
        return 1
    return 1 if problems or not methods else 0


if __name__ == "__main__":
    sys.exit(main())
