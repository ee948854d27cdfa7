#include "coordinator/web_page.h"

#include <string.h>

#include "web_assets.h"

const struct web_file *web_file_find(const char *path)
{
    static struct web_file files[] = {
        {"/", "text/html; charset=utf-8", web_index_html, 0},
        {"/app.js", "text/javascript; charset=utf-8", web_app_js, 0},
        {"/style.css", "text/css; charset=utf-8", web_style_css, 0},
    };
    files[0].length = web_index_html_len; /* no constant expressions: they are other objects' values */
    files[1].length = web_app_js_len;
    files[2].length = web_style_css_len;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}
