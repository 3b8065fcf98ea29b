"""Seconds of torch.load(map_location="cuda") of GIB gibibytes, warm; 0 without a GPU.

    torch_load.py GIB FOLDER
"""
import os
import statistics
import sys
import time

import torch

gib, folder = float(sys.argv[1]), sys.argv[2]
if not torch.cuda.is_available():
    print(0)
    sys.exit()
path = os.path.join(folder, "peer.pth")
tensors = {f"t{i}": torch.randn(4 << 20) for i in range(max(1, int(gib * 64)))}
torch.save(tensors, path)
del tensors
seconds = []
for _ in range(6):
    begin = time.perf_counter()
    loaded = torch.load(path, map_location="cuda")
    torch.cuda.synchronize()
    seconds.append(time.perf_counter() - begin)
    del loaded
os.remove(path)
print(statistics.median(seconds[1:]))
