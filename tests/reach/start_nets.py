"""The networks that are compared, written as ONNX files with a random start (He et al. 2015): lenet5 (20-50-500) on
28 x 28 gray, resnet20 (He et al. 2016, section 4.2, shortcuts of kind B) on 32 x 32 colour. Needs python3-onnx."""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Maker:
    """`is_start`: norms are the identity and biases 0; else all are random, for comparing single steps."""

    def __init__(self, seed, is_start=True):
        self.rng, self.is_start = np.random.default_rng(seed), is_start
        self.nodes, self.inits, self.names = [], [], set()

    def init(self, name, array):
        self.inits.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def he(self, name, shape, gain=2.0):
        fan_in = int(np.prod(shape[1:]))
        return self.init(name, self.rng.standard_normal(shape) * (gain / fan_in) ** 0.5)

    def bias(self, name, n):
        return self.init(name, np.zeros(n) if self.is_start else 0.2 * self.rng.standard_normal(n))

    def node(self, op, inputs, name, **attributes):
        assert name not in self.names
        self.names.add(name)
        self.nodes.append(helper.make_node(op, inputs, [name + "_out"], name, **attributes))
        return name + "_out"

    def conv(self, x, name, ic, oc, k, stride=1, pad=0, group=1, dilation=1, bias=False, gain=2.0):
        inputs = [x, self.he(name + ".w", (oc, ic // group, k, k), gain)]
        if bias:
            inputs.append(self.bias(name + ".b", oc))
        return self.node("Conv", inputs, name, kernel_shape=[k, k], strides=[stride] * 2, pads=[pad] * 4, group=group,
                         dilations=[dilation] * 2)

    def norm(self, x, name, c):
        inputs = [self.init(f"{name}.{part}", base + (0 if self.is_start else 0.2 * self.rng.random(c)) + np.zeros(c))
                  for part, base in (("gamma", 1), ("beta", 0), ("mean", 0), ("var", 1))]
        return self.node("BatchNormalization", [x] + inputs, name, epsilon=1e-5)

    def dense(self, x, name, ic, oc, gain=2.0):
        return self.node("Gemm", [x, self.he(name + ".w", (oc, ic), gain), self.bias(name + ".b", oc)], name,
                         transB=1)

    def save(self, path, y, shape, classes):
        g = helper.make_graph(self.nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"] + shape)],
                              [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", classes])], self.inits)
        m = helper.make_model(g, opset_imports=[helper.make_opsetid("", 14)], producer_name="bonsaid tests")
        m.ir_version = 8
        onnx.save(m, path)


def lenet5(path, seed):
    m = Maker(seed)
    x = m.node("Relu", [m.conv("x", "conv1", 1, 20, 5, bias=True)], "relu1")
    x = m.node("MaxPool", [x], "pool1", kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("Relu", [m.conv(x, "conv2", 20, 50, 5, bias=True)], "relu2")
    x = m.node("MaxPool", [x], "pool2", kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("Flatten", [x], "flatten")
    x = m.node("Relu", [m.dense(x, "fc1", 800, 500)], "relu3")
    m.save(path, m.dense(x, "fc2", 500, 10, gain=1.0), [1, 28, 28], 10)


def resnet20(path, seed):
    m = Maker(seed)

    def unit(x, name, ic, oc, k, stride, pad):
        return m.norm(m.conv(x, name, ic, oc, k, stride, pad), name + ".bn", oc)

    x = m.node("Relu", [unit("x", "stem", 3, 16, 3, 1, 1)], "stem.relu")
    ic = 16
    for stage, oc in enumerate((16, 32, 64)):
        for block in range(3):
            name, stride = f"s{stage}.b{block}", 2 if stage and not block else 1
            y = m.node("Relu", [unit(x, name + ".conv1", ic, oc, 3, stride, 1)], name + ".relu1")
            y = unit(y, name + ".conv2", oc, oc, 3, 1, 1)
            if stride != 1:
                x = unit(x, name + ".short", ic, oc, 1, stride, 0)
            x = m.node("Relu", [m.node("Add", [y, x], name + ".add")], name + ".relu2")
            ic = oc
    x = m.node("Flatten", [m.node("GlobalAveragePool", [x], "average")], "flatten")
    m.save(path, m.dense(x, "fc", 64, 10, gain=1.0), [3, 32, 32], 10)
