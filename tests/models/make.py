"""Makes the classifiers that go wrong on purpose, for the fault tests: `python make.py` (needs `onnx`).

Each has one input of 1 x 3 x 8 x 8 samples in 0..1 and gives the scores `fine` and `bad`. What a model does
follows from the mean brightness m of the picture, so that a test chooses it by the picture it sends, and so
that the grey picture every classifier is tried with at start (m = 0.5) is judged by all of them.
"""
import hashlib
import pathlib

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

HERE = pathlib.Path(__file__).parent
F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def constant(name, value, dtype):
    return numpy_helper.from_array(np.array(value, dtype=dtype), name)


def f32(name, value):
    return constant(name, value, np.float32)


def i64(name, value):
    return constant(name, value, np.int64)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


MEAN = [node("ReduceMean", ["samples"], ["m"], keepdims=0)]


def scores(p):
    """[1 - p, p] of the scalar `p`."""
    return [
        node("Sub", ["one", p], ["fine"]),
        node("Unsqueeze", ["fine", "axis"], ["fine1"]),
        node("Unsqueeze", [p, "axis"], ["bad1"]),
        node("Concat", ["fine1", "bad1"], ["flat"], axis=0),
        node("Unsqueeze", ["flat", "axis"], ["scores"]),
    ]


def share_above(floor, factor):
    """max(0, m - floor) * factor, as an integer `count`."""
    nodes = [
        node("Sub", ["m", "floor"], ["over"]),
        node("Relu", ["over"], ["some"]),
        node("Mul", ["some", "factor"], ["many"]),
        node("Cast", ["many"], ["count"], to=I),
    ]
    return nodes, [f32("floor", floor), f32("factor", factor)]


def steady():
    """bad = m / 2, at once."""
    return MEAN + [node("Mul", ["m", "half"], ["p"])] + scores("p"), [f32("half", 0.5)]


def not_a_number():
    """bad = 0.1, and NaN where m > 0.9: the logarithm of a negative number."""
    nodes = [
        node("Sub", ["limit", "m"], ["left"]),
        node("Log", ["left"], ["log"]),
        node("Mul", ["log", "zero"], ["nothing"]),
        node("Add", ["nothing", "tenth"], ["p"]),
    ]
    return MEAN + nodes + scores("p"), [f32("limit", 0.9), f32("zero", 0), f32("tenth", 0.1)]


def failing():
    """bad = 0.1, and an error of the runtime where m > 0.9: an index past the end."""
    more, weights = share_above(0.9, 1000)
    nodes = MEAN + more + [node("Gather", ["only", "count"], ["p"], axis=0)]
    return nodes + scores("p"), weights + [f32("only", [0.1])]


def slow():
    """bad = 0.1 after a loop that grows with m above 0.6 and never ends above 0.95; told to, it ends."""
    body = helper.make_graph(
        [node("MatMul", ["state", "turn"], ["next"]), node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", I, []),
            helper.make_tensor_value_info("go", B, []),
            helper.make_tensor_value_info("state", F, [32, 32]),
        ],
        [
            helper.make_tensor_value_info("on", B, []),
            helper.make_tensor_value_info("next", F, [32, 32]),
        ],
    )
    more, weights = share_above(0.6, 400_000)
    nodes = MEAN + more + [
        node("Greater", ["m", "endless"], ["hang"]),
        node("Where", ["hang", "forever", "count"], ["turns"]),
        # A turn by no angle: the state stays what it is, whatever the count.
        node("EyeLike", ["square"], ["turn"], dtype=F),
        node("EyeLike", ["square"], ["begin"], dtype=F),
        node("Loop", ["turns", "yes", "begin"], ["end"], body=body),
        node("ReduceMax", ["end"], ["top"], keepdims=0),
        node("Mul", ["top", "tenth"], ["p"]),
    ]
    weights += [
        f32("endless", 0.95),
        i64("forever", 2**60),
        constant("yes", True, np.bool_),
        f32("square", np.zeros((32, 32))),
        f32("tenth", 0.1),
    ]
    return nodes + scores("p"), weights


def deaf():
    """bad = 0.1; above m = 0.9 one node that works for many seconds and can't be told to end: non-maximum
    suppression over boxes none of which touch, so that each is compared with all before it."""
    more, weights = share_above(0.9, 1_200_000)
    nodes = MEAN + more + [
        node("Add", ["count", "two"], ["boxes"]),
        node("Range", ["none", "boxes", "step"], ["at"]),
        node("Cast", ["at"], ["x"], to=F),
        node("Mul", ["x", "apart"], ["left"]),
        node("Add", ["left", "wide"], ["right"]),
        node("Mul", ["x", "zero"], ["low"]),
        node("Add", ["low", "wide"], ["high"]),
        node("Unsqueeze", ["left", "last"], ["x0"]),
        node("Unsqueeze", ["right", "last"], ["x1"]),
        node("Unsqueeze", ["low", "last"], ["y0"]),
        node("Unsqueeze", ["high", "last"], ["y1"]),
        node("Concat", ["y0", "x0", "y1", "x1"], ["corners"], axis=1),
        node("Unsqueeze", ["corners", "axis"], ["batch"]),
        node("Unsqueeze", ["high", "axis"], ["weight"]),
        node("Unsqueeze", ["weight", "axis"], ["weights"]),
        node("NonMaxSuppression", ["batch", "weights", "boxes", "overlap"], ["chosen"]),
        node("ReduceMin", ["chosen"], ["least"], keepdims=0),
        node("Cast", ["least"], ["nil"], to=F),
        node("Mul", ["nil", "zero"], ["nothing"]),
        node("Add", ["nothing", "tenth"], ["p"]),
    ]
    weights += [
        i64("two", 2), i64("none", 0), i64("step", 1), f32("apart", 3), f32("wide", 1), f32("zero", 0),
        f32("overlap", [0.5]), f32("tenth", 0.1), i64("last", [1]),
    ]
    return nodes + scores("p"), weights


MANIFEST = """# {what}
kind: classifier
name: {name}
license: Apache-2.0
source: tests/models/make.py
model:
  file: {name}.onnx
  sha256: {sha256}
input:
  layout: nchw
  channels: rgb
  width: 8
  height: 8
  fit: squash
  scale: 0.00392156862745098   # to 0..1
  mean: [0, 0, 0]
  std: [1, 1, 1]
output:
  activation: none
  labels: [fine, bad]
# Ids without a meaning of their own: the tests write the policies.
policies:
  alpha: [bad]
  beta: [bad]
  gamma: [bad]
"""

for model in [steady, not_a_number, failing, slow, deaf]:
    name = model.__name__.replace("_", "-")
    nodes, weights = model()
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("samples", F, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", F, [1, 2])],
        weights + [f32("one", 1), i64("axis", [0])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(made, full_check=True)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save(made, folder / f"{name}.onnx")
    sha256 = hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest()
    what = " ".join(model.__doc__.split())
    (folder / "judge.yaml").write_text(MANIFEST.format(what=what, name=name, sha256=sha256))
