"""Casts between floating-point types as Python's PyTorch does them.

Writes, for each pair of types, the bits that go in and those that come out, one after
the other, to the file named by the argument; prints one JSON object a pair.
"""
import json
import sys

import numpy
import torch

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16,
         "float32": torch.float32, "float64": torch.float64}
SAMPLES = 1 << 18


def sixteen():
    return numpy.arange(1 << 16, dtype=numpy.uint16)


def thirty_two(random):
    nans = numpy.uint32(0x7F800000) | numpy.arange(1, 1 << 23, 509, dtype=numpy.uint32)
    any_bits = random.integers(0, 1 << 32, SAMPLES, dtype=numpy.uint32)
    return numpy.concatenate([nans, nans | numpy.uint32(1 << 31), any_bits])


def sixty_four(random):
    nans = (numpy.uint64(0x7FF0000000000000)
            | random.integers(1, 1 << 52, 1 << 14, dtype=numpy.uint64))
    any_bits = random.integers(0, 1 << 64, SAMPLES, dtype=numpy.uint64)
    # Of random bits few are within float16's range.
    near = random.standard_normal(SAMPLES).astype(numpy.float64) * 2.0 ** random.integers(
        -30, 20, SAMPLES)
    return numpy.concatenate([nans, nans | numpy.uint64(1 << 63), any_bits,
                              near.view(numpy.uint64)])


def inputs(name, random):
    if name in ("float16", "bfloat16"):
        bits = sixteen()
    elif name == "float32":
        bits = thirty_two(random)
    else:
        bits = sixty_four(random)
    # PyTorch's vectors leave the last count % 16 elements to other code.
    bits = bits[:len(bits) // 16 * 16]
    signed = bits.view(numpy.dtype(f"i{bits.itemsize}"))
    return torch.from_numpy(signed.copy()).view(TYPES[name])


def raw(tensor):
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[
        tensor.element_size()]).numpy().tobytes()


def main():
    torch.set_num_threads(1)
    random = numpy.random.default_rng(1)
    with open(sys.argv[1], "wb") as out:
        for source in TYPES:
            tensor = inputs(source, random)
            for target in TYPES:
                out.write(raw(tensor))
                out.write(raw(tensor.to(TYPES[target])))
                print(json.dumps({"from": source, "to": target,
                                  "count": tensor.numel()}))


main()
