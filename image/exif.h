/* The orientation tag of EXIF data; nothing else of it is read. Every offset is checked. */
#ifndef IMAGE_EXIF_H
#define IMAGE_EXIF_H

#include <stddef.h>

/* `data`: a TIFF header and what follows ("Exif\0\0" before it is passed over). 1 to 8; 0: none or not
 * readable. */
int exif_orientation(const void *data, size_t size);

/* The same of ImageMagick's "Raw profile type exif" text: three header lines, then hexadecimal digits. */
int exif_orientation_hex(const char *text, size_t size);

#endif
