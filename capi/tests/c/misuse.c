// Every function with NULL, stale and huge arguments: a status, never a crash. A function of wharf.h
// that is missing here is found by check.sh.

#include "cuda.h"
#include "wharf.h"

#include <pthread.h>
#include <string.h>

static const wharf_context NO_CONTEXT = {0};
static const wharf_stream NO_STREAM = {0};
static const wharf_ticket NO_TICKET = {0};
static const wharf_pool NO_POOL = {0};
static const wharf_inputs NO_INPUTS = {0};
static const wharf_outputs NO_OUTPUTS = {0};
static const wharf_results NO_RESULTS = {0};
static const wharf_reader NO_READER = {0};
static const wharf_buffer NO_BUFFER = {0, 0, 0, 0};
static const wharf_step NO_STEP = {{0}, 0};

#define IS(call, wanted) EXPECT((call) == WHARF_STATUS_##wanted)
// Anything but success, and a text.
#define FAILS(call) EXPECT((call) != WHARF_STATUS_OK && wharf_last_error()[0] != 0)

static wharf_pool_options pool_options(size_t span, size_t limit, int kind) {
    wharf_pool_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.kind = kind;
    options.span_bytes = span;
    options.max_bytes = limit;
    return options;
}

static int told;
static void log_text(void *user, wharf_status status, const char *text) {
    (void)status;
    *(int *)user += text[0] != 0;
}

// The handles of one kind of misuse: none, stale, or no handles at all.
typedef struct {
    wharf_context context;
    wharf_stream stream;
    wharf_ticket ticket;
    wharf_pool pool;
    wharf_inputs inputs;
    wharf_buffer buffer;
    wharf_step step;
    wharf_outputs outputs;
    wharf_results results;
    wharf_reader reader;
} handles;

static wharf_outputs_options output_options(const size_t *buckets) {
    wharf_outputs_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.slot_size = sizeof(wharf_slot);
    options.buckets = buckets;
    options.bucket_count = 1;
    return options;
}

// Each function with wrong handles, and results in place.
static void with_handles(const handles *h, wharf_context context, wharf_pool pool, wharf_stream stream) {
    wharf_stream some_stream;
    wharf_ticket some_ticket;
    wharf_pool some_pool;
    wharf_inputs some_inputs;
    wharf_buffer some_buffer;
    wharf_step some_step;
    wharf_outputs some_outputs;
    wharf_results some_results;
    wharf_reader some_reader;
    const void *read;
    wharf_pool_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    const size_t buckets[] = {8};
    const wharf_pool_options of_pool = pool_options(0, 4 << 20, WHARF_KIND_DEVICE);
    wharf_inputs_options of_inputs;
    memset(&of_inputs, 0, sizeof of_inputs);
    of_inputs.struct_size = sizeof of_inputs;
    of_inputs.slot_size = sizeof(wharf_slot);
    of_inputs.buckets = buckets;
    of_inputs.bucket_count = 1;
    wharf_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.name = "ids";
    slot.times = 1;
    void *pointer;
    size_t size;
    uint64_t address;
    bool is;
    char text[64];
    wharf_kind kind;

    FAILS(wharf_context_release(h->context));
    FAILS(wharf_drop_deferred(h->context, &size));
    FAILS(wharf_wait_deferred(h->context, UINT64_MAX));
    FAILS(wharf_capture_elsewhere_begin(h->context));
    FAILS(wharf_capture_elsewhere_end(h->context));
    FAILS(wharf_stream_create(h->context, &some_stream));
    FAILS(wharf_stream_borrow(h->context, NULL, &some_stream));
    FAILS(wharf_stream_forget(h->context, NULL));
    FAILS(wharf_stream_raw(h->stream, &pointer));
    FAILS(wharf_stream_synchronize(h->stream));
    FAILS(wharf_stream_release(h->stream));
    FAILS(wharf_stream_ticket(h->stream, &some_ticket));
    FAILS(wharf_ticket_poll(h->ticket, &is));
    FAILS(wharf_ticket_wait(h->ticket, UINT64_MAX));
    FAILS(wharf_ticket_release(h->ticket));
    FAILS(wharf_pool_create(h->context, &of_pool, &some_pool));
    FAILS(wharf_pool_close(h->pool, UINT64_MAX));
    FAILS(wharf_pool_trim(h->pool, UINT64_MAX, SIZE_MAX, &size));
    FAILS(wharf_pool_get_stats(h->pool, &stats));
    FAILS(wharf_pool_get_kind(h->pool, &kind));
    FAILS(wharf_pool_report(h->pool, text, sizeof text, &size));
    FAILS(wharf_alloc(h->pool, 64, stream, &some_buffer));
    FAILS(wharf_alloc(pool, 64, h->stream, &some_buffer));
    FAILS(wharf_free(h->pool, h->buffer, stream));
    FAILS(wharf_free(pool, h->buffer, stream));
    FAILS(wharf_free(pool, h->buffer, h->stream));
    FAILS(wharf_alloc_address(h->pool, 64, stream, &pointer));
    FAILS(wharf_alloc_address(pool, 64, h->stream, &pointer));
    FAILS(wharf_free_address(h->pool, &told, stream));
    FAILS(wharf_free_address(pool, &told, h->stream));
    FAILS(wharf_alloc_on(h->pool, 64, context, NULL, &pointer));
    FAILS(wharf_alloc_on(pool, 64, h->context, NULL, &pointer));
    FAILS(wharf_free_on(h->pool, &told, context, NULL));
    FAILS(wharf_free_on(pool, &told, h->context, NULL));
    FAILS(wharf_free_on(pool, &told, context, NULL));
    FAILS(wharf_find_address(h->pool, &told, &some_buffer));
    FAILS(wharf_find_address(pool, &told, &some_buffer));
    FAILS(wharf_buffer_record_use(pool, h->buffer, stream));
    FAILS(wharf_buffer_acquire(pool, h->buffer, stream));
    FAILS(wharf_buffer_wait(pool, h->buffer, UINT64_MAX));
    FAILS(wharf_buffer_device_address(pool, h->buffer, &address));
    FAILS(wharf_buffer_keep_in_capture(pool, h->buffer, stream));
    FAILS(wharf_buffer_record_use(h->pool, h->buffer, h->stream));
    FAILS(wharf_inputs_create(h->context, &of_inputs, &slot, 1, &some_inputs));
    FAILS(wharf_inputs_destroy(h->inputs));
    FAILS(wharf_inputs_wait(h->inputs));
    FAILS(wharf_inputs_slot(h->inputs, "ids", &size));
    FAILS(wharf_inputs_address(h->inputs, 0, &address));
    FAILS(wharf_inputs_keep_in_capture(h->inputs, stream));
    FAILS(wharf_begin(h->inputs, 1, 1, &some_step));
    FAILS(wharf_try_begin(h->inputs, 1, 1, &some_step));
    FAILS(wharf_step_slot(h->step, 0, &pointer, &size));
    FAILS(wharf_submit(h->step, stream));
    FAILS(wharf_step_abandon(h->step));
    FAILS(wharf_step_wait_on(h->step, stream));
    FAILS(wharf_step_consumed_by(h->step, stream));
    FAILS(wharf_step_is_complete(h->step, &is));
    FAILS(wharf_begin_padded(h->inputs, 1, 1, 1, 1, &some_step));
    FAILS(wharf_inputs_address_in(h->inputs, 0, 1, 1, &address));
    FAILS(wharf_step_address(h->step, 0, &address));
    FAILS(wharf_step_padded(h->step, &size, &size, &size));
    FAILS(wharf_reader_begin(h->step, stream, &some_reader));
    FAILS(wharf_reader_end(h->reader));
    const wharf_outputs_options of_outputs = output_options(buckets);
    FAILS(wharf_outputs_create(h->context, &of_outputs, &slot, 1, &some_outputs));
    FAILS(wharf_outputs_destroy(h->outputs));
    FAILS(wharf_outputs_slot(h->outputs, "ids", &size));
    FAILS(wharf_outputs_address(h->outputs, 0, 1, 1, &address));
    FAILS(wharf_outputs_keep_in_capture(h->outputs, stream));
    FAILS(wharf_fetch(h->outputs, 1, 1, stream, &some_results));
    FAILS(wharf_try_fetch(h->outputs, 1, 1, stream, &some_results));
    FAILS(wharf_fetch_from(h->outputs, 1, 1, &address, 0, stream, &some_results));
    FAILS(wharf_results_is_complete(h->results, &is));
    FAILS(wharf_results_wait(h->results, UINT64_MAX));
    FAILS(wharf_results_read(h->results, 0, &read, &size));
    FAILS(wharf_results_source_free_on(h->results, stream));
    FAILS(wharf_results_release(h->results));
}

// Results and readers with NULL, huge and stale arguments, and uses that are out of order.
static void results(wharf_context context, wharf_stream stream, wharf_inputs inputs) {
    const size_t buckets[] = {8};
    wharf_outputs_options options = output_options(buckets);
    wharf_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.name = "ids";
    slot.times = 1;
    wharf_outputs outputs;
    wharf_results there;
    uint64_t address, sources[2] = {0, 0};
    size_t size;
    const void *data;
    bool complete;
    IS(wharf_outputs_create(context, NULL, &slot, 1, &outputs), NULL);
    IS(wharf_outputs_create(context, &options, NULL, 1, &outputs), NULL);
    IS(wharf_outputs_create(context, &options, &slot, 1, NULL), NULL);
    IS(wharf_outputs_create(context, &options, &slot, SIZE_MAX, &outputs), INVALID);
    int *numbers[] = {&slot.dtype,     &slot.count,     &slot.pad,
                      &slot.forgotten, &slot.placement, &options.layout};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        *numbers[i] = INT32_MAX;
        IS(wharf_outputs_create(context, &options, &slot, 1, &outputs), INVALID);
        *numbers[i] = 0;
    }
    slot.times = 0;
    IS(wharf_outputs_create(context, &options, &slot, 1, &outputs), INVALID);
    slot.times = SIZE_MAX;
    FAILS(wharf_outputs_create(context, &options, &slot, 1, &outputs));
    slot.times = 1;
    // A source and a packed layout exclude each other.
    slot.source = 4096;
    options.layout = WHARF_LAYOUT_PACKED;
    FAILS(wharf_outputs_create(context, &options, &slot, 1, &outputs));
    slot.source = 0;
    options.layout = WHARF_LAYOUT_PER_SLOT;
    options.ring_depth = 1;
    OK(wharf_outputs_create(context, &options, &slot, 1, &outputs));

    IS(wharf_outputs_slot(outputs, NULL, &size), NULL);
    IS(wharf_outputs_slot(outputs, "ids", NULL), NULL);
    IS(wharf_outputs_slot(outputs, "idz", &size), INVALID);
    IS(wharf_outputs_address(outputs, 0, 1, 1, NULL), NULL);
    IS(wharf_outputs_address(outputs, 1, 1, 1, &address), INVALID);
    IS(wharf_outputs_address(outputs, 0, SIZE_MAX, 1, &address), INVALID);
    IS(wharf_outputs_keep_in_capture(outputs, stream), INVALID);
    IS(wharf_fetch(outputs, 1, 1, stream, NULL), NULL);
    IS(wharf_fetch(outputs, SIZE_MAX, 1, stream, &there), INVALID);
    IS(wharf_try_fetch(outputs, 1, SIZE_MAX, stream, &there), INVALID);
    IS(wharf_fetch_from(outputs, 1, 1, NULL, 1, stream, &there), NULL);
    IS(wharf_fetch_from(outputs, 1, 1, sources, SIZE_MAX, stream, &there), INVALID);
    sources[1] = 4096;
    IS(wharf_fetch_from(outputs, 1, 1, sources, 2, stream, &there), INVALID);
    OK(wharf_fetch_from(outputs, 1, 1, sources, 1, stream, &there));
    // The one ring slot is held.
    wharf_results none;
    IS(wharf_try_fetch(outputs, 1, 1, stream, &none), WOULD_BLOCK);
    OK(wharf_results_wait(there, 600000));
    IS(wharf_results_is_complete(there, NULL), NULL);
    OK(wharf_results_is_complete(there, &complete));
    EXPECT(complete);
    IS(wharf_results_read(there, 0, NULL, &size), NULL);
    IS(wharf_results_read(there, 0, &data, NULL), NULL);
    IS(wharf_results_read(there, SIZE_MAX, &data, &size), INVALID);
    OK(wharf_outputs_destroy(outputs));
    OK(wharf_results_read(there, 0, &data, &size));
    EXPECT(size == 1);
    OK(wharf_results_release(there));
    IS(wharf_results_release(there), STALE);

    // A step cannot follow a read that is open, nor ever one whose stream was released.
    wharf_step step;
    wharf_stream model;
    wharf_reader reader;
    void *to;
    OK(wharf_stream_create(context, &model));
    for (int round = 0; round < 2; round++) {
        OK(wharf_begin(inputs, 1, 1, &step));
        IS(wharf_inputs_address_in(inputs, 0, SIZE_MAX, 1, &address), INVALID);
        IS(wharf_inputs_address_in(inputs, SIZE_MAX, 1, 1, &address), INVALID);
        IS(wharf_inputs_address_in(inputs, 0, 1, 1, NULL), NULL);
        IS(wharf_reader_begin(step, model, &reader), INVALID);
        IS(wharf_step_address(step, 0, &address), INVALID);
        OK(wharf_step_padded(step, NULL, NULL, NULL));
        OK(wharf_step_slot(step, 0, &to, &size));
        memset(to, 0, size);
        OK(wharf_submit(step, stream));
        IS(wharf_step_address(step, SIZE_MAX, &address), INVALID);
        IS(wharf_step_address(step, 0, NULL), NULL);
        IS(wharf_reader_begin(step, model, NULL), NULL);
        OK(wharf_reader_begin(step, model, &reader));
        if (round == 0) OK(wharf_reader_end(reader));
    }
    IS(wharf_begin_padded(inputs, 1, 1, SIZE_MAX, 1, &step), INVALID);
    IS(wharf_begin_padded(inputs, 8, 1, 8, 1, NULL), NULL);
    OK(wharf_stream_release(model));
    IS(wharf_reader_end(reader), STALE);
    OK(wharf_begin(inputs, 1, 1, &step));
    OK(wharf_step_slot(step, 0, &to, &size));
    memset(to, 0, size);
    FAILS(wharf_submit(step, stream));
}

// Each function with good handles, and NULL for each pointer.
static void with_null(wharf_context context, wharf_pool pool, wharf_stream stream, wharf_inputs inputs,
                      wharf_ticket ticket, wharf_step open, wharf_buffer buffer) {
    void *pointer;
    size_t size;
    wharf_pool some_pool;
    wharf_inputs some_inputs;
    const wharf_pool_options of_pool = pool_options(0, 4 << 20, WHARF_KIND_DEVICE);
    IS(wharf_context_retain(0, NULL), NULL);
    wharf_context some_context;
    IS(wharf_context_borrow(NULL, &some_context), NULL);
    IS(wharf_context_borrow(&size, NULL), NULL);
    OK(wharf_drop_deferred(context, NULL));
    IS(wharf_stream_create(context, NULL), NULL);
    IS(wharf_stream_borrow(context, NULL, NULL), NULL);
    OK(wharf_stream_forget(context, NULL));
    IS(wharf_stream_raw(stream, NULL), NULL);
    IS(wharf_stream_ticket(stream, NULL), NULL);
    IS(wharf_ticket_poll(ticket, NULL), NULL);
    IS(wharf_pool_create(context, NULL, &some_pool), NULL);
    IS(wharf_pool_create(context, &of_pool, NULL), NULL);
    OK(wharf_pool_trim(pool, 0, 0, NULL));
    IS(wharf_pool_get_stats(pool, NULL), NULL);
    IS(wharf_pool_get_kind(pool, NULL), NULL);
    IS(wharf_pool_report(pool, NULL, 0, NULL), NULL);
    IS(wharf_pool_report(pool, NULL, 0, &size), INVALID);
    EXPECT(size > 100);
    IS(wharf_pool_report(pool, NULL, SIZE_MAX, &size), NULL);
    IS(wharf_alloc(pool, 64, stream, NULL), NULL);
    IS(wharf_alloc_address(pool, 64, stream, NULL), NULL);
    IS(wharf_free_address(pool, NULL, stream), NULL);
    IS(wharf_alloc_on(pool, 64, context, NULL, NULL), NULL);
    IS(wharf_free_on(pool, NULL, context, NULL), NULL);
    IS(wharf_find_address(pool, &size, NULL), NULL);
    wharf_buffer found;
    IS(wharf_find_address(pool, NULL, &found), STALE);
    IS(wharf_buffer_device_address(pool, buffer, NULL), NULL);
    IS(wharf_buffer_keep_in_capture(pool, buffer, stream), INVALID);
    IS(wharf_inputs_create(context, NULL, NULL, 0, &some_inputs), NULL);
    IS(wharf_inputs_slot(inputs, NULL, &size), NULL);
    IS(wharf_inputs_slot(inputs, "ids", NULL), NULL);
    IS(wharf_inputs_slot(inputs, "idz", &size), INVALID);
    IS(wharf_inputs_slot(inputs, "\xff", &size), INVALID);
    IS(wharf_inputs_address(inputs, 0, NULL), NULL);
    IS(wharf_inputs_keep_in_capture(inputs, stream), INVALID);
    IS(wharf_begin(inputs, 1, 1, NULL), NULL);
    IS(wharf_try_begin(inputs, 1, 1, NULL), NULL);
    IS(wharf_step_slot(open, 0, NULL, &size), NULL);
    IS(wharf_step_slot(open, 0, &pointer, NULL), NULL);
    IS(wharf_step_is_complete(open, NULL), NULL);
    bool complete;
    IS(wharf_step_is_complete(open, &complete), INVALID);
    IS(wharf_step_wait_on(open, stream), INVALID);
    IS(wharf_step_consumed_by(open, stream), INVALID);
}

// Sizes, counts, numbers and times that are too large, and structures of other sizes.
static void with_huge(wharf_context context, wharf_pool pool, wharf_stream stream, wharf_inputs inputs,
                      wharf_step open, wharf_buffer buffer) {
    wharf_context some_context;
    wharf_pool some_pool;
    wharf_buffer some_buffer;
    wharf_inputs some_inputs;
    wharf_step some_step;
    void *pointer;
    size_t size;
    uint64_t address;
    FAILS(wharf_context_retain(-1, &some_context));
    FAILS(wharf_context_retain(INT32_MAX, &some_context));
    const size_t spans[] = {1, (size_t)1 << 46, (size_t)1 << 62, SIZE_MAX / 2 + 1, SIZE_MAX - 4096, SIZE_MAX};
    for (int kind = -1; kind <= 4; kind++) {
        for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
            wharf_pool_options options = pool_options(spans[i], spans[i], kind);
            if (wharf_pool_create(context, &options, &some_pool) == WHARF_STATUS_OK) {
                OK(wharf_pool_close(some_pool, UINT64_MAX));
            }
        }
    }
    wharf_pool_options options = pool_options(0, 0, WHARF_KIND_DEVICE);
    IS(wharf_pool_create(context, &options, &some_pool), INVALID);
    options = pool_options(0, 4 << 20, 99);
    IS(wharf_pool_create(context, &options, &some_pool), INVALID);
    options = pool_options(0, 4 << 20, WHARF_KIND_DEVICE);
    options.struct_size -= 1;
    IS(wharf_pool_create(context, &options, &some_pool), INVALID);
    const size_t sizes[] = {(size_t)1 << 40, (size_t)1 << 63, SIZE_MAX - 255, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        IS(wharf_alloc(pool, sizes[i], stream, &some_buffer), INVALID);
        IS(wharf_alloc_address(pool, sizes[i], stream, &pointer), INVALID);
        IS(wharf_alloc_on(pool, sizes[i], context, NULL, &pointer), INVALID);
    }
    IS(wharf_find_address(pool, (void *)UINTPTR_MAX, &some_buffer), STALE);
    IS(wharf_free_address(pool, (void *)UINTPTR_MAX, stream), STALE);
    some_buffer = buffer;
    some_buffer.size = SIZE_MAX;
    FAILS(wharf_free(pool, some_buffer, stream));
    some_buffer = buffer;
    some_buffer.address += 256;
    FAILS(wharf_free(pool, some_buffer, stream));
    some_buffer = buffer;
    some_buffer.pool += 1;
    IS(wharf_free(pool, some_buffer, stream), WRONG_OWNER);
    memset(&some_buffer, 0xff, sizeof some_buffer);
    FAILS(wharf_free(pool, some_buffer, stream));
    FAILS(wharf_buffer_wait(pool, some_buffer, UINT64_MAX));
    OK(wharf_buffer_wait(pool, buffer, UINT64_MAX));

    size_t buckets[] = {8};
    wharf_slot slots[2];
    memset(slots, 0, sizeof slots);
    slots[0].name = "ids";
    slots[0].times = 1;
    wharf_inputs_options of_inputs;
    memset(&of_inputs, 0, sizeof of_inputs);
    IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
    of_inputs.struct_size = sizeof of_inputs;
    of_inputs.slot_size = sizeof(wharf_slot);
    of_inputs.buckets = buckets;
    of_inputs.bucket_count = 1;
    IS(wharf_inputs_create(context, &of_inputs, slots, SIZE_MAX, &some_inputs), INVALID);
    IS(wharf_inputs_create(context, &of_inputs, NULL, 1, &some_inputs), NULL);
    IS(wharf_inputs_create(context, &of_inputs, slots, 0, &some_inputs), INVALID);
    IS(wharf_inputs_create(context, &of_inputs, slots, 2, &some_inputs), NULL);
    of_inputs.slot_size -= 1;
    IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
    of_inputs.slot_size = SIZE_MAX;
    IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
    of_inputs.slot_size = sizeof(wharf_slot);
    of_inputs.bucket_count = SIZE_MAX;
    IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
    of_inputs.bucket_count = 1;
    of_inputs.ring_depth = SIZE_MAX;
    IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
    of_inputs.ring_depth = 0;
    buckets[0] = SIZE_MAX;
    FAILS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs));
    buckets[0] = 8;
    int *numbers[] = {&slots[0].dtype, &slots[0].count, &slots[0].pad, &slots[0].forgotten};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        *numbers[i] = INT32_MAX;
        IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
        *numbers[i] = -1;
        IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
        *numbers[i] = 0;
    }
    // A slot that was only zeroed has no elements; a value that is no padding would be lost.
    slots[0].times = 0;
    IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
    EXPECT(strstr(wharf_last_error(), "times") != NULL);
    slots[0].times = 1;
    slots[0].pad_value = 7;
    IS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs), INVALID);
    EXPECT(strstr(wharf_last_error(), "WHARF_PAD_VALUE") != NULL);
    slots[0].pad_value = 0;
    slots[0].times = SIZE_MAX;
    FAILS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs));
    slots[0].times = 1;
    slots[0].plus = SIZE_MAX;
    FAILS(wharf_inputs_create(context, &of_inputs, slots, 1, &some_inputs));

    IS(wharf_begin(inputs, SIZE_MAX, 1, &some_step), INVALID);
    IS(wharf_try_begin(inputs, 1, SIZE_MAX, &some_step), INVALID);
    IS(wharf_inputs_address(inputs, SIZE_MAX, &address), INVALID);
    IS(wharf_step_slot(open, SIZE_MAX, &pointer, &size), INVALID);
    // A step with a slot that was not written is no step, and over.
    OK(wharf_begin(inputs, 1, 1, &some_step));
    IS(wharf_submit(some_step, stream), INVALID);
    IS(wharf_submit(some_step, stream), STALE);
    IS(wharf_step_abandon(some_step), STALE);
    memset(&some_step, 0xff, sizeof some_step);
    some_step.inputs = inputs;
    IS(wharf_submit(some_step, stream), STALE);
    // No other number of the ring slot names its step, however large.
    for (int bit = 6; bit < 64; bit++) {
        some_step = open;
        some_step.number ^= (uint64_t)1 << bit;
        IS(wharf_step_padded(some_step, NULL, NULL, NULL), STALE);
    }
}

static void *in_thread(void *unused) {
    (void)unused;
    // A thread's last error is its own.
    EXPECT(wharf_last_error()[0] == 0 && wharf_last_driver_error() == 0);
    IS(wharf_stream_synchronize(NO_STREAM), NULL);
    EXPECT(strstr(wharf_last_error(), "stream") != NULL);
    return NULL;
}

int main(void) {
    EXPECT(wharf_version()[0] == '0');
    EXPECT(strcmp(wharf_status_name(WHARF_STATUS_STALE), "WHARF_STATUS_STALE") == 0);
    EXPECT(strcmp(wharf_status_name(INT32_MIN), "unknown") == 0);
    wharf_set_log(log_text, &told);

    handles stale;
    wharf_context context;
    OK(wharf_context_retain(0, &context));
    OK(wharf_context_retain(0, &stale.context));
    wharf_stream stream;
    OK(wharf_stream_create(context, &stream));
    OK(wharf_stream_create(context, &stale.stream));
    wharf_pool_options options = pool_options(0, (size_t)64 << 20, WHARF_KIND_DEVICE);
    wharf_pool pool;
    OK(wharf_pool_create(context, &options, &pool));
    OK(wharf_pool_create(context, &options, &stale.pool));
    const size_t buckets[] = {8};
    wharf_inputs_options of_inputs;
    memset(&of_inputs, 0, sizeof of_inputs);
    of_inputs.struct_size = sizeof of_inputs;
    of_inputs.slot_size = sizeof(wharf_slot);
    of_inputs.buckets = buckets;
    of_inputs.bucket_count = 1;
    wharf_slot slot;
    memset(&slot, 0, sizeof slot);
    slot.name = "ids";
    slot.dtype = WHARF_DTYPE_F32;
    slot.times = 1;
    wharf_inputs inputs;
    OK(wharf_inputs_create(context, &of_inputs, &slot, 1, &inputs));
    OK(wharf_inputs_create(context, &of_inputs, &slot, 1, &stale.inputs));
    wharf_ticket ticket;
    OK(wharf_stream_ticket(stream, &ticket));
    OK(wharf_stream_ticket(stream, &stale.ticket));
    wharf_buffer buffer;
    OK(wharf_alloc(pool, 5000, stream, &buffer));
    OK(wharf_alloc(pool, 5000, stream, &stale.buffer));
    wharf_step open;
    OK(wharf_begin(inputs, 1, 1, &open));
    OK(wharf_begin(inputs, 1, 1, &stale.step));

    const wharf_outputs_options of_outputs = output_options(buckets);
    OK(wharf_outputs_create(context, &of_outputs, &slot, 1, &stale.outputs));
    OK(wharf_fetch(stale.outputs, 1, 1, stream, &stale.results));
    wharf_step read;
    void *data;
    size_t size;
    OK(wharf_begin(inputs, 1, 1, &read));
    OK(wharf_step_slot(read, 0, &data, &size));
    memset(data, 0, size);
    OK(wharf_submit(read, stream));
    OK(wharf_reader_begin(read, stream, &stale.reader));
    OK(wharf_reader_end(stale.reader));
    OK(wharf_results_release(stale.results));
    OK(wharf_outputs_destroy(stale.outputs));

    OK(wharf_step_abandon(stale.step));
    OK(wharf_free(pool, stale.buffer, stream));
    OK(wharf_ticket_release(stale.ticket));
    OK(wharf_inputs_destroy(stale.inputs));
    OK(wharf_pool_close(stale.pool, 0));
    OK(wharf_stream_release(stale.stream));
    OK(wharf_context_release(stale.context));

    const handles none = {NO_CONTEXT, NO_STREAM, NO_TICKET,  NO_POOL,    NO_INPUTS,
                          NO_BUFFER,  NO_STEP,   NO_OUTPUTS, NO_RESULTS, NO_READER};
    handles garbage;
    memset(&garbage, 0xa5, sizeof garbage);
    with_handles(&none, context, pool, stream);
    with_handles(&stale, context, pool, stream);
    with_handles(&garbage, context, pool, stream);
    with_null(context, pool, stream, inputs, ticket, open, buffer);
    with_huge(context, pool, stream, inputs, open, buffer);

    wharf_torch_free(NULL, 0, 0, NULL);
    EXPECT(wharf_torch_malloc(-1, 0, NULL) == NULL);
    EXPECT(wharf_torch_malloc(PTRDIFF_MAX, 0, NULL) == NULL);
    EXPECT(wharf_torch_malloc(1, -1, NULL) == NULL && wharf_torch_malloc(1, INT32_MAX, NULL) == NULL);
    void *block = wharf_torch_malloc(0, 0, NULL);
    EXPECT(block != NULL);
    wharf_torch_free(block, 0, 0, NULL);
    const int before = told;
    wharf_torch_free(block, 0, 0, NULL);
    wharf_torch_free(&told, 1, -7, NULL);
    EXPECT(told == before + 2);

    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, in_thread, NULL) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);

    OK(wharf_step_abandon(open));
    OK(wharf_free(pool, buffer, stream));
    OK(wharf_ticket_release(ticket));
    OK(wharf_inputs_wait(inputs));
    OK(wharf_inputs_destroy(inputs));
    OK(wharf_inputs_create(context, &of_inputs, &slot, 1, &inputs));
    results(context, stream, inputs);
    OK(wharf_inputs_destroy(inputs));
    // A pool with a block that is handed out says so.
    OK(wharf_alloc(pool, 5000, stream, &buffer));
    IS(wharf_pool_close(pool, 0), WOULD_BLOCK);
    EXPECT(strstr(wharf_last_error(), "5000 bytes") != NULL);
    OK(wharf_stream_release(stream));
    OK(wharf_context_release(context));
    wharf_set_log(NULL, NULL);
    return 0;
}
