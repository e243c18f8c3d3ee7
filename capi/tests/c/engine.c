// An engine in C: a graph that the driver API captured reads wharf's static buffers, copies into a
// block of wharf's, and from there into pinned memory that the host reads and into wharf's results.
// Right bytes, and nothing left at the end, whatever goes first. The argument is the seed of the
// order in which things are dropped.

#include "cuda.h"
#include "wharf.h"

#include <string.h>

enum { TOKENS = 8, STEPS = 60, PARTS = 7 };

typedef struct {
    wharf_context context;
    wharf_stream copies, model;
    void *raw_copies, *raw_model;
    wharf_pool device, pinned;
    wharf_buffer seen;
    void *result;
    wharf_inputs inputs;
    size_t ids;
    wharf_outputs outputs;
    size_t echo;
    wharf_results last;
    void *graph;
} engine;

static wharf_pool make_pool(const engine *e, wharf_kind kind) {
    wharf_pool_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.kind = kind;
    options.max_bytes = (size_t)64 << 20;
    options.name = kind == WHARF_KIND_DEVICE ? "activations" : "results";
    wharf_pool pool;
    OK(wharf_pool_create(e->context, &options, &pool));
    return pool;
}

static void make_inputs(engine *e) {
    const size_t buckets[] = {4, TOKENS};
    wharf_inputs_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.slot_size = sizeof(wharf_slot);
    options.buckets = buckets;
    options.bucket_count = 2;
    options.ring_depth = 2;
    wharf_slot slots[2];
    memset(slots, 0, sizeof slots);
    slots[0].name = "ids";
    slots[0].dtype = WHARF_DTYPE_I32;
    slots[0].times = 1;
    slots[1].name = "mapping";
    slots[1].dtype = WHARF_DTYPE_I64;
    slots[1].times = 1;
    slots[1].pad = WHARF_PAD_VALUE;
    slots[1].pad_value = UINT64_MAX;
    OK(wharf_inputs_create(e->context, &options, slots, 2, &e->inputs));
    OK(wharf_inputs_slot(e->inputs, "ids", &e->ids));
}

static void make_outputs(engine *e) {
    const size_t buckets[] = {4, TOKENS};
    wharf_outputs_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.slot_size = sizeof(wharf_slot);
    options.buckets = buckets;
    options.bucket_count = 2;
    wharf_slot slots[2];
    memset(slots, 0, sizeof slots);
    // The engine's own memory, and the set's.
    OK(wharf_buffer_device_address(e->device, e->seen, &slots[0].source));
    slots[0].name = "seen";
    slots[0].dtype = WHARF_DTYPE_I32;
    slots[0].times = 1;
    slots[1] = slots[0];
    slots[1].name = "echo";
    slots[1].source = 0;
    OK(wharf_outputs_create(e->context, &options, slots, 2, &e->outputs));
    OK(wharf_outputs_slot(e->outputs, "echo", &e->echo));
}

// The model: results are the ids and the mapping, of 4 and 8 bytes an element.
static void capture(engine *e) {
    uint64_t ids, mapping, seen, echo;
    size_t slot;
    OK(wharf_inputs_slot(e->inputs, "mapping", &slot));
    OK(wharf_inputs_address(e->inputs, e->ids, &ids));
    OK(wharf_inputs_address(e->inputs, slot, &mapping));
    OK(wharf_buffer_device_address(e->device, e->seen, &seen));
    wharf_buffer result;
    OK(wharf_find_address(e->pinned, e->result, &result));
    void *graph;
    OK(wharf_capture_elsewhere_begin(e->context));
    CU(cuStreamBeginCapture_v2(e->raw_model, 1));
    CU(cuMemcpyDtoDAsync_v2(seen, ids, TOKENS * 4, e->raw_model));
    CU(cuMemcpyDtoDAsync_v2(seen + TOKENS * 4, mapping, TOKENS * 8, e->raw_model));
    CU(cuMemcpyDtoHAsync_v2(e->result, seen, TOKENS * 12, e->raw_model));
    OK(wharf_outputs_address(e->outputs, e->echo, TOKENS, 1, &echo));
    CU(cuMemcpyDtoDAsync_v2(echo, ids, TOKENS * 4, e->raw_model));
    OK(wharf_outputs_keep_in_capture(e->outputs, e->model));
    OK(wharf_inputs_keep_in_capture(e->inputs, e->model));
    OK(wharf_buffer_keep_in_capture(e->device, e->seen, e->model));
    OK(wharf_buffer_keep_in_capture(e->pinned, result, e->model));
    // A step has no place in another's capture.
    wharf_step step;
    OK(wharf_begin(e->inputs, 1, 1, &step));
    void *data;
    size_t size;
    for (slot = 0; slot < 2; slot++) {
        OK(wharf_step_slot(step, slot, &data, &size));
        memset(data, 0, size);
    }
    EXPECT(wharf_submit(step, e->model) == WHARF_STATUS_CAPTURING);
    EXPECT(wharf_submit(step, e->model) == WHARF_STATUS_STALE);
    CU(cuStreamEndCapture(e->raw_model, &graph));
    OK(wharf_capture_elsewhere_end(e->context));
    CU(cuGraphInstantiateWithFlags(&e->graph, graph, 0));
    CU(cuGraphDestroy(graph));
}

// The results of a step are read while the next one runs, and are not overwritten by it.
static void fetch(engine *e, int number, size_t tokens) {
    wharf_results now;
    OK(wharf_fetch(e->outputs, tokens, 1, e->model, &now));
    if (number > 0) {
        const size_t before = 1 + (size_t)(number - 1) % TOKENS;
        OK(wharf_results_wait(e->last, 600000));
        for (size_t slot = 0; slot < 2; slot++) {
            const void *data;
            size_t size;
            OK(wharf_results_read(e->last, slot, &data, &size));
            EXPECT(size == before * 4);
            for (size_t i = 0; i < before; i++)
                EXPECT(((const int32_t *)data)[i] == (number - 1) * 100 + (int32_t)i);
        }
        OK(wharf_results_release(e->last));
    }
    e->last = now;
}

static void run(engine *e, int number) {
    const size_t tokens = 1 + (size_t)number % TOKENS;
    wharf_step step;
    OK(wharf_begin(e->inputs, tokens, 1, &step));
    for (size_t slot = 0; slot < 2; slot++) {
        void *data;
        size_t size;
        OK(wharf_step_slot(step, slot, &data, &size));
        EXPECT(size == tokens * (slot == e->ids ? 4 : 8));
        for (size_t i = 0; i < tokens; i++) {
            if (slot == e->ids) ((int32_t *)data)[i] = number * 100 + (int32_t)i;
            else ((int64_t *)data)[i] = number;
        }
    }
    OK(wharf_submit(step, e->copies));
    // The two ways to declare a read.
    wharf_reader reader;
    if (number % 2 == 0) OK(wharf_reader_begin(step, e->model, &reader));
    else OK(wharf_step_wait_on(step, e->model));
    CU(cuGraphLaunch(e->graph, e->raw_model));
    if (number % 2 == 0) OK(wharf_reader_end(reader));
    else OK(wharf_step_consumed_by(step, e->model));
    fetch(e, number, tokens);
    wharf_buffer result;
    OK(wharf_find_address(e->pinned, e->result, &result));
    OK(wharf_buffer_record_use(e->device, e->seen, e->model));
    OK(wharf_buffer_record_use(e->pinned, result, e->model));
    OK(wharf_buffer_wait(e->pinned, result, 600000));
    // Only the bucket is copied: behind it is what a larger step left.
    const size_t padded = tokens <= 4 ? 4 : TOKENS;
    const int32_t *ids = e->result;
    const int64_t *mapping = (const int64_t *)(ids + TOKENS);
    for (size_t i = 0; i < padded; i++) {
        EXPECT(ids[i] == (i < tokens ? number * 100 + (int32_t)i : 0));
        EXPECT(mapping[i] == (i < tokens ? number : -1));
    }
}

// Blocks are reused in stream order, and a second free is found.
static void scratch(engine *e) {
    wharf_buffer first, second;
    OK(wharf_alloc(e->device, 100000, e->model, &first));
    CU(cuMemsetD8Async(first.address, 1, first.size, e->raw_model));
    OK(wharf_free(e->device, first, e->model));
    EXPECT(wharf_free(e->device, first, e->model) == WHARF_STATUS_STALE);
    OK(wharf_alloc(e->device, 100000, e->model, &second));
    EXPECT(second.address == first.address);
    CU(cuMemsetD8Async(second.address, 2, second.size, e->raw_model));
    OK(wharf_free(e->device, second, e->model));
    EXPECT(wharf_alloc(e->device, (size_t)1 << 40, e->model, &first) == WHARF_STATUS_INVALID);
    EXPECT(wharf_alloc(e->device, (size_t)64 << 20, e->model, &first) == WHARF_STATUS_OUT_OF_MEMORY);
}

typedef struct {
    wharf_pool pool;
    wharf_stream stream;
    wharf_buffer held;
    int asked;
} cache;

// The engine's cache gives its block up, once.
static bool give(void *user, size_t size) {
    cache *of = user;
    EXPECT(size == (size_t)40 << 20);
    return of->asked++ == 0 && wharf_free(of->pool, of->held, of->stream) == WHARF_STATUS_OK;
}

// A pool at its limit asks the engine, and the allocation has what that gives.
static void pressure(const engine *e) {
    cache of = {.stream = e->model};
    wharf_pool_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.max_bytes = (size_t)64 << 20;
    options.on_pressure = give;
    options.user = &of;
    OK(wharf_pool_create(e->context, &options, &of.pool));
    OK(wharf_alloc(of.pool, (size_t)40 << 20, e->model, &of.held));
    wharf_buffer block;
    OK(wharf_alloc(of.pool, (size_t)40 << 20, e->model, &block));
    EXPECT(of.asked == 1);
    EXPECT(wharf_alloc(of.pool, (size_t)40 << 20, e->model, &of.held) == WHARF_STATUS_OUT_OF_MEMORY);
    EXPECT(of.asked == 2);
    OK(wharf_free(of.pool, block, e->model));
    OK(wharf_stream_synchronize(e->model));
    OK(wharf_pool_close(of.pool, 600000));
}

// A slot that a step does not write keeps what the device has, where that is asked for.
static void forgotten_slot(const engine *e) {
    const size_t buckets[] = {4};
    wharf_inputs_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.slot_size = sizeof(wharf_slot);
    options.buckets = buckets;
    options.bucket_count = 1;
    wharf_slot slots[2];
    memset(slots, 0, sizeof slots);
    slots[0].name = "table";
    slots[0].dtype = WHARF_DTYPE_U8;
    slots[0].times = 1;
    slots[0].forgotten = WHARF_FORGOTTEN_KEEP;
    slots[1] = slots[0];
    slots[1].name = "ids";
    slots[1].forgotten = WHARF_FORGOTTEN_PAD;
    wharf_inputs inputs;
    OK(wharf_inputs_create(e->context, &options, slots, 2, &inputs));
    for (int round = 0; round < 2; round++) {
        wharf_step step;
        void *data;
        size_t size;
        OK(wharf_begin(inputs, 4, 1, &step));
        for (size_t slot = 0; slot < 2 && round == 0; slot++) {
            OK(wharf_step_slot(step, slot, &data, &size));
            memset(data, 7, size);
        }
        OK(wharf_submit(step, e->model));
    }
    unsigned char back[2][4];
    for (size_t slot = 0; slot < 2; slot++) {
        uint64_t address;
        OK(wharf_inputs_address(inputs, slot, &address));
        CU(cuMemcpyDtoHAsync_v2(back[slot], address, 4, e->raw_model));
    }
    CU(cuStreamSynchronize(e->raw_model));
    EXPECT(back[0][0] == 7 && back[0][3] == 7 && back[1][0] == 0 && back[1][3] == 0);
    OK(wharf_inputs_destroy(inputs));
}

static wharf_inputs small_set(const engine *e, int layout, int placement) {
    const size_t buckets[] = {2, 4};
    wharf_inputs_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.slot_size = sizeof(wharf_slot);
    options.buckets = buckets;
    options.bucket_count = 2;
    options.layout = layout;
    wharf_slot slots[2];
    memset(slots, 0, sizeof slots);
    slots[0].name = "first";
    slots[0].dtype = WHARF_DTYPE_U8;
    slots[0].times = 200;
    slots[1] = slots[0];
    slots[1].name = "second";
    slots[1].placement = placement;
    wharf_inputs inputs;
    OK(wharf_inputs_create(e->context, &options, slots, 2, &inputs));
    return inputs;
}

// One step of a small set of two slots, each filled with its number and `value`.
static wharf_step small_step(wharf_inputs inputs, size_t tokens, size_t padded,
                             unsigned char value) {
    wharf_step step;
    OK(wharf_begin_padded(inputs, tokens, 1, padded, 1, &step));
    for (size_t slot = 0; slot < 2; slot++) {
        void *data;
        size_t size;
        OK(wharf_step_slot(step, slot, &data, &size));
        EXPECT(size == tokens * 200);
        memset(data, value + (int)slot, size);
    }
    size_t bucket, to;
    OK(wharf_step_padded(step, &bucket, &to, NULL));
    EXPECT(to == (padded <= 2 ? 2 : 4) && bucket == (padded <= 2 ? 0u : 1u));
    return step;
}

// In a packed layout a slot's place depends on the bucket, also on one that is asked for.
static void packed(const engine *e) {
    const wharf_inputs inputs = small_set(e, WHARF_LAYOUT_PACKED, WHARF_PLACEMENT_COPIED);
    uint64_t small, large, address;
    EXPECT(wharf_inputs_address(inputs, 1, &address) == WHARF_STATUS_INVALID);
    OK(wharf_inputs_address_in(inputs, 1, 2, 1, &small));
    OK(wharf_inputs_address_in(inputs, 1, 4, 1, &large));
    EXPECT(small < large);
    EXPECT(wharf_inputs_address_in(inputs, 1, 5, 1, &address) == WHARF_STATUS_INVALID);
    for (size_t padded = 1; padded <= 4; padded++) {
        unsigned char back[200];
        const wharf_step step = small_step(inputs, 1, padded, (unsigned char)padded);
        OK(wharf_submit(step, e->model));
        OK(wharf_step_address(step, 1, &address));
        EXPECT(address == (padded <= 2 ? small : large));
        CU(cuMemcpyDtoHAsync_v2(back, address, sizeof back, e->raw_model));
        CU(cuStreamSynchronize(e->raw_model));
        EXPECT(back[0] == padded + 1 && back[199] == padded + 1);
    }
    OK(wharf_inputs_destroy(inputs));
}

// A zero-copy slot is read where the host has written it, in each step elsewhere.
static void zero_copy(const engine *e) {
    const wharf_inputs inputs = small_set(e, WHARF_LAYOUT_PER_SLOT, WHARF_PLACEMENT_ZERO_COPY);
    uint64_t block;
    wharf_buffer seen;
    OK(wharf_alloc(e->device, 400, e->model, &seen));
    OK(wharf_buffer_device_address(e->device, seen, &block));
    for (unsigned char number = 0; number < 10; number++) {
        unsigned char back[400];
        const wharf_step step = small_step(inputs, 2, 2, number);
        uint64_t address;
        EXPECT(wharf_step_address(step, 1, &address) == WHARF_STATUS_INVALID);
        OK(wharf_submit(step, e->copies));
        wharf_reader reader;
        OK(wharf_reader_begin(step, e->model, &reader));
        OK(wharf_step_address(step, 1, &address));
        CU(cuMemcpyHtoDAsync_v2(block, (const void *)(uintptr_t)address, 400, e->raw_model));
        OK(wharf_reader_end(reader));
        CU(cuMemcpyDtoHAsync_v2(back, block, 400, e->raw_model));
        CU(cuStreamSynchronize(e->raw_model));
        EXPECT(back[0] == number + 1 && back[399] == number + 1);
    }
    OK(wharf_free(e->device, seen, e->model));
    OK(wharf_inputs_destroy(inputs));
}

// A stream that is forgotten may be destroyed, whatever has seen it.
static void forget(engine *e) {
    void *raw;
    wharf_stream stream, again;
    wharf_buffer block;
    CU(cuStreamCreate(&raw, 1));
    OK(wharf_stream_borrow(e->context, raw, &stream));
    OK(wharf_alloc(e->device, 5000, stream, &block));
    CU(cuMemsetD8Async(block.address, 3, block.size, raw));
    OK(wharf_free(e->device, block, stream));
    OK(wharf_stream_borrow(e->context, raw, &again));
    OK(wharf_stream_forget(e->context, raw));
    EXPECT(wharf_alloc(e->device, 5000, stream, &block) == WHARF_STATUS_STALE);
    EXPECT(wharf_stream_synchronize(again) == WHARF_STATUS_STALE);
    CU(cuStreamDestroy_v2(raw));
    OK(wharf_stream_release(stream));
    OK(wharf_stream_release(again));
}

static void drop(engine *e, int part) {
    wharf_buffer result;
    switch (part) {
        case 0: CU(cuGraphExecDestroy(e->graph)); break;
        case 1: OK(wharf_inputs_destroy(e->inputs)); break;
        case 2: OK(wharf_free(e->device, e->seen, e->model)); break;
        case 3:
            OK(wharf_find_address(e->pinned, e->result, &result));
            OK(wharf_free_address(e->pinned, e->result, e->model));
            EXPECT(wharf_free(e->pinned, result, e->model) == WHARF_STATUS_STALE);
            break;
        case 4: OK(wharf_stream_release(e->copies)); break;
        case 5: OK(wharf_outputs_destroy(e->outputs)); break;
        default: OK(wharf_context_release(e->context)); break;
    }
}

int main(int argc, char **argv) {
    unsigned seed = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    engine e;
    memset(&e, 0, sizeof e);
    void *primary;
    CU(cuInit(0));
    CU(cuDevicePrimaryCtxRetain(&primary, 0));
    CU(cuCtxSetCurrent(primary));
    CU(cuStreamCreate(&e.raw_copies, 1));
    CU(cuStreamCreate(&e.raw_model, 1));
    // One's own reference to the primary context, or the engine's context.
    if (seed % 2 == 0) OK(wharf_context_retain(0, &e.context));
    else OK(wharf_context_borrow(primary, &e.context));
    OK(wharf_stream_borrow(e.context, e.raw_copies, &e.copies));
    OK(wharf_stream_borrow(e.context, e.raw_model, &e.model));
    e.device = make_pool(&e, WHARF_KIND_DEVICE);
    e.pinned = make_pool(&e, WHARF_KIND_PINNED);
    OK(wharf_alloc(e.device, TOKENS * 12, e.model, &e.seen));
    OK(wharf_alloc_address(e.pinned, TOKENS * 12, e.model, &e.result));
    make_inputs(&e);
    make_outputs(&e);
    capture(&e);
    for (int number = 0; number < STEPS; number++) run(&e, number);
    scratch(&e);
    forget(&e);
    pressure(&e);
    forgotten_slot(&e);
    packed(&e);
    zero_copy(&e);
    // Results outlive the set that they are of.
    OK(wharf_results_wait(e.last, 600000));
    wharf_ticket ticket;
    OK(wharf_stream_ticket(e.model, &ticket));
    OK(wharf_ticket_wait(ticket, 600000));
    OK(wharf_ticket_release(ticket));

    // A context of wharf's own, for the end of what the graph keeps.
    wharf_context last;
    OK(wharf_context_retain(0, &last));
    int order[PARTS] = {0, 1, 2, 3, 4, 5, 6};
    for (int i = PARTS - 1; i > 0; i--) {
        seed = seed * 1103515245u + 12345u;
        const int other = (int)(seed >> 16) % (i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (int i = 0; i < PARTS; i++) drop(&e, order[i]);
    const void *data;
    size_t size;
    OK(wharf_results_read(e.last, e.echo, &data, &size));
    EXPECT(*(const int32_t *)data == (STEPS - 1) * 100);
    OK(wharf_results_release(e.last));
    OK(wharf_wait_deferred(last, 600000));
    OK(wharf_pool_close(e.device, 600000));
    OK(wharf_pool_close(e.pinned, 600000));
    OK(wharf_stream_release(e.model));
    CU(cuStreamDestroy_v2(e.raw_copies));
    CU(cuStreamDestroy_v2(e.raw_model));
    OK(wharf_context_release(last));
    CU(cuDevicePrimaryCtxRelease_v2(0));
    unsigned flags;
    int active;
    CU(cuDevicePrimaryCtxGetState(0, &flags, &active));
    EXPECT(active == 0);
    return 0;
}
