/* The groups of roles, as the families put them together: lists that end, nothing filled twice, nothing named for two purposes. */
#include "model/tensor_roles.h"

#include <stdbool.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/arch.h"

enum { MOST_ROLES = 64 };

struct listed {
    const struct tensor_role *role[MOST_ROLES];
    size_t count;
};

static struct listed list_of(const struct tensor_role *const *groups)
{
    struct listed all = {.count = 0};
    assert_null(groups[ARCH_ROLE_GROUPS - 1]);
    for (; *groups; groups++)
        for (const struct tensor_role *role = *groups; role->name; role++) {
            assert_true(all.count < MOST_ROLES);
            all.role[all.count++] = role;
        }
    return all;
}

static void check_roles(const char *family, struct listed roles, size_t end)
{
    assert_true(roles.count > 0);
    for (size_t i = 0; i < roles.count; i++) {
        const struct tensor_role *role = roles.role[i];
        bool vector = role->rows == EXTENT_ONE;
        assert_true(role->member + (vector ? sizeof(struct weight_vector) : sizeof(struct weight)) <= end);
        assert_true(vector == !strstr(role->name, ".weight") || strstr(role->name, "norm"));
        for (size_t j = i + 1; j < roles.count; j++) {
            const struct tensor_role *other = roles.role[j];
            if (other->member == role->member)
                fail_msg("%s fills one member with \"%s\" and \"%s\"", family, role->name, other->name);
            bool shared = j == i + 1 || strcmp(roles.role[j - 1]->name, role->name) == 0;
            if (strcmp(other->name, role->name) == 0 && (!shared || other != roles.role[j - 1] + 1))
                fail_msg("%s has \"%s\" in two places", family, role->name);
        }
    }
}

static void no_family_fills_a_member_twice_or_names_a_tensor_in_two_places(void **state)
{
    (void)state;
    for (uint32_t id = ARCH_LLAMA; id <= ARCH_MISTRAL; id++) {
        const struct architecture *arch = arch_numbered(id);
        assert_non_null(arch);
        check_roles(arch->name, list_of(arch->roles), sizeof(struct model));
        check_roles(arch->name, list_of(arch->layer_roles), sizeof(struct model_layer));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_family_fills_a_member_twice_or_names_a_tensor_in_two_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
