#include "compress/learn.h"

const char *const learn_losses[] = {"auto", "cross_entropy", "bce", "l2", NULL};
const char *const learn_optimizers[] = {"sgd", "adam", "adamw", NULL};
const char *const learn_schedules[] = {"cosine", "step", "onecycle", "constant", NULL};
const char *const learn_batch_norms[] = {"auto", "keep", "insert", "none", NULL};

static const struct param rows[] = {
    {
        .name = "loss",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, loss),
        .choices = learn_losses,
        .dflt = "auto",
        .doc = "auto: cross entropy; bce and l2 take the classes as 0 and 1",
    },
    {
        .name = "epochs",
        .type = PARAM_INT,
        .at = offsetof(struct learn_options, epochs),
        .min = 1,
        .max = 10000,
        .dflt = "5",
        .doc = "times that all pictures are seen",
    },
    {
        .name = "optimizer",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, optimizer),
        .choices = learn_optimizers,
        .dflt = "sgd",
        .doc = "how weights move",
        .source = "Sutskever et al. 2013; Kingma and Ba 2015; Loshchilov and Hutter 2019",
    },
    {
        .name = "lr",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, lr),
        .min = 0,
        .max = 100,
        .dflt = "0",
        .doc = "largest learning rate; 0: 0.01, or 0.002 where batch_norm is none",
    },
    {
        .name = "schedule",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, schedule),
        .choices = learn_schedules,
        .dflt = "cosine",
        .doc = "of the learning rate over all steps; step: a tenth after half and after three quarters",
        .source = "Loshchilov and Hutter 2017; Smith 2018",
    },
    {
        .name = "warmup",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, warmup),
        .min = 0,
        .max = 1,
        .dflt = "0.05",
        .doc = "share of the steps over which the learning rate rises from 0",
    },
    {
        .name = "batch",
        .type = PARAM_INT,
        .at = offsetof(struct learn_options, batch),
        .min = 1,
        .max = 4096,
        .dflt = "128",
        .doc = "pictures a step; what does not fill one at an epoch's end is left out of that epoch",
    },
    {
        .name = "momentum",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, momentum),
        .min = 0,
        .max = 0.9999,
        .dflt = "0.9",
        .doc = "of sgd",
    },
    {
        .name = "nesterov",
        .type = PARAM_BOOL,
        .at = offsetof(struct learn_options, nesterov),
        .dflt = "true",
        .doc = "of sgd",
    },
    {
        .name = "weight_decay",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, weight_decay),
        .min = 0,
        .max = 10,
        .dflt = "5e-4",
        .doc = "of weights; biases and norms do not decay",
    },
    {
        .name = "label_smoothing",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, label_smoothing),
        .min = 0,
        .max = 0.99,
        .dflt = "0",
        .doc = "share of the target that all classes have alike (cross entropy)",
        .source = "Szegedy et al. 2016, Rethinking the Inception architecture for computer vision",
    },
    {
        .name = "clip",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, clip),
        .min = 0,
        .max = 1e6,
        .dflt = "0",
        .doc = "largest norm of all gradients together; 0: none, or 1 where batch_norm is none",
        .source = "Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    },
    {
        .name = "ema",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, ema),
        .min = 0,
        .max = 0.99999,
        .dflt = "0",
        .doc = "decay of the moving average of the weights that is the result; 0: the last weights are",
        .source = "Polyak and Juditsky 1992; Tan and Le 2019",
    },
    {
        .name = "bf16",
        .type = PARAM_BOOL,
        .at = offsetof(struct learn_options, bf16),
        .dflt = "false",
        .doc =
            "values between layers are bfloat16, which takes half the memory; weights and sums stay floats. "
            "Where the processor or the network cannot, all are floats and the report says why",
        .source = "Kalamkar et al. 2019, A study of BFLOAT16 for deep learning training",
    },
    {
        .name = "batch_norm",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, batch_norm),
        .choices = learn_batch_norms,
        .dflt = "auto",
        .doc =
            "keep: normalises by the minibatch and learns its statistics; insert: also puts one behind each "
            "convolution that has none, which at first changes nothing, and folds it at the end; none: leaves "
            "statistics as they are; auto: insert for networks of ten convolutions and more without any, else keep",
        .source = "Ioffe and Szegedy 2015",
    },
    {
        .name = "augment",
        .type = PARAM_OBJECT,
        .at = offsetof(struct learn_options, augment),
        .table = &augment_table,
        .given_at = offsetof(struct learn_options, augment.is_wanted),
        .doc = "pictures are changed by chance, anew each epoch; without the object they are not",
    },
};

const struct param_table learn_table = {rows, sizeof(rows) / sizeof(rows[0])};
