#!/usr/bin/python3
"""What PyTorch does with state dicts, for strict_test.cc to do alike.

    state_dicts.py strict FOLDER      cases of load_state_dict(strict=False)
    state_dicts.py training FOLDER    state dicts of optimizers and schedulers
    state_dicts.py groups FOLDER      state dicts of optimizers over tied weights and
                                      over two groups, with param_names and without
    state_dicts.py values FOLDER      what else a checkpoint can hold, a value each

Writes FOLDER/cases.txt, a record a line:

    case NAME MODULE                  begins a case, for a module made alike in C++
    metadata JSON                     of the state dict, a modelstore.v1.Value
    tensor KEY DTYPE SHAPE HEX        of the state dict, in order; SHAPE as 2,3
    missing KEY / unexpected KEY      as PyTorch lists them, in its order
    mismatch KEY                      keys whose size differs
    after KEY DTYPE SHAPE HEX         of the module once loaded
    value NAME JSON                   a tree; its tensors follow as tensor NAME:KEY
"""
import base64
import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import pathlib
import random
import re
import sys
import types
import uuid
import warnings

import numpy
import torch
from torch import nn


class Out:
    def __init__(self, folder):
        self.file = open(folder + "/cases.txt", "w")

    def line(self, *words):
        print(*words, file=self.file)

    def tensor(self, word, key, t):
        t = t.detach().contiguous()
        shape = ",".join(map(str, t.shape)) or "-"
        data = t.reshape(-1).view(torch.uint8) if t.numel() else t.new_empty(0)
        self.line(word, key, str(t.dtype).split(".")[1], shape,
                  bytes(data.tolist()).hex() or "-")


def value_json(value, path, tensors):
    """modelstore.v1.Value as protobuf's JSON; tensors are put aside under their path."""
    def below(name):
        return f"{path}/{name}" if path else name

    def values(items, prefix=""):
        return [value_json(v, below(f"{prefix}{i}"), tensors) for i, v in enumerate(items)]

    def entries(items, prefix=None):
        return [{"key": value_json(k, "", {}),
                 "value": value_json(v, below(f"{prefix}/{k}" if prefix else key_element(k)),
                                     tensors)} for k, v in items]

    kind = type(value)
    if isinstance(value, torch.Tensor):
        tensors[path or "~"] = value
        return {"tensorValue": path or "~"}
    if value is None:
        return {"nullValue": "NULL_VALUE"}
    if kind is bool:
        return {"boolValue": value}
    if kind is int:
        return {"intValue" if -2**63 <= value < 2**63 else "bigIntValue": str(value)}
    if kind is float:
        return {"doubleValue": number_json(value)}
    if kind is complex:
        return {"complexValue": {"real": number_json(value.real),
                                 "imag": number_json(value.imag)}}
    if kind is str:
        return {"stringValue": value}
    if kind is bytes:
        return {"bytesValue": base64.b64encode(value).decode()}
    if kind is torch.Size:
        return {"sizeValue": {"sizes": [str(size) for size in value]}}
    if kind is torch.dtype:
        return {"dtypeValue": str(value).split(".")[1]}
    if kind is torch.device:
        return {"deviceValue": str(value)}
    if kind in (list, tuple, set, frozenset):
        return {kind.__name__ + "Value": {"values": values(value)}}
    if kind in (dict, collections.OrderedDict):
        return {"dictValue": {"entries": entries(value.items()),
                              "orderedDict": kind is not dict,
                              "attributes": entries(getattr(value, "__dict__", {}).items(),
                                                    "~attributes")}}
    if kind is torch.layout:
        return {"globalValue": {"module": "torch", "qualifiedName": str(value).split(".")[1]}}
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return {"globalValue": global_json(value)}
    if value is Ellipsis:
        return {"globalValue": {"module": "builtins", "qualifiedName": "Ellipsis"}}

    def made(construction, of, args=(), keywords=(), state=None, items=(), pairs=()):
        # `__setstate__` of a plain object takes a dict, or a pair with the slots.
        attributes = state if isinstance(state, dict) else {}
        out = {"type": global_json(of), "construction": construction,
               "args": values(args, "~args/"),
               "keywords": entries(dict(keywords).items(), "~keywords"),
               "attributes": entries(attributes.items(), "~attributes"),
               "items": values(items or ()), "entries": entries(pairs or ())}
        if state is not None and not isinstance(state, dict):
            out["state"] = value_json(state, below("~state"), tensors)
        return {"objectValue": out}

    if kind is numpy.ndarray:
        key = path or "~"
        tensors[key] = torch.from_numpy(value)
        return {"objectValue": {"type": global_json(kind), "args": [{"tensorValue": key}]}}
    if isinstance(value, numpy.generic):
        return made("CONSTRUCTION_CALL", kind, [value.item()])
    if kind is collections.Counter:
        return made("CONSTRUCTION_CALL", kind, pairs=value.items())
    if kind is collections.deque:
        return made("CONSTRUCTION_CALL", kind, [[], value.maxlen], items=value)
    if isinstance(value, enum.Enum):
        return made("CONSTRUCTION_CALL", kind, [value.value])
    if kind is datetime.datetime:
        return made("CONSTRUCTION_CALL", kind, [*value.timetuple()[:6], value.microsecond])
    if kind is uuid.UUID:
        return made("CONSTRUCTION_CALL", kind, [str(value)])
    function, args, *rest = value.__reduce_ex__(4)
    if function is copyreg.__newobj__:
        return made("CONSTRUCTION_NEW", args[0], args[1:], (), *rest)
    if function is copyreg.__newobj_ex__:
        return made("CONSTRUCTION_NEW", args[0], args[1], args[2], *rest)
    return made("CONSTRUCTION_CALL", function, args, (), *rest)


def number_json(value):
    return value if abs(value) < float("inf") else {"inf": "Infinity", "-inf": "-Infinity"}.get(
        str(value), "NaN")


def global_json(of):
    # numpy 1 has its classes in numpy, its functions elsewhere.
    return {"module": of.__module__, "qualifiedName": of.__qualname__}


def key_element(key):
    text = (key if type(key) is str else repr(key)).replace("~", "~0").replace("/", "~1")
    return text if type(key) in (str, int) else "~:" + text


# Modules that strict_test.cc makes under the same names.

class Child(nn.Module):
    def __init__(self):
        super().__init__()
        self.deep = nn.Linear(2, 2)
        self.register_buffer("table", torch.zeros(2))
        self.w = nn.Parameter(torch.zeros(2))


class Tree(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = Child()
        self.fc = nn.Linear(2, 3)
        self.bn = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(2)
        self.plain = nn.BatchNorm1d(2, affine=False)
        self.untracked = nn.BatchNorm1d(2, track_running_stats=False)
        self.instance = nn.InstanceNorm1d(2, affine=True, track_running_stats=True)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 3)
        self.decoder = self.encoder
        self.embed = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight


def blank(module):
    """Every float 0.25, every integer 0: what was not loaded is seen."""
    for t in module.state_dict(keep_vars=True).values():
        t.data.fill_(0.25 if t.is_floating_point() else 0)
    return module


def stored_of(make, seed):
    torch.manual_seed(seed)
    module = make()
    for t in module.state_dict(keep_vars=True).values():
        t.data.copy_(torch.randint(1, 100, t.shape))
    return module.state_dict()


def without_metadata(state):
    return collections.OrderedDict(state.items())


def write_case(out, name, make, state):
    out.line("case", name, make.__name__)
    if getattr(state, "_metadata", None) is not None:
        out.line("metadata", json.dumps(value_json(dict(state._metadata), "", {})))
    for key, t in state.items():
        out.tensor("tensor", key, t)
    module = blank(make())
    try:
        result = module.load_state_dict(state, strict=False)
        for key in result.missing_keys:
            out.line("missing", key)
        for key in result.unexpected_keys:
            out.line("unexpected", key)
        for key, t in module.state_dict().items():
            out.tensor("after", key, t)
    except RuntimeError as error:
        # Raised with strict=False too, and without the lists.
        for key in re.findall(r"size mismatch for ([^:]+):", str(error)):
            out.line("mismatch", key)


def edited(state, drop=(), add=(), reorder=None):
    metadata = getattr(state, "_metadata", None)
    items = [(k, v) for k, v in state.items() if not any(re.fullmatch(d, k) for d in drop)]
    for place, key in add:
        items.insert(place, (key, torch.ones(1)))
    if reorder is not None:
        reorder.shuffle(items)
    result = collections.OrderedDict(items)
    if metadata is not None:
        result._metadata = metadata
    return result


def strict(out):
    norms, tree, tied = (stored_of(m, 1) for m in (Norms, Tree, Tied))
    counts = [r".*num_batches_tracked"]
    write_case(out, "whole", Tree, tree)
    write_case(out, "norms_with_metadata", Norms, norms)
    write_case(out, "norms_count_absent_metadata_2", Norms, edited(norms, counts))
    write_case(out, "norms_count_absent_no_metadata", Norms,
               edited(without_metadata(norms), counts))
    old = edited(norms, counts)
    old._metadata = {k: {"version": 1} for k in norms._metadata}
    write_case(out, "norms_count_absent_metadata_1", Norms, old)
    part = edited(norms, counts)
    part._metadata = {k: dict(v) for k, v in norms._metadata.items()}
    del part._metadata["bn"]
    part._metadata["instance"] = {}
    write_case(out, "norms_count_absent_metadata_in_part", Norms, part)
    write_case(out, "norms_all_absent_no_metadata", Norms, collections.OrderedDict())
    scalar = edited(tree)
    scalar["scale"] = torch.full((1,), 9.0)
    scalar["steps"] = torch.full((1,), 5)
    write_case(out, "vectors_of_one_into_scalars", Tree, scalar)
    write_case(out, "extra_state_everywhere", Tree, edited(tree, add=[
        (0, "zz"), (1, "fc.zz"), (2, "bn.zz"), (9, "child.zz"), (9, "fc._extra_state"),
        (9, "_extra_state"), (12, "child.deep._extra_state"), (15, "bn._extra_state"),
        (16, "child._extra_state"), (17, "other._extra_state")]))
    write_case(out, "tied_keys_absent", Tied, edited(tied, [r"decoder\..*", r"head\..*"]))
    write_case(out, "the_other_tied_keys_absent", Tied,
               edited(tied, [r"encoder\.weight", r"embed\..*"]))
    write_case(out, "non_persistent_is_not_missed", Tree, tree)
    write_case(out, "non_persistent_is_unexpected", Tree,
               edited(tree, add=[(3, "scratch")]))
    write_case(out, "keys_that_begin_alike", Tree, edited(tree, add=[
        (0, "fc2.weight"), (3, "f.weight"), (5, "child.deeper.w"), (6, "bn.running"),
        (7, "fc..weight"), (8, "child.w2"), (9, ".fc.weight"), (10, "scale2")]))
    narrow = edited(tree, [r"child\.w"], [(0, "zz")])
    narrow["fc.weight"] = torch.ones(4, 2)
    narrow["bn.bias"] = torch.ones(1)
    narrow["child.table"] = torch.ones(())
    write_case(out, "sizes_differ", Tree, narrow)
    for seed in range(60):
        rng = random.Random(seed)
        make = rng.choice([Norms, Tree, Tied])
        state = stored_of(make, seed)
        if rng.random() < 0.5:
            state = without_metadata(state)
        drop = [re.escape(k) for k in state if rng.random() < 0.3]
        words = [name for name, _ in make().named_modules() if name] + ["odd", "z.y"]
        add = [(rng.randrange(8), rng.choice(words) + rng.choice([".new", ".x.y", "_2",
                "._extra_state"]) + ("" if rng.random() < 0.5 else str(i)))
               for i in range(rng.randrange(6))]
        write_case(out, f"random_{seed}", make, edited(state, drop, add, rng))


def training(out):
    """Two steps of every optimizer that LibTorch has, and a third to compare with."""
    torch.manual_seed(3)
    weight, bias = torch.randn(4, 3), torch.randn(4)
    grads = [(torch.randn(4, 3), torch.randn(4)) for _ in range(3)]
    optim = torch.optim
    makers = {
        "SGD": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        "Adam": lambda p: optim.Adam(p, 0.1, amsgrad=True),
        "AdamW": lambda p: optim.AdamW(p, 0.1, betas=(0.8, 0.9)),
        "Adagrad": lambda p: optim.Adagrad(p, 0.1, lr_decay=0.1),
        "RMSprop": lambda p: optim.RMSprop(p, 0.1, momentum=0.5, centered=True),
        "LBFGS": lambda p: optim.LBFGS(p, 0.1, max_iter=1, history_size=3),
    }
    sched = optim.lr_scheduler
    schedulers = {
        "SGD": lambda o: sched.SequentialLR(o, [sched.ConstantLR(o, 0.1, 1),
                                                sched.ExponentialLR(o, 0.9)], [1]),
        "Adam": lambda o: sched.OneCycleLR(o, 0.5, total_steps=10),
        "AdamW": lambda o: sched.CosineAnnealingWarmRestarts(o, 3),
        "Adagrad": lambda o: sched.StepLR(o, 2, 0.5),
        "RMSprop": lambda o: sched.MultiStepLR(o, [1, 5]),
        "LBFGS": lambda o: sched.CosineAnnealingLR(o, 7),
    }
    for name, make in makers.items():
        p = [nn.Parameter(weight.clone()), nn.Parameter(bias.clone())]
        optimizer = make(p)
        scheduler = schedulers[name](optimizer)
        plateau = sched.ReduceLROnPlateau(optimizer, patience=2)

        def step(i):
            for parameter, grad in zip(p, grads[i]):
                parameter.grad = grad.clone()
            optimizer.step(lambda: torch.tensor(1.0))

        for i in (0, 1):
            step(i)
            if name != "Adam":  # OneCycleLR moves betas too, which a step must find
                scheduler.step()
        out.line("case", name, name)
        trees = {"optimizer": optimizer.state_dict(),
                 "scheduler": plain(scheduler.state_dict()),
                 "plateau": plateau.state_dict()}
        for tree_name, tree in trees.items():
            tensors = {}
            text = json.dumps(value_json(tree, "", tensors))
            out.line("value", tree_name, text)
            for key, t in tensors.items():
                out.tensor("tensor", f"{tree_name}:{key}", t)
        for key, t in zip(("weight", "bias"), p):
            out.tensor("tensor", f"model:{key}", t)
        for key, t in zip(("weight", "bias"), grads[2]):
            out.tensor("tensor", f"grad:{key}", t)
        step(2)
        for key, t in zip(("weight", "bias"), p):
            out.tensor("after", key, t)


class TiedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4)
        self.head.weight = self.embed.weight


def groups(out):
    """Two steps of AdamW, and a third to compare with."""
    def tied():
        return TiedHead()

    def two():
        return nn.Sequential(collections.OrderedDict(
            a=nn.Linear(2, 2), b=nn.Linear(2, 2)))

    def one_group(net):
        return [list(net.named_parameters())]

    def weights_and_biases(net):
        return [[(n, p) for n, p in net.named_parameters() if n.endswith(end)]
                for end in ("weight", "bias")]

    for name, make, divide, names in (
            ("tied_named", tied, one_group, True),
            ("tied", tied, one_group, False),
            ("two_named", two, weights_and_biases, True),
            ("two", two, weights_and_biases, False)):
        torch.manual_seed(3)
        net = make()
        divided = divide(net)
        optimizer = torch.optim.AdamW([{"params": [p for _, p in g]} for g in divided], 0.1)

        def step():
            grads = {}
            for key, p in net.named_parameters():
                p.grad = grads[key] = torch.randn(p.shape)
            optimizer.step()
            return grads

        step()
        step()
        state = optimizer.state_dict()
        for group, members in zip(state["param_groups"], divided):
            if names:
                group["param_names"] = [n for n, _ in members]
        out.line("case", name, "AdamW")
        tensors = {}
        text = json.dumps(value_json(state, "", tensors))
        out.line("value", "optimizer", text)
        for key, t in tensors.items():
            out.tensor("tensor", f"optimizer:{key}", t)
        for key, t in net.named_parameters():
            out.tensor("tensor", f"model:{key}", t.clone())
        for key, t in step().items():
            out.tensor("tensor", f"grad:{key}", t)
        for key, t in net.named_parameters():
            out.tensor("after", key, t)


def plain(value):
    """Functions, which no state dict should hold, left out."""
    if type(value) is dict:
        return {k: plain(v) for k, v in value.items() if not callable(v)}
    if type(value) in (list, tuple):
        return type(value)(plain(v) for v in value)
    return value


Point = collections.namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Config:
    lr: float
    net: object


class History(list):
    pass


def objects(out):
    """Every kind of value that the contract has a form for."""
    nested = nn.Sequential(nn.Linear(2, 1)).state_dict()
    history = History([1, torch.ones(2)])
    history.name = "loss"
    default = collections.defaultdict(list)
    default["a"].append(1)
    values = {
        "scalars": [None, True, -1, 2**64, -10**4000, 1.5, -0.0, float("inf"), 1 - 2j, "é", ""],
        "bytes": [b"\0\xff", bytearray(b"ab"), b""],
        "collections": [(), (1,), {1, "a"}, frozenset({(1, 2)}), set(), {}],
        "keys": {0: 1, "0": 2, (0, "a"): torch.ones(1), None: 3, 1.5: 4, b"x": 5, True: 6,
                 frozenset(): 7, torch.float32: 8, Color.RED: 9, nn.Linear: 10},
        "torch": [torch.float32, torch.qint8, torch.device("cuda:1"), torch.Size([2, 3]),
                  torch.strided, nn.Parameter(torch.ones(2)), torch.nn.functional.relu],
        "state_dict_in_a_dict": {"net": nested},
        "dicts": [default, collections.Counter([30, 80, 80]), collections.OrderedDict(a=1)],
        "numpy": {"a": numpy.ones((2, 3), dtype="float32"), "i": numpy.arange(3),
                  "s": numpy.float64(0.1), "b": numpy.bool_(True), "t": numpy.str_("x")},
        "objects": [Point(1, 2), Color.RED, Config(0.1, nested), types.SimpleNamespace(a=1),
                    history, collections.deque([1, 2], 3), functools.partial(max, 1, key=abs)],
        "standard": [range(1, 9, 2), slice(None, 3), Ellipsis, pathlib.PosixPath("/a/b"),
                     decimal.Decimal("1.50"), datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
                     datetime.timedelta(days=1), uuid.UUID(int=7)],
        "tensor": torch.ones(2, 2),
    }
    for name, value in values.items():
        out.line("case", name, "-")
        tensors = {}
        out.line("value", name, json.dumps(value_json(value, "", tensors)))
        for key, t in tensors.items():
            out.tensor("tensor", f"{name}:{key}", t)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
    {"strict": strict, "training": training, "groups": groups,
     "values": objects}[sys.argv[1]](Out(sys.argv[2]))
