// The loops of examples/overhead.rs through the interface of C: `overhead alloc|step|results COUNT`.

#include "cuda.h"
#include "wharf.h"

#include <string.h>

static wharf_context context;
static wharf_stream stream;

static void alloc(long count) {
    wharf_pool_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.max_bytes = (size_t)64 << 20;
    wharf_pool pool;
    OK(wharf_pool_create(context, &options, &pool));
    for (long i = 0; i < count; i++) {
        wharf_buffer buffer;
        OK(wharf_alloc(pool, 4096, stream, &buffer));
        OK(wharf_free(pool, buffer, stream));
    }
    OK(wharf_pool_close(pool, 1000));
}

static void step(long count) {
    const size_t buckets[] = {8};
    wharf_inputs_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.slot_size = sizeof(wharf_slot);
    options.buckets = buckets;
    options.bucket_count = 1;
    wharf_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.name = "ids";
    slot.dtype = WHARF_DTYPE_I32;
    slot.times = 1;
    wharf_inputs inputs;
    OK(wharf_inputs_create(context, &options, &slot, 1, &inputs));
    for (long i = 0; i < count; i++) {
        wharf_step step;
        void *data;
        size_t size;
        OK(wharf_begin(inputs, 8, 1, &step));
        OK(wharf_step_slot(step, 0, &data, &size));
        *(int32_t *)data = 1;
        OK(wharf_submit(step, stream));
    }
    OK(wharf_stream_synchronize(stream));
    OK(wharf_inputs_destroy(inputs));
}

static void results(long count) {
    const size_t buckets[] = {8};
    wharf_outputs_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.slot_size = sizeof(wharf_slot);
    options.buckets = buckets;
    options.bucket_count = 1;
    wharf_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.name = "ids";
    slot.dtype = WHARF_DTYPE_I32;
    slot.times = 1;
    wharf_outputs outputs;
    OK(wharf_outputs_create(context, &options, &slot, 1, &outputs));
    int32_t sum = 0;
    for (long i = 0; i < count; i++) {
        wharf_results results;
        const void *data;
        size_t size;
        OK(wharf_fetch(outputs, 8, 1, stream, &results));
        OK(wharf_results_wait(results, 1000));
        OK(wharf_results_read(results, 0, &data, &size));
        sum += *(const int32_t *)data;
        OK(wharf_results_release(results));
    }
    EXPECT(sum == 0);
    OK(wharf_outputs_destroy(outputs));
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const bool is_step = strcmp(argv[1], "step") == 0, is_results = strcmp(argv[1], "results") == 0;
    OK(wharf_context_retain(0, &context));
    OK(wharf_stream_create(context, &stream));
    (is_step ? step : is_results ? results : alloc)(atol(argv[2]));
    OK(wharf_stream_release(stream));
    OK(wharf_context_release(context));
    return 0;
}
