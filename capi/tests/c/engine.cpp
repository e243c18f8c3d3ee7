// The engine in C++17, on wharf.hpp: owners that go in a random order, exceptions, memory resources.

#include "cuda.h"
#include "wharf.hpp"

#include <cstring>
#include <optional>
#include <random>

using namespace std::chrono_literals;

namespace {

constexpr std::size_t TOKENS = 8;

struct engine {
    std::optional<wharf::context> context;
    void *raw_copies = nullptr, *raw_model = nullptr, *graph = nullptr;
    std::optional<wharf::stream> copies, model;
    std::optional<wharf::pool> device, pinned;
    std::optional<wharf::buffer> seen, result;
    std::optional<wharf::inputs> inputs;
    std::optional<wharf::outputs> outputs;
};

void capture(engine &e, std::size_t ids) {
    const wharf::capture_elsewhere announced(*e.context);
    void *graph = nullptr;
    CU(cuStreamBeginCapture_v2(e.raw_model, 1));
    CU(cuMemcpyDtoDAsync_v2(e.seen->device_address(), e.inputs->address(ids), TOKENS * 4, e.raw_model));
    CU(cuMemcpyDtoHAsync_v2(e.result->data(), e.seen->device_address(), TOKENS * 4, e.raw_model));
    const auto sampled = e.outputs->address(0, TOKENS, 1);
    CU(cuMemcpyDtoDAsync_v2(sampled, e.seen->device_address(), TOKENS * 4, e.raw_model));
    e.outputs->keep_in_capture(*e.model);
    e.inputs->keep_in_capture(*e.model);
    e.seen->keep_in_capture(*e.model);
    e.result->keep_in_capture(*e.model);
    CU(cuStreamEndCapture(e.raw_model, &graph));
    CU(cuGraphInstantiateWithFlags(&e.graph, graph, 0));
    CU(cuGraphDestroy(graph));
}

void run(engine &e, std::size_t ids, int number) {
    wharf::step step = e.inputs->begin(5, 1);
    auto [elements, count] = step.slot<std::int32_t>(ids);
    EXPECT(count == 5);
    for (std::size_t i = 0; i < count; i++) elements[i] = number;
    EXPECT(step.bucket() == 1 && step.padded().first == TOKENS);
    step.submit(*e.copies);
    wharf::reader reader(step, *e.model);
    CU(cuGraphLaunch(e.graph, e.raw_model));
    reader.end();
    const wharf::results results = e.outputs->fetch(5, 1, {0, e.seen->device_address()}, *e.model);
    results.source_free_on(*e.copies);
    results.wait(10min);
    EXPECT(results.is_complete());
    for (std::size_t slot = 0; slot < 2; slot++) {
        auto [echo, echoed] = results.read<std::int32_t>(slot);
        EXPECT(echoed == 5);
        for (std::size_t i = 0; i < echoed; i++) EXPECT(echo[i] == number);
    }
    e.seen->record_use(*e.model);
    e.result->record_use(*e.model);
    e.result->wait(10min);
    const auto *back = static_cast<const std::int32_t *>(e.result->data());
    for (std::size_t i = 0; i < TOKENS; i++) EXPECT(back[i] == (i < 5 ? number : 0));
}

void failures(engine &e) {
    try {
        e.device->alloc(std::size_t{64} << 20, *e.model);
        EXPECT(!"an allocation beyond the limit");
    } catch (const std::bad_alloc &out) {
        EXPECT(std::strstr(out.what(), "out of memory") != nullptr);
    }
    try {
        e.inputs->slot("none");
        EXPECT(!"a slot that does not exist");
    } catch (const wharf::error &error) {
        EXPECT(error.status() == WHARF_STATUS_INVALID && error.driver_error() == 0);
    }
    // A step that is dropped has not happened, and its ring slot is free.
    for (int i = 0; i < 10; i++) e.inputs->begin(1, 1);
    EXPECT(e.device->report().find("\"activations\"") != std::string::npos);
}

void resources(engine &e) {
    wharf::memory_resource resource(*e.device, *e.context, *e.model), same = resource;
    EXPECT(resource == same);
    void *block = resource.allocate(e.raw_copies, 1000, 256);
    CU(cuMemsetD8Async(reinterpret_cast<std::uintptr_t>(block), 1, 1000, e.raw_copies));
    resource.deallocate(e.raw_copies, block, 1000);
    EXPECT(resource.allocate(e.raw_copies, 1000) == block);
    resource.deallocate(e.raw_copies, block, 1000);
    block = resource.allocate_sync(1000);
    resource.deallocate_sync(block, 1000);
    try {
        resource.allocate(nullptr, 1, 4096);
        EXPECT(!"an alignment that blocks do not have");
    } catch (const wharf::error &error) {
        EXPECT(error.status() == WHARF_STATUS_INVALID);
    }
    wharf::pmr_resource host(*e.pinned, *e.model);
    std::pmr::vector<float> vector(&host);
    for (int i = 0; i < 10000; i++) vector.push_back(static_cast<float>(i));
    EXPECT(vector[9999] == 9999.0F);
}

} // namespace

int main(int argc, char **argv) {
    engine e;
    void *primary = nullptr;
    CU(cuInit(0));
    CU(cuDevicePrimaryCtxRetain(&primary, 0));
    CU(cuCtxSetCurrent(primary));
    CU(cuStreamCreate(&e.raw_copies, 1));
    CU(cuStreamCreate(&e.raw_model, 1));
    e.context.emplace(0);
    e.copies = e.context->borrow(e.raw_copies);
    e.model = e.context->borrow(e.raw_model);
    wharf_pool_options options{};
    options.max_bytes = std::size_t{64} << 20;
    options.name = "activations";
    e.device.emplace(*e.context, options);
    e.pinned.emplace(*e.context, WHARF_KIND_PINNED, std::size_t{64} << 20);
    e.seen = e.device->alloc(TOKENS * 4, *e.model);
    e.result = e.pinned->alloc(TOKENS * 4, *e.model);
    const std::size_t buckets[] = {4, TOKENS};
    wharf_inputs_options of_inputs{};
    of_inputs.buckets = buckets;
    of_inputs.bucket_count = 2;
    wharf_slot slot{};
    slot.name = "ids";
    slot.dtype = WHARF_DTYPE_I32;
    slot.times = 1;
    e.inputs.emplace(*e.context, of_inputs, std::vector<wharf_slot>{slot});
    const std::size_t ids = e.inputs->slot("ids");
    wharf_outputs_options of_outputs{};
    of_outputs.buckets = buckets;
    of_outputs.bucket_count = 2;
    std::vector<wharf_slot> echoes{slot, slot};
    echoes[0].name = "echo";
    echoes[1].name = "seen";
    e.outputs.emplace(*e.context, of_outputs, echoes);
    EXPECT(e.outputs->slot("seen") == 1);
    capture(e, ids);
    for (int number = 0; number < 50; number++) run(e, ids, number);
    failures(e);
    resources(e);
    wharf::ticket ticket = e.model->ticket();
    ticket.wait(10min);
    EXPECT(ticket.poll());

    wharf::context last(0);
    std::mt19937 noise(argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 0U);
    std::vector<int> order{0, 1, 2, 3, 4, 5, 6};
    for (std::size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[noise() % i]);
    for (int part : order) {
        switch (part) {
            case 0: CU(cuGraphExecDestroy(e.graph)); break;
            case 1: e.inputs.reset(); break;
            case 2: e.seen.reset(); break;
            case 3: e.result.reset(); break;
            case 4: e.copies.reset(); break;
            case 5: e.outputs.reset(); break;
            default: e.context.reset(); break;
        }
    }
    last.wait_deferred(10min);
    e.device->close(10min);
    e.pinned->close(10min);
    ticket = wharf::ticket();
    e.model.reset();
    e.device.reset();
    e.pinned.reset();
    CU(cuStreamDestroy_v2(e.raw_copies));
    CU(cuStreamDestroy_v2(e.raw_model));
    last = wharf::context();
    CU(cuDevicePrimaryCtxRelease_v2(0));
    unsigned flags = 0;
    int active = 1;
    CU(cuDevicePrimaryCtxGetState(0, &flags, &active));
    EXPECT(active == 0);
    return 0;
}
