/*
 * options: everything that can be set, once: the list below makes the structure, the parser, the help text and the check that
 * deploy/quire.conf names each of them.
 *
 * Values come from --config FILE ("name = value" lines, # comments) and from the command line, which wins.
 */
#ifndef QUIRE_COORDINATOR_OPTIONS_H
#define QUIRE_COORDINATOR_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { OPTION_TEXT_BYTES = 512 };

/* Whom an option concerns. A command takes those of some groups and refuses the others by name. */
enum option_group {
    OF_ENGINE = 1, /* workers, pages, arithmetic, how the scheduler fills steps */
    OF_MEMORY = 2, /* which shared memory is meant */
    OF_CHAT = 4,   /* how the model is spoken to, and of */
    OF_SERVER = 8, /* HTTP, and a server's life */
    OF_ALL = 15,
};

/*
 * X(kind, groups, field, "name", "default", least, most, "help")
 * kinds: TEXT (char[OPTION_TEXT_BYTES]), LIST (the same; what comes later is put behind a comma), COUNT (uint32_t), BYTES (uint64_t, with K, M, G), FLAG (bool).
 * "" as default of a COUNT or BYTES means 0: chosen at start.
 */
#define SERVE_OPTIONS(X)                                                                                              \
    X(TEXT, OF_ENGINE, model, "model", "", 0, 0, "GGUF file or directory of a model hub to serve (-m)")               \
    X(TEXT, OF_ENGINE, quantize, "quantize", "", 0, 0,                                                                \
      "q8_0, q4_0 or q4_k: what float weights become while they are loaded; default: as they are")                    \
    X(LIST, OF_ENGINE, overrides, "override", "", 0, 0,                                                               \
      "KEY=VALUE in place of what the model says, as GGUF names it; may be repeated")                                 \
    X(TEXT, OF_CHAT, alias, "alias", "", 0, 0, "name of the model in answers; default: what the file says")           \
    X(TEXT, OF_CHAT, chat_template, "chat-template", "", 0, 0,                                                        \
      "file with a Jinja chat template; default: the model's, else a plain one for the turn tokens it has")           \
    X(TEXT, OF_SERVER, host, "host", "127.0.0.1", 0, 0,                                                               \
      "address to listen on; anything but loopback wants --api-key-file")                                             \
    X(COUNT, OF_SERVER, port, "port", "8080", 0, 65535, "TCP port; 0 takes a free one and says which")                \
    X(TEXT, OF_MEMORY, name, "name", "default", 0, 0,                                                                 \
      "name of the server's shared memory; two servers of one name never meet")                                       \
    X(COUNT, OF_ENGINE, workers, "workers", "", 0, 1024,                                                              \
      "worker processes, all groups together; default: the cores it may run on")                                      \
    X(COUNT, OF_ENGINE, groups, "groups", "", 0, 64, "groups that the workers form; default: one a memory node")      \
    X(COUNT, OF_ENGINE, spares, "spares", "1", 0, 64, "workers that wait, attached, to take a dead one's place")      \
    X(COUNT, OF_ENGINE, fake_nodes, "fake-nodes", "0", 0, 64,                                                         \
      "pretend that the cores are split over this many memory nodes; tests")                                          \
    X(BYTES, OF_ENGINE, kv_memory, "kv-memory", "", 0, UINT64_MAX,                                                    \
      "bytes of KV pages; default: min(2G, a third of what is free)")                                                 \
    X(TEXT, OF_ENGINE, kv_type, "kv-type", "f16", 0, 0, "f16, bf16, f32 or q8: how keys and values lie in pages")     \
    X(COUNT, OF_ENGINE, ctx, "ctx", "", 0, 1u << 24,                                                                  \
      "positions of one sequence; default: what the model was trained for")                                           \
    X(COUNT, OF_ENGINE, session_slots, "session-slots", "256", 1, 512, "most sequences that can ever run at once")    \
    X(COUNT, OF_ENGINE, max_sessions, "max-sessions", "", 0, 512,                                                     \
      "sequences that run at once; can change while running")                                                         \
    X(COUNT, OF_ENGINE, max_queue, "max-queue", "1024", 0, 1u << 20, "requests that may wait; more get 429")          \
    X(COUNT, OF_ENGINE, max_gap_ms, "max-gap-ms", "100", 1, 60000,                                                    \
      "bound on the time between two tokens while prompts come in")                                                   \
    X(BYTES, OF_SERVER, max_body, "max-body", "8M", 1024, 1u << 30, "largest request body; larger ones get 413")      \
    X(COUNT, OF_SERVER, max_connections, "max-connections", "", 0, 1u << 20,                                          \
      "open client connections; default: from the descriptors")                                                       \
    X(COUNT, OF_SERVER, drain, "drain", "30", 0, 86400, "seconds that running requests have to finish after SIGTERM") \
    X(TEXT, OF_SERVER, api_key_file, "api-key-file", "", 0, 0,                                                        \
      "file with one API key a line; without it no key is asked for")                                                 \
    X(TEXT, OF_SERVER, cors_origin, "cors-origin", "*", 0, 0,                                                         \
      "origin that browsers may call from; * reflects any, none for no CORS")                                         \
    X(TEXT, OF_ENGINE | OF_MEMORY, shm_dir, "shm-dir", "", 0, 0, "tmpfs or hugetlbfs directory in place of /dev/shm") \
    X(FLAG, OF_SERVER, keep, "keep", "", 0, 0,                                                                        \
      "a clean end leaves weights, pages and sessions in memory for the next start")                                  \
    X(COUNT, OF_SERVER, resume_ttl, "resume-ttl", "60", 0, 86400,                                                     \
      "seconds that an answer can be picked up, also behind a restart; 0: never")                                     \
    X(TEXT, OF_ENGINE, kernels, "kernels", "", 0, 0,                                                                  \
      "reference, avx2, avx512 or amx; default: the best that this machine runs")                                     \
    X(TEXT, OF_ENGINE, prefill_math, "prefill-math", "exact", 0, 0,                                                   \
      "exact, or blas: float weights by OpenBLAS, outside the promise of equal bytes")                                \
    X(TEXT, OF_ENGINE, activations, "activations", "int8", 0, 0,                                                      \
      "int8, or f32: inputs of quantised weights are not rounded; slow, to compare with a reference")                 \
    X(FLAG, OF_ENGINE, no_pin, "no-pin", "", 0, 0, "do not pin workers to cores")                                     \
    X(FLAG, OF_ENGINE, no_sandbox, "no-sandbox", "", 0, 0, "let workers keep their rights, for debuggers")            \
    X(TEXT, OF_SERVER, log_level, "log-level", "info", 0, 0, "debug, info, warn or error")

struct serve_options {
#define OPTION_FIELD_TEXT(field) char field[OPTION_TEXT_BYTES];
#define OPTION_FIELD_LIST(field) char field[OPTION_TEXT_BYTES];
#define OPTION_FIELD_COUNT(field) uint32_t field;
#define OPTION_FIELD_BYTES(field) uint64_t field;
#define OPTION_FIELD_FLAG(field) bool field;
#define X(kind, groups, field, name, fallback, least, most, help) OPTION_FIELD_##kind(field)
    SERVE_OPTIONS(X)
#undef X
};

void serve_options_init(struct serve_options *o);

/*
 * Reads argv[1..) over what stands in *o: the options of `groups`, for the command argv[0]. Both --name=value and --name value.
 * An argument without -- is put into rest (at most rest_max of them, else an error). A file that --config names may hold
 * everything; what is of other groups is checked and left out. ERR_INVALID with a sentence that names the option.
 */
enum err serve_options_parse(struct serve_options *o, uint32_t groups, int argc, char **argv, const char **rest,
                             uint32_t rest_max, uint32_t *rest_count, struct why *why);

/* One "name = value" a line; sets those of `groups`. */
enum err serve_options_read_file(struct serve_options *o, uint32_t groups, const char *path, struct why *why);

/* Sets one option by name, as a file or the command line would. */
enum err serve_option_set(struct serve_options *o, const char *name, const char *value, struct why *why);

/* "2G", "512M", "65536". */
enum err parse_bytes(const char *text, uint64_t *out, struct why *why);
enum err parse_count(const char *text, uint32_t *out, struct why *why);

/* The help lines of the options of `groups`, on stdout. */
void serve_options_print_help(uint32_t groups);

#endif
