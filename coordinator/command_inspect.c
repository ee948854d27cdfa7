/* quire inspect: shows the shared memory of a live or dead server, for people or as JSON. */
#include <stdio.h>
#include <string.h>

#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "coordinator/text_json.h"
#include "shm/inspect.h"

static const struct command_usage usage = {
    .text = "usage: quire inspect [--json] [options]\n"
            "Shows the shared memory of the server --name, live or dead: workers, pages, sessions, versions.\n",
    .groups = OF_MEMORY,
};

static void add_pages(struct text *out, const struct inspection *found)
{
    json_open(out, "pages", '{');
    json_u64(out, "total", found->page_count);
    for (uint32_t i = 0; i < PAGE_STATES; i++)
        json_u64(out, page_state_name((enum page_state)i), found->pages_by_state[i]);
    json_u64(out, "shared", found->shared_pages);
    json_u64(out, "damaged", found->damaged_pages);
    json_close(out, '}');
}

/* null: a spare has none yet. */
static void add_place(struct text *out, const char *name, const struct inspected_worker *w, uint32_t place)
{
    if (w->spare)
        json_nothing(out, name);
    else
        json_u64(out, name, place);
}

static void add_workers(struct text *out, const struct inspection *found)
{
    json_open(out, "workers", '[');
    for (uint32_t i = 0; i < found->worker_count; i++) {
        const struct inspected_worker *w = &found->workers[i];
        json_open(out, NULL, '{');
        json_u64(out, "slot", w->slot);
        json_u64(out, "generation", w->generation);
        json_u64(out, "pid", w->pid);
        json_bool(out, "alive", w->alive);
        json_text(out, "state", worker_state_name(w->state));
        add_place(out, "group", w, w->group);
        add_place(out, "rank", w, w->rank);
        json_u64(out, "epoch", w->epoch);
        json_u64(out, "step_done", w->step_done);
        json_u64(out, "steps", w->steps);
        json_u64(out, "tokens", w->tokens);
        json_u64(out, "busy_us", w->busy_us);
        json_u64(out, "wait_us", w->wait_us);
        json_u64(out, "aborts", w->aborts);
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void add_sessions(struct text *out, const struct inspection *found)
{
    json_open(out, "sessions", '[');
    for (uint32_t i = 0; i < found->session_count; i++) {
        const struct inspected_session *s = &found->sessions[i];
        json_open(out, NULL, '{');
        json_u64(out, "slot", s->slot);
        json_text(out, "id", s->id);
        json_text(out, "state", session_state_name(s->state));
        json_u64(out, "tokens", s->tokens);
        json_u64(out, "kv", s->kv);
        json_u64(out, "prompt_tokens", s->prompt_tokens);
        json_u64(out, "pages", s->pages);
        json_u64(out, "window_pages", s->window_pages);
        json_close(out, '}');
    }
    json_close(out, ']');
}

/* False: there is no memory for it. */
static bool print_json(const struct inspection *found)
{
    struct text out = {0};
    char model_hash[17]; /* no number: JSON's readers keep 53 bits */
    snprintf(model_hash, sizeof model_hash, "%016llx", (unsigned long long)found->model_hash);
    json_open(&out, NULL, '{');
    json_text(&out, "name", found->name);
    json_bool(&out, "running", found->server_runs);
    json_u64(&out, "holder_pid", found->holder_pid);
    json_u64(&out, "header_version", found->header_version);
    json_u64(&out, "layout_version", found->layout_version);
    json_text(&out, "state", arena_state_name(found->state));
    json_text(&out, "model_hash", model_hash);
    json_u64(&out, "total_bytes", found->total_bytes);
    add_pages(&out, found);
    add_workers(&out, found);
    add_sessions(&out, found);
    json_close(&out, '}');
    text_add(&out, "\n", 1);
    bool whole = !out.failed && fwrite(out.at, 1, out.length, stdout) == out.length;
    text_fini(&out);
    return whole;
}

int command_inspect(int argc, char **argv)
{
    struct serve_options options;
    struct why why;
    bool json = false;
    int exit_code, kept = 1;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else
            argv[kept++] = argv[i];
    serve_options_init(&options);
    if (!command_options(&options, &usage, kept, argv, NULL, &exit_code))
        return exit_code;
    struct segment_home home;
    struct inspection found;
    if (segment_home_init(&home, options.name, options.shm_dir, &why) || inspection_read(&found, &home, &why))
        return fail_with(argv[0], &why);
    bool shown = true;
    if (json)
        shown = print_json(&found);
    else
        inspection_print(&found, stdout);
    inspection_fini(&found);
    if (!shown)
        fprintf(stderr, "quire inspect: there is no memory to write all of it\n");
    return shown ? 0 : 1;
}
