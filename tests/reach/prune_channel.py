"""Whole channels, resnet20 on CIFAR-10 (JPEG): accuracy before and after fine-tuning, time beside multiplications.
Reach: 40% of the multiplications removed at most 0.7 point below the parent, 50% at most 1.5; the time falls by at least
80% of what the multiplications do (float, the default kernels, one thread)."""

import fnmatch

import reach

FINETUNE = {"epochs": 8, "lr": 0.03, "batch": 128, "weight_decay": 5e-4, "bf16": True, "augment": {"crop_padding": 4, "flip": True}}
STEP = {"method": "prune", "criterion": "taylor", "scope": "global"}
CASES = [("40% of the MACs removed", 0.6, 0.007), ("50% of the MACs removed", 0.5, 0.015)]
QUICK = dict(FINETUNE, epochs=1)


def widths(variant):
    layers = variant.report["steps"][0]["layers"]
    return " ".join(str(layer["channels"]) for layer in layers if fnmatch.fnmatch(layer["id"], "*/c[12]/*"))


def main():
    r = reach.Reach("prune_channel")
    net = reach.RESNET20
    parent = r.parent(net)
    base = r.evaluate(parent)
    r.row("parent", base, parent)
    for name, kept, allowed in CASES:
        key = f"keep{int(100 * kept)}"
        for what, recover in (("least squares alone", {"calibrate": {"least_squares": True}}),
                              ("fine-tuned", {"calibrate": {}, "finetune": QUICK if r.args.quick else FINETUNE, "distill": {}})):
            is_last = what == "fine-tuned"
            variant = r.run(f"{key}-{what.replace(' ', '-')}", net, [dict(STEP, macs=kept, recover=recover)])
            found = r.evaluate(variant)
            macs = variant.report["steps"][0]["macs_kept"]
            r.row(f"{name}, {what}", found, variant, base.accuracy - found.accuracy <= allowed if is_last else None,
                  points=reach.points(base, found), **{"MACs kept": f"{macs:.3f}", "widths": widths(variant)})
        _, ratios, _ = r.bench([parent, variant], seconds=1, options=["--threads", "1"])
        share = (1 - 1 / ratios[1]) / (1 - macs)
        r.row(f"{name}, time", None, None, share >= 0.8, **{"MACs kept": f"{macs:.3f}", "time kept": f"{1 / ratios[1]:.3f}",
                                                            "share of the MACs": f"{share:.2f}"})
    r.end()


if __name__ == "__main__":
    main()
