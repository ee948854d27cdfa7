/*
 * quire run: a model answers on the terminal. A private server, or one that runs already (--connect), is asked over HTTP,
 * as any client would. Standard output holds nothing but the model's words; everything else goes to standard error.
 *
 *   a prompt on the command line, or on stdin when that is no terminal: one answer
 *   no prompt and a terminal on both sides: a chat
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "coordinator/api_client.h"
#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "coordinator/options.h"
#include "coordinator/private_server.h"
#include "coordinator/text.h"

enum { RAW_MAX_TOKENS = 256, MOST_LINE_BYTES = 64 * 1024, ENGINE_OF_RUN = OF_ENGINE | OF_CHAT };

struct run_plan {
    const char *connect, *key, *system;
    bool raw;
    json_t *sampling; /* fields of the request, as the API names them */
};

struct run {
    const struct run_plan *plan;
    struct api_client client;
    const char *model;
    int signals; /* SIGINT, SIGTERM and SIGHUP come in here */
    bool raw;
    json_t *messages; /* of a chat so far */

    /* the answer that is coming in */
    struct text answer;
    uint64_t first_us, last_us;
    json_int_t tokens;
    bool terminal_output; /* no control characters of the model reach it */
    bool broken_output;
};

/* ---- one answer ---- */

/* Bytes of the control character that begins here, of ASCII or of C1 (two bytes of UTF-8); 0: it is none, or one that texts have. */
static size_t control_bytes(const char *words, size_t length)
{
    unsigned char c = (unsigned char)words[0], next = length > 1 ? (unsigned char)words[1] : 0;
    if ((c < ' ' && c != '\n' && c != '\t') || c == 127)
        return 1;
    return c == 0xC2 && next >= 0x80 && next < 0xA0 ? 2 : 0;
}

static void show(struct run *r, const char *words, size_t length)
{
    for (size_t i = 0, bytes; i < length; i += bytes ? bytes : 1) {
        bytes = r->terminal_output ? control_bytes(words + i, length - i) : 0;
        putchar(bytes ? '?' : (unsigned char)words[i]);
    }
    r->broken_output |= fflush(stdout) != 0;
}

static bool on_event(void *owner, const json_t *event)
{
    struct run *r = owner;
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *words = json_object_get(choice, "text");
    const json_t *tokens = json_object_get(json_object_get(event, "usage"), "completion_tokens");
    if (!words)
        words = json_object_get(json_object_get(choice, "delta"), "content");
    if (json_is_integer(tokens))
        r->tokens = json_integer_value(tokens);
    if (!json_is_string(words) || !json_string_length(words))
        return true;
    r->last_us = now_us();
    if (!r->first_us)
        r->first_us = r->last_us;
    text_add(&r->answer, json_string_value(words), json_string_length(words));
    show(r, json_string_value(words), json_string_length(words));
    return !r->broken_output;
}

/* The request around `question`: the messages, or the text that is to go on. */
static json_t *make_request(const struct run *r, json_t *question)
{
    json_t *request = json_pack("{s:s, s:b, s:{s:b}, s:O}", "model", r->model, "stream", 1, "stream_options",
                                "include_usage", 1, r->raw ? "prompt" : "messages", question);
    if (request && r->raw && !json_object_get(r->plan->sampling, "max_tokens"))
        json_object_set_new(request, "max_tokens", json_integer(RAW_MAX_TOKENS)); /* the API's 16 are few to read */
    if (request && json_object_update(request, r->plan->sampling)) {
        json_decref(request);
        return NULL;
    }
    return request;
}

/* Streams the answer to stdout and keeps it in r->answer. */
static enum err answer(struct run *r, json_t *question, struct why *why)
{
    text_clear(&r->answer);
    r->first_us = r->last_us = 0;
    r->tokens = 0;
    json_t *request = make_request(r, question);
    if (!request)
        return because(why, ERR_NOMEM, "no memory for a request");
    enum err e =
        api_client_stream(&r->client, r->raw ? "/v1/completions" : "/v1/chat/completions", request, on_event, r, why);
    json_decref(request);
    if (r->broken_output)
        return because_errno(why, ERR_IO, "could not write to the standard output");
    if (r->answer.length && r->answer.at[r->answer.length - 1] != '\n')
        show(r, "\n", 1);
    return e;
}

static json_t *message(const char *role, const char *content, size_t length)
{
    return json_pack("{s:s, s:s%}", "role", role, "content", content, length);
}

/* Adds a message; false: its content is not UTF-8, or there is no memory. */
static bool add_message(struct run *r, const char *role, const char *content, size_t length)
{
    return json_array_append_new(r->messages, message(role, content, length)) == 0;
}

static void drop_last_message(struct run *r)
{
    json_array_remove(r->messages, json_array_size(r->messages) - 1);
}

/* Asks with `prompt` as the user's next words. */
static enum err ask(struct run *r, const char *prompt, size_t length, struct why *why)
{
    if (r->raw) {
        json_t *question = json_stringn(prompt, length);
        enum err e = question ? answer(r, question, why) : because(why, ERR_INVALID, "the prompt is not valid UTF-8");
        json_decref(question);
        return e;
    }
    if (!add_message(r, "user", prompt, length))
        return because(why, ERR_INVALID, "the prompt is not valid UTF-8");
    enum err e = answer(r, r->messages, why);
    bool heard = r->answer.length && (!e || e == ERR_ABORTED); /* what was stopped was said all the same */
    if (!heard || !add_message(r, "assistant", r->answer.at, r->answer.length))
        drop_last_message(r);
    return e;
}

/* ---- one prompt ---- */

static enum err run_once(struct run *r, const char *prompt, struct why *why)
{
    if (prompt)
        return ask(r, prompt, strlen(prompt), why);
    char *text;
    size_t length;
    enum err e = read_all(stdin, "the standard input", &text, &length, why);
    if (e)
        return e;
    if (length && text[length - 1] == '\n')
        length--;
    e = length ? ask(r, text, length, why) : because(why, ERR_INVALID, "the standard input holds no prompt");
    free(text);
    return e;
}

/* ---- a chat ---- */

static const char chat_help[] = "/system TEXT   what the model is told first; starts anew\n"
                                "/clear         forgets the conversation\n"
                                "/bye           ends (so do Ctrl-D, and Ctrl-C while nothing is said)\n"
                                "/help          this text\n"
                                "Ctrl-C stops an answer.\n";

static void start_anew(struct run *r, const char *system)
{
    json_array_clear(r->messages);
    if (system && *system && !add_message(r, "system", system, strlen(system)))
        fputs("the system text is not valid UTF-8\n", stderr);
}

/* Forgets the conversation; the system text stays. */
static void clear_chat(struct run *r)
{
    const json_t *first = json_array_get(r->messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    bool has_system = role && strcmp(role, "system") == 0;
    while (json_array_size(r->messages) > has_system)
        drop_last_message(r);
}

/* A line that begins with a slash. False: the chat is over. */
static bool obey(struct run *r, const char *line)
{
    static const char *const ends[] = {"/bye", "/exit", "/quit"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (strcmp(line, ends[i]) == 0)
            return false;
    if (strcmp(line, "/clear") == 0)
        clear_chat(r);
    else if (strncmp(line, "/system", 7) == 0 && (line[7] == ' ' || !line[7]))
        start_anew(r, line + 7 + strspn(line + 7, " "));
    else if (strcmp(line, "/help") == 0)
        fputs(chat_help, stderr);
    else
        fputs("there is no such command; /help lists them\n", stderr);
    return true;
}

/* Takes the signal that has come, 0 when none has. */
static int take_signal(struct run *r)
{
    struct signalfd_siginfo info;
    return read(r->signals, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

/* False: end of input, or a signal. stdin has no buffer, so that what poll says of it is the whole truth. */
static bool read_line(struct run *r, char *line, size_t room)
{
    struct pollfd watched[] = {{.fd = 0, .events = POLLIN}, {.fd = r->signals, .events = POLLIN}};
    fputs("> ", stderr);
    while (poll(watched, 2, -1) < 0 && errno == EINTR)
        ;
    if (watched[1].revents || !fgets(line, (int)room, stdin)) {
        fputs("\n", stderr);
        return false;
    }
    line[strcspn(line, "\n")] = 0;
    return true;
}

static void tell_speed(const struct run *r, uint64_t asked_us)
{
    double seconds = (double)(r->last_us - r->first_us) * 1e-6;
    if (r->tokens > 1 && seconds > 0)
        fprintf(stderr, "[%" JSON_INTEGER_FORMAT " tokens, %.1f tokens/s, the first after %.2f s]\n", r->tokens,
                (double)(r->tokens - 1) / seconds, (double)(r->first_us - asked_us) * 1e-6);
}

static enum err run_chat(struct run *r, struct why *why)
{
    char *line = malloc(MOST_LINE_BYTES);
    if (!line)
        return because(why, ERR_NOMEM, "no memory for a chat");
    setvbuf(stdin, NULL, _IONBF, 0);
    fputs("/help says what else can be typed here\n", stderr);
    enum err e = OK;
    while (!e && read_line(r, line, MOST_LINE_BYTES)) {
        if (!*line)
            continue;
        if (*line == '/') {
            if (!obey(r, line))
                break;
            continue;
        }
        uint64_t asked_us = now_us();
        e = ask(r, line, strlen(line), why);
        if (e == ERR_ABORTED && take_signal(r) == SIGINT) {
            fputs("[stopped]\n", stderr);
            e = OK;
        } else if (e == ERR_INVALID) { /* the server refused this one; the next may be good */
            fprintf(stderr, "%s\n", why->text);
            e = OK;
        } else if (!e) {
            tell_speed(r, asked_us);
        }
    }
    free(line);
    return e;
}

/* ---- the server ---- */

/* A model without a chat template cannot be spoken to; its text can be continued. */
static enum err choose_route(struct run *r, struct why *why)
{
    int status;
    json_t *info;
    r->raw = r->plan->raw;
    if (r->raw)
        return OK;
    enum err e = api_client_get(&r->client, "/tokenizer_info", &status, &info, why);
    if (!e && status == 200 && json_is_null(json_object_get(info, "chat_template"))) {
        fputs("the model has no chat template: it continues the text that it is given\n", stderr);
        r->raw = true;
    }
    json_decref(info);
    return e;
}

/* Everything behind the command line: asks the server that r->client points at. */
static enum err talk(struct run *r, const char *prompt, struct why *why)
{
    r->messages = json_array();
    r->terminal_output = isatty(1);
    enum err e = r->messages ? choose_route(r, why) : because(why, ERR_NOMEM, "no memory for a conversation");
    if (!e) {
        start_anew(r, r->plan->system);
        e = !prompt && isatty(0) && isatty(1) ? run_chat(r, why) : run_once(r, prompt, why);
    }
    json_decref(r->messages);
    text_fini(&r->answer);
    return e;
}

static enum err talk_privately(struct run *r, const struct serve_options *options, char *const *words, int count,
                               const char *prompt, struct why *why)
{
    struct private_server server;
    char url[64];
    enum err e = private_server_start(&server, words, count, options->shm_dir, r->signals, why);
    if (e)
        return e;
    snprintf(url, sizeof url, "http://127.0.0.1:%u", server.port);
    e = api_client_init(&r->client, url, NULL, why);
    r->client.interrupt_fd = r->signals;
    if (!e)
        e = talk(r, prompt, why);
    private_server_stop(&server);
    return e;
}

static enum err open_signals(int *fd, struct why *why)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *fd < 0 ? because_errno(why, ERR_NOMEM, "could not watch signals") : OK;
}

/* ---- the command line ---- */

static enum err set_number(json_t *sampling, const char *name, const char *value, bool whole, struct why *why)
{
    char *end;
    errno = 0;
    long long integer = strtoll(value, &end, 10);
    bool is_whole = *value && !*end && !errno;
    double number = strtod(value, &end);
    if (!*value || *end || (whole && !is_whole))
        return because(why, ERR_INVALID, "\"%.60s\" is no %snumber", value, whole ? "whole " : "");
    json_t *field = whole ? json_integer(integer) : json_real(number); /* NULL: infinite or not a number */
    return json_object_set_new(sampling, name, field)
               ? because(why, ERR_INVALID, "\"%.60s\" is no number to ask for", value)
               : OK;
}

/* The value of --NAME VALUE or --NAME=VALUE, NULL when the word is another option; moves *at onto the value. */
static const char *value_of(const char *name, int argc, char **argv, int *at)
{
    size_t length = strlen(name);
    const char *word = argv[*at];
    if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, name, length) != 0)
        return NULL;
    if (word[2 + length] == '=')
        return word + 3 + length;
    return !word[2 + length] && *at + 1 < argc ? argv[++*at] : NULL;
}

/* One word, if it is an option of this command. */
static enum err take_option(struct run_plan *p, int argc, char **argv, int *at, bool *ours, struct why *why)
{
    const char *value;
    *ours = true;
    if (strcmp(argv[*at], "--raw") == 0)
        p->raw = true;
    else if ((value = value_of("connect", argc, argv, at)))
        p->connect = value;
    else if ((value = value_of("api-key", argc, argv, at)))
        p->key = value;
    else if ((value = value_of("system", argc, argv, at)))
        p->system = value;
    else if ((value = value_of("temperature", argc, argv, at)))
        return set_number(p->sampling, "temperature", value, false, why);
    else if ((value = value_of("top-p", argc, argv, at)))
        return set_number(p->sampling, "top_p", value, false, why);
    else if ((value = value_of("max-tokens", argc, argv, at)))
        return set_number(p->sampling, "max_tokens", value, true, why);
    else if ((value = value_of("seed", argc, argv, at)))
        return set_number(p->sampling, "seed", value, true, why);
    else
        *ours = false;
    return OK;
}

/* Takes the options of this command, and the prompt behind "--", out of argv; leaves those of the engine. */
static enum err parse_plan(struct run_plan *p, int *argc, char **argv, const char **prompt, struct why *why)
{
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        bool ours;
        if (strcmp(argv[i], "--") == 0) {
            if (i + 2 != *argc)
                return because(why, ERR_INVALID, "one prompt is wanted behind --");
            *prompt = argv[i + 1];
            break;
        }
        enum err e = take_option(p, *argc, argv, &i, &ours, why);
        if (e)
            return e;
        if (!ours)
            argv[kept++] = argv[i];
    }
    *argc = kept;
    return OK;
}

/* The prompt is the one word that belongs to no option; it goes out of argv. */
static enum err parse_engine(struct serve_options *options, int *argc, char **argv, const char **prompt,
                             struct why *why)
{
    const char *rest[2] = {NULL};
    uint32_t rest_count;
    serve_options_init(options);
    enum err e = serve_options_parse(options, ENGINE_OF_RUN, *argc, argv, rest, 2, &rest_count, why);
    if (e)
        return e;
    if (rest_count + (*prompt != NULL) > 1)
        return because(why, ERR_INVALID, "the prompt is to be one word of the command line: put it in quotes");
    int kept = 1;
    for (int i = 1; i < *argc; i++)
        if (argv[i] != rest[0])
            argv[kept++] = argv[i];
    *argc = kept;
    if (rest[0])
        *prompt = rest[0];
    return OK;
}

static enum err parse(struct run_plan *p, struct serve_options *options, int *argc, char **argv, const char **prompt,
                      struct why *why)
{
    enum err e = p->sampling ? parse_plan(p, argc, argv, prompt, why) : because(why, ERR_NOMEM, "no memory");
    if (!e)
        e = parse_engine(options, argc, argv, prompt, why);
    if (!e && !p->connect && !*options->model)
        e = because(
            why, ERR_INVALID,
            "no model: say which file or directory is to answer with -m FILE, or which server with --connect URL");
    return e;
}

static void print_help(void)
{
    puts(
        "usage: quire run -m MODEL [\"prompt\"] [options]\n"
        "       quire run --connect URL [\"prompt\"] [options]\n"
        "Streams the model's answer to the terminal. Without a prompt: a chat, or the prompt from standard input.\n\n"
        "  --connect URL        asks a server that runs, such as http://127.0.0.1:8080, in place of a private one; -m\n"
        "                       names one of its models\n"
        "  --api-key KEY        is shown to that server\n"
        "  --system TEXT        what the model is told first\n"
        "  --temperature N      0: always the likeliest token\n"
        "  --top-p N            draws from the likeliest tokens that have this probability together\n"
        "  --max-tokens N       ends the answer after so many tokens\n"
        "  --seed N             the same seed gives the same answer\n"
        "  --raw                no chat template: the model continues the prompt (256 tokens unless --max-tokens)\n\n"
        "A prompt that begins with a dash goes behind --.\n\n"
        "What a private server takes beside that:");
    serve_options_print_help(ENGINE_OF_RUN);
}

static enum err run(struct run *r, const struct serve_options *options, char *const *words, int count,
                    const char *prompt, struct why *why)
{
    r->model = r->plan->connect && *options->model ? options->model : "default";
    enum err e = open_signals(&r->signals, why);
    if (!e && r->plan->connect) {
        r->client.interrupt_fd = r->signals;
        e = talk(r, prompt, why);
    } else if (!e) {
        e = talk_privately(r, options, words, count, prompt, why);
    }
    if (r->signals >= 0)
        close(r->signals);
    return e;
}

int command_run(int argc, char **argv)
{
    struct run_plan plan = {.sampling = json_object()};
    struct run r = {.plan = &plan, .signals = -1};
    struct serve_options options;
    const char *prompt = NULL;
    struct why why;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        print_help();
        json_decref(plan.sampling);
        return 0;
    }
    int exit_code = 2;
    enum err e = parse(&plan, &options, &argc, argv, &prompt, &why);
    if (!e && plan.connect)
        e = api_client_init(&r.client, plan.connect, plan.key, &why);
    if (!e) {
        e = run(&r, &options, argv + 1, argc - 1, prompt, &why);
        exit_code = e ? 1 : 0;
    }
    if (e)
        fprintf(stderr, "quire run: %s\n", why.text);
    json_decref(plan.sampling);
    return exit_code;
}
