/* model_file: see model_file.h. What a user changes is a second view over the first. */
#include "model/model_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/fnv.h"
#include "model/gguf_header.h"
#include "model/model_overrides.h"
#include "model/quantize.h"
#include "model/shown.h"
#include "model/tensor_rows.h"

/* ---- which types ---- */

static const struct quantisation {
    const char *name;
    enum tensor_type type;
    uint32_t file_type; /* of GGUF's key general.file_type */
} quantisations[] = {{"q8_0", TENSOR_Q8_0, 7}, {"q4_0", TENSOR_Q4_0, 2}, {"q4_k", TENSOR_Q4_K, 14}};

static enum err find_quantisation(const char *name, const struct quantisation **out, struct why *why)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof quantisations / sizeof *quantisations; i++)
        if (strcmp(name, quantisations[i].name) == 0)
            *out = &quantisations[i];
    return *out ? OK : because(why, ERR_INVALID, "weights cannot be made \"%.40s\"; q8_0, q4_0 and q4_k can", name);
}

static bool is_named(const struct gguf_tensor *t, const char *part)
{
    return memmem(t->name.at, t->name.length, part, strlen(part));
}

/*
 * Float matrices that meet activations in products become what was asked for; so does the embedding, which often is the output matrix too.
 * Where a row is no whole number of blocks, Q8_0 if that goes, else as it is.
 */
static enum tensor_type type_of(const struct gguf_tensor *t, const struct quantisation *q)
{
    bool product = t->dims >= 2 && is_named(t, ".weight") && !is_named(t, "position_embd") && !is_named(t, "gate_inp");
    if (!q || !product || !tensor_rows_can_be(t->type, q->type))
        return t->type;
    if (t->extent[0] % tensor_type_traits(q->type)->block_elements == 0)
        return q->type;
    return t->extent[0] % tensor_type_traits(TENSOR_Q8_0)->block_elements == 0 ? TENSOR_Q8_0 : t->type;
}

/* ---- a view over another ---- */

struct changed {
    struct gguf *base;
    uint8_t *header;
    struct tensor_source *sources;
};

static void changed_close(void *changed)
{
    struct changed *c = changed;
    gguf_close(c->base);
    free(c->header);
    free(c->sources);
    free(c);
}

static bool is_key(const struct gguf_key *key, const char *name)
{
    return key->name.length == strlen(name) && memcmp(key->name.at, name, key->name.length) == 0;
}

/* The header of g with other keys and types. */
static enum err write_header(const struct gguf *g, const struct model_overrides *overrides,
                             const struct quantisation *q, uint8_t **out, size_t *length, struct why *why)
{
    struct gguf_header h = {0};
    for (uint32_t i = 0; i < gguf_key_count(g); i++) {
        struct gguf_key key = gguf_key_at(g, i);
        bool replaced = is_key(&key, "general.alignment") || model_overrides_has(overrides, key.name) ||
                        (q && (is_key(&key, "general.file_type") || is_key(&key, "general.quantization_version")));
        if (!replaced)
            gguf_header_copy(&h, &key);
    }
    model_overrides_put(overrides, &h);
    if (q) {
        gguf_header_u32(&h, "general.file_type", q->file_type);
        gguf_header_u32(&h, "general.quantization_version", 2);
    }
    for (uint32_t i = 0; i < gguf_tensor_count(g); i++) {
        struct gguf_tensor t = *gguf_tensor_at(g, i);
        t.type = type_of(&t, q);
        gguf_header_tensor(&h, t.name, t.dims, t.extent, t.type, tensor_row_bytes(&t) * tensor_row_count(&t));
    }
    enum err err = gguf_header_finish(&h, out, length, why);
    gguf_header_fini(&h);
    return err;
}

static uint64_t hash_with(const struct gguf *g, const char *overrides, const char *quantize)
{
    uint64_t hash = gguf_hash(g);
    hash = fnv_bytes(hash, overrides, strlen(overrides) + 1);
    return fnv_bytes(hash, quantize, strlen(quantize) + 1);
}

/* Takes over *g, which is another view afterwards; on an error it is as before. */
static enum err change(struct gguf **g, const char *path, const char *overrides_text, const char *quantize,
                       struct why *why)
{
    const struct quantisation *q = NULL;
    struct gguf_string architecture = {"", 0};
    struct model_overrides overrides;
    enum err err = *quantize ? find_quantisation(quantize, &q, why) : OK;
    if (err == OK)
        err = gguf_get_string(*g, "general.architecture", true, &architecture, why);
    if (err == OK)
        err = model_overrides_parse(&overrides, overrides_text, architecture, why);
    if (err != OK)
        return err;
    uint32_t count = gguf_tensor_count(*g);
    struct changed *c = calloc(1, sizeof *c);
    struct tensor_source *sources = calloc(count + 1, sizeof *sources);
    struct gguf_view view = {.hash = hash_with(*g, overrides_text, quantize), .file_bytes = gguf_file_bytes(*g)};
    if (!c || !sources)
        err = because(why, ERR_NOMEM, "no memory to open \"%.300s\"", path);
    if (err == OK)
        err = write_header(*g, &overrides, q, &c->header, &view.length, why);
    for (uint32_t i = 0; err == OK && i < count; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(*g, i);
        sources[i] = t->source ? *t->source : (struct tensor_source){.data = t->data, .type = t->type};
    }
    if (err == OK) {
        view.header = c->header;
        view.sources = c->sources = sources;
        view.owner = c;
        view.close = changed_close;
        c->base = *g;
        err = gguf_open_view(g, &view, path, why);
    }
    if (err != OK) {
        if (c)
            free(c->header);
        free(c);
        free(sources);
    }
    return err;
}

enum err model_file_open(struct gguf **out, const char *path, const struct model_file_options *options, struct why *why)
{
    const char *overrides = options && options->overrides ? options->overrides : "";
    const char *quantize = options && options->quantize ? options->quantize : "";
    struct stat st;
    struct gguf *g;
    bool is_directory = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    enum err err =
        is_directory ? hub_open(&g, path, options ? options->part : HUB_WHOLE, why) : gguf_open(&g, path, why);
    if (err == OK && (*overrides || *quantize)) {
        err = change(&g, path, overrides, quantize, why);
        if (err != OK)
            gguf_close(g);
    }
    if (err == OK)
        *out = g;
    return err;
}

/* ---- writing ---- */

enum { CHUNK_BYTES = 4 << 20 };

struct writing {
    FILE *file;
    const char *path;
    struct why *why;
};

static enum err put(const struct writing *w, const void *bytes, size_t length)
{
    if (length > 0 && fwrite(bytes, 1, length, w->file) != length)
        return because_errno(w->why, ERR_IO, "could not write \"%.300s\"", w->path);
    return OK;
}

static enum err put_tensor(const struct writing *w, const struct gguf_tensor *t, uint8_t *chunk, uint64_t chunk_rows)
{
    static const uint8_t zeros[GGUF_ALIGNMENT];
    uint64_t row_bytes = tensor_row_bytes(t), rows = tensor_row_count(t), bytes = row_bytes * rows;
    enum err err = OK;
    for (uint64_t first = 0; first < rows && err == OK; first += chunk_rows) {
        uint32_t count = (uint32_t)(rows - first < chunk_rows ? rows - first : chunk_rows);
        err = tensor_rows_read(t, first, NULL, count, chunk, w->why);
        if (err == OK)
            err = put(w, chunk, count * row_bytes);
    }
    return err == OK ? put(w, zeros, (size_t)(-bytes % GGUF_ALIGNMENT)) : err;
}

static enum err put_tensors(const struct writing *w, const struct gguf *g)
{
    enum err err = OK;
    for (uint32_t i = 0; i < gguf_tensor_count(g) && err == OK; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        uint64_t row_bytes = tensor_row_bytes(t), rows = CHUNK_BYTES / row_bytes + 1;
        rows = rows < tensor_row_count(t) ? rows : tensor_row_count(t);
        uint8_t *chunk = malloc(rows * row_bytes);
        err = chunk ? put_tensor(w, t, chunk, rows)
                    : because(w->why, ERR_NOMEM, "no memory to write \"%.300s\"", w->path);
        free(chunk);
    }
    return err;
}

static enum err put_all(const struct writing *w, const struct gguf *g)
{
    static const struct model_overrides none;
    uint8_t *header;
    size_t length;
    enum err err = write_header(g, &none, NULL, &header, &length, w->why);
    if (err != OK)
        return err;
    err = put(w, header, length);
    free(header);
    if (err == OK)
        err = put_tensors(w, g);
    if (err == OK && (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0))
        err = because_errno(w->why, ERR_IO, "could not write \"%.300s\"", w->path);
    return err;
}

enum err model_file_save(const struct gguf *g, const char *path, struct why *why)
{
    char beside[4096];
    if (snprintf(beside, sizeof beside, "%s.%d.part", path, (int)getpid()) >= (int)sizeof beside)
        return because(why, ERR_INVALID, "the path of the file to write is longer than %zu bytes", sizeof beside);
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!file) {
        enum err err = because_errno(why, ERR_IO, "could not create \"%.300s\"", beside);
        if (fd >= 0)
            close(fd);
        return err;
    }
    const struct writing w = {.file = file, .path = beside, .why = why};
    enum err err = put_all(&w, g);
    if (fclose(file) != 0 && err == OK)
        err = because_errno(why, ERR_IO, "could not write \"%.300s\"", beside);
    if (err == OK && rename(beside, path) != 0)
        err = because_errno(why, ERR_IO, "could not put the finished file at \"%.300s\"", path);
    if (err != OK)
        unlink(beside);
    return err;
}
