"""Bits chosen for each layer, resnet20 on CIFAR-10 (JPEG), without labels: weights (as they stand in the file, with scales
and tables) under half of int8's bytes, at most 0.7 point below the parent. Further down for comparison; and the same
number of bits in every layer."""

import json
import os

import reach


def bytes_of(r, net, step):
    """Of all layers' weights, by the dry run."""
    job = os.path.join(r.folder, "mixed.plan")
    with open(job, "w", encoding="ascii") as f:
        json.dump({"input": r.model(net), "steps": [step]}, f)
    return r.command(["plan", job])["bytes"]


def main():
    r = reach.Reach("mixed")
    net = reach.RESNET20
    parent = r.parent(net)
    base = r.evaluate(parent)
    eight_bits = {"method": "quantize", "scheme": "int8"}
    eight, whole = r.run("int8", net, [eight_bits]), bytes_of(r, net, eight_bits)
    r.row("parent", base, parent)
    r.row("int8", r.evaluate(eight), eight, weights=f"{whole:,}")
    for share in [0.49] if r.args.quick else [0.49, 0.45, 0.4]:
        step = {"method": "quantize", "scheme": "mixed", "budget": {"bytes": round(share * whole)}, "adaround": True}
        variant = r.run(f"mixed-{share}", net, [step])
        found = r.evaluate(variant)
        have = variant.report["steps"][0]["weight_bytes"]
        r.row(f"mixed, {share:.2f} of int8's bytes", found, variant,
              have < 0.5 * whole and base.accuracy - found.accuracy <= 0.007 if share == 0.49 else None,
              points=reach.points(base, found), weights=f"{have:,}")
    if not r.args.quick:
        even = {"method": "quantize", "scheme": "fixed", "bits": 4}
        variant = r.run("even", net, [dict(even, adaround=True)])
        found = r.evaluate(variant)
        r.row("4 bits everywhere", found, variant, points=reach.points(base, found), weights=f"{bytes_of(r, net, even):,}")
    r.end()


if __name__ == "__main__":
    main()
