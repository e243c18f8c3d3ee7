// Callbacks of the caller's that call wharf, which they are asked not to: an answer, and an end.

#include "cuda.h"
#include "wharf.h"

#include <string.h>

static int told;
static wharf_status answered;

// Fails in the log, and so would be told of that, and fail again.
static void failing_log(void *user, wharf_status status, const char *text) {
    (void)user, (void)status, (void)text;
    told++;
    EXPECT(wharf_stream_synchronize((wharf_stream){0}) == WHARF_STATUS_NULL);
}

// Sets another log, which waits until no thread is inside this one.
static void setting_log(void *user, wharf_status status, const char *text) {
    (void)user, (void)status, (void)text;
    told++;
    answered = wharf_set_log(NULL, NULL);
}

static void a_log_that_fails_is_not_told_of_its_own_failures(void) {
    told = 0;
    EXPECT(wharf_set_log(failing_log, NULL) == WHARF_STATUS_OK);
    EXPECT(wharf_pool_trim((wharf_pool){0}, 0, 0, NULL) == WHARF_STATUS_NULL);
    EXPECT(told == 1);
    EXPECT(strstr(wharf_last_error(), "pool") != NULL); // the outer failure, not the log's
    EXPECT(wharf_pool_trim((wharf_pool){0}, 0, 0, NULL) == WHARF_STATUS_NULL);
    EXPECT(told == 2);
}

static void a_log_cannot_set_the_log(void) {
    told = 0;
    EXPECT(wharf_set_log(setting_log, NULL) == WHARF_STATUS_OK);
    EXPECT(wharf_stream_synchronize((wharf_stream){0}) == WHARF_STATUS_NULL);
    EXPECT(told == 1 && answered == WHARF_STATUS_INVALID);
    EXPECT(wharf_set_log(NULL, NULL) == WHARF_STATUS_OK);
    EXPECT(wharf_stream_synchronize((wharf_stream){0}) == WHARF_STATUS_NULL);
    EXPECT(told == 1);
}

enum { BLOCK = 2 << 20 };

typedef struct {
    wharf_pool pool;
    wharf_stream stream;
    int asked;
    wharf_status inside;
} own;

static bool allocating_hook(void *user, size_t size) {
    own *const it = user;
    void *address;
    it->asked++;
    it->inside = wharf_alloc_address(it->pool, size, it->stream, &address);
    return false;
}

static void a_hook_that_allocates_from_its_own_pool_is_not_asked_again(void) {
    own it = {0};
    wharf_context context;
    OK(wharf_context_retain(0, &context));
    OK(wharf_stream_create(context, &it.stream));
    wharf_pool_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.max_bytes = 2 * BLOCK;
    options.on_pressure = allocating_hook;
    options.user = &it;
    OK(wharf_pool_create(context, &options, &it.pool));
    void *blocks[2], *more;
    for (int i = 0; i < 2; i++) OK(wharf_alloc_address(it.pool, BLOCK, it.stream, &blocks[i]));
    EXPECT(wharf_alloc_address(it.pool, BLOCK, it.stream, &more) == WHARF_STATUS_OUT_OF_MEMORY);
    EXPECT(it.asked == 1 && it.inside == WHARF_STATUS_OUT_OF_MEMORY);
    for (int i = 0; i < 2; i++) OK(wharf_free_address(it.pool, blocks[i], it.stream));
    OK(wharf_pool_close(it.pool, 600000));
    OK(wharf_stream_release(it.stream));
    OK(wharf_context_release(context));
}

int main(void) {
    a_log_that_fails_is_not_told_of_its_own_failures();
    a_log_cannot_set_the_log();
    a_hook_that_allocates_from_its_own_pool_is_not_asked_again();
    return 0;
}
