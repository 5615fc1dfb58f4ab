"""Low rank on CIFAR-10 (JPEG): half of the MACs of resnet20 and vgg8. Reach: at most 1 point below the parent after
fine-tuning; parts made with samples better than by the weights alone before it, in every decomposition; vgg8 at least 1.5
times faster; layers with a quarter of their MACs at least 3 times faster.

vgg8 is the file that BONSAI_VGG8 names, else it is trained here first (MINUTES_VGG8 at most) and kept. BONSAI_ONLY, a
list separated by commas, of resnet20, vgg8: parts of it."""

import json
import os

import reach

HALF = {"method": "lowrank", "rank": {"macs": 0.5}, "multiple": 8, "break_even": "macs"}
QUARTER = {"method": "lowrank", "decomposition": "tucker2", "rank": {"ratio": 0.25}, "data_aware": False}
TRAIN = {"epochs": 3, "lr": 0.005, "batch": 128, "augment": {"crop_padding": 4, "flip": True}}
MINUTES_VGG8 = 25


def macs(variant):
    step = variant.report["steps"][0]
    return f"{step['macs'] / step['macs_before']:.3f}"


def before_training(r, net, base, decompositions):
    """Each decomposition by the weights alone and with samples; the pictures are the same, the intervals those of each."""
    for decomposition in decompositions:
        found = {}
        for aware in (False, True):
            step = dict(HALF, decomposition=decomposition, data_aware=aware)
            variant = r.run(f"{net.name}-{decomposition}-{'samples' if aware else 'weights'}", net, [step])
            found[aware] = r.evaluate(variant)
            better = found[True].interval[0] > found[False].interval[1] if aware else None
            r.row(f"{net.name}, {decomposition}, {'samples' if aware else 'weights alone'}, not trained", found[aware], variant,
                  better, MACs=macs(variant), points=reach.points(base, found[aware]))


def after_training(r, net, base, decomposition, step):
    train = dict(TRAIN, epochs=1) if r.args.quick else TRAIN
    step = dict(step, decomposition=decomposition, recover={"finetune": train, "distill": {}})
    variant = r.run(f"{net.name}-{decomposition}-trained", net, [step])
    found = r.evaluate(variant)
    r.row(f"{net.name}, {decomposition}, fine-tuned and distilled", found, variant, base.accuracy - found.accuracy <= 0.01,
          MACs=macs(variant), points=reach.points(base, found))
    return variant


def speed(r, net, variants, wanted):
    parent = r.parent(net)
    times, ratios, _ = r.bench([parent, *variants], seconds=1)
    for variant, time, ratio in zip(variants, times[1:], ratios[1:]):
        r.row(f"{net.name}, time", None, variant, None if wanted is None else ratio >= wanted, MACs=macs(variant),
              **{"µs parent, variant": f"{times[0]:.0f}, {time:.0f}", "times faster": f"{ratio:.2f}"})


def layers(r, net):
    """Single layers at a quarter of their MACs, as the break-even times them."""
    variant = r.run(f"{net.name}-quarter", net, [QUARTER])
    rows = [row for row in variant.report["steps"][0]["layers"] if row["action"] == "factorised"]
    dense, factors = sum(row["dense_us"] for row in rows), sum(row["factors_us"] for row in rows)
    share = sum(row["macs"] for row in rows) / sum(row["macs_before"] for row in rows)
    r.row(f"{net.name}, {len(rows)} layers at {share:.3f} of their MACs", None, variant, dense / factors >= 3, MACs=f"{share:.3f}",
          **{"µs parent, variant": f"{dense:.0f}, {factors:.0f}", "times faster": f"{dense / factors:.2f}"})


def vgg8(r):
    card = os.path.join(r.folder, "cifar10.json")
    with open(r.card(reach.RESNET20)[1], encoding="utf-8") as f:
        found = json.load(f)
    with open(card, "w", encoding="ascii") as f:
        json.dump({key: found[key] for key in ("preprocess", "labels")}, f)
    path = os.environ.get("BONSAI_VGG8", os.path.join(r.folder, "lowrank-vgg8.onnx"))
    if not os.path.exists(path):
        spec = os.path.join(r.folder, "lowrank-vgg8.json")
        with open(spec, "w", encoding="ascii") as f:
            json.dump({"network": {"zoo": "vgg8"}, "epochs": 2 if r.args.quick else 20}, f)
        r.command(["train", spec, "--data", r.data(reach.CIFAR[0]), "--test", r.data(reach.CIFAR[1]), "--preprocess", card,
                   "--threads", str(r.args.threads), "--seed", str(r.args.seed), "--minutes", str(MINUTES_VGG8), "--checkpoint",
                   path + ".checkpoint", "-o", path])
    return reach.Net("vgg8", reach.CIFAR, path=path, card=card)


def main():
    r = reach.Reach("lowrank")
    only = os.environ.get("BONSAI_ONLY", "resnet20,vgg8").split(",")
    if "resnet20" in only:
        net = reach.RESNET20_FUSED
        base = r.evaluate(r.parent(net))
        r.row(net.name, base, r.parent(net))
        before_training(r, net, base, ("spatial", "tucker2") if r.args.quick else ("spatial", "tucker2", "channel", "cp"))
        speed(r, net, [after_training(r, net, base, "spatial", HALF)], None)
    if "vgg8" in only:
        net = vgg8(r)
        base = r.evaluate(r.parent(net))
        r.row(net.name, base, r.parent(net))
        before_training(r, net, base, ("tucker2",) if r.args.quick else ("spatial", "tucker2", "channel"))
        layers(r, net)
        speed(r, net, [after_training(r, net, base, "tucker2", dict(HALF, multiple=16, break_even="latency"))], 1.5)
    r.end()


if __name__ == "__main__":
    main()
