"""What the programs beside it share: recipes run by bonsai-worker and judged on whole test sets, each result kept in a
file and not computed again; tables with intervals that say what is reached.

    import reach
    r = reach.Reach("prune_weight")
    variant = r.run("g90", RESNET20, [{"method": "prune", …}])
    e = r.evaluate(variant)
    r.row("90% gradual", e, reached=parent.accuracy - e.accuracy <= 0.015)
    r.end()
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import time

MINUTES = 60  # a program ends by then, with what it has

CIFAR = ("cifar10-train-jpeg.tar.gz", "cifar10-test-jpeg.tar.gz")
FASHION = ("fashion-mnist-train.npz", "fashion-mnist-test.npz")


class Net:
    """A model of DIR/models/user with its card, or any file with a card."""

    def __init__(self, name, sets, path=None, card=None):
        self.name, self.train, self.test, self.path, self.card = name, sets[0], sets[1], path, card


RESNET20 = Net("resnet20_cifar10", CIFAR)
RESNET20_FUSED = Net("resnet20_cifar10_bnfused", CIFAR)
LENET5 = Net("lenet5_fashion", FASHION)


class Evaluation:
    def __init__(self, found):
        self.accuracy, self.n, self.interval = found["accuracy"], found["n"], found["ci95"]

    def __str__(self):
        return f"{100 * self.accuracy:.2f}% ({100 * self.interval[0]:.2f} to {100 * self.interval[1]:.2f})"


def digest(*parts):
    h = hashlib.sha256()
    for part in parts:
        h.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return h.hexdigest()[:16]


def bytes_of(path):
    with open(path, "rb") as f:
        return f.read()


class Variant:
    def __init__(self, net, path, report=None):
        self.net, self.path, self.report = net, path, report

    @property
    def size(self):
        return os.path.getsize(self.path)


class Reach:
    def __init__(self, name):
        p = argparse.ArgumentParser(prog=f"run.sh {name}")
        p.add_argument("--data", required=True, help="folder with datasets/ and models/")
        p.add_argument("--seed", type=int, default=1)
        p.add_argument("--threads", type=int, default=os.cpu_count())
        p.add_argument("--quick", action="store_true", help="a smaller look")
        self.args = p.parse_args()
        self.name, self.begin = name, time.monotonic()
        self.build = os.environ.get("BUILD", "build")
        self.worker = os.path.join(self.build, "bonsai-worker")
        self.folder = os.path.join(self.build, "reach")
        os.makedirs(self.folder, exist_ok=True)
        self.rows, self.columns, self.failed, self.late = [], ["what", "accuracy (95%)", "file"], 0, False

    # ---- where things are ----

    def data(self, name):
        return os.path.join(self.args.data, "datasets", name)

    def model(self, net):
        return net.path or os.path.join(self.args.data, "models", "user", net.name + ".onnx")

    def card(self, net):
        """Arguments that say how pictures are fed; none for a net that says so itself (card "")."""
        if net.card == "":
            return []
        return ["--preprocess", net.card or os.path.join(self.args.data, "models", "user", net.name + ".json")]

    def parent(self, net):
        return Variant(net, self.model(net))

    # ---- commands; those that take long are bounded by what is left of the hour ----

    def left(self):
        return max(MINUTES * 60 - (time.monotonic() - self.begin), 5)

    def command(self, args):
        done = subprocess.run([self.worker, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=self.left(),
                              check=False)
        text = done.stdout.decode(errors="replace").strip().splitlines()
        if done.returncode != 0:
            raise RuntimeError(f"{args[0]}: {text[-1] if text else done.returncode}")
        return json.loads(text[-1])

    def keep(self, key, make):
        """make()'s JSON, from the file where it was computed before."""
        path = os.path.join(self.folder, key + ".json")
        if os.path.exists(path):
            with open(path, encoding="ascii") as f:
                return json.load(f)
        found = make()
        with open(path + ".new", "w", encoding="ascii") as f:
            json.dump(found, f)
        os.replace(path + ".new", path)
        return found

    def run(self, name, net, steps, parent=None, seed=None, data=True):
        """The variant that `steps` make of the net, or of another variant. Goes on from its checkpoint."""
        model = parent.path if parent else self.model(net)
        seed = self.args.seed if seed is None else seed
        key = f"{self.name}-{name}-{digest(steps, seed, bytes_of(model))}"
        out, recipe = os.path.join(self.folder, key + ".onnx"), os.path.join(self.folder, key + ".recipe")
        with open(recipe, "w", encoding="ascii") as f:
            json.dump(steps, f)

        def make():
            print(f"… {name}", file=sys.stderr, flush=True)
            given = ["--data", self.data(net.train), *self.card(net)] if data else []
            return self.command(["run", recipe, "--model", model, *given, "--threads", str(self.args.threads), "--seed",
                                 str(seed), "--checkpoint", os.path.join(self.folder, key + ".checkpoint"), "-o", out])["done"]

        return Variant(net, out, self.keep(key, make))

    def train(self, name, sets, spec):
        """A net of the zoo, trained; how it is fed stands in the file."""
        key = f"train-{name}-{digest(spec, self.args.seed, sets)}"
        out, path = (os.path.join(self.folder, key + end) for end in (".onnx", ".spec"))
        with open(path, "w", encoding="ascii") as f:
            json.dump(spec, f)

        def make():
            print(f"… training {name}", file=sys.stderr, flush=True)
            return self.command(["train", path, "--data", self.data(sets[0]), "--test", self.data(sets[1]), "--threads",
                                 str(self.args.threads), "--seed", str(self.args.seed), "--checkpoint",
                                 os.path.join(self.folder, key + ".checkpoint"), "-o", out])["done"]

        self.keep(key, make)
        return Net(name, sets, path=out, card="")

    def evaluate(self, variant, test=None):
        key = "evaluate-" + digest(bytes_of(variant.path), test or variant.net.test)
        return Evaluation(self.keep(key, lambda: self.command(
            ["evaluate", variant.path, "--data", self.data(test or variant.net.test), *self.card(variant.net),
             "--threads", str(self.args.threads)])))

    def bench(self, variants, rounds=9, seconds=1, options=()):
        """Median microseconds of each, and the median over rounds of the first one's time by each one's: they take turns."""
        times = [[] for _ in variants]
        layers = [None] * len(variants)
        for _ in range(3 if self.args.quick else rounds):
            for i, v in enumerate(variants):
                found = self.command(["bench", v.path, "--seconds", str(seconds), *options])
                times[i].append(found["p50_us"])
                layers[i] = found["layers"]
        ratios = [statistics.median(a / b for a, b in zip(times[0], t)) for t in times]
        return [statistics.median(t) for t in times], ratios, layers

    # ---- the table ----

    def row(self, what, evaluation=None, variant=None, reached=None, **more):
        """`reached` None: a row that only informs. `more`: columns of their own."""
        for key in more:
            if key not in self.columns:
                self.columns.append(key)
        size = f"{variant.size:,}" if variant else ""
        self.rows.append(dict(more, what=what, file=size, reached=reached, **{"accuracy (95%)": evaluation or ""}))
        self.failed += reached is False
        print(f"{what}: {evaluation or ''} {size} {more or ''} {'' if reached is None else 'reached' if reached else 'NOT REACHED'}",
              file=sys.stderr, flush=True)

    def end(self):
        columns = self.columns + ["reached"]
        print("| " + " | ".join(columns) + " |")
        print("| " + " | ".join("---" for _ in columns) + " |")
        words = {None: "", True: "yes", False: "**no**"}
        for row in self.rows:
            cells = [words[row["reached"]] if c == "reached" else str(row.get(c, "")) for c in columns]
            print("| " + " | ".join(cells) + " |")
        print(f"\n{self.name}: seed {self.args.seed}, {(time.monotonic() - self.begin) / 60:.0f} minutes"
              f"{', quick' if self.args.quick else ''}")
        sys.exit(1 if self.failed else 0)


def points(parent, evaluation):
    """Percentage points lost, as text."""
    return f"{100 * (parent.accuracy - evaluation.accuracy):.2f}"


def two_sided(better, worse):
    """Exact McNemar from the numbers of pictures that only one of two answers right."""
    n, k = better + worse, min(better, worse)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0
