/* Method `finetune`: goes on training the network on labelled data (learn.h). */
#ifndef COMPRESS_FINETUNE_H
#define COMPRESS_FINETUNE_H

#include "compress/method.h"

extern const struct method method_finetune;

#endif
