// The loop of examples/overhead.rs through the interface of C: `overhead alloc COUNT`.

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

int main(int argc, char **argv) {
    if (argc != 3 || strcmp(argv[1], "alloc") != 0) return 2;
    OK(wharf_context_retain(0, &context));
    OK(wharf_stream_create(context, &stream));
    alloc(atol(argv[2]));
    OK(wharf_stream_release(stream));
    OK(wharf_context_release(context));
    return 0;
}
