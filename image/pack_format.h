/* Sizes that reader and writer of packs share; the format is described in pack.h. */
#ifndef IMAGE_PACK_FORMAT_H
#define IMAGE_PACK_FORMAT_H

#define PACK_MAGIC       "BONSPACK"
#define PACK_VERSION     1
#define PACK_HEADER_SIZE 40
#define PACK_RECORD_SIZE 64

#endif
