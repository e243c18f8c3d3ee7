// The loops of examples/overhead.rs through the interface of C: `overhead alloc|step COUNT`.

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

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const bool is_step = strcmp(argv[1], "step") == 0;
    OK(wharf_context_retain(0, &context));
    OK(wharf_stream_create(context, &stream));
    (is_step ? step : alloc)(atol(argv[2]));
    OK(wharf_stream_release(stream));
    OK(wharf_context_release(context));
    return 0;
}
