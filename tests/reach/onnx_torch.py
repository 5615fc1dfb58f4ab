"""An ONNX file as a torch module: each node by the PyTorch function of the same meaning, each float initialiser a
parameter or, for batch norm's running statistics, a buffer. Only operators that the nets of these tests hold; anything
else is an error. Needs python3-onnx and python3-torch."""
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

BN_KEEPS = 0.9  # of the running statistics at each step: torch calls 1 - this its momentum


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def symmetric(pads):
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise ValueError(f"pads {pads} differ before and behind")
    return pads[:half]


def conv(net, node, x, w, b=None):
    a = attributes(node)
    return F.conv2d(x, w, b, a.get("strides", [1, 1]), symmetric(a.get("pads", [0] * 4)), a.get("dilations", [1, 1]),
                    a.get("group", 1))


def conv_transpose(net, node, x, w, b=None):
    a = attributes(node)
    return F.conv_transpose2d(x, w, b, a.get("strides", [1, 1]), symmetric(a.get("pads", [0] * 4)),
                              a.get("output_padding", [0, 0]), a.get("group", 1), a.get("dilations", [1, 1]))


def batch_norm(net, node, x, scale, bias, mean, var):
    return F.batch_norm(x, mean, var, scale, bias, net.training, 1 - BN_KEEPS, attributes(node).get("epsilon", 1e-5))


def max_pool(net, node, x):
    a = attributes(node)
    return F.max_pool2d(x, a["kernel_shape"], a.get("strides", [1, 1]), symmetric(a.get("pads", [0] * 4)))


def average_pool(net, node, x):
    a = attributes(node)
    return F.avg_pool2d(x, a["kernel_shape"], a.get("strides", [1, 1]), symmetric(a.get("pads", [0] * 4)),
                        count_include_pad=bool(a.get("count_include_pad", 0)))


def gemm(net, node, a, b, c=None):
    k = attributes(node)
    if k.get("alpha", 1) != 1 or k.get("beta", 1) != 1 or k.get("transA", 0):
        raise ValueError("a Gemm with alpha, beta or transA")
    return F.linear(a, b if k.get("transB", 0) else b.t(), c)


def resize(net, node, x, roi, scales):
    a = attributes(node)
    mode, where = a.get("mode", b"nearest"), a.get("coordinate_transformation_mode", b"half_pixel")
    scale = [float(s) for s in scales[2:]]
    if mode == b"nearest" and where == b"asymmetric" and a.get("nearest_mode") == b"floor":
        return F.interpolate(x, scale_factor=scale, mode="nearest")
    if mode == b"linear" and where in (b"half_pixel", b"pytorch_half_pixel"):
        return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    raise ValueError(f"a Resize of mode {mode}, {where}")


def one_axis(node):
    return attributes(node).get("axis", 1)


OPERATORS = {
    "Add": lambda net, node, a, b: a + b,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Concat": lambda net, node, *x: torch.cat(x, one_axis(node)),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Flatten": lambda net, node, x: torch.flatten(x, one_axis(node)),
    "Gemm": gemm,
    "GlobalAveragePool": lambda net, node, x: F.adaptive_avg_pool2d(x, 1),
    "HardSigmoid": lambda net, node, x: F.hardsigmoid(x),  # alpha 1/6, beta 0.5: see check()
    "HardSwish": lambda net, node, x: F.hardswish(x),
    "Identity": lambda net, node, x: x,
    "MaxPool": max_pool,
    "Mul": lambda net, node, a, b: a * b,
    "Relu": lambda net, node, x: F.relu(x),
    "Resize": resize,
    "Sigmoid": lambda net, node, x: torch.sigmoid(x),
    "Tanh": lambda net, node, x: torch.tanh(x),
}


def check(node):
    if node.op_type not in OPERATORS:
        raise ValueError(f"node {node.name}: no torch function stands for {node.op_type}")
    if node.op_type == "HardSigmoid":
        a = attributes(node)
        if abs(a.get("alpha", 0.2) - 1 / 6) > 1e-6 or a.get("beta", 0.5) != 0.5:
            raise ValueError("a HardSigmoid that is not torch's")


class OnnxNet(torch.nn.Module):
    """`tensors` maps the file's names to parameters and buffers."""

    def __init__(self, path):
        super().__init__()
        self.graph = onnx.load(path).graph
        self.tensors, self.constants = {}, {}
        stats = {name for n in self.graph.node if n.op_type == "BatchNormalization" for name in n.input[3:5]}
        fixed = {name for n in self.graph.node if n.op_type == "Resize" for name in n.input[1:]}
        for node in self.graph.node:
            check(node)
        for i, init in enumerate(self.graph.initializer):
            value = torch.from_numpy(np.array(numpy_helper.to_array(init)))
            if init.name in fixed:
                self.constants[init.name] = value
            elif init.name in stats:
                self.register_buffer(f"b{i}", value)
                self.tensors[init.name] = f"b{i}"
            else:
                self.register_parameter(f"p{i}", torch.nn.Parameter(value))
                self.tensors[init.name] = f"p{i}"

    def tensor(self, name):
        return getattr(self, self.tensors[name])

    def parameter_groups(self, weight_decay):
        """Weights decay, biases and norms do not."""
        weights = [p for p in self.parameters() if p.dim() > 1]
        others = [p for p in self.parameters() if p.dim() <= 1]
        return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0}]

    def forward(self, x):
        known = {"": None, self.graph.input[0].name: x, **self.constants}
        for node in self.graph.node:
            inputs = [known[i] if i in known else self.tensor(i) for i in node.input]
            known[node.output[0]] = OPERATORS[node.op_type](self, node, *inputs)
        return known[self.graph.output[0].name]
