/*
 * api_keys: who may ask. Keys come from a file, one a line; only their hashes are kept, and a key that is offered is
 * compared with all of them in a time that says nothing about any.
 */
#ifndef QUIRE_COORDINATOR_API_KEYS_H
#define QUIRE_COORDINATOR_API_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { API_KEYS_MAX = 1024, API_KEY_MAX = 512 };

struct api_keys {
    uint32_t count;     /* 0: no key is asked for */
    uint64_t secret[2]; /* of the hash */
    uint64_t hashes[API_KEYS_MAX][2];
};

/*
 * path "": no keys. Lines that begin with # and empty ones are skipped; a file without any key is refused. secret: two words, the
 * same for all servers to whom a tenant is to be the same; NULL: random.
 */
enum err api_keys_open(struct api_keys *k, const char *path, const uint64_t *secret, struct why *why);

/*
 * Looks at "Authorization: Bearer KEY" and "X-Api-Key: KEY" (either may be NULL). True: may pass; *salt is then the tenant's,
 * a number that pages are kept apart by (0 without keys).
 */
bool api_keys_allow(const struct api_keys *k, const char *authorization, const char *x_api_key, uint64_t *salt);

/* Pages are kept apart by tenant and by the request's own cache_salt; 0 and 0 give 0. */
uint64_t api_keys_salt(const struct api_keys *k, uint64_t tenant, uint64_t cache_salt);

#endif
