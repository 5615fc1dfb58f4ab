#!/usr/bin/env python3
"""What PyTorch makes of single training steps:  make_train_goldens.py DIR   (DIR: tests/data/train)

Small networks as ONNX files; for each PyTorch's loss, gradients of all parameters and running statistics after one
minibatch, and for the optimisers the weights after five. In double precision, so that all difference is ours.
cases.json tells what lies where in NAME.f32 (little-endian floats, one tensor after the other). Needs python3-torch,
-onnx, -numpy; only to make them anew."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reach"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from onnx_torch import OnnxNet  # noqa: E402
from start_nets import Maker  # noqa: E402

BATCH, CLASSES, N_STEPS = 8, 5, 5


def residual(m):
    x = m.node("Relu", [m.norm(m.conv("x", "conv1", 3, 6, 3, pad=1), "bn1", 6)], "relu1")
    x = m.node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = m.node("Relu", [m.norm(m.conv(x, "conv2", 6, 8, 3, stride=2, pad=1), "bn2", 8)], "relu2")
    y = m.norm(m.conv(y, "conv3", 8, 8, 3, pad=1), "bn3", 8)
    x = m.norm(m.conv(x, "short", 6, 8, 1, stride=2), "bn4", 8)
    x = m.node("Relu", [m.node("Add", [y, x], "add")], "relu3")
    x = m.node("Flatten", [m.node("GlobalAveragePool", [x], "average")], "flatten")
    return m.dense(x, "fc", 8, CLASSES), [3, 9, 8]


def mobile(m):
    """Depthwise, hard swish, squeeze and excite (MobileNetV3)."""
    x = m.node("HardSwish", [m.norm(m.conv("x", "expand", 3, 12, 1), "bn1", 12)], "swish1")
    x = m.norm(m.conv(x, "depthwise", 12, 12, 3, stride=2, pad=1, group=12), "bn2", 12)
    s = m.node("GlobalAveragePool", [x], "squeeze")
    s = m.node("Relu", [m.conv(s, "reduce", 12, 4, 1, bias=True)], "relu")
    s = m.node("HardSigmoid", [m.conv(s, "excite", 4, 12, 1, bias=True)], "gate", alpha=1 / 6, beta=0.5)
    x = m.node("HardSwish", [m.node("Mul", [x, s], "scale")], "swish2")
    x = m.norm(m.conv(x, "project", 12, 6, 1), "bn3", 6)
    x = m.node("Flatten", [m.node("GlobalAveragePool", [x], "average")], "flatten")
    return m.dense(x, "fc", 6, CLASSES), [3, 8, 8]


def lenet(m):
    x = m.node("MaxPool", [m.node("Relu", [m.conv("x", "conv1", 1, 4, 5, bias=True)], "relu1")], "pool1",
               kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("MaxPool", [m.node("Relu", [m.conv(x, "conv2", 4, 6, 3, bias=True)], "relu2")], "pool2",
               kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("Relu", [m.dense(m.node("Flatten", [x], "flatten"), "fc1", 6, 16)], "relu3")
    return m.dense(x, "fc2", 16, CLASSES), [1, 12, 12]


def grouped(m):
    """Dilation, groups, two branches."""
    x = m.node("Tanh", [m.conv("x", "dilated", 4, 6, 3, pad=2, dilation=2, bias=True)], "tanh")
    y = m.node("Relu", [m.norm(m.conv(x, "grouped", 6, 8, 3, pad=1, group=2), "bn1", 8)], "relu1")
    z = m.node("Sigmoid", [m.conv(x, "narrow", 6, 4, 1, bias=True)], "sigmoid")
    x = m.node("AveragePool", [m.node("Concat", [y, z], "concat", axis=1)], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = m.conv(x, "both", 12, 6, 3, group=3, bias=True)
    return m.dense(m.node("Flatten", [x], "flatten"), "fc", 6, CLASSES), [4, 6, 6]


def up(m, x, name, ic, oc):
    w = m.he(name + ".w", (ic, oc, 3, 3))
    return m.node("ConvTranspose", [x, w, m.bias(name + ".b", oc)], name, kernel_shape=[3, 3], strides=[2, 2],
                  pads=[1] * 4, output_padding=[1, 1])


def transposed(m):
    x = m.node("Relu", [m.norm(m.conv("x", "conv1", 2, 6, 3, stride=2, pad=1), "bn1", 6)], "relu1")
    y = m.node("Relu", [up(m, x, "up", 6, 4)], "relu2")
    y = m.node("Add", [y, m.conv("x", "lateral", 2, 4, 1, bias=True)], "add")
    x = m.node("Flatten", [m.node("GlobalAveragePool", [y], "average")], "flatten")
    return m.dense(x, "fc", 4, CLASSES), [2, 6, 8]


def resized(m, mode, extra):
    x = m.node("Relu", [m.norm(m.conv("x", "conv1", 2, 6, 3, stride=2, pad=1), "bn1", 6)], "relu1")
    scales = m.init("scales", [1, 1, 2, 2])
    y = m.node("Resize", [x, "", scales], "resize", mode=mode, **extra)
    y = m.conv(m.node("Concat", [y, "x"], "concat", axis=1), "conv2", 8, 4, 3, pad=1, bias=True)
    x = m.node("Flatten", [m.node("GlobalAveragePool", [m.node("Relu", [y], "relu2")], "average")], "flatten")
    return m.dense(x, "fc", 4, CLASSES), [2, 6, 8]


def nearest(m):
    return resized(m, "nearest", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})


def bilinear(m):
    return resized(m, "linear", {"coordinate_transformation_mode": "half_pixel"})


def loss_of(loss, out, y):
    """Means over the minibatch of what engine/train/loss.h calls the loss of a sample."""
    t = loss.get("temperature", 1)
    return {
        "cross_entropy": lambda: F.cross_entropy(out, y, label_smoothing=loss.get("smoothing", 0)),
        "bce": lambda: F.binary_cross_entropy_with_logits(out, y, reduction="sum") / BATCH,
        "kl": lambda: F.kl_div(F.log_softmax(out / t, 1), F.softmax(y / t, 1), reduction="batchmean") * t * t,
        "l2": lambda: 0.5 * F.mse_loss(out, y, reduction="sum") / BATCH,
    }[loss["kind"]]()


def targets_of(kind, rng):
    if kind == "cross_entropy":
        return np.eye(CLASSES)[rng.permutation(BATCH) % CLASSES]
    if kind == "bce":
        return rng.integers(0, 2, (BATCH, CLASSES)).astype(float)
    return rng.standard_normal((BATCH, CLASSES))


class Case:
    def __init__(self, folder, name, net, loss, seed):
        self.folder, self.name, self.loss = folder, name, loss
        self.rng = np.random.default_rng(1000 + seed)
        m = Maker(seed, is_start=False)
        out, self.item = net(m)
        self.onnx = f"{net.__name__}.onnx"
        m.save(os.path.join(folder, self.onnx), out, self.item, CLASSES)
        self.tensors, self.parts = [], []
        self.x = self.keep("input", self.rng.standard_normal([BATCH] + self.item))
        self.y = self.keep("targets", targets_of(loss["kind"], self.rng))
        self.net = OnnxNet(os.path.join(folder, self.onnx)).double()

    def keep(self, what, value, name=""):
        """Records floats, and gives them back as doubles."""
        value = np.asarray(value, np.float32)
        self.tensors.append({"what": what, "name": name, "n": value.size})
        self.parts.append(value.tobytes())
        return torch.from_numpy(value.astype(np.float64))

    def step(self):
        loss = loss_of(self.loss, self.net(self.x), self.y)
        loss.backward()
        return float(loss.detach())

    def save(self, **more):
        with open(os.path.join(self.folder, self.name + ".f32"), "wb") as f:
            f.write(b"".join(self.parts))
        return {"name": self.name, "net": self.onnx, "item": self.item, "loss": self.loss, **more,
                "tensors": self.tensors}


def gradients(case):
    loss = case.step()
    for name, kept in case.net.tensors.items():
        value = getattr(case.net, kept)
        is_stat = not isinstance(value, torch.nn.Parameter)
        case.keep("statistic" if is_stat else "gradient", (value if is_stat else value.grad).detach().numpy(), name)
    return case.save(losses=[loss])


def optimiser(case, kind, rate, clip, make):
    """`rate["torch"]` makes a scheduler, that of the name for N_STEPS steps, of the optimiser."""
    o = make(case.net.parameter_groups(0.01))
    scheduler, losses = rate["torch"](o), []
    for _ in range(N_STEPS):
        o.zero_grad()
        losses.append(case.step())
        if clip:
            torch.nn.utils.clip_grad_norm_(case.net.parameters(), clip)
        o.step()
        scheduler.step()
    for name, kept in case.net.tensors.items():
        case.keep("after", getattr(case.net, kept).detach().numpy(), name)
    return case.save(losses=losses, optimizer=kind, weight_decay=0.01, clip=clip, lr=o.defaults["lr"],
                     schedule=rate["name"], nesterov=o.defaults.get("nesterov", False))


def main():
    folder = sys.argv[1]
    torch.set_num_threads(1)
    soft = {"kind": "cross_entropy", "smoothing": 0.1}
    cases = [gradients(Case(folder, net.__name__, net, loss, i)) for i, (net, loss) in enumerate([
        (residual, {"kind": "cross_entropy"}), (mobile, soft), (lenet, {"kind": "bce"}),
        (grouped, {"kind": "kl", "temperature": 2}), (transposed, {"kind": "l2"}), (nearest, soft), (bilinear, soft)])]
    cosine = {"name": "cosine", "torch": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, N_STEPS)}
    steps = {"name": "step", "torch": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 4])}
    constant = {"name": "constant", "torch": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1)}
    cases += [
        optimiser(Case(folder, name, net, soft, seed), kind, rate, clip, make)
        for name, net, seed, kind, rate, clip, make in [
            ("sgd_nesterov", residual, 0, "sgd", cosine, 0.5,
             lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
            ("sgd_plain", lenet, 2, "sgd", constant, 0, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
            ("adam", residual, 0, "adam", steps, 0, lambda p: torch.optim.Adam(p, lr=0.01)),
            ("adamw", residual, 0, "adamw", cosine, 0.5, lambda p: torch.optim.AdamW(p, lr=0.01)),
        ]]
    with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
        json.dump({"batch": BATCH, "classes": CLASSES, "cases": cases}, f, separators=(",", ":"))
        f.write("\n")


main()
