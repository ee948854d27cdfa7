/* test_http_server: listening, more clients than there is room for, and the end. */
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/http_world.h"

static void names_and_addresses_of_both_families_can_be_listened_on(void **state)
{
    (void)state;
    static const struct {
        const char *host, *peer;
        int family;
    } hosts[] = {{"127.0.0.1", "127.0.0.1", AF_INET},
                 {"0.0.0.0", "127.0.0.1", AF_INET},
                 {"localhost", "127.0.0.1", AF_INET},
                 {"::1", "::1", AF_INET6}};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct why why;
        world.config.host = hosts[i].host;
        if (http_server_open(&world.server, world.base, &world.config, &why) != OK) {
            assert_int_equal(hosts[i].family, AF_INET6); /* a machine without IPv6 */
            continue;
        }
        struct client c = connect_to(hosts[i].family, 0);
        send_text(&c, GET("/peer"));
        expect_reply(&c, 200, hosts[i].peer);
        leave(&c);
        http_server_close(world.server);
        world.server = NULL;
    }
}

static void taken_port_and_unknown_host_are_told_in_a_sentence(void **state)
{
    (void)state;
    struct http_server *second = NULL;
    struct why why;
    open_server();
    world.config.port = http_server_port(world.server);
    assert_int_equal(http_server_open(&second, world.base, &world.config, &why), ERR_BUSY);
    assert_non_null(strstr(why.text, "another program listens there already"));
    world.config.host = "256.1.1.1";
    assert_int_equal(http_server_open(&second, world.base, &world.config, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "256.1.1.1"));
    assert_null(second);
}

static void clients_beyond_the_limit_wait_for_a_place(void **state)
{
    (void)state;
    struct client clients[20];
    world.config.limits.max_connections = 2;
    open_server();
    for (int i = 0; i < 20; i++)
        clients[i] = connect_client();
    UNTIL(http_server_connections(world.server) == 2);
    for (int i = 0; i < 20; i++) {
        send_text(&clients[i], HEAD_OF("GET", "/peer") "Connection: close\r\n\r\n");
        expect_reply(&clients[i], 200, "127.0.0.1");
        assert_in_range(http_server_connections(world.server), 1, 2);
        leave(&clients[i]);
    }
}

static void long_idle_connection_makes_room(void **state)
{
    (void)state;
    world.config.limits.max_connections = 1;
    open_server();
    struct client idle = connect_client();
    UNTIL(http_server_connections(world.server) == 1);
    struct client second = connect_client();
    send_text(&second, GET("/peer"));
    expect_reply(&second, 200, "127.0.0.1");
    UNTIL(receive(&idle) && idle.closed);
    leave(&idle);
    leave(&second);
}

static void server_recovers_from_a_lack_of_descriptors(void **state)
{
    (void)state;
    struct client clients[8];
    struct rlimit before, few;
    open_server();
    for (int i = 0; i < 8; i++)
        clients[i] = connect_client();
    int highest = dup(clients[7].fd);
    close(highest);
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    few.rlim_cur = (rlim_t)highest; /* none free but the server's reserve */
    setrlimit(RLIMIT_NOFILE, &few);
    expect_reply(&clients[0], 503, "");
    unsigned turns = 0;
    for (uint64_t begin = now_us(); now_us() - begin < 50000; turns++)
        event_base_loop(world.base, EVLOOP_ONCE);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_true(turns < 200); /* the tick comes each ms; a spinning loop would turn thousands of times */
    for (int i = 7; i >= 0; i--) {
        if (receive(&clients[i]) && !clients[i].closed) {
            send_text(&clients[i], GET("/peer"));
            expect_reply(&clients[i], 200, "127.0.0.1");
        } else {
            assert_true(i < 3); /* turned away while there were none: one each 100 ms */
        }
        leave(&clients[i]);
    }
}

static void stopping_closes_idle_clients_and_finishes_the_others(void **state)
{
    (void)state;
    open_server();
    struct client idle = connect_client(), running = held_client("/hold", 0);
    http_server_stop_accepting(world.server);
    UNTIL(receive(&idle) && idle.closed);
    assert_int_equal(http_server_open_requests(world.server), 1);
    http_reply(world.held, 200, "text/plain", "done", 4, NULL, 0);
    assert_int_equal(http_server_open_requests(world.server), 0);
    struct reply r = next_reply(&running);
    assert_string_equal(r.body, "done");
    assert_non_null(strstr(r.head, "Connection: close\r\n"));
    UNTIL(receive(&running) && running.closed);
    struct client late = connect_client();
    UNTIL(recv(late.fd, &(char){0}, 1, 0) < 0 && errno == ECONNREFUSED);
    leave(&late);
    leave(&idle);
    leave(&running);
    UNTIL(http_server_connections(world.server) == 0);
}

static void closing_the_server_ends_open_requests(void **state)
{
    (void)state;
    open_server();
    struct client c = held_client("/stream", 0);
    http_server_close(world.server);
    world.server = NULL;
    assert_int_equal(world.gone, 1);
    UNTIL(receive(&c) && (c.closed || c.reset));
    leave(&c);
}

static void idle_connection_costs_at_most_16_kib(void **state)
{
    (void)state;
    enum { CLIENTS = 200 };
    static struct client clients[CLIENTS];
    open_server();
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = connect_client();
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < CLIENTS; i++) {
        send_text(&clients[i], HEAD_OF("POST", "/echo") "Content-Length: 5\r\n\r\nhello");
        expect_reply(&clients[i], 200, "hello");
    }
    assert_int_equal(http_server_connections(world.server), CLIENTS);
    size_t each = (mallinfo2().uordblks - before) / CLIENTS;
    print_message("an idle connection holds %zu bytes, the test client's buffer among them\n", each);
    assert_true(each < 16 << 10);
    for (int i = 0; i < CLIENTS; i++)
        leave(&clients[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HTTP_TEST(names_and_addresses_of_both_families_can_be_listened_on),
        HTTP_TEST(taken_port_and_unknown_host_are_told_in_a_sentence),
        HTTP_TEST(clients_beyond_the_limit_wait_for_a_place),
        HTTP_TEST(long_idle_connection_makes_room),
        HTTP_TEST(server_recovers_from_a_lack_of_descriptors),
        HTTP_TEST(stopping_closes_idle_clients_and_finishes_the_others),
        HTTP_TEST(closing_the_server_ends_open_requests),
        HTTP_TEST(idle_connection_costs_at_most_16_kib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
