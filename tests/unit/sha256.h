/* The first 16 hexadecimal digits of SHA-256, as the manifests of the test data have them. */
#ifndef TESTS_UNIT_SHA256_H
#define TESTS_UNIT_SHA256_H

#include <openssl/evp.h>
#include <stdio.h>

static inline const char *sha256_short(const void *data, size_t size, char ret[static 17]) {
    unsigned char md[EVP_MAX_MD_SIZE];

    if (!EVP_Digest(data, size, md, NULL, EVP_sha256(), NULL))
        return "";
    for (size_t i = 0; i < 8; i++)
        snprintf(ret + 2 * i, 3, "%02x", md[i]);
    return ret;
}

#endif
