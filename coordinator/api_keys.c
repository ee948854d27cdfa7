#include "coordinator/api_keys.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/*
 * SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), 64 bits; two keys make 128. A keyed PRF is all
 * that is needed: the hashes never leave the process.
 */
static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

static uint64_t siphash(const uint64_t key[2], const uint8_t *bytes, size_t length)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                     key[1] ^ 0x7465646279746573};
    for (size_t at = 0; at <= length; at += 8) {
        uint64_t word = 0;
        size_t left = length - at < 8 ? length - at : 8;
        memcpy(&word, bytes + at, left);
        if (left < 8)
            word |= (uint64_t)length << 56;
        v[3] ^= word;
        sip_round(v);
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void hash_key(const struct api_keys *k, const char *text, size_t length, uint64_t out[2])
{
    uint64_t other[2] = {~k->secret[0], ~k->secret[1]};
    out[0] = siphash(k->secret, (const uint8_t *)text, length);
    out[1] = siphash(other, (const uint8_t *)text, length);
}

enum err api_keys_open(struct api_keys *k, const char *path, const uint64_t *secret, struct why *why)
{
    *k = (struct api_keys){0};
    if (secret)
        memcpy(k->secret, secret, sizeof k->secret);
    else if (getrandom(k->secret, sizeof k->secret, 0) != sizeof k->secret)
        return because_errno(why, ERR_IO, "could not get random numbers for the API keys");
    if (!*path)
        return OK;
    FILE *file = fopen(path, "re");
    if (!file)
        return because_errno(why, ERR_IO, "could not read the API keys \"%.200s\"", path);
    enum err e = OK;
    char line[API_KEY_MAX + 2];
    while (!e && fgets(line, sizeof line, file)) {
        size_t length = strlen(line);
        if (length == sizeof line - 1 && line[length - 1] != '\n')
            e = because(why, ERR_INVALID, "\"%.200s\" has a key of more than %d bytes", path, API_KEY_MAX);
        length = strcspn(line, "\r\n");
        if (e || !length || *line == '#')
            continue;
        if (k->count == API_KEYS_MAX)
            e = because(why, ERR_INVALID, "\"%.200s\" has more than %d keys", path, API_KEYS_MAX);
        else
            hash_key(k, line, length, k->hashes[k->count++]);
    }
    fclose(file);
    if (!e && !k->count)
        e = because(why, ERR_INVALID, "\"%.200s\" has no key; without --api-key-file none is asked for", path);
    return e;
}

bool api_keys_allow(const struct api_keys *k, const char *authorization, const char *x_api_key, uint64_t *salt)
{
    *salt = 0;
    if (!k->count)
        return true;
    const char *key = x_api_key;
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0)
        key = authorization + 7;
    if (!key)
        return false;
    uint64_t offered[2];
    bool found = false;
    hash_key(k, key, strlen(key), offered);
    for (uint32_t i = 0; i < k->count; i++) /* all of them, whichever fits: the time is the same */
        found |= ((k->hashes[i][0] ^ offered[0]) | (k->hashes[i][1] ^ offered[1])) == 0;
    *salt = found ? offered[0] : 0;
    return found;
}

uint64_t api_keys_salt(const struct api_keys *k, uint64_t tenant, uint64_t cache_salt)
{
    uint64_t both[2] = {tenant, cache_salt};
    return cache_salt ? siphash(k->secret, (const uint8_t *)both, sizeof both) : tenant;
}
