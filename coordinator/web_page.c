#include "coordinator/web_page.h"

#include <string.h>

#include "web_assets.h"

#define SCRIPT "text/javascript; charset=utf-8"

/* X(path, symbol of the build, type) */
#define WEB_FILES(X)                                          \
    X("/", web_index_html, "text/html; charset=utf-8")        \
    X("/style.css", web_style_css, "text/css; charset=utf-8") \
    X("/api.js", web_api_js, SCRIPT)                          \
    X("/app.js", web_app_js, SCRIPT)                          \
    X("/chat.js", web_chat_js, SCRIPT)                        \
    X("/live.js", web_live_js, SCRIPT)                        \
    X("/markdown.js", web_markdown_js, SCRIPT)                \
    X("/page_map.js", web_page_map_js, SCRIPT)                \
    X("/settings.js", web_settings_js, SCRIPT)

bool web_file_find(const char *path, struct web_file *file)
{
#define X(name, symbol, mime)                                  \
    if (strcmp(path, name) == 0) {                             \
        *file = (struct web_file){mime, symbol, symbol##_len}; \
        return true;                                           \
    }
    WEB_FILES(X)
#undef X
    return false;
}
