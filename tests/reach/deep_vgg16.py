"""Deep Compression of VGG-16 at ImageNet's size: generated weights, the paper's densities of each layer (Han et al. 2016,
table 5), codes of at most 6 bits in convolutions and 5 in fully connected layers, no fine-tuning. Reach: the container at
least 49 times smaller than the float file, in at most 3 GB, in minutes. Random weights have gaps and codes of full entropy;
so the codes are as short as that needs."""

import container
import reach
import vgg16

DENSITY = [58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36, 4, 4, 23]  # per cent
CONV_BITS, DENSE_BITS = 4, 3


def main():
    r = reach.Reach("deep_vgg16")
    net = vgg16.make(r)
    ids = vgg16.layer_ids()
    steps = [{"method": "prune", "granularity": "weight", "criterion": "magnitude", "scope": "layer", "sparsity": 0.65,
              "overrides": {i: {"sparsity": round(1 - d / 100, 2)} for i, d in zip(ids, DENSITY)}},
             {"method": "quantize", "scheme": "codebook", "bits": CONV_BITS, "activations": "float",
              "codebook": {"entries": "float"}, "overrides": {i: {"bits": DENSE_BITS} for i in ids[vgg16.N_CONV:]}}]
    variant, seconds, peak = vgg16.run(r, "deep_vgg16", steps, net)
    before, packed = r.parent(net).size, container.container_bytes(variant.path)
    r.row("float", None, r.parent(net))
    r.row(f"{CONV_BITS} bits, {DENSE_BITS} bits fully connected", None, variant, before >= 49 * packed,
          container=f"{packed:,}", ratio=f"{before / packed:.1f}")
    r.row("memory", None, None, peak <= 3e9, **{"peak": f"{peak / 1e9:.2f} GB", "minutes": f"{seconds / 60:.1f}"})
    r.end()


if __name__ == "__main__":
    main()
