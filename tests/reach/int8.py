"""8-bit weights and activations on every network with data: at most 0.5 point below the parent; faster than direct float
(no Winograd) by at least 3x on vgg8, 2.5x on resnet20, 1.5x on lenet5 and ppocr-cls, than tuned float by 1.8x on vgg8 and
resnet20. One thread, batch 1, all three take turns; each row is the median of the rounds' ratios.

vgg8 is a network of the zoo trained on the same pictures: NETS names a folder with vgg8_cifar10.onnx (bonsai-worker train).
"""

import json
import os
import statistics

import reach

STEPS = [{"method": "quantize", "scheme": "int8"}]
DIRECT = ["--kernels", "-conv_f32_winograd2,-conv_f32_winograd4"]
TEXT = ("textdir-test.tar", "textdir-test.tar")
TEXT_CARD = {"preprocess": {"layout": "NCHW", "color": "bgr", "resize": {"mode": "bilinear", "size": [48, 192], "crop": None},
                            "scale": 1 / 255, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "labels": ["0", "180"]}


def nets(r):
    """(net, least ratio to direct float, to tuned float, options of bench)"""
    card = os.path.join(r.folder, "ppocr-cls.json")
    with open(card, "w", encoding="ascii") as f:
        json.dump(TEXT_CARD, f)
    text = reach.Net("ppocr-cls", TEXT, os.path.join(r.args.data, "models", "public", "ppocr-cls.onnx"), card)
    found = [(reach.LENET5, 1.5, None, []), (reach.RESNET20, 2.5, 1.8, []), (reach.RESNET20_FUSED, 2.5, 1.8, []),
             (text, 1.5, None, ["--shape", "x=1x3x48x192"])]
    vgg8 = os.path.join(os.environ.get("NETS", ""), "vgg8_cifar10.onnx")
    if os.path.exists(vgg8):
        found.append((reach.Net("vgg8_cifar10", reach.CIFAR, vgg8, r.card(reach.RESNET20)), 3.0, 1.8, []))
    return found


def times(r, parent, variant, options):
    """Median ratios of direct and of tuned float to int8, and the median microseconds of the three."""
    cache = os.path.join(r.folder, f"{parent.net.name}.tune")
    runs = [(parent, DIRECT), (parent, ["--tune-cache", cache, "--tune"]), (variant, [])]
    rounds = []
    for _ in range(3 if r.args.quick else 9):
        rounds.append([r.command(["bench", v.path, "--seconds", "1", *options, *more])["p50_us"] for v, more in runs])
    ratio = [statistics.median(t[i] / t[2] for t in rounds) for i in range(2)]
    return ratio, [statistics.median(t[i] for t in rounds) for i in range(3)]


def main():
    r = reach.Reach("int8")
    for net, direct, tuned, options in nets(r):
        parent = r.parent(net)
        base = r.evaluate(parent)
        variant = r.run(net.name, net, STEPS)
        found = r.evaluate(variant)
        r.row(f"{net.name}, parent", base, parent)
        r.row(f"{net.name}, int8", found, variant, base.accuracy - found.accuracy <= 0.005, points=reach.points(base, found))
        ratio, us = times(r, parent, variant, options)
        text = f"{us[0]:.0f}, {us[1]:.0f}, {us[2]:.0f}"
        r.row(f"{net.name}, time of direct float", None, None, ratio[0] >= direct,
              **{"times faster": f"{ratio[0]:.2f}", "µs direct, tuned, int8": text})
        r.row(f"{net.name}, time of tuned float", None, None, None if tuned is None else ratio[1] >= tuned,
              **{"times faster": f"{ratio[1]:.2f}"})
    r.end()


if __name__ == "__main__":
    main()
