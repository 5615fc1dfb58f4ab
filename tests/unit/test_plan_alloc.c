/* Opening and planning with every allocation failing in turn: an error each time, nothing leaked (the
 * sanitiser's build checks), and what can be planned in the end runs. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/net.h"
#include "tests/unit/failing_alloc.h"

#define MAX_ALLOCATIONS 10000

/* 0 or what net_open_fd or net_plan said. */
static int open_and_plan(const char *path, struct error *err) {
    struct net_options o = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC), r;
    struct shape inputs[4] = {0};
    struct plan *plan = NULL;
    struct net *net = NULL;

    assert_true(fd >= 0);
    r = cpu_detect(NULL, &o.cpu, err);
    if (r == 0)
        r = net_open_fd(fd, &o, &net, err);
    close(fd);
    if (r < 0)
        return r;
    for (size_t i = 0; i < net_graph(net)->n_inputs && i < 4; i++) {
        inputs[i] = net_graph(net)->values[net_graph(net)->inputs[i]].shape;
        for (int d = 0; d < inputs[i].rank; d++)
            inputs[i].dim[d] = inputs[i].dim[d] < 0 ? 1 : inputs[i].dim[d];
    }
    r = net_plan(net, inputs, 2, &plan, err);
    plan_unref(plan);
    net_unref(net);
    return r;
}

static void test_planning_survives_every_failing_allocation(void **state) {
    static const char *const files[] = {"mnist-8", "qdq", "conv_pad_bn"};

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        char path[512];
        long n = 0;

        snprintf(path, sizeof(path), "%s/models/%s.onnx", TEST_DATA, files[i]);
        for (; n < MAX_ALLOCATIONS; n++) {
            struct error err = {0};
            bool left;
            int r;

            fail_alloc_at(n);
            r = open_and_plan(path, &err);
            left = fail_alloc_pending();
            fail_alloc_at(-1);
            if (left) {
                if (r < 0)
                    fail_msg("%s: %s", files[i], err.text);
                break;
            }
            if (r != 0 && r != -ENOMEM)
                fail_msg("%s, allocation %ld: %s", files[i], n, err.text);
        }
        assert_true(n > 50 && n < MAX_ALLOCATIONS);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planning_survives_every_failing_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
