/* hub: see hub.h. Opens the files, has them translated, and hands out a view of the result. */
#include "model/hub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/fnv.h"
#include "model/hub_internal.h"
#include "model/hub_tokenizer.h"
#include "model/mapped_file.h"

enum { PATH_BYTES = 4096 };

static void hub_close(void *hub)
{
    struct hub *h = hub;
    json_decref(h->config);
    json_decref(h->generation);
    safetensors_close(h->weights);
    gguf_header_fini(&h->header);
    free(h->claimed);
    for (uint32_t i = 0; i < h->source_count; i++)
        free((void *)(uintptr_t)h->sources[i].pieces);
    free(h->sources);
    free(h->rope_factors);
    free(h->header_bytes);
    free(h);
}

enum err hub_add_tensor(struct hub *h, const char *name, uint32_t dims, const uint64_t extent[4], enum tensor_type type,
                        struct tensor_source source, struct why *why)
{
    if (h->source_count == h->source_room) {
        uint32_t room = h->source_room ? 2 * h->source_room : 256;
        struct tensor_source *more = realloc(h->sources, room * sizeof *more);
        if (!more) {
            free((void *)(uintptr_t)source.pieces);
            return because(why, ERR_NOMEM, "no memory for the tensors of \"%.300s\"", h->directory);
        }
        h->sources = more;
        h->source_room = room;
    }
    h->sources[h->source_count++] = source;
    uint64_t bytes = tensor_type_traits(type)->block_bytes;
    for (uint32_t d = 0; d < dims; d++)
        bytes *= extent[d]; /* as many numbers as stand in a file */
    gguf_header_tensor(&h->header, (struct gguf_string){name, strlen(name)}, dims, extent, type, bytes);
    return OK;
}

/* ---- files ---- */

/* A file of the directory, hashed. An absent one that need not be there has no bytes, and that is OK. */
static enum err read_file(const struct hub *h, const char *name, bool required, struct mapped_file *out, uint64_t *hash,
                          struct why *why)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", h->directory, name);
    errno = 0;
    enum err err = mapped_file_open(out, path, "file", why);
    if (err == ERR_IO && errno == ENOENT)
        return required
                   ? because(why, ERR_FORMAT, "\"%.300s\" is no model directory: it holds no %s", h->directory, name)
                   : OK;
    if (err == OK) {
        *hash = fnv_bytes(*hash, name, strlen(name) + 1);
        *hash = fnv_bytes(*hash, out->bytes, out->length);
    }
    return err;
}

static enum err parse_json(const struct hub *h, const char *name, const struct mapped_file *file, json_t **out,
                           struct why *why)
{
    json_error_t error;
    if (!file->bytes)
        return OK;
    *out = json_loadb((const char *)file->bytes, file->length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json_is_object(*out))
        return because(why, ERR_FORMAT, "\"%.300s/%s\" is no JSON object: %s (line %d, column %d)", h->directory, name,
                       *out ? "it is something else" : error.text, error.line, error.column);
    return OK;
}

static enum err read_json(const struct hub *h, const char *name, bool required, json_t **out, uint64_t *hash,
                          struct why *why)
{
    struct mapped_file file = {0};
    enum err err = read_file(h, name, required, &file, hash, why);
    if (err == OK)
        err = parse_json(h, name, &file, out, why);
    mapped_file_close(&file);
    return err;
}

/* ---- the vocabulary ---- */

/* Its files count for the hash in any case; they are taken apart only when somebody needs them. */
static enum err translate_tokenizer(struct hub *h, enum hub_part part, uint64_t *hash, struct why *why)
{
    struct mapped_file tokenizer = {0}, settings = {0}, template = {0};
    struct hub_tokenizer t = {.directory = h->directory, .config = h->config, .generation = h->generation};
    json_t *tokenizer_json = NULL, *settings_json = NULL;
    enum err err = read_file(h, "tokenizer.json", true, &tokenizer, hash, why);
    if (err == OK)
        err = read_file(h, "tokenizer_config.json", false, &settings, hash, why);
    if (err == OK)
        err = read_file(h, "chat_template.jinja", false, &template, hash, why);
    if (err == OK && part != HUB_WEIGHTS) {
        err = parse_json(h, "tokenizer.json", &tokenizer, &tokenizer_json, why);
        if (err == OK)
            err = parse_json(h, "tokenizer_config.json", &settings, &settings_json, why);
        t.tokenizer = tokenizer_json;
        t.settings = settings_json;
        t.template_text = (const char *)template.bytes;
        t.template_bytes = template.length;
        if (err == OK)
            err = hub_tokenizer_translate(&h->header, &t, why);
    }
    json_decref(tokenizer_json);
    json_decref(settings_json);
    mapped_file_close(&tokenizer);
    mapped_file_close(&settings);
    mapped_file_close(&template);
    return err;
}

/* ---- all of it ---- */

/* The directory's own name. */
static void put_name(struct hub *h)
{
    size_t end = strlen(h->directory);
    while (end > 1 && h->directory[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && h->directory[begin - 1] != '/')
        begin--;
    gguf_header_string(&h->header, "general.name", h->directory + begin, end - begin);
}

static enum err translate(struct hub *h, enum hub_part part, struct gguf_view *view, struct why *why)
{
    uint64_t hash = FNV_START;
    bool weights = part != HUB_VOCABULARY;
    put_name(h);
    enum err err = read_json(h, "config.json", weights, &h->config, &hash, why);
    if (err == OK)
        err = read_json(h, "generation_config.json", false, &h->generation, &hash, why);
    if (err == OK && weights)
        err = safetensors_open_directory(&h->weights, h->directory, why);
    if (err == OK && weights)
        err = hub_translate_model(h, why);
    if (err == OK)
        err = translate_tokenizer(h, part, &hash, why);
    if (err == OK)
        err = gguf_header_finish(&h->header, &h->header_bytes, &view->length, why);
    if (err != OK)
        return err;
    uint64_t weights_hash = weights ? safetensors_hash(h->weights) : 0;
    view->header = h->header_bytes;
    view->sources = h->sources;
    view->hash = fnv_bytes(hash, &weights_hash, sizeof weights_hash);
    view->file_bytes = weights ? safetensors_file_bytes(h->weights) : 0;
    return OK;
}

enum err hub_open(struct gguf **out, const char *directory, enum hub_part part, struct why *why)
{
    struct hub *h = calloc(1, sizeof *h);
    if (!h)
        return because(why, ERR_NOMEM, "no memory to open \"%.300s\"", directory);
    h->directory = directory;
    struct gguf_view view = {.owner = h, .close = hub_close};
    enum err err = translate(h, part, &view, why);
    if (err == OK)
        err = gguf_open_view(out, &view, directory, why);
    if (err != OK)
        hub_close(h);
    return err;
}
