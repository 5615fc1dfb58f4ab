"""Every named recipe on one network: accuracy on the whole test set, bytes, and how many times faster the engine is.

    sh tests/reach/run.sh presets --data DIR [--seed N] [--quick]     NET=resnet20_cifar10: another than lenet5_fashion"""

import os

import container
import reach

r = reach.Reach("presets")
net = {n.name: n for n in (reach.LENET5, reach.RESNET20, reach.RESNET20_FUSED)}[os.environ.get("NET", "lenet5_fashion")]
recipes = r.command(["methods"])["recipes"]["items"]
parent = r.parent(net)
before = r.evaluate(parent)
r.row("parent", before, parent, container=f"{container.container_bytes(parent.path):,}")
for recipe in recipes:
    try:
        variant = r.run(recipe["name"], net, recipe["steps"])
    except RuntimeError as e:  # it may be none for this network: then it says why
        r.row(recipe["name"], **{"points lost": str(e)})
        continue
    after = r.evaluate(variant)
    _, ratios, _ = r.bench([parent, variant], rounds=5, options=["--threads", "1", "--tune"])
    r.row(recipe["name"], after, variant, container=f"{container.container_bytes(variant.path):,}",
          **{"points lost": reach.points(before, after), "times faster": f"{ratios[1]:.2f}"})
r.end()
