"""Each criterion that judges single weights, beside `random` at the same budget, before and after fine-tuning. Reach: the
ones that look at gradients are significantly better than random before fine-tuning (on the same pictures)."""

import reach

CRITERIA = ["random", "magnitude", "lamp", "taylor", "hessian"]
GRADIENTS = ("taylor", "hessian")
CASES = [(reach.LENET5, 0.9, {"epochs": 2, "lr": 0.02, "batch": 128}), (reach.RESNET20, 0.6, None)]


def z_of(a, b):
    """Two shares of the same number of pictures, as if they were drawn apart: smaller than what pairs would give."""
    mean = (a.accuracy + b.accuracy) / 2
    return (a.accuracy - b.accuracy) / max((2 * mean * (1 - mean) / a.n) ** 0.5, 1e-12)


def main():
    r = reach.Reach("criteria_weight")
    for net, sparsity, finetune in CASES[:1] if r.args.quick else CASES:
        base = r.evaluate(r.parent(net))
        r.row(f"{net.name}, parent", base, r.parent(net))
        random = None
        for criterion in CRITERIA:
            step = {"method": "prune", "granularity": "weight", "criterion": criterion, "sparsity": sparsity,
                    "scope": "layer" if criterion == "random" else "global"}
            before = r.run(f"{net.name}-{criterion}", net, [step])
            found = r.evaluate(before)
            random = random or found
            after = ""
            if finetune:
                after = str(r.evaluate(r.run(f"{net.name}-{criterion}-tuned", net, [dict(step, recover={"finetune": finetune})])))
            r.row(f"{net.name}, {100 * sparsity:.0f}% by {criterion}", found, before,
                  z_of(found, random) > 2.6 if criterion in GRADIENTS else None,
                  **{"z against random": f"{z_of(found, random):.1f}", "after fine-tuning": after})
    r.end()


if __name__ == "__main__":
    main()
