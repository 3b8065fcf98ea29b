#!/usr/bin/python3
"""Runs what proto/CLIENTS.md shows against a modelstored of its own.

  check_clients.py MODELSTORED PROTOC GRPC_PYTHON_PLUGIN

The Python example saves and loads, each text proto is committed as a version and
read back, an upload and a load go the steps that the page tells, and the lists of
module types and functions are those of the contract.
Exits with 77 (skipped) where Debian's python3-grpcio, python3-numpy or
python3-xxhash is not installed.
"""
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "proto", "CLIENTS.md")
CONTRACT = os.path.join(ROOT, "proto", "contract", "architecture")
PACKAGES = ["grpc", "google.protobuf", "numpy", "xxhash"]


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def is_installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # `google` itself
        return False


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", read(PAGE), re.MULTILINE | re.DOTALL)


def generate(protoc, plugin, folder):
    proto = os.path.join(ROOT, "proto")
    names = sorted(os.listdir(os.path.join(proto, "modelstore", "v1")))
    subprocess.run([protoc, "-I", proto, f"--python_out={folder}", f"--grpc_out={folder}",
                    f"--plugin=protoc-gen-grpc={plugin}"]
                   + [f"modelstore/v1/{name}" for name in names if name.endswith(".proto")],
                   cwd=proto, check=True)


def start(modelstored, folder):
    port_file = os.path.join(folder, "port")
    server = subprocess.Popen([modelstored, "--data-dir", os.path.join(folder, "data"),
                               "--port", "0", "--port-file", port_file,
                               "--log-level", "error"], stdout=subprocess.DEVNULL)
    for _ in range(300):
        if os.path.exists(port_file) and read(port_file).strip():
            return server, "127.0.0.1:" + read(port_file).strip()
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    sys.exit("modelstored did not start")


def check_example(folder, address):
    examples = blocks("python")
    if len(examples) != 1:
        return [f"{len(examples)} Python examples instead of one"]
    lines = examples[0].count("\n")
    problems = [f"the example has {lines} lines, at most 60"] if lines > 60 else []
    script = os.path.join(folder, "example.py")
    with open(script, "w", encoding="utf-8") as f:
        f.write(examples[0])
    run = subprocess.run(["/usr/bin/python3", script, address], timeout=60,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         env=dict(os.environ, PYTHONPATH=folder))
    text = run.stdout.decode(errors="replace")
    if run.returncode != 0 or text != "models/iris/checkpoints/1 fc.weight fc.steps\n":
        problems.append(f"the example exits {run.returncode}:\n{text}")
    return problems


def chunk_sizes(tensor):
    """Sizes of the chunks that the pieces announce, in the order of the manifest."""
    from modelstore.v1 import types_pb2
    name = types_pb2.DType.Name(tensor.dtype)
    element = int(re.search(r"\d+$", name).group()) // 8
    for piece in tensor.pieces:
        left = element
        for size in piece.size or tensor.shape:
            left *= size
        while left > 0:
            chunk = min(left, piece.chunk_size_bytes or left)
            yield chunk
            left -= chunk


def commit(stub, request):
    from modelstore.v1 import checkpoint_transfer_pb2 as transfer

    def messages():
        yield request
        for tensor in request.manifest.tensors:
            for size in chunk_sizes(tensor):
                yield transfer.SaveCheckpointRequest(
                    chunks=[transfer.ChunkHeader(size_bytes=size)], data=bytes(size))
        yield transfer.SaveCheckpointRequest(finish=True)
    return stub.SaveCheckpoint(messages(), timeout=30)


def incomplete(module):
    return module.incomplete or any(incomplete(child) for child in module.children)


def check_text_protos(address):
    import grpc
    from google.protobuf import text_format
    from modelstore.v1 import checkpoint_transfer_pb2 as transfer
    from modelstore.v1 import checkpoint_transfer_pb2_grpc as transfer_grpc
    from modelstore.v1 import model_store_pb2 as control
    from modelstore.v1 import model_store_pb2_grpc as control_grpc
    channel = grpc.insecure_channel(address)
    stub = transfer_grpc.CheckpointTransferStub(channel)
    store = control_grpc.ModelStoreStub(channel)
    shown = blocks("textproto")
    problems = [] if len(shown) >= 6 else ["the page shows hardly any text proto"]
    for text in shown:
        request = transfer.SaveCheckpointRequest(parent="models/shown", create_model=True)
        kind = re.match(r"# proto-message: modelstore\.v1\.(\w+)\n", text)
        target = {"ManifestPart": request.manifest,
                  "Checkpoint": request.checkpoint}.get(kind.group(1) if kind else "")
        if target is None:
            problems.append(f"a text proto of no known message:\n{text}")
            continue
        try:
            text_format.Parse(text, target)
            saved = commit(stub, request)
            full = store.GetCheckpoint(control.GetCheckpointRequest(
                name=saved.name, view=control.CHECKPOINT_VIEW_FULL))
        except (text_format.ParseError, grpc.RpcError) as error:
            problems.append(f"{error}\n{text}")
            continue
        if saved.tensor_count != len(request.manifest.tensors):
            problems.append(f"{saved.tensor_count} tensors were committed:\n{text}")
        if incomplete(full.architecture.root):
            problems.append(f"the architecture has incomplete modules:\n{text}")
        values = {s.name: s.value for s in full.sections}
        for section in request.manifest.sections:
            if values.get(section.name) != section.value:
                problems.append(f"section {section.name} comes back changed:\n{text}")
    return problems


def check_steps(address):
    """Sections "Uploads", "Digests" and "Loading" of the page, step by step."""
    import grpc
    import xxhash
    from modelstore.v1 import checkpoint_transfer_pb2 as transfer
    from modelstore.v1 import checkpoint_transfer_pb2_grpc as services
    stub = services.CheckpointTransferStub(grpc.insecure_channel(address))
    data = os.urandom(10_000)
    chunks = [data[i:i + 4096] for i in range(0, len(data), 4096)]
    digests = [xxhash.xxh3_128_digest(chunk) for chunk in chunks]
    create = transfer.CreateUploadRequest(parent="models/steps", create_model=True,
                                          request_id="job-1")
    upload = stub.CreateUpload(create)
    problems = []
    if stub.CreateUpload(create).name != upload.name:
        problems.append("the same request_id gives another upload")

    def missing():
        return list(stub.FindMissingChunks(transfer.FindMissingChunksRequest(
            name=upload.name, digests=b"".join(digests))).missing)

    def stream(indexes, first):
        yield first
        for i in indexes:
            yield transfer.UploadChunksRequest(data=chunks[i], chunks=[
                transfer.ChunkHeader(digest=digests[i], size_bytes=len(chunks[i]))])

    if missing() != [0, 1, 2]:
        problems.append(f"of an empty upload {missing()} are missing")
    # A stream that ends early keeps what it delivered.
    stub.UploadChunks(stream([2], transfer.UploadChunksRequest(upload=upload.name)))
    if missing() != [0, 1]:
        problems.append(f"after chunk 2 {missing()} are missing")
    part = transfer.UploadChunksRequest(upload=upload.name, manifest_complete=True)
    tensor = part.manifest.tensors.add(key="w", dtype="DTYPE_UINT8", shape=[len(data)])
    tensor.pieces.add(chunk_size_bytes=4096, chunk_digests=b"".join(digests))
    stub.UploadChunks(stream(reversed(missing()), part))
    saved = stub.CommitUpload(transfer.CommitUploadRequest(name=upload.name))
    again = stub.CreateUpload(create)
    if again.committed_version != saved.version:
        problems.append(f"the upload tells version {again.committed_version}")

    def load(**fields):
        plan, content = transfer.LoadPlan(), b""
        for response in stub.LoadCheckpoint(
                transfer.LoadCheckpointRequest(name=saved.name, **fields)):
            plan.MergeFrom(response.plan)
            content += response.data
        return plan, content

    plan, content = load()
    if content != data or not plan.complete or plan.total_bytes != len(data):
        problems.append("the load brings other bytes")
    _, rest = load(resume_token=plan.resume_token, omit_plan=True, start_position=5000)
    if rest != data[5000:]:
        problems.append("the resumed load brings other bytes")
    return problems


def check_lists():
    """The paragraphs that list functions and module types."""
    page = read(PAGE)
    paragraphs = [re.findall(r"`(\w+)[^`]*`", p) for p in page.split("\n\n")
                  if re.fullmatch(r"(`[^`]+`, )+`[^`]+`\.\n?", p)]
    functions = re.findall(r'\{"(\w+)", \d+, \w+\}', read(os.path.join(CONTRACT, "forward.cc")))
    table = read(os.path.join(CONTRACT, "table.cc")).split("kTypes[] = {")[1]
    types = re.findall(r'^    \{"(\w+)", k\w+,', table, re.MULTILINE)
    problems = []
    for name, expected in (("functions", functions), ("module types", types)):
        listed = max(paragraphs, key=lambda p: len(set(p) & set(expected)), default=[])
        difference = set(listed) ^ set(expected)
        if len(expected) < 20 or difference:
            problems.append(f"list of {name}: {sorted(difference)} differ from the contract")
    return problems


def main():
    modelstored, protoc, plugin = sys.argv[1:]
    missing = [package for package in PACKAGES if not is_installed(package)]
    if missing:
        print("skipped: no Python package", *missing)
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        generate(protoc, plugin, folder)
        sys.path.insert(0, folder)
        server, address = start(modelstored, folder)
        try:
            problems = check_lists() + check_example(folder, address)
            problems += check_text_protos(address) + check_steps(address)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
