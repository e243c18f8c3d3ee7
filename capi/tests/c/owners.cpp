// What wharf.hpp adds to wharf.h: owners that are moved, exceptions, resources for containers, and what
// becomes of each when it is misused.

#include "cuda.h"
#include "wharf.hpp"

using namespace std::chrono_literals;

namespace {

constexpr std::size_t SPAN = std::size_t{8} << 20;

// The text of what a call throws, caught as `Caught`.
template <typename Caught, typename Call>
std::string thrown(Call call) {
    try {
        call();
    } catch (const Caught &caught) {
        return caught.what();
    }
    return "nothing was thrown";
}

bool has(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

wharf::inputs make_inputs(const wharf::context &context) {
    static const std::size_t buckets[] = {4};
    wharf_inputs_options options{};
    options.buckets = buckets;
    options.bucket_count = 1;
    wharf_slot slot{};
    slot.name = "ids";
    slot.dtype = WHARF_DTYPE_I32;
    slot.times = 1;
    return wharf::inputs(context, options, {slot});
}

wharf::step submitted(const wharf::inputs &inputs, const wharf::stream &stream) {
    wharf::step step = inputs.begin(3, 1);
    auto [ids, count] = step.slot<std::int32_t>(0);
    for (std::size_t i = 0; i < count; i++) ids[i] = 1;
    step.submit(stream);
    return step;
}

void every_error_is_a_standard_exception(const wharf::context &context, const wharf::stream &stream) {
    const wharf::pool pool(context, WHARF_KIND_DEVICE, SPAN);
    const wharf::buffer all = pool.alloc(SPAN, stream);
    const auto full = [&] { pool.alloc(SPAN, stream); };
    const auto huge = [&] { pool.alloc(SIZE_MAX, stream); };
    // A class with std::exception twice among its bases is caught as neither.
    EXPECT(has(thrown<std::exception>(full), "out of memory"));
    EXPECT(has(thrown<std::bad_alloc>(full), "out of memory"));
    EXPECT(has(thrown<wharf::error>(full), "out of memory"));
    EXPECT(has(thrown<std::exception>(huge), "requested"));
    EXPECT(has(thrown<std::runtime_error>(huge), "requested"));
    EXPECT(has(thrown<wharf::error>(huge), "requested"));
}

void an_owner_that_is_moved_to_gives_up_what_it_had(const wharf::context &context, const wharf::stream &stream) {
    const wharf::pool pool(context, WHARF_KIND_DEVICE, SPAN);
    wharf::buffer one = pool.alloc(100, stream), other = pool.alloc(100, stream);
    const auto before = pool.stats();
    one = std::move(other);
    const auto after = pool.stats();
    EXPECT(after.live - after.retired < before.live - before.retired);
    EXPECT(other.data() == nullptr && one.data() != nullptr);
    wharf::buffer &same = one;
    one = std::move(same);
    EXPECT(one.data() != nullptr);

    // A read that is open keeps the next step out, also where its owner was moved to.
    const wharf::inputs inputs = make_inputs(context);
    wharf::reader none, reader(submitted(inputs, stream), stream);
    reader = std::move(none);
    EXPECT(none.get().id == 0);
    submitted(inputs, stream);
    // A step that is open gives its ring slot back.
    wharf::step open = inputs.begin(1, 1), second = inputs.begin(1, 1), third = inputs.begin(1, 1);
    open = std::move(second);
    submitted(inputs, stream);
    inputs.wait();
}

void a_type_that_a_slot_is_no_whole_number_of_is_refused(const wharf::context &context) {
    const wharf::inputs inputs = make_inputs(context);
    wharf::step step = inputs.begin(3, 1);
    EXPECT(has(thrown<wharf::error>([&] { step.slot<double>(0); }), "12 bytes"));
    EXPECT(step.slot<std::int32_t>(0).second == 3);
}

void containers_are_refused_memory_that_the_host_does_not_reach(const wharf::context &context, const wharf::stream &stream) {
    for (const wharf_kind kind : {WHARF_KIND_DEVICE, WHARF_KIND_WRITE_COMBINED}) {
        const wharf::pool pool(context, kind, SPAN);
        EXPECT(pool.kind() == kind);
        EXPECT(has(thrown<wharf::error>([&] { wharf::pmr_resource(pool, stream); }), "WHARF_KIND_PINNED"));
    }
    for (const wharf_kind kind : {WHARF_KIND_PINNED, WHARF_KIND_MANAGED}) {
        const wharf::pool pool(context, kind, SPAN);
        wharf::pmr_resource resource(pool, stream);
        std::pmr::vector<int> numbers(1000, 7, &resource);
        EXPECT(numbers[999] == 7);
        void *empty = resource.allocate(0);
        EXPECT(empty != nullptr);
        resource.deallocate(empty, 0);
        EXPECT(!thrown<std::bad_alloc>([&] { resource.deallocate(resource.allocate(1, 4096), 1); }).empty());
        EXPECT(has(thrown<std::exception>([&] { std::pmr::vector<char> all(SPAN + 1, &resource); }), "requested"));
    }
}

} // namespace

int main() {
    const wharf::context context(0);
    const wharf::stream stream = context.create_stream();
    every_error_is_a_standard_exception(context, stream);
    an_owner_that_is_moved_to_gives_up_what_it_had(context, stream);
    a_type_that_a_slot_is_no_whole_number_of_is_refused(context);
    containers_are_refused_memory_that_the_host_does_not_reach(context, stream);
    return 0;
}
