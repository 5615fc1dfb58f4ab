"""Product quantisation of fully connected layers of VGG-16's size (25088 x 4096, 4096 x 4096, 4096 x 1000). Reach: their
bytes at least 20 times smaller, in bounded memory (3 GB, of which the file is 0.55)."""

import reach
import vgg16

DIM = 8
LIMIT = 3e9


def main():
    r = reach.Reach("product")
    net = vgg16.make(r)
    dense = vgg16.layer_ids()[vgg16.N_CONV:]
    steps = [{"method": "quantize", "scheme": "product", "activations": "float", "product": {"dim": DIM, "words": 256},
              "layers": {"include": dense}}]
    variant, seconds, peak = vgg16.run(r, "product", steps, net)
    params = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    stored = variant.size - (r.parent(net).size - 4 * params)
    r.row(f"vectors of {DIM} weights, 256 words", None, variant, 4 * params >= 20 * stored,
          **{"bytes of the layers": f"{stored:,}", "times smaller": f"{4 * params / stored:.1f}"})
    r.row("memory", None, None, peak <= LIMIT, **{"peak": f"{peak / 1e9:.2f} GB", "minutes": f"{seconds / 60:.1f}"})
    r.end()


if __name__ == "__main__":
    main()
