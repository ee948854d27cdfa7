/* The page: every file that the build has put in is served, and every file that the page names is there. */
#include "coordinator/web_page.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void root_path(const char *file, char path[1024])
{
    const char *root = getenv("QUIRE_ROOT");
    snprintf(path, 1024, "%.500s/%.500s", root ? root : ".", file);
}

/* The bytes are those of the file in the tree. */
static void assert_is_file(const struct web_file *served, const char *file)
{
    char path[1024];
    root_path(file, path);
    FILE *f = fopen(path, "re");
    if (!f)
        fail_msg("there is no file %s", path);
    char *bytes = malloc(served->length + 1);
    assert_int_equal(fread(bytes, 1, served->length + 1, f), served->length);
    assert_memory_equal(bytes, served->bytes, served->length);
    free(bytes);
    fclose(f);
}

static void every_file_of_the_folder_is_served(void **state)
{
    char path[1024];
    uint32_t files = 0;
    (void)state;
    root_path("coordinator/web", path);
    DIR *folder = opendir(path);
    if (!folder)
        fail_msg("there is no folder %s", path);
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *name = entry->d_name, *end = strrchr(name, '.');
        struct web_file served;
        if (name[0] == '.' || strcmp(name, "README.md") == 0)
            continue;
        assert_non_null(end);
        snprintf(path, sizeof path, "/%.200s", strcmp(name, "index.html") ? name : "");
        if (!web_file_find(path, &served))
            fail_msg("coordinator/web/%s is not served: WEB_FILES lacks it", name);
        snprintf(path, sizeof path, "coordinator/web/%.200s", name);
        assert_is_file(&served, path);
        assert_string_equal(served.type, strcmp(end, ".html") == 0  ? "text/html; charset=utf-8"
                                         : strcmp(end, ".css") == 0 ? "text/css; charset=utf-8"
                                                                    : "text/javascript; charset=utf-8");
        files++;
    }
    closedir(folder);
    assert_true(files > 2);
}

/* What stands between prefix and the next quote, wherever it does. */
static void check_links(const struct web_file *page, const char *prefix)
{
    char *text = malloc(page->length + 1);
    memcpy(text, page->bytes, page->length);
    text[page->length] = 0;
    for (char *at = text; (at = strstr(at, prefix));) {
        char path[256];
        struct web_file file;
        at += strlen(prefix);
        at += *at == '.'; /* "./name" */
        snprintf(path, sizeof path, "%.*s", (int)strcspn(at, "\"'"), at);
        if (path[0] == '/' && path[1] && path[1] != '/' && !web_file_find(path, &file))
            fail_msg("the page names %s, which is not there", path);
    }
    free(text);
}

static void every_file_that_the_page_names_is_there(void **state)
{
    struct web_file page;
    (void)state;
    assert_true(web_file_find("/", &page));
    check_links(&page, "src=\"");
    check_links(&page, "href=\"");
    assert_true(web_file_find("/app.js", &page));
    check_links(&page, "from \"");
}

static void nothing_else_is_served(void **state)
{
    struct web_file file;
    (void)state;
    static const char *const paths[] = {"",       "index.html",  "/index.html", "//",
                                        "/style", "/style.css/", "/../main.c",  "/STYLE.CSS"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        assert_false(web_file_find(paths[i], &file));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_of_the_folder_is_served),
        cmocka_unit_test(every_file_that_the_page_names_is_there),
        cmocka_unit_test(nothing_else_is_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
