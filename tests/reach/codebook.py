"""Codebooks of 4 bits, resnet20 on CIFAR-10 (JPEG): accuracy before and after fine-tuning, resident bytes and time beside
int8, in a server that saves memory (--policy memory: packed weights stay as small as their form). Reach: at most 0.5 point
below the parent, the layers' bytes at most a seventh of float, at most 5% slower than int8."""

import reach

BOOK = {"method": "quantize", "scheme": "codebook", "bits": 4}
TRAIN = {"epochs": 1, "optimizer": "adam", "lr": 0.001, "batch": 128}


def resident(layers):
    return sum(layer["bytes"] for layer in layers if layer["form"])


def main():
    r = reach.Reach("codebook")
    net = reach.RESNET20
    parent = r.parent(net)
    base = r.evaluate(parent)
    int8 = r.run("int8", net, [{"method": "quantize", "scheme": "int8"}])
    plain = r.run("plain", net, [BOOK])
    tuned = r.run("finetuned", net, [dict(BOOK, recover={"finetune": TRAIN})])
    times, ratios, layers = r.bench([int8, tuned], seconds=1, options=("--policy", "memory"))
    params = sum(layer["bytes_before"] for layer in tuned.report["steps"][0].get("layers", []) if "bytes_before" in layer) or \
        4 * 270896
    share = params / resident(layers[1])
    found = r.evaluate(tuned)
    r.row("parent", base, parent)
    r.row("int8", r.evaluate(int8), int8, None, **{"µs": f"{times[0]:.1f}"})
    r.row("4 bits", r.evaluate(plain), plain, None)
    r.row("4 bits, fine-tuned", found, tuned, base.accuracy - found.accuracy <= 0.005, points=reach.points(base, found))
    r.row("resident bytes of its layers", None, None, share >= 7, **{"of float": f"1/{share:.2f}"})
    r.row("time beside int8", None, None, ratios[1] >= 1 / 1.05, **{"µs": f"{times[1]:.1f}", "int8 by it": f"{ratios[1]:.3f}"})
    r.end()


if __name__ == "__main__":
    main()
