#!/usr/bin/python3
"""The peer of ./tests/bench: torch.save and torch.load in a running process.

Reads one command a line on stdin, answers one JSON object a line on stdout.
Times only the call itself, with the same monotonic clock as the driver.

  build SIZES...      a state dict of float32 tensors with so many elements each
  save PATH           torch.save                           -> seconds
  save_fsync PATH     torch.save, then fsync of the file   -> seconds
  load PATH           torch.load + load_state_dict         -> seconds
  load_fresh PATH     torch.load                           -> seconds
  cast OUT IN         torch.load, every tensor to bfloat16, torch.save, fsync
                                                           -> seconds
  average OUT IN...   torch.load of each, sums in float64 rounded once,
                      torch.save, fsync                    -> seconds
  quit
"""
import json
import os
import sys
import time

import torch


class Peer:
    def __init__(self):
        self.module = torch.nn.Module()

    def build(self, *sizes):
        generator = torch.Generator().manual_seed(1)
        for i, size in enumerate(sizes):
            data = torch.randn(int(size), generator=generator)
            self.module.register_parameter(
                f"t{i}", torch.nn.Parameter(data, requires_grad=False))
        total = sum(p.numel() * 4 for p in self.module.parameters())
        return {"bytes": total, "torch": torch.__version__,
                "python": sys.version.split()[0], "threads": torch.get_num_threads()}

    def save(self, path, sync=False):
        state = self.module.state_dict()
        if os.path.exists(path):
            os.unlink(path)
        start = time.monotonic()
        with open(path, "wb") as f:
            torch.save(state, f)
            if sync:
                f.flush()
                os.fsync(f.fileno())
        return {"seconds": time.monotonic() - start}

    def save_fsync(self, path):
        return self.save(path, sync=True)

    def write(self, state, path):
        with open(path, "wb") as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())

    def cast(self, out, path):
        if os.path.exists(out):
            os.unlink(out)
        start = time.monotonic()
        state = torch.load(path)
        self.write({k: v.to(torch.bfloat16) for k, v in state.items()}, out)
        return {"seconds": time.monotonic() - start}

    def average(self, out, *paths):
        if os.path.exists(out):
            os.unlink(out)
        start = time.monotonic()
        states = [torch.load(path) for path in paths]
        share = 1.0 / len(states)
        averaged = {}
        for key, first in states[0].items():
            total = first.double().mul_(share)
            for state in states[1:]:
                total.add_(state[key], alpha=share)
            averaged[key] = total.to(first.dtype)
        self.write(averaged, out)
        return {"seconds": time.monotonic() - start}

    def load(self, path):
        start = time.monotonic()
        state = torch.load(path)
        self.module.load_state_dict(state)
        seconds = time.monotonic() - start
        return {"seconds": seconds}

    def load_fresh(self, path):
        start = time.monotonic()
        state = torch.load(path)
        seconds = time.monotonic() - start
        return {"seconds": seconds, "tensors": len(state)}


def main():
    peer = Peer()
    for line in sys.stdin:
        command, *args = line.split()
        if command == "quit":
            return
        try:
            answer = getattr(peer, command)(*args)
        except Exception as error:  # told to the driver, which ends the run
            answer = {"error": f"{command}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
