// Eight threads on one pool, each with a set of its own: blocks that one thread allocates and another frees,
// steps, errors of their own. And one step of which each writes a slot. ThreadSanitizer does not see how the standard library's locks wake a thread, so
// what takes locks of the library is made before the threads begin.

#include "cuda.h"
#include "wharf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { THREADS = 8, SETS = THREADS, ROUNDS = 300, PLACES = 64 };

static wharf_context context;
static wharf_pool pool;
static wharf_inputs sets[SETS];
static wharf_stream streams[THREADS];
static wharf_step common;
static _Atomic(void *) places[PLACES];

static void *work(void *argument) {
    const uintptr_t own = (uintptr_t)argument;
    uint32_t noise = (uint32_t)own + 1;
    const wharf_stream stream = streams[own];
    const wharf_inputs inputs = sets[own];
    for (int round = 0; round < ROUNDS; round++) {
        noise = noise * 1664525u + 1013904223u;
        void *block = NULL;
        OK(wharf_alloc_address(pool, 1 + (noise >> 16), stream, &block));
        // What another thread has put there is this one's to free.
        block = atomic_exchange(&places[noise % PLACES], block);
        if (block != NULL) OK(wharf_free_address(pool, block, stream));
        wharf_buffer buffer;
        OK(wharf_alloc(pool, noise & 0xffff, stream, &buffer));
        OK(wharf_free(pool, buffer, stream));
        EXPECT(wharf_free(pool, buffer, stream) == WHARF_STATUS_STALE);

        wharf_step step;
        OK(wharf_begin(inputs, 4, 1, &step));
        void *data;
        size_t size;
        OK(wharf_step_slot(step, 0, &data, &size));
        EXPECT(size == 16);
        memset(data, (int)own, size);
        if (round % 7 == 0) {
            OK(wharf_step_abandon(step));
        } else {
            OK(wharf_submit(step, stream));
            EXPECT(wharf_submit(step, stream) == WHARF_STATUS_STALE);
        }
        OK(wharf_step_slot(common, own, &data, &size));
        memset(data, (int)own, size);
        if (round % 50 == 0) {
            wharf_pool_stats stats;
            stats.struct_size = sizeof stats;
            OK(wharf_pool_get_stats(pool, &stats));
            EXPECT(stats.reserved <= stats.limit);
        }
    }
    return NULL;
}

int main(void) {
    OK(wharf_context_retain(0, &context));
    wharf_pool_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.max_bytes = (size_t)256 << 20;
    OK(wharf_pool_create(context, &options, &pool));
    const size_t buckets[] = {4};
    wharf_inputs_options of_inputs;
    memset(&of_inputs, 0, sizeof of_inputs);
    of_inputs.struct_size = sizeof of_inputs;
    of_inputs.slot_size = sizeof(wharf_slot);
    of_inputs.buckets = buckets;
    of_inputs.bucket_count = 1;
    of_inputs.deadline_ms = 600000;
    of_inputs.ring_depth = 4;
    wharf_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.name = "ids";
    slot.dtype = WHARF_DTYPE_I32;
    slot.times = 1;
    for (int i = 0; i < SETS; i++) OK(wharf_inputs_create(context, &of_inputs, &slot, 1, &sets[i]));
    const char *const names[THREADS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    wharf_slot of_common[THREADS];
    for (int i = 0; i < THREADS; i++) {
        of_common[i] = slot;
        of_common[i].name = names[i];
    }
    wharf_inputs shared;
    OK(wharf_inputs_create(context, &of_inputs, of_common, THREADS, &shared));
    OK(wharf_begin(shared, 4, 1, &common));
    for (int i = 0; i < THREADS; i++) {
        wharf_ticket ticket;
        OK(wharf_stream_create(context, &streams[i]));
        OK(wharf_stream_ticket(streams[i], &ticket));
        OK(wharf_ticket_release(ticket));
    }

    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) EXPECT(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) EXPECT(pthread_join(threads[i], NULL) == 0);

    // All were written, so it can be sent.
    OK(wharf_submit(common, streams[0]));
    OK(wharf_inputs_destroy(shared));
    for (int i = 0; i < PLACES; i++) {
        if (places[i] != NULL) OK(wharf_free_address(pool, places[i], streams[0]));
    }
    for (int i = 0; i < THREADS; i++) OK(wharf_stream_synchronize(streams[i]));
    for (int i = 0; i < SETS; i++) OK(wharf_inputs_destroy(sets[i]));
    OK(wharf_pool_close(pool, 600000));
    for (int i = 0; i < THREADS; i++) OK(wharf_stream_release(streams[i]));
    OK(wharf_context_release(context));
    return 0;
}
