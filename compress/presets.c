#include "compress/presets.h"

#include <string.h>

const struct preset presets[] = {
    {"bf16", "Half the bytes: weights in bfloat16", "nothing",
        "[{\"method\":\"quantize\",\"scheme\":\"bf16\"}]"},
    {"deep-compression",
        "Fewest bytes in the download container (?container=zst): one weight in twelve stays, in 5-bit codebooks",
        "labelled pictures",
        "[{\"method\":\"prune\",\"granularity\":\"weight\",\"sparsity\":0.92,\"schedule\":{\"kind\":\"gradual\"},"
        "\"recover\":{\"finetune\":{\"epochs\":20,\"lr\":0.02},\"distill\":{\"knowledge\":[{\"kind\":\"logits\","
        "\"weight\":0.7,\"temperature\":2}]}}},"
        "{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":5,\"codebook\":{\"entries\":\"float\"},"
        "\"recover\":{\"finetune\":{\"epochs\":1,\"lr\":0.0002}}}]"},
    {"fast", "Fewest milliseconds: the least useful channels gone, what is left in 8 bits",
        "labelled pictures",
        "[{\"method\":\"prune\",\"granularity\":\"channel\",\"criterion\":\"taylor\",\"macs\":0.7,"
        "\"recover\":{\"finetune\":{\"epochs\":4,\"augment\":{\"crop_padding\":2}}}},"
        "{\"method\":\"quantize\",\"scheme\":\"int8\",\"recover\":{\"calibrate\":{\"variance\":false}}}]"},
    {"int8", "8-bit weights and activations, means recovered", "pictures",
        "[{\"method\":\"quantize\",\"scheme\":\"int8\",\"recover\":{\"calibrate\":{\"variance\":false}}}]"},
    {"lowrank", "Layers of half their rank: fewer multiplications and bytes", "labelled pictures",
        "[{\"method\":\"lowrank\",\"rank\":{\"ratio\":0.5},\"recover\":{\"finetune\":{\"epochs\":3}}}]"},
    {"small", "An eighth of the bytes, also in memory, at the speed of 8 bits: 4-bit codebooks",
        "labelled pictures",
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":4,"
        "\"recover\":{\"finetune\":{\"epochs\":2}}}]"},
    {"sparse", "One weight in ten stays, stored with its place", "labelled pictures",
        "[{\"method\":\"prune\",\"granularity\":\"weight\",\"criterion\":\"lamp\",\"sparsity\":0.9,\"schedule\":{\"kind\":\"gradual\"},"
        "\"recover\":{\"finetune\":{\"epochs\":6}}}]"},
    {"tiny", "Fewest bytes: one weight in five stays, in 4-bit codebooks", "labelled pictures",
        "[{\"method\":\"prune\",\"granularity\":\"weight\",\"criterion\":\"lamp\",\"sparsity\":0.8,\"schedule\":{\"kind\":\"gradual\"},"
        "\"recover\":{\"finetune\":{\"epochs\":4}}},"
        "{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":4,"
        "\"recover\":{\"finetune\":{\"epochs\":2}}}]"},
};
const size_t n_presets = sizeof(presets) / sizeof(presets[0]);

const struct preset *preset_find(const char *name) {
    for (size_t i = 0; i < n_presets; i++)
        if (!strcmp(presets[i].name, name))
            return &presets[i];
    return NULL;
}
