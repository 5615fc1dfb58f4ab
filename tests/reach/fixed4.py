"""Evenly spaced weights of few bits, resnet20 on CIFAR-10 (JPEG), without labels: nearest rounding beside AdaRound with
the same scales and bits, activations in 8 bits. Reach: 4 bits with AdaRound at most 1 point below the parent."""

import reach


def main():
    r = reach.Reach("fixed4")
    net = reach.RESNET20
    parent = r.parent(net)
    base = r.evaluate(parent)
    r.row("parent", base, parent)
    for bits in [4] if r.args.quick else [4, 3, 2]:
        for adaround in [False, True]:
            step = {"method": "quantize", "scheme": "fixed", "bits": bits, "adaround": adaround}
            variant = r.run(f"{bits}-{adaround}", net, [step])
            found = r.evaluate(variant)
            r.row(f"{bits} bits, {'AdaRound' if adaround else 'nearest'}", found, variant,
                  base.accuracy - found.accuracy <= 0.01 if bits == 4 and adaround else None, points=reach.points(base, found))
    if not r.args.quick:
        variant = r.run("int4", net, [{"method": "quantize", "scheme": "int4", "adaround": True}])
        found = r.evaluate(variant)
        r.row("int4 with AdaRound", found, variant, points=reach.points(base, found))
    r.end()


if __name__ == "__main__":
    main()
