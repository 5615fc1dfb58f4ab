#!/usr/bin/env python3
"""Training beside PyTorch: the same start, pictures, order and hyper-parameters on both sides.

  torch_training.py losses NET             the first 20 losses, at most 1e-3 apart or no further than PyTorch's own in
                                           another layout are (some of the pictures, one epoch)
  torch_training.py accuracy NET           trains every seed on both sides, then as `report`
  torch_training.py report NET             test accuracies, their mean difference and its 95% interval; the loss
                                           curves as CSV and SVG

NET is lenet5 (Fashion-MNIST) or resnet20 (CIFAR-10 as JPEG). Both sides leave augmentation out and read the archive
that bonsai-worker reads. What was trained lies in --work, a file for each (net, epochs, seed, side): a run that was cut
off goes on there. The exit status says whether the reach is met. Needs python3-torch, -onnx, -numpy, -pil; --data (or
BONSAI_SHARED/datasets) holds the data sets."""
import argparse
import json
import math
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import numpy as np  # noqa: E402
import pictures  # noqa: E402
import start_nets  # noqa: E402

N_FIRST = 20
NETS = {
    "lenet5": {"make": start_nets.lenet5, "set": "fashion", "lr": 0.02, "epochs": 10},
    "resnet20": {"make": start_nets.resnet20, "set": "cifar10", "lr": 0.1, "epochs": 12},
}
BATCH, MOMENTUM, DECAY = 128, 0.9, 5e-4
# two-sided 95% quantiles of Student's t by degrees of freedom
STUDENT = [math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]


def write_json(path, value):
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
    os.replace(path + ".new", path)


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class Run:
    """One training: net, number of epochs, seed. `only_first`: one epoch with few pictures, over which the learning
    rate rises no further than it does in the first steps of a whole training."""

    def __init__(self, a, seed, only_first=False):
        self.a, self.seed, self.net = a, seed, NETS[a.net]
        self.epochs = 1 if only_first else a.epochs or self.net["epochs"]
        self.kind = "first" if only_first else "few" if a.few else "train"
        self.learned_from = "train" if self.kind == "train" else "few"
        self.warmup, self.lr = (1.0, 0.1 * self.net["lr"]) if only_first else (0.05, self.net["lr"])
        self.set = self.net["set"]
        self.start = self.path("start.onnx")
        if not os.path.exists(self.start):
            self.net["make"](self.start, seed)
        self.described = os.path.join(a.work, f"{self.set}.json")
        s = pictures.SETS[self.set]
        write_json(self.described, {"preprocess": s["preprocess"], "labels": s["labels"]})

    def path(self, suffix):
        return os.path.join(self.a.work, f"{self.a.net}-{self.kind}-e{self.epochs}-s{self.seed}-{suffix}")

    def decoded(self, split):
        return pictures.decoded(self.set, split, self.a.data, self.a.work)

    def archive(self, split):
        return pictures.archive(self.set, split, self.a.data, self.a.work)

    def rate(self, step, n):
        """Cosine with a warm-up (engine/train/optim.h)."""
        rise = (step + 1) / (self.warmup * n) if step / n < self.warmup else 1
        return self.lr * min(rise, 1) * 0.5 * (1 + math.cos(math.pi * step / n))


# ---- ours ----

def worker(run, arguments, log):
    command = [os.path.join(run.a.build, "bonsai-worker")] + arguments
    with open(log, "w", encoding="utf-8") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    with open(log, encoding="utf-8") as f:
        text = f.read()
    if status:
        sys.exit(f"{' '.join(command)}: {text.strip().splitlines()[-1:]}")
    return text


def has_option(run, name):
    text = worker(run, ["methods"], run.path("methods.log"))
    finetune = next(m for m in json.loads(text)["methods"]["items"] if m["name"] == "finetune")
    return f'"{name}"' in json.dumps(finetune)


def train_ours(run):
    step = {"method": "finetune", "epochs": run.epochs, "batch": BATCH, "optimizer": "sgd", "lr": run.lr,
            "momentum": MOMENTUM, "nesterov": True, "weight_decay": DECAY, "schedule": "cosine", "warmup": run.warmup}
    if has_option(run, "augment"):
        step["augment"] = {"crop_padding": 0, "flip": False}
    recipe, trained = run.path("recipe.json"), run.path("ours.onnx")
    write_json(recipe, [step])
    begin = time.time()
    text = worker(run, ["run", recipe, "--model", run.start, "--data", run.archive(run.learned_from),
                        "--preprocess", run.described, "--seed", str(run.seed), "--threads", str(run.a.threads),
                        "--checkpoint", run.path("checkpoint"), "-o", trained], run.path("ours.log"))
    seconds = time.time() - begin
    report = json.loads(text.strip().splitlines()[-1])["done"]["steps"][0]
    judged = json.loads(worker(run, ["evaluate", trained, "--data", run.archive("test"), "--preprocess", run.described,
                                     "--split", "test"], run.path("ours-test.log")))
    return {"accuracy": judged["accuracy"], "first_losses": report["first_losses"], "seconds": seconds,
            "epochs": [{k: e[k] for k in ("loss", "val_accuracy")} for e in report["epochs"]]}


# ---- PyTorch ----

def accuracy_of(net, torch, run, x, y):
    net.eval()
    correct = 0
    with torch.no_grad():
        for i in range(0, len(y), 500):
            out = net(torch.from_numpy(pictures.ready(run.set, x[i:i + 500])))
            correct += int((out.argmax(1).numpy() == y[i:i + 500]).sum())
    net.train()
    return correct / len(y)


class TorchSide:
    def __init__(self, run, layout="channels_last"):
        import torch
        from onnx_torch import OnnxNet
        torch.set_num_threads(run.a.threads)
        self.torch, self.run, self.net = torch, run, OnnxNet(run.start)
        self.layout = getattr(torch, layout)
        self.optimizer = torch.optim.SGD(self.net.parameter_groups(DECAY), lr=run.lr, momentum=MOMENTUM,
                                         nesterov=True)
        x, y, head = run.decoded(run.learned_from)
        train, val = pictures.divided(head)
        self.x, self.y, self.val = x[train], y[train], (x[val], y[val])
        self.done = {"first_losses": [], "epochs": [], "seconds": 0}
        self.kept = run.path("torch.pt")
        if os.path.exists(self.kept):
            state = torch.load(self.kept)
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.done = state["done"]

    def steps(self, epoch, most=None):
        """The losses of an epoch's steps."""
        torch, run, per_epoch = self.torch, self.run, len(self.y) // BATCH
        order = pictures.order(run.seed, epoch, len(self.y))
        self.net.train()
        for i in range(min(per_epoch, most or per_epoch)):
            items = order[i * BATCH:(i + 1) * BATCH]
            x = torch.from_numpy(pictures.ready(run.set, self.x[items])).contiguous(memory_format=self.layout)
            loss = torch.nn.functional.cross_entropy(self.net(x), torch.from_numpy(self.y[items]))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in self.optimizer.param_groups:
                group["lr"] = run.rate(epoch * per_epoch + i, run.epochs * per_epoch)
            self.optimizer.step()
            yield float(loss.detach())

    def train(self):
        for epoch in range(len(self.done["epochs"]), self.run.epochs):
            begin = time.time()
            losses = list(self.steps(epoch))
            self.done["seconds"] += time.time() - begin
            self.done["first_losses"] = self.done["first_losses"] or losses[:N_FIRST]
            self.done["epochs"].append({"loss": float(np.mean(losses)),
                                        "val_accuracy": accuracy_of(self.net, self.torch, self.run, *self.val)})
            self.torch.save({"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "done": self.done},
                            self.kept + ".new")
            os.replace(self.kept + ".new", self.kept)
            print(f"torch seed {self.run.seed} epoch {epoch + 1}: {self.done['epochs'][-1]}", flush=True)
        x, y, _ = self.run.decoded("test")
        return dict(self.done, accuracy=accuracy_of(self.net, self.torch, self.run, x, y))


def train_torch(run):
    return TorchSide(run).train()


SIDES = {"ours": train_ours, "torch": train_torch}


# ---- comparisons ----

def result(run, side):
    """What was trained, from the file if it is there."""
    path = run.path(side + ".json")
    if not os.path.exists(path):
        write_json(path, SIDES[side](run))
    return read_json(path)


def apart(a, b):
    return [abs(x - y) / abs(y) for x, y in zip(a, b)]


def compare_losses(a):
    """Rounding grows from step to step, fast in a deep net: how far shows PyTorch beside itself, which computes the
    same in another order when pictures lie in another layout."""
    run = Run(a, a.seeds[0], only_first=True)
    ours = result(run, "ours")["first_losses"][:N_FIRST]
    theirs, others = (list(TorchSide(run, layout).steps(0, N_FIRST))
                      for layout in ("channels_last", "contiguous_format"))
    gaps, own = apart(ours, theirs), apart(others, theirs)
    for i, (x, y) in enumerate(zip(ours, theirs)):
        print(f"step {i + 1:2}: ours {x:.6f}, PyTorch {y:.6f}, {gaps[i]:.1e} apart, PyTorch from itself {own[i]:.1e}")
    print(f"{a.net} first losses: {len(gaps)} compared, largest difference {max(gaps):.1e}, PyTorch's from itself "
          f"{max(own):.1e}")
    return len(gaps) == N_FIRST and max(gaps) <= max(1e-3, max(own))


def curves(a, runs):
    """CSV and SVG of the mean loss of each epoch; ours drawn through, PyTorch's dashed."""
    base = runs[0].path("curves")
    rows = [(r.seed, side, i + 1, e["loss"], e["val_accuracy"]) for r in runs for side in SIDES
            for i, e in enumerate(result(r, side)["epochs"])]
    with open(base + ".csv", "w", encoding="utf-8") as f:
        f.write("seed,side,epoch,loss,val_accuracy\n")
        f.writelines(",".join(map(str, row)) + "\n" for row in rows)
    most, n = max(row[3] for row in rows), max(2, runs[0].epochs)
    lines = []
    for k, r in enumerate(runs):
        for side in SIDES:
            at = [(60 + 700 * (row[2] - 1) / (n - 1), 420 - 380 * row[3] / most) for row in rows
                  if row[0] == r.seed and row[1] == side]
            lines.append(f'<polyline fill="none" stroke="{("#0b6", "#06c", "#c40")[k % 3]}" stroke-width="1.5"'
                         f'{" stroke-dasharray=" + chr(34) + "6 4" + chr(34) if side == "torch" else ""} points="'
                         + " ".join(f"{x:.1f},{y:.1f}" for x, y in at) + '"/>')
    ticks = [f'<text x="{60 + 700 * i / (n - 1):.0f}" y="440">{i + 1}</text>' for i in range(n)]
    ticks += [f'<text x="10" y="{424 - 95 * i:.0f}">{most * i / 4:.2f}</text>' for i in range(5)]
    with open(base + ".svg", "w", encoding="utf-8") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 460" font-family="sans-serif" font-size="12">'
                '<rect width="800" height="460" fill="#fff"/><path d="M60 40V420H760" fill="none" stroke="#888"/>'
                f'<text x="60" y="24">{a.net}: mean loss of each epoch, a colour a seed; ours drawn through, PyTorch '
                "dashed</text>" + "".join(ticks + lines) + "</svg>\n")
    return base


def report(a):
    runs = [r for r in (Run(a, seed) for seed in a.seeds)
            if all(os.path.exists(r.path(side + ".json")) for side in SIDES)]
    if not runs:
        sys.exit("nothing was trained on both sides yet")
    ours, theirs = ([100 * result(r, side)["accuracy"] for r in runs] for side in SIDES)
    gaps = np.subtract(ours, theirs)
    mean = float(np.mean(gaps))
    half = STUDENT[len(gaps) - 1] * float(np.std(gaps, ddof=1)) / len(gaps) ** 0.5 if 1 < len(gaps) <= 11 else math.nan
    for r, x, y in zip(runs, ours, theirs):
        first = apart(*(result(r, side)["first_losses"] for side in SIDES))
        print(f"seed {r.seed}: ours {x:.2f}, PyTorch {y:.2f}; first losses at most {max(first):.1e} apart; "
              f"{result(r, 'ours')['seconds']:.0f} s and {result(r, 'torch')['seconds']:.0f} s")
    print(f"curves: {curves(a, runs)}.svg")
    print(f"{a.net}, {runs[0].epochs} epochs, {len(runs)} seeds: ours {np.mean(ours):.2f}, PyTorch "
          f"{np.mean(theirs):.2f}, mean difference {mean:+.2f} points, 95% interval ±{half:.2f}")
    return abs(mean) <= 0.3 or abs(mean) <= half


def train(a):
    for seed in a.seeds:
        for side in a.sides:
            result(Run(a, seed), side)
    return report(a) if set(a.sides) == set(SIDES) else True


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["losses", "accuracy", "report"])
    p.add_argument("net", choices=sorted(NETS))
    p.add_argument("--build", default=os.environ.get("BUILD", os.path.join(ROOT, "build")))
    p.add_argument("--data", default=os.path.join(os.environ.get("BONSAI_SHARED", ""), "datasets"))
    p.add_argument("--work", help="folder for what is trained (default: in the build folder)")
    p.add_argument("--epochs", type=int, help="instead of the net's")
    p.add_argument("--few", action="store_true", help="learn from a fifteenth of the pictures, or less: a quick look")
    p.add_argument("--seeds", type=lambda s: [int(x) for x in s.split(",")], default=[1, 2, 3])
    p.add_argument("--sides", type=lambda s: s.split(","), default=list(SIDES))
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    a.work = a.work or os.path.join(a.build, "reach")
    os.makedirs(a.work, exist_ok=True)
    return 0 if {"losses": compare_losses, "accuracy": train, "report": report}[a.what](a) else 1


if __name__ == "__main__":
    sys.exit(main())
