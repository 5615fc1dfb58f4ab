"""Deep Compression (Han et al. 2016) of LeNet-300-100 and LeNet-5, trained here on Fashion-MNIST: pruned gradually by
magnitude over all layers while the parent's answers are learned, too, weights of 5 bits (8 in LeNet-5's convolutions), the container with entropy coding. Reach: at least
40 and 39 times smaller than the float file, density at most 8%, error at most 0.3 point above the parent's."""

import container
import reach


def prune(sparsity, epochs):
    return {"method": "prune", "granularity": "weight", "criterion": "magnitude", "scope": "global", "sparsity": sparsity,
            "schedule": {"kind": "gradual"}, "recover": {
                "finetune": {"epochs": epochs, "lr": 0.02},
                "distill": {"knowledge": [{"kind": "logits", "weight": 0.7, "temperature": 2}]}}}


def book(epochs, **more):
    return dict({"method": "quantize", "scheme": "codebook", "bits": 5, "codebook": {"entries": "float"},
                 "recover": {"finetune": {"epochs": epochs, "lr": 0.0002}}}, **more)


NETS = [
    ("lenet300", {"network": {"zoo": "lenet300"}, "epochs": 20}, 40,
     [prune(0.938, 20), book(1)]),
    ("lenet5", {"network": {"zoo": "lenet5"}, "epochs": 12}, 39,
     [prune(0.9405, 6), {"method": "finetune", "epochs": 4, "lr": 0.02}, book(1, overrides={"conv*": {"bits": 8}}),
      {"method": "finetune", "epochs": 2, "lr": 0.001}]),
]


def density(report):
    layers = report["steps"][0]["layers"]
    return 1 - sum(x["sparsity"] * x["bytes_before"] for x in layers) / sum(x["bytes_before"] for x in layers)


def main():
    r = reach.Reach("deep_compression")
    for name, spec, times, steps in NETS:
        net = r.train(name, reach.FASHION, spec)
        parent = r.parent(net)
        base = r.evaluate(parent)
        r.row(name, base, parent)
        variant = r.run(name, net, steps)
        found, packed = r.evaluate(variant), container.container_bytes(variant.path)
        kept, ratio = density(variant.report), parent.size / packed
        r.row(name + ", compressed", found, variant,
              ratio >= times and kept <= 0.08 and base.accuracy - found.accuracy <= 0.003, container=f"{packed:,}",
              ratio=f"{ratio:.1f}", density=f"{100 * kept:.1f}%", points=reach.points(base, found))
    r.end()


if __name__ == "__main__":
    main()
