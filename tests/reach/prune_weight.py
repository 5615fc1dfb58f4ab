"""Single weights, blocks and 2 of 4, resnet20 on CIFAR-10 (JPEG): accuracy after gradual pruning, bytes, time of the
layers. Reach: 80% of the weights at most 0.5 point below the parent, 90% at most 1.5."""

import reach

TRAIN = {"epochs": 12, "lr": 0.03, "batch": 128, "weight_decay": 1e-4, "bf16": True, "augment": {"crop_padding": 4, "flip": True}}
GRADUAL = {"method": "prune", "granularity": "weight", "criterion": "lamp", "scope": "global", "schedule": {"kind": "gradual"}}
CASES = [
    ("80% of the weights", dict(GRADUAL, sparsity=0.8), 0.005),
    ("90% of the weights", dict(GRADUAL, sparsity=0.9), 0.015),
    ("80%, blocks of 1 x 4", dict(GRADUAL, granularity="block", block=[1, 4], sparsity=0.8), None),
    ("2 of 4", {"method": "prune", "granularity": "nm", "nm": [2, 4], "criterion": "magnitude", "schedule": {"kind": "gradual"}}, None),
]


def time_of(layers, ids):
    return sum(layer["us"] for layer in layers if layer["name"] in ids)


def main():
    r = reach.Reach("prune_weight")
    net = reach.RESNET20
    parent = r.parent(net)
    base = r.evaluate(parent)
    finetune = dict(TRAIN, epochs=2) if r.args.quick else TRAIN
    r.row("parent", base, parent)
    for name, step, allowed in CASES[:2] if r.args.quick else CASES:
        variant = r.run(name.replace(" ", "_").replace(",", ""), net, [dict(step, recover={"finetune": finetune, "distill": {}})])
        found = r.evaluate(variant)
        times, ratios, layers = r.bench([parent, variant])
        report = variant.report["steps"][0]
        pruned = [layer["id"] for layer in report["layers"] if layer["action"] == "pruned"]
        dense = sum(layer["decoded"] or layer["form"] == "dense" for layer in layers[1] if layer["name"] in pruned)
        r.row(name, found, variant, None if allowed is None else base.accuracy - found.accuracy <= allowed,
              sparsity=f"{report['sparsity']:.4f}", points=reach.points(base, found),
              **{"µs parent, variant": f"{times[0]:.0f}, {times[1]:.0f}", "times faster": f"{ratios[1]:.2f}",
                 "layers run dense": f"{dense} of {len(pruned)}",
                 "µs pruned layers": f"{time_of(layers[0], pruned):.0f}, {time_of(layers[1], pruned):.0f}"})
    r.end()


if __name__ == "__main__":
    main()
