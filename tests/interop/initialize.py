"""New modules as Python's PyTorch makes them after torch.manual_seed().

Prints one JSON object a case: the module's text, the initialization as the API
takes it, the keys of its state dict; writes the tensors' bytes, one case after the
other, to the file named by the argument.
"""
import json
import sys

import torch
from torch.nn import *  # noqa: F403: cases are evaluated as they are typed
from torch.nn import init

# Sizes of several blocks of 131072 elements, and of rests that are no multiple of 16.
DEFAULT = [
    "Linear(4096, 10)", "Linear(1000, 10)", "Linear(3, 2)", "Linear(5, 3, bias=False)",
    "Linear(1237, 333)", "Bilinear(3, 4, 5)", "Bilinear(3, 4, 5, bias=False)",
    "Conv1d(4, 6, 3)", "Conv2d(3, 64, kernel_size=3, padding=1)",
    "Conv2d(8, 8, (3, 5), groups=4, bias=False)", "Conv3d(2, 3, 2)",
    "ConvTranspose1d(4, 6, 3)", "ConvTranspose2d(4, 6, 3, groups=2)",
    "ConvTranspose3d(2, 3, 2)", "BatchNorm1d(7)", "BatchNorm2d(7, affine=False)",
    "BatchNorm3d(4, track_running_stats=False)", "InstanceNorm2d(5, affine=True)",
    "GroupNorm(2, 6)", "LayerNorm((3, 4))", "Embedding(10, 3)", "Embedding(1237, 333)",
    "Embedding(10, 3, padding_idx=-1)", "EmbeddingBag(20, 4, padding_idx=0)",
    "RNN(3, 4, num_layers=2)", "LSTM(10, 20, 2, bidirectional=True)",
    "LSTM(5, 6, proj_size=3)", "GRU(3, 5, bias=False)", "RNNCell(3, 4)",
    "LSTMCell(3, 4)", "GRUCell(3, 4, bias=False)", "MultiheadAttention(16, 4)",
    "MultiheadAttention(12, 3, kdim=5, vdim=7, add_bias_kv=True)",
    "MultiheadAttention(8, 2, bias=False)", "PReLU(3)", "PReLU(init=0.5)", "ReLU()",
    "TransformerEncoderLayer(8, 2, 16)", "TransformerDecoderLayer(8, 2, 16)",
    "TransformerEncoder(TransformerEncoderLayer(8, 2, 16), num_layers=2)",
    "Sequential(Linear(10, 20), ReLU(), BatchNorm1d(20), Linear(20, 3))",
]
# Of the API, what Python does to each parameter, and whether to vectors too.
SCHEMES = [
    ("scheme: SCHEME_ZEROS", init.zeros_, True),
    ("scheme: SCHEME_ONES", init.ones_, True),
    ("scheme: SCHEME_CONSTANT value: 0.1", lambda p: init.constant_(p, 0.1), True),
    ("scheme: SCHEME_NORMAL mean: 0.5 std: 0.02", lambda p: init.normal_(p, 0.5, 0.02), True),
    ("scheme: SCHEME_UNIFORM low: -0.25 high: 2", lambda p: init.uniform_(p, -0.25, 2), True),
    ("scheme: SCHEME_XAVIER_UNIFORM", init.xavier_uniform_, False),
    ("scheme: SCHEME_XAVIER_NORMAL gain: 1.5", lambda p: init.xavier_normal_(p, 1.5), False),
    ("scheme: SCHEME_KAIMING_UNIFORM negative_slope: 0.2",
     lambda p: init.kaiming_uniform_(p, a=0.2), False),
    ("scheme: SCHEME_KAIMING_NORMAL fan_out: true",
     lambda p: init.kaiming_normal_(p, mode="fan_out"), False),
]


def make(text, seed):
    torch.manual_seed(seed)
    return eval(text)


def main():
    cases = []
    for text in DEFAULT:
        for seed in (0, 42, 2**63 + 11):
            cases.append((text, f"seed: {seed}", make(text, seed)))
    for words, fill, vectors in SCHEMES:
        for text in ("Linear(30, 20)", "Conv2d(4, 8, 3)", "LSTM(5, 6)", "Embedding(9, 4)"):
            module = make(text, 7)
            for parameter in module.parameters():
                if vectors or parameter.dim() > 1:
                    fill(parameter)
            cases.append((text, f"{words} seed: 7", module))
    with open(sys.argv[1], "wb") as out:
        for text, words, module in cases:
            state = module.state_dict()
            for tensor in state.values():
                out.write(tensor.detach().contiguous().numpy().tobytes())
            print(json.dumps({"text": text, "how": words, "keys": list(state)}))


main()
