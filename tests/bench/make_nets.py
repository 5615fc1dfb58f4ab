#!/usr/bin/env python3
"""Networks with random weights for the benchmarks: the shapes of well-known ones, batch norm folded (as an
exporter would), opset 13, free batch size.  usage: make_nets.py DIR [NAME ...]

Weights are scaled so that activations keep their size through the depth; only time matters here. vgg16 is too big for
this way: make_vgg16.c writes it in one stream."""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.inits, self.n = [], [], 0

    def name(self, base):
        self.n += 1
        return f"{base}{self.n}"

    def init(self, array, base):
        name = self.name(base)
        self.inits.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op, inputs, **attributes):
        out = self.name(op.lower())
        self.nodes.append(helper.make_node(op, inputs, [out], out, **attributes))
        return out

    def conv(self, x, ic, oc, k, stride=1, group=1, act=None, gain=1.0, pad=None):
        fan_in = ic // group * k * k
        w = self.rng.standard_normal((oc, ic // group, k, k)).astype(np.float32) * np.float32(gain * (2 / fan_in) ** 0.5)
        b = self.rng.standard_normal(oc).astype(np.float32) * np.float32(0.05)
        y = self.node("Conv", [x, self.init(w, "w"), self.init(b, "b")], kernel_shape=[k, k], strides=[stride, stride],
                      pads=[k // 2 if pad is None else pad] * 4, group=group)
        return self.act(y, act)

    def act(self, x, act):
        if act == "relu6":
            return self.node("Clip", [x, self.scalar(0.0), self.scalar(6.0)])
        return self.node("Relu", [x]) if act == "relu" else x

    def scalar(self, v):
        name = f"scalar_{v}"
        if all(i.name != name for i in self.inits):
            self.inits.append(numpy_helper.from_array(np.array(v, np.float32), name))
        return name

    def head(self, x, features, classes):
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        w = self.rng.standard_normal((classes, features)).astype(np.float32) * np.float32(features ** -0.5)
        return self.node("Gemm", [x, self.init(w, "w"), self.init(np.zeros(classes, np.float32), "b")], transB=1)

    def save(self, path, y, shape, classes):
        g = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"] + shape)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", classes])], self.inits)
        m = helper.make_model(g, opset_imports=[helper.make_opsetid("", 13)], producer_name="bonsaid tests")
        m.ir_version = 8
        onnx.checker.check_model(m)
        onnx.save(m, path)


class LowRankNet(Net):
    """Every convolution with 64 inputs and more in two, with a quarter of its multiplications."""

    def conv(self, x, ic, oc, k, stride=1, group=1, act=None, gain=1.0, pad=None):
        if ic < 64 or group != 1:
            return super().conv(x, ic, oc, k, stride, group, act, gain, pad)
        rank = max(8, ic * k * k * oc // (4 * (ic * k * k + oc)))
        x = super().conv(x, ic, rank, k, stride, gain=0.7, pad=pad)
        return super().conv(x, rank, oc, 1, act=act, gain=gain)


def basic_block(n, x, ic, oc, stride):
    y = n.conv(x, ic, oc, 3, stride, act="relu")
    y = n.conv(y, oc, oc, 3, gain=0.3)
    if stride != 1 or ic != oc:
        x = n.conv(x, ic, oc, 1, stride)
    return n.node("Relu", [n.node("Add", [y, x])])


def resnet20(path):
    n = Net(20)
    x = n.conv("x", 3, 16, 3, act="relu")
    c = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for i in range(3):
            x = basic_block(n, x, c, width, stride if i == 0 else 1)
            c = width
    n.save(path, n.head(x, 64, 10), [3, 32, 32], 10)


def resnet18(path):
    n = Net(18)
    x = n.conv("x", 3, 64, 7, 2, act="relu")
    x = n.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for i in range(2):
            x = basic_block(n, x, c, width, stride if i == 0 else 1)
            c = width
    n.save(path, n.head(x, 512, 1000), [3, 224, 224], 1000)


def bottleneck(n, x, ic, width, stride):
    y = n.conv(x, ic, width, 1, act="relu")
    y = n.conv(y, width, width, 3, stride, act="relu")
    y = n.conv(y, width, width * 4, 1, gain=0.3)
    if stride != 1 or ic != width * 4:
        x = n.conv(x, ic, width * 4, 1, stride)
    return n.node("Relu", [n.node("Add", [y, x])])


def resnet50(path, make=Net):
    n = make(50)
    x = n.conv("x", 3, 64, 7, 2, act="relu")
    x = n.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c = 64
    for width, repeat, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(repeat):
            x = bottleneck(n, x, c, width, stride if i == 0 else 1)
            c = width * 4
    n.save(path, n.head(x, 2048, 1000), [3, 224, 224], 1000)


def squeezenet1_1(path):
    n = Net(11)
    x = n.conv("x", 3, 64, 3, 2, act="relu", pad=0)
    c = 64
    for squeeze, expand, has_pool in ((16, 64, True), (16, 64, False), (32, 128, True), (32, 128, False), (48, 192, True),
                                      (48, 192, False), (64, 256, False), (64, 256, False)):
        if has_pool:
            x = n.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
        x = n.conv(x, c, squeeze, 1, act="relu")
        x = n.node("Concat", [n.conv(x, squeeze, expand, 1, act="relu"), n.conv(x, squeeze, expand, 3, act="relu")],
                   axis=1)
        c = 2 * expand
    x = n.conv(x, c, 1000, 1, act="relu")
    n.save(path, n.node("Flatten", [n.node("GlobalAveragePool", [x])]), [3, 224, 224], 1000)


def mobilenet_v2(path):
    n = Net(2)
    x = n.conv("x", 3, 32, 3, 2, act="relu6")
    c = 32
    for expand, width, repeat, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                          (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(repeat):
            s = stride if i == 0 else 1
            y = n.conv(x, c, c * expand, 1, act="relu6") if expand > 1 else x
            y = n.conv(y, c * expand, c * expand, 3, s, group=c * expand, act="relu6")
            y = n.conv(y, c * expand, width, 1, gain=0.5)
            x = n.node("Add", [x, y]) if s == 1 and c == width else y
            c = width
    x = n.conv(x, c, 1280, 1, act="relu6")
    n.save(path, n.head(x, 1280, 1000), [3, 224, 224], 1000)


NETS = {"resnet20": resnet20, "resnet18": resnet18, "resnet50": resnet50, "mobilenet_v2": mobilenet_v2,
        "squeezenet1_1": squeezenet1_1, "resnet50_low_rank": lambda path: resnet50(path, LowRankNet)}

if __name__ == "__main__":
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for name in sys.argv[2:] or NETS:
        path = os.path.join(folder, f"{name}.onnx")
        if not os.path.exists(path):
            NETS[name](path)
