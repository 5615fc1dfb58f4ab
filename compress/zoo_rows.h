/* The rows of the table in zoo.c, each defined beside its network. */
#ifndef COMPRESS_ZOO_ROWS_H
#define COMPRESS_ZOO_ROWS_H

#include "compress/zoo.h"

extern const struct zoo_net zoo_lenet300, zoo_lenet5, zoo_mobilenet_v1, zoo_mobilenet_v2, zoo_resnet20,
    zoo_resnet32, zoo_resnet56, zoo_shufflenet_v2, zoo_squeezenet, zoo_vgg8;

#endif
