// wharf for C++17: owners, exceptions and memory resources over wharf.h. Header-only.
//
//   wharf::context context(0);
//   wharf::stream stream = context.borrow(cuda_stream);
//   wharf::pool pool(context, WHARF_KIND_DEVICE, 1 << 30);
//   wharf::buffer scratch = pool.alloc(4096, stream);     // freed behind `stream`
//
// Owners are moved, not copied; one that is moved to gives up what it had. Destructors do not throw:
// what they meet is told to the log, see wharf_set_log. Calls that fail throw wharf::failure or
// wharf::out_of_memory: catch wharf::error, which has the status and the text, or std::exception.

#ifndef WHARF_HPP
#define WHARF_HPP

#include "wharf.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace wharf {

// A call that failed, of whichever kind: what is thrown is a std::exception too. Neither class has
// that as a base twice, for a handler of std::exception would not catch it then.
class error {
public:
    error(wharf_status status, const std::string &text, std::uint32_t driver)
        : text_(text), status_(status), driver_(driver) {}
    virtual ~error() = default;

    virtual const char *what() const noexcept { return text_.what(); }
    wharf_status status() const noexcept { return status_; }
    // The CUresult, where the driver returned one; otherwise 0.
    std::uint32_t driver_error() const noexcept { return driver_; }

private:
    // Holds a text that is copied without an allocation.
    std::runtime_error text_;
    wharf_status status_;
    std::uint32_t driver_;
};

// Every status but WHARF_STATUS_OUT_OF_MEMORY.
class failure : public error, public std::runtime_error {
public:
    failure(wharf_status status, const std::string &text, std::uint32_t driver)
        : error(status, text, driver), std::runtime_error(text) {}
    const char *what() const noexcept override { return error::what(); }
};

// WHARF_STATUS_OUT_OF_MEMORY, for code that catches std::bad_alloc.
class out_of_memory : public error, public std::bad_alloc {
public:
    using error::error;
    const char *what() const noexcept override { return error::what(); }
};

inline void check(wharf_status status) {
    if (status == WHARF_STATUS_OK) return;
    const std::uint32_t driver = wharf_last_driver_error();
    if (status == WHARF_STATUS_OUT_OF_MEMORY) throw out_of_memory(status, wharf_last_error(), driver);
    throw failure(status, wharf_last_error(), driver);
}

namespace detail {

// The owner of a handle, which Release gives up.
template <typename Handle, wharf_status (*Release)(Handle)>
class owner {
public:
    owner() noexcept : handle_{} {}
    explicit owner(Handle handle) noexcept : handle_(handle) {}
    owner(owner &&other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
    owner &operator=(owner &&other) noexcept {
        // What was owned here ends now, and not when the other does.
        owner(std::move(other)).swap(*this);
        return *this;
    }
    owner(const owner &) = delete;
    owner &operator=(const owner &) = delete;
    ~owner() {
        if (handle_.id != 0) Release(handle_);
    }

    // The handle, for calls of wharf.h; it stays this owner's.
    Handle get() const noexcept { return handle_; }
    // Gives the handle up without releasing it.
    Handle release() noexcept { return std::exchange(handle_, Handle{}); }

protected:
    Handle handle_;

private:
    void swap(owner &other) noexcept { std::swap(handle_, other.handle_); }
};

// The elements of `size` bytes; throws if there is a part of one.
template <typename T>
std::size_t count_of(std::size_t size) {
    static_assert(std::is_trivially_copyable_v<T>, "slots hold plain elements");
    if (size % sizeof(T) != 0) {
        throw failure(WHARF_STATUS_INVALID,
                      "the slot has " + std::to_string(size) + " bytes, and an element here " +
                          std::to_string(sizeof(T)) + ": use the slot's own type",
                      0);
    }
    return size / sizeof(T);
}

inline std::uint64_t milliseconds(std::chrono::milliseconds time) {
    return time.count() < 0 ? 0 : static_cast<std::uint64_t>(time.count());
}

inline wharf_status close_pool(wharf_pool pool) { return wharf_pool_close(pool, 10000); }

} // namespace detail

// A point in a stream.
class ticket : public detail::owner<wharf_ticket, wharf_ticket_release> {
public:
    using owner::owner;

    bool poll() const {
        bool complete = false;
        check(wharf_ticket_poll(get(), &complete));
        return complete;
    }
    void wait(std::chrono::milliseconds limit) const {
        check(wharf_ticket_wait(get(), detail::milliseconds(limit)));
    }
};

// A stream, created or borrowed.
class stream : public detail::owner<wharf_stream, wharf_stream_release> {
public:
    using owner::owner;

    void synchronize() const { check(wharf_stream_synchronize(get())); }
    // The CUstream or cudaStream_t.
    void *raw() const {
        void *raw = nullptr;
        check(wharf_stream_raw(get(), &raw));
        return raw;
    }
    wharf::ticket ticket() const {
        wharf_ticket made{};
        check(wharf_stream_ticket(get(), &made));
        return wharf::ticket(made);
    }
};

// A CUDA context.
class context : public detail::owner<wharf_context, wharf_context_release> {
public:
    using owner::owner;

    // The primary context of a device.
    explicit context(int ordinal) { check(wharf_context_retain(ordinal, &handle_)); }
    // A CUcontext, which is destroyed after everything that is made with this.
    static context borrow_context(void *raw) {
        wharf_context made{};
        check(wharf_context_borrow(raw, &made));
        return context(made);
    }

    wharf::stream create_stream() const {
        wharf_stream made{};
        check(wharf_stream_create(get(), &made));
        return wharf::stream(made);
    }
    // A CUstream or cudaStream_t, see wharf_stream_borrow.
    wharf::stream borrow(void *raw) const {
        wharf_stream made{};
        check(wharf_stream_borrow(get(), raw, &made));
        return wharf::stream(made);
    }
    void forget(void *raw) const { check(wharf_stream_forget(get(), raw)); }
    // Waits for the end of what graphs kept alive, see wharf_wait_deferred.
    void wait_deferred(std::chrono::milliseconds limit) const {
        check(wharf_wait_deferred(get(), detail::milliseconds(limit)));
    }
};

// Announces captures by other means than wharf, as long as it lives.
class capture_elsewhere {
public:
    explicit capture_elsewhere(const context &context) : context_(context.get()) {
        check(wharf_capture_elsewhere_begin(context_));
    }
    capture_elsewhere(const capture_elsewhere &) = delete;
    capture_elsewhere &operator=(const capture_elsewhere &) = delete;
    ~capture_elsewhere() { wharf_capture_elsewhere_end(context_); }

private:
    wharf_context context_;
};

class pool;

// A block of a pool, freed behind the stream that it was allocated for. Both outlive it.
class buffer {
public:
    buffer() noexcept = default;
    buffer(buffer &&other) noexcept
        : pool_(other.pool_), stream_(other.stream_), block_(std::exchange(other.block_, wharf_buffer{})) {}
    buffer &operator=(buffer &&other) noexcept {
        buffer(std::move(other)).swap(*this);
        return *this;
    }
    buffer(const buffer &) = delete;
    buffer &operator=(const buffer &) = delete;
    ~buffer() {
        if (block_.life != 0) wharf_free(pool_, block_, stream_);
    }

    std::size_t size() const noexcept { return block_.size; }
    // The address of the first byte, the host's where host and device differ.
    std::uint64_t address() const noexcept { return block_.address; }
    void *data() const noexcept { return reinterpret_cast<void *>(static_cast<std::uintptr_t>(block_.address)); }
    std::uint64_t device_address() const {
        std::uint64_t address = 0;
        check(wharf_buffer_device_address(pool_, block_, &address));
        return address;
    }
    // For each stream but the one that the buffer was allocated for: before its work, and behind it.
    void acquire(const stream &by) const { check(wharf_buffer_acquire(pool_, block_, by.get())); }
    void record_use(const stream &by) const { check(wharf_buffer_record_use(pool_, block_, by.get())); }
    // Waits until the device is past all uses that were recorded.
    void wait(std::chrono::milliseconds limit) const {
        check(wharf_buffer_wait(pool_, block_, detail::milliseconds(limit)));
    }
    void keep_in_capture(const stream &capturing) const {
        check(wharf_buffer_keep_in_capture(pool_, block_, capturing.get()));
    }

private:
    friend class pool;
    buffer(wharf_pool pool, wharf_stream stream, wharf_buffer block) noexcept
        : pool_(pool), stream_(stream), block_(block) {}
    void swap(buffer &other) noexcept {
        std::swap(pool_, other.pool_);
        std::swap(stream_, other.stream_);
        std::swap(block_, other.block_);
    }

    wharf_pool pool_{};
    wharf_stream stream_{};
    wharf_buffer block_{};
};

// A pool of memory of one kind. Its destructor waits for the device for at most ten seconds.
class pool : public detail::owner<wharf_pool, detail::close_pool> {
public:
    using owner::owner;

    // The size of the structure is set here.
    pool(const context &context, wharf_pool_options options) {
        options.struct_size = sizeof options;
        check(wharf_pool_create(context.get(), &options, &handle_));
    }
    // At most `max_bytes` of memory of a kind.
    pool(const context &context, wharf_kind kind, std::size_t max_bytes) {
        wharf_pool_options options{};
        options.struct_size = sizeof options;
        options.kind = kind;
        options.max_bytes = max_bytes;
        check(wharf_pool_create(context.get(), &options, &handle_));
    }

    buffer alloc(std::size_t size, const stream &stream) const {
        wharf_buffer block{};
        check(wharf_alloc(get(), size, stream.get(), &block));
        return buffer(get(), stream.get(), block);
    }
    wharf_kind kind() const {
        wharf_kind kind = WHARF_KIND_DEVICE;
        check(wharf_pool_get_kind(get(), &kind));
        return kind;
    }
    wharf_pool_stats stats() const {
        wharf_pool_stats stats{};
        stats.struct_size = sizeof stats;
        check(wharf_pool_get_stats(get(), &stats));
        return stats;
    }
    std::size_t trim(std::chrono::milliseconds idle, std::size_t keep = 0) const {
        std::size_t released = 0;
        check(wharf_pool_trim(get(), detail::milliseconds(idle), keep, &released));
        return released;
    }
    // A report as JSON.
    std::string report() const {
        std::string text;
        // A pool in use may grow between two calls.
        for (std::size_t needed = 0;;) {
            const wharf_status status = wharf_pool_report(get(), text.data(), text.size(), &needed);
            if (status == WHARF_STATUS_OK) {
                text.resize(needed - 1);
                return text;
            }
            if (needed <= text.size()) check(status);
            text.resize(needed);
        }
    }
    // Ends the pool, and throws if memory is leaked, see wharf_pool_close.
    void close(std::chrono::milliseconds limit) { check(wharf_pool_close(release(), detail::milliseconds(limit))); }
};

// A step that is being filled. Dropped without submit, it has not happened.
class step {
public:
    explicit step(wharf_step step) noexcept : step_(step), is_open_(true) {}
    step(step &&other) noexcept : step_(other.step_), is_open_(std::exchange(other.is_open_, false)) {}
    step &operator=(step &&other) noexcept {
        step(std::move(other)).swap(*this);
        return *this;
    }
    step(const step &) = delete;
    step &operator=(const step &) = delete;
    ~step() {
        if (is_open_) wharf_step_abandon(step_);
    }

    // The elements of a slot, to be written in place, and their number.
    template <typename T>
    std::pair<T *, std::size_t> slot(std::size_t slot) {
        void *data = nullptr;
        std::size_t size = 0;
        check(wharf_step_slot(step_, slot, &data, &size));
        return {static_cast<T *>(data), detail::count_of<T>(size)};
    }
    // Sends it to the device; what can be said of it then is said with the result of get().
    void submit(const stream &stream) {
        is_open_ = false;
        check(wharf_submit(step_, stream.get()));
    }
    void wait_on(const stream &reader) const { check(wharf_step_wait_on(step_, reader.get())); }
    void consumed_by(const stream &reader) const { check(wharf_step_consumed_by(step_, reader.get())); }
    bool is_complete() const {
        bool complete = false;
        check(wharf_step_is_complete(step_, &complete));
        return complete;
    }
    // Where the device finds a slot of the submitted step: for zero-copy slots.
    std::uint64_t address(std::size_t slot) const {
        std::uint64_t address = 0;
        check(wharf_step_address(step_, slot, &address));
        return address;
    }
    // The place of its bucket, for the engine's own table of graphs; SIZE_MAX above the largest.
    std::size_t bucket() const {
        std::size_t bucket = 0;
        check(wharf_step_padded(step_, &bucket, nullptr, nullptr));
        return bucket;
    }
    // The tokens and requests that it is padded to.
    std::pair<std::size_t, std::size_t> padded() const {
        std::size_t tokens = 0, requests = 0;
        check(wharf_step_padded(step_, nullptr, &tokens, &requests));
        return {tokens, requests};
    }
    wharf_step get() const noexcept { return step_; }

private:
    void swap(step &other) noexcept {
        std::swap(step_, other.step_);
        std::swap(is_open_, other.is_open_);
    }

    wharf_step step_;
    bool is_open_;
};

// A read of a submitted step on another stream, which outlives it: the next step waits for what the
// stream is given until this ends.
class reader : public detail::owner<wharf_reader, wharf_reader_end> {
public:
    using owner::owner;

    reader(const step &step, const stream &stream) {
        check(wharf_reader_begin(step.get(), stream.get(), &handle_));
    }
    // As the destructor, with an error where the end could not be noted.
    void end() { check(wharf_reader_end(release())); }
};

// The inputs of an engine's steps.
class inputs : public detail::owner<wharf_inputs, wharf_inputs_destroy> {
public:
    using owner::owner;

    // The sizes of structures are set here.
    inputs(const context &context, wharf_inputs_options options, const std::vector<wharf_slot> &slots) {
        options.struct_size = sizeof options;
        options.slot_size = sizeof(wharf_slot);
        check(wharf_inputs_create(context.get(), &options, slots.data(), slots.size(), &handle_));
    }

    std::size_t slot(const char *name) const {
        std::size_t slot = 0;
        check(wharf_inputs_slot(get(), name, &slot));
        return slot;
    }
    std::uint64_t address(std::size_t slot) const {
        std::uint64_t address = 0;
        check(wharf_inputs_address(get(), slot, &address));
        return address;
    }
    // In the bucket that holds so many tokens and requests: for packed layouts.
    std::uint64_t address(std::size_t slot, std::size_t tokens, std::size_t requests) const {
        std::uint64_t address = 0;
        check(wharf_inputs_address_in(get(), slot, tokens, requests, &address));
        return address;
    }
    wharf::step begin(std::size_t tokens, std::size_t requests) const {
        wharf_step made{};
        check(wharf_begin(get(), tokens, requests, &made));
        return wharf::step(made);
    }
    // Padded to the bucket that holds what ranks have agreed on.
    wharf::step begin_padded(std::size_t tokens, std::size_t requests, std::size_t padded_tokens,
                             std::size_t padded_requests) const {
        wharf_step made{};
        check(wharf_begin_padded(get(), tokens, requests, padded_tokens, padded_requests, &made));
        return wharf::step(made);
    }
    void keep_in_capture(const stream &capturing) const {
        check(wharf_inputs_keep_in_capture(get(), capturing.get()));
    }
    void wait() const { check(wharf_inputs_wait(get())); }
};

// The results of one step, held until this ends.
class results : public detail::owner<wharf_results, wharf_results_release> {
public:
    using owner::owner;

    bool is_complete() const {
        bool complete = false;
        check(wharf_results_is_complete(get(), &complete));
        return complete;
    }
    void wait(std::chrono::milliseconds limit) const {
        check(wharf_results_wait(get(), detail::milliseconds(limit)));
    }
    // The elements of a slot and their number, once they are there; good as long as this.
    template <typename T>
    std::pair<const T *, std::size_t> read(std::size_t slot) const & {
        const void *data = nullptr;
        std::size_t size = 0;
        check(wharf_results_read(get(), slot, &data, &size));
        return {static_cast<const T *>(data), detail::count_of<T>(size)};
    }
    template <typename T>
    std::pair<const T *, std::size_t> read(std::size_t slot) const && = delete;
    // Before another stream than the fetch's writes the device memory again.
    void source_free_on(const stream &writer) const {
        check(wharf_results_source_free_on(get(), writer.get()));
    }
};

// The results of an engine's steps.
class outputs : public detail::owner<wharf_outputs, wharf_outputs_destroy> {
public:
    using owner::owner;

    // The sizes of structures are set here.
    outputs(const context &context, wharf_outputs_options options,
            const std::vector<wharf_slot> &slots) {
        options.struct_size = sizeof options;
        options.slot_size = sizeof(wharf_slot);
        check(wharf_outputs_create(context.get(), &options, slots.data(), slots.size(), &handle_));
    }

    std::size_t slot(const char *name) const {
        std::size_t slot = 0;
        check(wharf_outputs_slot(get(), name, &slot));
        return slot;
    }
    // Where kernels write a slot, in the bucket that holds so many tokens and requests.
    std::uint64_t address(std::size_t slot, std::size_t tokens, std::size_t requests) const {
        std::uint64_t address = 0;
        check(wharf_outputs_address(get(), slot, tokens, requests, &address));
        return address;
    }
    void keep_in_capture(const stream &capturing) const {
        check(wharf_outputs_keep_in_capture(get(), capturing.get()));
    }
    wharf::results fetch(std::size_t tokens, std::size_t requests, const stream &stream) const {
        wharf_results made{};
        check(wharf_fetch(get(), tokens, requests, stream.get(), &made));
        return wharf::results(made);
    }
    // With slots from other memory of the device; 0 for a slot's own. See wharf_fetch_from.
    wharf::results fetch(std::size_t tokens, std::size_t requests,
                         const std::vector<std::uint64_t> &sources, const stream &stream) const {
        wharf_results made{};
        check(wharf_fetch_from(get(), tokens, requests, sources.data(), sources.size(),
                               stream.get(), &made));
        return wharf::results(made);
    }
};

// Memory in the order of streams, with the functions that RMM's and libcu++'s resources have
// (cuda::mr::resource): the pool, the context and the stream outlive it. Comparable, cheap to copy.
class memory_resource {
public:
    // `fallback` is the stream of allocate_sync and deallocate_sync.
    memory_resource(const pool &pool, const context &context, const stream &fallback) noexcept
        : pool_(pool.get()), context_(context.get()), fallback_(fallback.get()) {}

    // `stream` is a CUstream or cudaStream_t of the context.
    void *allocate(void *stream, std::size_t bytes, std::size_t alignment = 256) {
        check_alignment(alignment);
        void *address = nullptr;
        check(wharf_alloc_on(pool_, bytes, context_, stream, &address));
        return address;
    }
    void deallocate(void *stream, void *address, std::size_t, std::size_t = 256) noexcept {
        // What fails is told to the log; the block stays allocated.
        wharf_free_on(pool_, address, context_, stream);
    }
    void *allocate_sync(std::size_t bytes, std::size_t alignment = 256) {
        check_alignment(alignment);
        void *address = nullptr;
        check(wharf_alloc_address(pool_, bytes, fallback_, &address));
        const wharf_status status = wharf_stream_synchronize(fallback_);
        if (status != WHARF_STATUS_OK) {
            wharf_free_address(pool_, address, fallback_);
            check(status);
        }
        return address;
    }
    void deallocate_sync(void *address, std::size_t, std::size_t = 256) noexcept {
        wharf_free_address(pool_, address, fallback_);
    }

    friend bool operator==(const memory_resource &a, const memory_resource &b) noexcept {
        return a.pool_.id == b.pool_.id;
    }
    friend bool operator!=(const memory_resource &a, const memory_resource &b) noexcept { return !(a == b); }

private:
    static void check_alignment(std::size_t alignment) {
        if (alignment > 256) {
            throw failure(WHARF_STATUS_INVALID, "blocks are aligned to 256 bytes, and more was asked for", 0);
        }
    }

    wharf_pool pool_;
    wharf_context context_;
    wharf_stream fallback_;
};

// Host memory for the standard library's containers, of a pool of pinned or managed memory, which
// outlives it: std::pmr::vector<float> staging(&resource). Each allocation waits for the stream, so
// reserve before a loop. The constructor refuses pools of other kinds. What a stream copies from or to it is to be
// waited for before the container frees or writes it.
class pmr_resource final : public std::pmr::memory_resource {
public:
    pmr_resource(const pool &pool, const stream &stream) : pool_(pool.get()), stream_(stream.get()) {
        const wharf_kind kind = pool.kind();
        if (kind != WHARF_KIND_PINNED && kind != WHARF_KIND_MANAGED) {
            throw failure(WHARF_STATUS_INVALID,
                          "containers need memory that the host reads and writes: make the pool of "
                          "WHARF_KIND_PINNED or WHARF_KIND_MANAGED",
                          0);
        }
    }

private:
    void *do_allocate(std::size_t bytes, std::size_t alignment) override {
        if (alignment > 256) throw std::bad_alloc();
        void *address = nullptr;
        check(wharf_alloc_address(pool_, bytes, stream_, &address));
        // The device may still be using the memory for the owner before.
        const wharf_status status = wharf_stream_synchronize(stream_);
        if (status != WHARF_STATUS_OK) {
            wharf_free_address(pool_, address, stream_);
            check(status);
        }
        return address;
    }
    void do_deallocate(void *address, std::size_t, std::size_t) override {
        wharf_free_address(pool_, address, stream_);
    }
    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override {
        const auto *same = dynamic_cast<const pmr_resource *>(&other);
        return same != nullptr && same->pool_.id == pool_.id;
    }

    wharf_pool pool_;
    wharf_stream stream_;
};

} // namespace wharf

#endif // WHARF_HPP
