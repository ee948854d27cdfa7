/* A chat template, and behind the first zero byte the variables as JSON; without them those of a usual conversation. */
#include <string.h>

#include "base/must.h"
#include "model/chat_template.h"
#include "tests/fuzz/fuzz.h"

static const char usual[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"Hi \\u00e9\"},{\"role\":\"assistant\","
    "\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":[1,2.5,true]}}}]}],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = memchr(data, 0, size);
    size_t length = zero ? (size_t)(zero - data) : size;
    struct chat_template *t;
    struct why why;
    if (chat_template_open(&t, (const char *)data, length, &why) != OK) {
        must(*why.text);
        return 0;
    }
    json_t *variables = zero ? json_loadb((const char *)zero + 1, size - length - 1, 0, NULL) : NULL;
    if (!json_is_object(variables)) {
        json_decref(variables);
        variables = json_loads(usual, 0, NULL);
    }
    const struct tm noon = {.tm_year = 126, .tm_mon = 10, .tm_mday = 21, .tm_hour = 12};
    char *text = NULL;
    size_t bytes = 0;
    enum err err = chat_template_render(t, variables, &noon, &text, &bytes, &why);
    if (err == OK) {
        volatile char last = bytes ? text[bytes - 1] : 0;
        (void)last;
        free(text);
    } else {
        must(*why.text || err == ERR_INVALID);
    }
    json_decref(variables);
    chat_template_close(t);
    return 0;
}
