#!/usr/bin/python3
"""Makes the seed models of tests/fuzz/corpus/onnx and tests/data/models (python3-onnx 1.12). Deterministic."""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

rng = np.random.RandomState(7)


def init(name, array):
    return nh.from_array(np.asarray(array), name)


def rand(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def value(name, shape, dtype=T.FLOAT):
    return h.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs, outputs, inits=(), opset=13, ir=7, **graph):
    g = h.make_graph(nodes, "g", inputs, outputs, list(inits), **graph)
    return h.make_model(g, opset_imports=[h.make_opsetid("", opset)], ir_version=ir, producer_name="seed")


def relu():
    return model([h.make_node("Relu", ["x"], ["y"])], [value("x", ["N", 3])], [value("y", ["N", 3])])


def conv_pad_bn():
    nodes = [
        h.make_node("Pad", ["x", "pads"], ["p"], mode="constant"),
        h.make_node("Conv", ["p", "w"], ["c"], name="conv", kernel_shape=[3, 3], strides=[2, 2]),
        h.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], epsilon=1e-3),
        h.make_node("Mul", ["n", "k"], ["z"]),
        h.make_node("Relu", ["z"], ["y"]),
    ]
    inits = [
        init("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)), init("w", rand(4, 3, 3, 3)),
        init("g", rand(4)), init("b", rand(4)), init("m", rand(4)), init("v", abs(rand(4)) + 0.1),
        init("k", rand(4, 1, 1)),
    ]
    return model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 4, 4, 4])], inits)


def transposed_bn():
    nodes = [
        h.make_node("ConvTranspose", ["x", "w", "bias"], ["c"], strides=[2, 2], group=2),
        h.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"]),
    ]
    inits = [init("w", rand(4, 3, 2, 2)), init("bias", rand(6)), init("g", rand(6)), init("b", rand(6)),
             init("m", rand(6)), init("v", abs(rand(6)) + 0.1)]
    return model(nodes, [value("x", ["N", 4, 5, 5])], [value("y", ["N", 6, 10, 10])], inits)


def gemm_arithmetic():
    nodes = [
        h.make_node("Gemm", ["x", "w", "c"], ["a"], alpha=0.5, beta=2.0),
        h.make_node("Sub", ["k", "a"], ["s"]),
        h.make_node("Div", ["s", "d"], ["y"]),
    ]
    inits = [init("w", rand(5, 4)), init("c", rand(4)), init("k", rand(1, 4)), init("d", rand(4) + 2)]
    return model(nodes, [value("x", ["N", 5])], [value("y", ["N", 4])], inits)


def shared_identity():
    """torch shares equal initialisers through Identity nodes."""
    nodes = [
        h.make_node("Identity", ["w"], ["w2"]),
        h.make_node("Conv", ["x", "w"], ["a"], name="c1"),
        h.make_node("Conv", ["a", "w2"], ["b"], name="c2"),
        h.make_node("Add", ["b", "k"], ["t"]),
        h.make_node("Dropout", ["t"], ["u"]),
        h.make_node("Identity", ["u"], ["y"]),
    ]
    return model(nodes, [value("x", ["N", 3, 4, 4])], [value("y", ["N", 3, 4, 4])],
                 [init("w", rand(3, 3, 1, 1)), init("k", rand(1, 3, 1, 1))])


def pool_pad():
    nodes = [
        h.make_node("Constant", [], ["pads"], value=init("", np.array([0, 0, 1, 1, 0, 0, 0, 0], np.int64))),
        h.make_node("Pad", ["x", "pads"], ["p"]),
        h.make_node("AveragePool", ["p"], ["y"], kernel_shape=[2, 2]),
    ]
    return model(nodes, [value("x", [1, 2, 4, 4])], [value("y", [1, 2, 4, 4])])


def shape_subgraph():
    nodes = [
        h.make_node("Shape", ["x"], ["s"]),
        h.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        h.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        h.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        h.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    inits = [init("zero", np.array(0, np.int64)), init("axes", np.array([0], np.int64)),
             init("rest", np.array([-1], np.int64))]
    return model(nodes, [value("x", ["N", 3, 4, 4])], [value("y", ["N", "F"])], inits)


def qdq():
    nodes = [
        h.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        h.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        h.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
        h.make_node("Conv", ["xd", "wd"], ["y"]),
    ]
    inits = [
        init("sx", np.float32(0.02)), init("zx", np.uint8(128)),
        init("w", rng.randint(-127, 128, (4, 3, 1, 1)).astype(np.int8)), init("sw", abs(rand(4)) + 0.01),
        init("zw", np.zeros(4, np.int8)),
    ]
    return model(nodes, [value("x", [1, 3, 4, 4])], [value("y", [1, 4, 4, 4])], inits)


def typed_ir3():
    """IR 3: the initialiser is an input too; elements in typed fields, not raw."""
    w = h.make_tensor("w", T.FLOAT, [3], [1.0, 2.0, 3.0])
    k = h.make_tensor("k", T.INT64, [1], [-1])
    m = model([h.make_node("Mul", ["x", "w"], ["z"], name=""), h.make_node("Reshape", ["z", "k"], ["y"])],
              [value("x", [2, 3]), value("w", [3]), value("k", [1], T.INT64)], [value("y", [6])], [w, k],
              opset=8, ir=3, doc_string="text", value_info=[value("z", [2, 3])])
    h.set_model_props(m, {"author": "nobody", "layers": "2"})
    return m


def attributes():
    n = h.make_node("Relu", ["x"], ["y"], f=0.5, i=-3, s="text", ints=[1, -2, 3], floats=[0.5, 1.5],
                    strings=["a", "b"], t=h.make_tensor("t", T.FLOAT16, [2], np.array([1, 2], np.float16)))
    return model([n], [value("x", [1])], [value("y", [1])])


def resize_crop():
    """Axes, a crop, proportions: attributes that point at dimensions."""
    crop = {"mode": "cubic", "coordinate_transformation_mode": "tf_crop_and_resize", "axes": [3, 2]}
    fit = {"mode": "linear", "antialias": 1, "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    nodes = [
        h.make_node("Resize", ["x", "roi", "", "sizes"], ["a"], extrapolation_value=7.0, **crop),
        h.make_node("Resize", ["a", "", "", "sizes"], ["y"], exclude_outside=1, **fit),
    ]
    inits = [init("roi", np.array([0.1, 0.2, 0.8, 1.2], np.float32)), init("sizes", np.array([3, 5], np.int64))]
    return model(nodes, [value("x", [1, 2, 6, 7])], [value("y", None)], inits, opset=19, ir=9)


def scattered():
    """Indices and shapes that are computed from constants."""
    nodes = [
        h.make_node("CumSum", ["gaps", "axis"], ["places"], reverse=0, exclusive=0),
        h.make_node("ScatterElements", ["zeros", "places", "values"], ["flat"], axis=0, reduction="add"),
        h.make_node("BitShift", ["codes", "two"], ["high"], direction="RIGHT"),
        h.make_node("BitwiseAnd", ["high", "mask"], ["low"]),
        h.make_node("Cast", ["low"], ["index"], to=T.INT64),
        h.make_node("GatherElements", ["flat", "index"], ["picked"], axis=0),
        h.make_node("Tile", ["picked", "twice"], ["row"]),
        h.make_node("TopK", ["row", "k"], ["best", "at"], axis=-1, largest=0),
        h.make_node("Add", ["x", "best"], ["y"]),
    ]
    inits = [
        init("gaps", np.array([1, 2, 3], np.int64)), init("axis", np.array(0, np.int64)),
        init("zeros", np.zeros(8, np.float32)), init("values", rand(3)), init("codes", np.array([4, 9, 31], np.uint8)),
        init("two", np.array([2], np.uint8)), init("mask", np.array([3], np.uint8)),
        init("twice", np.array([2], np.int64)), init("k", np.array([4], np.int64)),
    ]
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], inits, opset=18, ir=8)


def qlinear():
    nodes = [
        h.make_node("QLinearConv", ["x", "s", "z", "w", "ws", "wz", "s", "z", "b"], ["c"], pads=[1, 1, 1, 1]),
        h.make_node("DequantizeLinear", ["c", "s", "z"], ["d"]),
        h.make_node("DepthToSpace", ["d"], ["e"], blocksize=2, mode="CRD"),
        h.make_node("LpPool", ["e"], ["f"], kernel_shape=[2, 2], p=3),
        h.make_node("ReduceMean", ["f"], ["y"], axes=[2, 3], keepdims=0),
    ]
    inits = [
        init("s", np.float32(0.05)), init("z", np.uint8(128)),
        init("w", rng.randint(-9, 9, (4, 3, 3, 3)).astype(np.int8)),
        init("ws", (abs(rand(4)) + 0.1).astype(np.float32)), init("wz", np.zeros(4, np.int8)),
        init("b", np.array([1, -2, 3, -4], np.int32)),
    ]
    return model(nodes, [value("x", ["N", 3, 6, 6], T.UINT8)], [value("y", ["N", 1])], inits)


def half_gemm():
    """A float16 network: y = relu(x w + c), with a Constant of halves and a Cast to half inside."""
    nodes = [
        h.make_node("Gemm", ["x", "w", "c"], ["a"]),
        h.make_node("Constant", [], ["k"], value=nh.from_array(np.full(4, 0.5, np.float16), "")),
        h.make_node("Cast", ["shift"], ["s"], to=T.FLOAT16),
        h.make_node("Mul", ["a", "k"], ["b"]),
        h.make_node("Add", ["b", "s"], ["d"]),
        h.make_node("Relu", ["d"], ["y"]),
    ]
    inits = [init("w", (np.arange(20).reshape(5, 4) / 16 - 0.5).astype(np.float16)),
             init("c", np.array([1, -1, 0.25, 2], np.float16)), init("shift", np.full(4, 0.125, np.float32))]
    return model(nodes, [value("x", ["N", 5], T.FLOAT16)], [value("y", ["N", 4], T.FLOAT16)], inits,
                 value_info=[value("a", ["N", 4], T.FLOAT16)])


def detect():
    """The end of a detector: as many boxes as NonMaxSuppression finds; and what NonZero, Compress, Unique count."""
    nodes = [
        h.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["found"]),
        h.make_node("Gather", ["found", "two"], ["which"], axis=1),
        h.make_node("Squeeze", ["boxes", "zero"], ["all"]),
        h.make_node("Gather", ["all", "which"], ["chosen"], axis=0),
        h.make_node("Greater", ["scores", "least"], ["good"]),
        h.make_node("NonZero", ["good"], ["places"]),
        h.make_node("Reshape", ["good", "flat"], ["mask"]),
        h.make_node("Compress", ["scores", "mask"], ["kept"]),
        h.make_node("Unique", ["kept"], ["values", "first", "of", "times"], sorted=0),
    ]
    inits = [init("most", np.array([3], np.int64)), init("iou", np.array([0.5], np.float32)),
             init("least", np.array([0.1], np.float32)), init("two", np.array(2, np.int64)),
             init("zero", np.array([0], np.int64)), init("flat", np.array([-1], np.int64))]
    outputs = [value("chosen", ["found", 4]), value("places", [3, "n"], T.INT64), value("times", ["u"], T.INT64)]
    return model(nodes, [value("boxes", [1, 4, 4]), value("scores", [1, 2, 4])], outputs, inits)


MODELS = [relu, conv_pad_bn, transposed_bn, gemm_arithmetic, shared_identity, pool_pad, shape_subgraph, qdq,
          typed_ir3, attributes, resize_crop, scattered, qlinear, half_gemm, detect]
IN_TESTS = {conv_pad_bn, transposed_bn, gemm_arithmetic, shared_identity, pool_pad, shape_subgraph, qdq, half_gemm, detect}

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
for make in MODELS:
    data = make().SerializeToString()
    onnx.load_from_string(data)
    folders = ["tests/fuzz/corpus/onnx"] + (["tests/data/models"] if make in IN_TESTS else [])
    for folder in folders:
        (root / folder / (make.__name__ + ".onnx")).write_bytes(data)
