#include "compress/distil.h"

#include <errno.h>

static const char *const teachers[] = {"parent", NULL};
static const char *const kinds[] = {"logits", NULL};

static const struct param knowledge_rows[] = {
    {
        .name = "kind",
        .type = PARAM_ENUM,
        .at = offsetof(struct distil_knowledge, kind),
        .choices = kinds,
        .dflt = "logits",
        .doc = "logits: Kullback-Leibler distance of the softened answers",
        .source = "Hinton, Vinyals and Dean 2015, Distilling the knowledge in a neural network",
    },
    {
        .name = "weight",
        .type = PARAM_REAL,
        .at = offsetof(struct distil_knowledge, weight),
        .min = 0.001,
        .max = 1,
        .dflt = "0.9",
        .doc = "share of the loss; the labels have the rest",
    },
    {
        .name = "temperature",
        .type = PARAM_REAL,
        .at = offsetof(struct distil_knowledge, temperature),
        .min = 0.1,
        .max = 100,
        .dflt = "4",
        .doc = "by which both networks' logits are divided",
    },
};
static const struct param_table knowledge_table = {
    knowledge_rows, sizeof(knowledge_rows) / sizeof(knowledge_rows[0])};

static const struct param rows[] = {
    {
        .name = "teacher",
        .type = PARAM_ENUM,
        .at = offsetof(struct distil_options, teacher),
        .choices = teachers,
        .dflt = "parent",
        .doc = "the network that the job began with",
    },
    {
        .name = "knowledge",
        .type = PARAM_OBJECTS,
        .at = offsetof(struct distil_options, knowledge),
        .table = &knowledge_table,
        .item_size = sizeof(struct distil_knowledge),
        .max = 1,
        .doc = "what is learned of the teacher; default: its logits",
    },
    {
        .name = "labels",
        .type = PARAM_BOOL,
        .at = offsetof(struct distil_options, labels),
        .dflt = "true",
        .doc = "false: the pictures need no labels, the teacher's answers are all there is",
    },
};
const struct param_table distil_table = {rows, sizeof(rows) / sizeof(rows[0])};

int distil_read(const struct distil_options *o, const struct graph *teacher, struct learn_distil *ret,
    struct error *err) {
    struct distil_knowledge usual;
    const struct distil_knowledge *k = o->knowledge.item;

    if (!k) {
        if (param_defaults(&knowledge_table, &usual, err) < 0)
            return -EINVAL;
        k = &usual;
    }
    *ret = (struct learn_distil){
        .teacher = teacher, .weight = k->weight, .temperature = k->temperature, .labels = o->labels};
    return 0;
}
