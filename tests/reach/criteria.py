"""Each criterion beside `random` at the same budget, resnet20 on CIFAR-10 (JPEG), channels: 30% of the multiplications
removed, means and deviations recovered. Reach: before fine-tuning, those that look at gradients are better than random,
significantly: than the mean of random's seeds, in standard errors of pictures and seeds together."""

import math
import statistics

import reach

CRITERIA = ["random", "magnitude", "lamp", "bn_scale", "fpgm", "apoz", "thinet", "taylor", "hessian"]
GRADIENTS = ("taylor", "hessian")
STEP = {"method": "prune", "scope": "layer", "macs": 0.7}
FINETUNE = {"epochs": 1, "lr": 0.02, "batch": 128, "weight_decay": 5e-4, "augment": {"crop_padding": 4, "flip": True}}
SEEDS = 8  # of random
ENOUGH = {1: 1.96, 8: 2.36}  # by the number of seeds: Student's t, 97.5%, of seeds less one; one: pictures alone


def z_of(a, chance, n):
    """How many standard errors `a` lies above the mean of random's accuracies, which differ by pictures and by seed."""
    mean = statistics.mean(chance)
    spread = statistics.variance(chance) / len(chance) if len(chance) > 1 else mean * (1 - mean) / n
    return (a - mean) / math.sqrt(spread + a * (1 - a) / n)


def main():
    r = reach.Reach("criteria")
    net = reach.RESNET20
    base = r.evaluate(r.parent(net))
    r.row("parent", base, r.parent(net))
    chance = []
    for name in CRITERIA:
        for seed in range(r.args.seed, r.args.seed + (SEEDS if name == "random" and not r.args.quick else 1)):
            step = dict(STEP, criterion=name, recover={"calibrate": {}})
            variant = r.run(f"{name}-{seed}", net, [step], seed=seed)
            found = r.evaluate(variant)
            if name == "random":
                chance.append(found.accuracy)
            z = z_of(found.accuracy, chance, found.n)
            r.row(f"{name}, seed {seed}", found, variant, z > ENOUGH[len(chance)] if name in GRADIENTS else None,
                  **{"MACs kept": f"{variant.report['steps'][0]['macs_kept']:.3f}",
                     "z against random": "" if name == "random" else f"{z:.1f}"})
    for name in CRITERIA if not r.args.quick else []:
        step = dict(STEP, criterion=name, recover={"calibrate": {}, "finetune": FINETUNE})
        try:
            variant = r.run(f"{name}-tuned", net, [step])
            r.row(f"{name}, one epoch of fine-tuning", r.evaluate(variant), variant)
        except Exception as e:  # the hour is over: the next run goes on
            r.row(f"{name}, one epoch of fine-tuning: {type(e).__name__}")
            break
    r.end()


if __name__ == "__main__":
    main()
