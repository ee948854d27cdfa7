/* token_map: see token_map.h. */
#include "model/token_map.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "model/tokenizer.h"

/* Without the kernel's random numbers the tables work as well, only foreseeably. */
static uint64_t random_key(void)
{
    uint64_t key = 0;
    ssize_t ignored = getrandom(&key, sizeof key, GRND_NONBLOCK);
    (void)ignored;
    return key | 1;
}

/* Folds the 128-bit product: each bit of the result depends on all bits of both. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Room for twice as many, a power of two. */
static size_t slots_for(size_t count)
{
    size_t slots = 16;
    while (slots < 2 * count)
        slots *= 2;
    return slots;
}

static uint64_t hash_text(uint64_t key, const char *text, size_t length)
{
    uint64_t hash = mix(key ^ length, 0x9E3779B97F4A7C15u);
    for (; length >= 8; text += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        hash = mix(hash ^ word, key ^ 0xD6E8FEB86659FD93u);
    }
    uint64_t rest = 0;
    memcpy(&rest, text, length);
    return mix(hash ^ rest, key ^ 0xA0761D6478BD642Fu);
}

bool text_map_init(struct text_map *map, const struct token_text *texts, size_t count)
{
    size_t slots = slots_for(count);
    uint32_t *empty = calloc(slots, sizeof *empty);
    *map = (struct text_map){.texts = texts, .slots = empty, .mask = slots - 1, .key = random_key()};
    return map->slots != NULL;
}

void text_map_fini(struct text_map *map)
{
    free(map->slots);
    *map = (struct text_map){0};
}

/* The slot that holds this text or where it would go. */
static size_t text_slot(const struct text_map *map, const char *text, size_t length)
{
    size_t slot = hash_text(map->key, text, length) & map->mask;
    while (map->slots[slot]) {
        const struct token_text *there = &map->texts[map->slots[slot] - 1];
        if (there->length == length && memcmp(there->at, text, length) == 0)
            break;
        slot = (slot + 1) & map->mask;
    }
    return slot;
}

void text_map_put(struct text_map *map, uint32_t id)
{
    map->slots[text_slot(map, map->texts[id].at, map->texts[id].length)] = id + 1;
}

uint32_t text_map_find(const struct text_map *map, const char *text, size_t length)
{
    uint32_t found = map->slots[text_slot(map, text, length)];
    return found ? found - 1 : TOKEN_NONE;
}

bool merge_map_init(struct merge_map *map, size_t count)
{
    size_t slots = slots_for(count);
    *map = (struct merge_map){.slots = malloc(slots * sizeof *map->slots), .mask = slots - 1, .key = random_key()};
    for (size_t i = 0; map->slots && i < slots; i++)
        map->slots[i].id = TOKEN_NONE;
    return map->slots != NULL;
}

void merge_map_fini(struct merge_map *map)
{
    free(map->slots);
    *map = (struct merge_map){0};
}

static size_t merge_slot(const struct merge_map *map, uint32_t left, uint32_t right)
{
    size_t slot = mix((uint64_t)left << 32 | right, map->key ^ 0x9E3779B97F4A7C15u) & map->mask;
    while (map->slots[slot].id != TOKEN_NONE && (map->slots[slot].left != left || map->slots[slot].right != right))
        slot = (slot + 1) & map->mask;
    return slot;
}

void merge_map_put(struct merge_map *map, struct merge merge)
{
    struct merge *slot = &map->slots[merge_slot(map, merge.left, merge.right)];
    if (slot->id == TOKEN_NONE)
        *slot = merge;
}

const struct merge *merge_map_find(const struct merge_map *map, uint32_t left, uint32_t right)
{
    const struct merge *slot = &map->slots[merge_slot(map, left, right)];
    return slot->id == TOKEN_NONE ? NULL : slot;
}
