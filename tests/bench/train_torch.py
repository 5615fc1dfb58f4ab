#!/usr/bin/env python3
"""The other side of the training benchmark: PyTorch trains the same network on demand and says how long it took.

  python3 train_torch.py export NET FILE.onnx           the network, batch norm kept, for train_bench
  python3 train_torch.py MODE NET BATCH THREADS         MODE: default, tuned (channels last), bf16 (tuned, autocast)

Speaks the protocol of float_latency.c: "ready", then for every line "N" runs N steps (one more when N > 1) and prints
the median of a step in microseconds. A step is forward, cross entropy, backward and SGD with momentum and weight decay
on a minibatch that lies ready. The allocator is tuned by the environment (run.sh)."""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Basic block of He et al. 2016 with a projection where the shape changes."""

    def __init__(self, ic, oc, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(ic, oc, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(oc)
        self.conv2 = nn.Conv2d(oc, oc, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(oc)
        self.skip = None
        if stride != 1 or ic != oc:
            self.skip = nn.Sequential(nn.Conv2d(ic, oc, 1, stride, bias=False), nn.BatchNorm2d(oc))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(y + (x if self.skip is None else self.skip(x)))


class Inverted(nn.Module):
    """Inverted residual of Sandler et al. 2018."""

    def __init__(self, ic, oc, stride, expand):
        super().__init__()
        width = ic * expand
        layers = [] if expand == 1 else conv_bn(ic, width, 1, 1, 1)
        layers += conv_bn(width, width, 3, stride, width)
        layers += [nn.Conv2d(width, oc, 1, bias=False), nn.BatchNorm2d(oc)]
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and ic == oc

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


def conv_bn(ic, oc, k, stride, groups):
    return [nn.Conv2d(ic, oc, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(oc), nn.ReLU6(True)]


def resnet20():
    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)]
    c = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for i in range(3):
            layers.append(Block(c, width, stride if i == 0 else 1))
            c = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)), [3, 32, 32]


def lenet5():
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(True), nn.Linear(500, 10)), [1, 28, 28]


def mobilenet_v2():
    layers = conv_bn(3, 32, 3, 2, 1)
    c = 32
    for t, width, n, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(n):
            layers.append(Inverted(c, width, stride if i == 0 else 1, t))
            c = width
    layers += conv_bn(c, 1280, 1, 1, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10)), [3, 96, 96]


NETS = {"resnet20": resnet20, "lenet5": lenet5, "mobilenet_v2": mobilenet_v2}


def export(name, path):
    torch.manual_seed(1)
    model, item = NETS[name]()
    for p in list(model.parameters()) + list(model.buffers()):
        if p.dim() == 1:  # equal ones would be written once and shared
            p.data += 0.01 * torch.rand(p.shape)
    # neither trained (batch norm would get outputs for its statistics) nor folded
    torch.onnx.export(model.eval(), torch.zeros([2] + item), path, training=torch.onnx.TrainingMode.PRESERVE,
                      do_constant_folding=False, opset_version=13, input_names=["x"], output_names=["y"],
                      dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})


class Bench:
    def __init__(self, mode, name, batch):
        torch.manual_seed(1)
        model, item = NETS[name]()
        self.model, self.is_bf16 = model.train(), mode == "bf16"
        self.x = torch.randn([batch] + item)
        self.target = torch.randint(0, 10, [batch])
        if mode != "default":
            self.model = self.model.to(memory_format=torch.channels_last)
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        self.optim = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4,
                                     foreach=mode != "default")

    def step(self):
        self.optim.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.is_bf16):
            y = self.model(self.x)
        F.cross_entropy(y.float(), self.target).backward()
        self.optim.step()

    def run(self, n):
        if n > 1:
            self.step()
        times = []
        for _ in range(n):
            t = time.perf_counter()
            self.step()
            times.append((time.perf_counter() - t) * 1e6)
        return sorted(times)[n // 2]


def main():
    if sys.argv[1] == "export":
        export(sys.argv[2], sys.argv[3])
        return
    torch.set_num_threads(int(sys.argv[4]))
    bench = Bench(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    bench.run(3)
    print("ready", flush=True)
    for line in sys.stdin:
        print(f"{bench.run(int(line)):.2f}", flush=True)


if __name__ == "__main__":
    main()
