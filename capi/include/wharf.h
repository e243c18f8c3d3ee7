// wharf: memory and input staging for CUDA engines.
//
// Generated from the crate wharf-capi by cbindgen; `WHARF_BLESS=1 cargo test -p wharf-capi` makes it anew.
//
// Every function that can fail returns a wharf_status. A call that fails has created nothing and lost
// nothing, unless it says otherwise; wharf_last_error() has the text for the calling thread. No panic
// and no exception crosses. What stands under "Safety" is the caller's promise.
//
// Handles are numbers. {0} is none; one that was released is WHARF_STATUS_STALE. All functions may be
// called on any thread, with the same handles, where they do not say otherwise. The one thing that
// nothing can check: no thread is inside a call with a handle that another thread releases.
//
// Times are in milliseconds, sizes in bytes, `len` counts elements. Raw streams and contexts are
// CUstream (or cudaStream_t) and CUcontext.

#ifndef WHARF_H
#define WHARF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a call returns. The numbers never change their meaning; later versions may add some.
typedef enum {
  // The call did what it says.
  WHARF_STATUS_OK = 0,
  // An argument is wrong, or an object is used in a way that it does not allow.
  WHARF_STATUS_INVALID = 1,
  // The handle or address names nothing that exists: it was given back before.
  WHARF_STATUS_STALE = 2,
  // The object belongs to another pool, set, context or device.
  WHARF_STATUS_WRONG_OWNER = 3,
  // A limit, the device, the host or a file system has no room.
  WHARF_STATUS_OUT_OF_MEMORY = 4,
  // Something is in use for the moment.
  WHARF_STATUS_WOULD_BLOCK = 5,
  // The device did not get there before the deadline.
  WHARF_STATUS_TIMED_OUT = 6,
  // A stream is being captured, and the call is not for captures, or the capture failed.
  WHARF_STATUS_CAPTURING = 7,
  // The driver or the device lacks what the call needs.
  WHARF_STATUS_UNSUPPORTED = 8,
  // There is no CUDA driver, or no device.
  WHARF_STATUS_NO_DRIVER = 9,
  // The driver returned an error that no other status names: wharf_last_driver_error().
  WHARF_STATUS_DRIVER = 10,
  // The context is lost after a fault of the device.
  WHARF_STATUS_CONTEXT_LOST = 11,
  // The operating system refused.
  WHARF_STATUS_SYSTEM = 12,
  // The process is a fork of the one that loaded the driver.
  WHARF_STATUS_FORKED = 13,
  // A pointer that is needed is NULL, or a handle is {0}.
  WHARF_STATUS_NULL = 100,
  // A fault of wharf itself. The objects of the call may be unusable, and are not corrupted.
  WHARF_STATUS_PANIC = 101,
} wharf_status;

// A kind of memory.
typedef enum {
  // Memory of the device.
  WHARF_KIND_DEVICE = 0,
  // Pinned (page-locked) host memory.
  WHARF_KIND_PINNED = 1,
  // Pinned host memory past the CPU's caches, which the host only writes.
  WHARF_KIND_WRITE_COMBINED = 2,
  // One address for host and device.
  WHARF_KIND_MANAGED = 3,
} wharf_kind;

// The type of a slot's elements.
typedef enum {
  // Truth values, a byte each.
  WHARF_DTYPE_BOOL = 0,
  // 8 bits, unsigned.
  WHARF_DTYPE_U8 = 1,
  // 8 bits, signed.
  WHARF_DTYPE_I8 = 2,
  // 16 bits, signed.
  WHARF_DTYPE_I16 = 3,
  // 16 bits, unsigned.
  WHARF_DTYPE_U16 = 4,
  // 32 bits, signed.
  WHARF_DTYPE_I32 = 5,
  // 32 bits, unsigned.
  WHARF_DTYPE_U32 = 6,
  // 64 bits, signed.
  WHARF_DTYPE_I64 = 7,
  // 64 bits, unsigned.
  WHARF_DTYPE_U64 = 8,
  // IEEE half precision.
  WHARF_DTYPE_F16 = 9,
  // The upper half of a single precision number.
  WHARF_DTYPE_BF16 = 10,
  // IEEE single precision.
  WHARF_DTYPE_F32 = 11,
  // IEEE double precision.
  WHARF_DTYPE_F64 = 12,
  // 8 bits, 4 of exponent and 3 of fraction.
  WHARF_DTYPE_F8E4M3 = 13,
  // 8 bits, 5 of exponent and 2 of fraction.
  WHARF_DTYPE_F8E5M2 = 14,
} wharf_dtype;

// What a slot's length counts.
typedef enum {
  // `times` elements for each token.
  WHARF_COUNT_TOKENS = 0,
  // `times` elements for each request.
  WHARF_COUNT_REQUESTS = 1,
  // `times` elements.
  WHARF_COUNT_FIXED = 2,
} wharf_count;

// The padding behind a step's elements, up to the length of its bucket.
typedef enum {
  // Zeros.
  WHARF_PAD_ZERO = 0,
  // The value in `pad_value`.
  WHARF_PAD_VALUE = 1,
  // The last element again and again.
  WHARF_PAD_REPEAT_LAST = 2,
  // Whatever earlier steps left there.
  WHARF_PAD_KEEP = 3,
} wharf_pad;

// What becomes of a slot that a step does not write.
typedef enum {
  // The step fails, and the error names the slot.
  WHARF_FORGOTTEN_ERROR = 0,
  // The device keeps what an earlier step put there.
  WHARF_FORGOTTEN_KEEP = 1,
  // It is all padding.
  WHARF_FORGOTTEN_PAD = 2,
} wharf_forgotten;

// Where the device reads a slot.
typedef enum {
  // In device memory, to which each step copies it.
  WHARF_PLACEMENT_COPIED = 0,
  // In the pinned memory that the host writes, at another address in each step: see
  // wharf_step_address. A step's reads are to be declared, and are over before its memory is
  // written again.
  WHARF_PLACEMENT_ZERO_COPY = 1,
} wharf_placement;

// How slots lie in memory, and how many copies bring them to the device.
typedef enum {
  // Each slot has one address in all buckets and a copy of its own.
  WHARF_LAYOUT_PER_SLOT = 0,
  // Slots lie end to end and are one copy. A slot's address depends on the bucket, see
  // wharf_inputs_address_in.
  WHARF_LAYOUT_PACKED = 1,
} wharf_layout;

// A pool of memory of one kind, reused in the order of streams.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_pool;

// A stream.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_stream;

// A block of a pool. It may be copied; when it is freed, every copy is stale.
typedef struct {
  // The pool's number.
  uint64_t pool;
  // The address of the first byte: the device's, or the host's where they differ, see
  // wharf_buffer_device_address.
  uint64_t address;
  // The size, in bytes.
  size_t size;
  // Which life of the block it is.
  uint64_t life;
} wharf_buffer;

// A CUDA context.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_context;

// What a set is to be. Zero it, and set `struct_size`, `slot_size` and `buckets`.
typedef struct {
  // sizeof(wharf_inputs_options).
  size_t struct_size;
  // sizeof(wharf_slot).
  size_t slot_size;
  // The numbers of tokens that steps are padded to.
  const size_t *buckets;
  // How many there are, 4096 at most.
  size_t bucket_count;
  // The most tokens of a step; 0 for the largest bucket.
  size_t max_tokens;
  // The most requests of a step; 0 for the largest bucket.
  size_t max_requests;
  // How many steps may be in flight, 1 to 64; 0 for 3.
  size_t ring_depth;
  // How long wharf_begin waits for the device, in milliseconds; 0 for the library's default.
  uint64_t deadline_ms;
  // Whether each step asks the driver whether its stream is being captured.
  bool check_captures;
  // A wharf_layout.
  int32_t layout;
  // The set's name in errors and profilers; may be NULL.
  const char *name;
} wharf_inputs_options;

// A slot. Zero it first.
typedef struct {
  // Its name.
  const char *name;
  // A wharf_dtype.
  int32_t dtype;
  // A wharf_count.
  int32_t count;
  // Elements for each, see `count`: usually 1. A slot with neither these nor `plus` is refused.
  size_t times;
  // Elements besides: as with `len = tokens * times + plus`.
  size_t plus;
  // A wharf_pad.
  int32_t pad;
  // For WHARF_PAD_VALUE, otherwise 0: the bits of one element, the lowest first.
  uint64_t pad_value;
  // A wharf_forgotten.
  int32_t forgotten;
  // A wharf_placement.
  int32_t placement;
  // Of results: the device memory of the engine's own that each fetch reads, 0 for the set's. It
  // holds the slot's elements of the largest step. Inputs have none.
  uint64_t source;
} wharf_slot;

// The inputs of an engine's steps: host slots to write, and device memory at addresses that
// never change.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_inputs;

// What a set of results is to be. Zero it, and set `struct_size`, `slot_size` and `buckets`.
typedef struct {
  // sizeof(wharf_outputs_options).
  size_t struct_size;
  // sizeof(wharf_slot).
  size_t slot_size;
  // The numbers of tokens whose results are fetched by a graph: those of the step's inputs.
  const size_t *buckets;
  // How many there are, 4096 at most.
  size_t bucket_count;
  // The most tokens of a step; 0 for the largest bucket.
  size_t max_tokens;
  // The most requests of a step; 0 for the largest bucket.
  size_t max_requests;
  // How many fetches may be in use, in flight or held by a wharf_results, 1 to 64; 0 for 3.
  size_t ring_depth;
  // How long wharf_fetch waits for one of them, in milliseconds; 0 for the library's default.
  uint64_t deadline_ms;
  // Whether each fetch asks the driver whether its stream is being captured.
  bool check_captures;
  // A wharf_layout.
  int32_t layout;
  // The set's name in profilers; may be NULL.
  const char *name;
} wharf_outputs_options;

// The results of an engine's steps: device memory at addresses that never change, for kernels to
// write, and pinned memory in which the host reads what a fetch has copied.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_outputs;

// The results of one step, which the device is copying or has copied. They are not overwritten
// before wharf_results_release.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_results;

// Is asked to free memory of the pool before an allocation of `size` bytes fails; returns whether
// it did. Called on the thread that allocates, several at once. Must not throw, which ends the
// process, nor close the pool; what it allocates from the pool itself fails without asking it.
typedef bool (*wharf_pressure)(void *user, size_t size);

// What a pool is to be. Zero it, and set `struct_size`.
typedef struct {
  // sizeof(wharf_pool_options).
  size_t struct_size;
  // A wharf_kind.
  int32_t kind;
  // The length of the pool's addresses, in bytes, at most 4 TiB: no block is larger. 0 for that
  // of the limit.
  size_t span_bytes;
  // The most bytes that the pool may obtain. 0 for the span.
  size_t max_bytes;
  // How long an allocation at the limit may wait for the device, in milliseconds.
  uint64_t wait_ms;
  // The pool's name in reports and profilers; may be NULL.
  const char *name;
  // The function that is asked to free memory; may be NULL.
  wharf_pressure on_pressure;
  // What `on_pressure` is given.
  void *user;
} wharf_pool_options;

// What a pool holds, in bytes.
typedef struct {
  // sizeof(wharf_pool_stats), set by the caller.
  size_t struct_size;
  // The most that may be obtained.
  size_t limit;
  // The bytes that the driver has given.
  size_t reserved;
  // The most that was obtained at once.
  size_t peak_reserved;
  // Blocks that are handed out or retired.
  size_t live;
  // Blocks that were freed, and wait for the device or for their stream's next allocation.
  size_t retired;
  // Blocks in the caches of threads.
  size_t cached;
} wharf_pool_stats;

// A step of a set. It may be copied; when its ring slot is begun again, or it was abandoned, every
// copy is stale.
typedef struct {
  // The set.
  wharf_inputs inputs;
  // Which step of the set it is.
  uint64_t number;
} wharf_step;

// A read of a step's inputs: what a stream is given between wharf_reader_begin and
// wharf_reader_end.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_reader;

// Receives the text of calls that failed, and what went wrong where no call could return it, such
// as in drops and in wharf_torch_malloc. Called on any thread, several at once; must not throw,
// which ends the process, and must not call wharf: what fails in a call of the log's is not told.
typedef void (*wharf_log)(void *user, wharf_status status, const char *text);

// A point in a stream: whether the device is past it can be asked without a driver call.
typedef struct {
  // The number; 0 is none.
  uint64_t id;
} wharf_ticket;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Allocates `size` bytes for use on `stream` first, aligned to 256 bytes; their contents are
// undefined. Where the stream has freed a block of the size before, this takes no lock and makes
// no driver call. A size that the pool's addresses never hold is WHARF_STATUS_INVALID, one that
// they do not hold now WHARF_STATUS_OUT_OF_MEMORY.
//
// Thread-safe.
//
// # Safety
//
// `buffer` is NULL or can be written.
wharf_status wharf_alloc(wharf_pool pool, size_t size, wharf_stream stream, wharf_buffer *buffer);

// Frees a block behind what `stream` was given by now: the stream may have the memory at once,
// others when the device is past that and past every use that was recorded. A second free is
// WHARF_STATUS_STALE.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_free(wharf_pool pool, wharf_buffer buffer, wharf_stream stream);

// As wharf_alloc, for callers that keep the address only.
//
// Thread-safe.
//
// # Safety
//
// `address` is NULL or can be written.
wharf_status wharf_alloc_address(wharf_pool pool, size_t size, wharf_stream stream, void **address);

// As wharf_free, of the block that wharf_alloc_address handed out at `address`. No lock. NULL is
// WHARF_STATUS_NULL; an address that is not handed out is WHARF_STATUS_STALE.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_free_address(wharf_pool pool, void *address, wharf_stream stream);

// As wharf_alloc_address, on a raw stream, a CUstream or cudaStream_t of the context: for callers
// that have no handle of it. Takes a lock to find what is known of the stream.
//
// Before the stream is destroyed, call wharf_stream_forget, or close every pool that has seen it.
//
// Thread-safe.
//
// # Safety
//
// * `raw` is NULL, for the legacy default stream, or a stream of the context.
// * `address` is NULL or can be written.
wharf_status wharf_alloc_on(wharf_pool pool,
                            size_t size,
                            wharf_context context,
                            void *raw,
                            void **address);

// As wharf_free_address, on a raw stream, see wharf_alloc_on.
//
// Thread-safe.
//
// # Safety
//
// `raw` is NULL, for the legacy default stream, or a stream of the context.
wharf_status wharf_free_on(wharf_pool pool, void *address, wharf_context context, void *raw);

// Writes the handle of the block that is handed out at `address`.
//
// Thread-safe.
//
// # Safety
//
// `buffer` is NULL or can be written.
wharf_status wharf_find_address(wharf_pool pool, const void *address, wharf_buffer *buffer);

// Notes that work on `stream`, submitted by now, uses the block: for each stream but the one that
// wharf_free gets.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_buffer_record_use(wharf_pool pool, wharf_buffer buffer, wharf_stream stream);

// Makes work that `stream` is given from here on wait, on the device, for what earlier owners of
// the memory have submitted: for each stream but the one that the block was allocated for.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_buffer_acquire(wharf_pool pool, wharf_buffer buffer, wharf_stream stream);

// Waits until the device is past all uses of the block that were recorded: then the host may read
// and write pinned and managed memory at its address.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_buffer_wait(wharf_pool pool, wharf_buffer buffer, uint64_t timeout_ms);

// Writes where the device sees a block, which may be elsewhere than the host does.
//
// Thread-safe.
//
// # Safety
//
// `address` is NULL or can be written.
wharf_status wharf_buffer_device_address(wharf_pool pool, wharf_buffer buffer, uint64_t *address);

// Gives the graph that `stream` is capturing a share of the block: it is not reused as long as the
// graph, an executable graph of it or a launch lives, also when it is freed before.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_buffer_keep_in_capture(wharf_pool pool,
                                          wharf_buffer buffer,
                                          wharf_stream stream);

// Retains the primary context of a device, which the runtime API and PyTorch use too. Loads the
// driver at the first call: the library that the environment variable WHARF_LIBCUDA names, or
// libcuda.so.1.
//
// Thread-safe.
//
// # Safety
//
// `context` is NULL or can be written.
wharf_status wharf_context_retain(int32_t ordinal, wharf_context *context);

// Borrows a context, a CUcontext, which is destroyed after everything that is made with it.
//
// Thread-safe.
//
// # Safety
//
// * `raw` is NULL or a context, and is not destroyed before the handle and all that is made with
//   it are released.
// * `context` is NULL or can be written.
wharf_status wharf_context_borrow(void *raw, wharf_context *context);

// Releases a context. Streams, pools and sets that were made with it keep it alive.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle meanwhile.
wharf_status wharf_context_release(wharf_context context);

// Drops what destroyed graphs kept alive; writes how many owners were dropped, where `dropped` is
// not NULL.
//
// Thread-safe.
//
// # Safety
//
// `dropped` is NULL or can be written.
wharf_status wharf_drop_deferred(wharf_context context, size_t *dropped);

// Waits until everything that graphs kept alive is dropped: to be called when all graphs are
// destroyed, and before the context is.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handle meanwhile.
wharf_status wharf_wait_deferred(wharf_context context, uint64_t timeout_ms);

// Announces that streams are captured by other means than wharf, until
// wharf_capture_elsewhere_end: meanwhile steps refuse streams that are being captured. May be
// called several times; each has its end.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handle meanwhile.
wharf_status wharf_capture_elsewhere_begin(wharf_context context);

// Ends an announcement of wharf_capture_elsewhere_begin.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handle meanwhile.
wharf_status wharf_capture_elsewhere_end(wharf_context context);

// Makes a set of `slot_count` slots, 64 at most, each of `options->slot_size` bytes.
//
// Thread-safe.
//
// # Safety
//
// `options` is NULL or as its `struct_size` says; `slots` has `slot_count` elements; `inputs` is
// NULL or can be written.
wharf_status wharf_inputs_create(wharf_context context,
                                 const wharf_inputs_options *options,
                                 const wharf_slot *slots,
                                 size_t slot_count,
                                 wharf_inputs *inputs);

// Ends a set when the device has read every step that was submitted; waits for that until the
// set's deadline. On WHARF_STATUS_TIMED_OUT the set is as before. Steps that are open are
// abandoned.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle or its steps meanwhile.
wharf_status wharf_inputs_destroy(wharf_inputs inputs);

// Waits until the device has read every step that was submitted, until the set's deadline.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handle meanwhile.
wharf_status wharf_inputs_wait(wharf_inputs inputs);

// Writes the number of the slot with a name.
//
// Thread-safe.
//
// # Safety
//
// `name` is NULL or a string; `slot` is NULL or can be written.
wharf_status wharf_inputs_slot(wharf_inputs inputs, const char *name, size_t *slot);

// Writes where the device finds a slot in every step.
//
// Thread-safe.
//
// # Safety
//
// `address` is NULL or can be written.
wharf_status wharf_inputs_address(wharf_inputs inputs, size_t slot, uint64_t *address);

// Writes where the device finds a slot in the steps of the bucket that holds so many tokens and
// requests: for packed layouts, in which that depends on the bucket.
//
// Thread-safe.
//
// # Safety
//
// `address` is NULL or can be written.
wharf_status wharf_inputs_address_in(wharf_inputs inputs,
                                     size_t slot,
                                     size_t tokens,
                                     size_t requests,
                                     uint64_t *address);

// Gives the graph that `stream` is capturing a share of the set's device memory: the addresses
// stay good as long as the graph, an executable graph of it or a launch lives.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_inputs_keep_in_capture(wharf_inputs inputs, wharf_stream stream);

// Makes a set of results of `slot_count` slots, 64 at most, each of `options->slot_size` bytes.
//
// Thread-safe.
//
// # Safety
//
// `options` is NULL or as its `struct_size` says; `slots` has `slot_count` elements, whose sources
// are memory of the device as long as a fetch may be submitted or is not complete; `outputs` is
// NULL or can be written.
wharf_status wharf_outputs_create(wharf_context context,
                                  const wharf_outputs_options *options,
                                  const wharf_slot *slots,
                                  size_t slot_count,
                                  wharf_outputs *outputs);

// Ends a set; does not wait. Results that were not released stay good.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle meanwhile.
wharf_status wharf_outputs_destroy(wharf_outputs outputs);

// Writes the number of the slot with a name.
//
// Thread-safe.
//
// # Safety
//
// `name` is NULL or a string; `slot` is NULL or can be written.
wharf_status wharf_outputs_slot(wharf_outputs outputs, const char *name, size_t *slot);

// Writes where kernels write a slot of a step of so many tokens and requests: the same address in
// every step; in a packed layout, in every step of a bucket.
//
// Thread-safe.
//
// # Safety
//
// `address` is NULL or can be written.
wharf_status wharf_outputs_address(wharf_outputs outputs,
                                   size_t slot,
                                   size_t tokens,
                                   size_t requests,
                                   uint64_t *address);

// Gives the graph that `stream` is capturing a share of the set's device memory, as
// wharf_inputs_keep_in_capture.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_outputs_keep_in_capture(wharf_outputs outputs, wharf_stream stream);

// Copies the results of a step to the host, behind what `stream` was given so far: one driver
// call. Waits for a ring slot until the set's deadline if need be.
//
// Thread-safe.
//
// # Safety
//
// `results` is NULL or can be written.
wharf_status wharf_fetch(wharf_outputs outputs,
                         size_t tokens,
                         size_t requests,
                         wharf_stream stream,
                         wharf_results *results);

// As wharf_fetch; WHARF_STATUS_WOULD_BLOCK if no ring slot is free.
//
// Thread-safe.
//
// # Safety
//
// `results` is NULL or can be written.
wharf_status wharf_try_fetch(wharf_outputs outputs,
                             size_t tokens,
                             size_t requests,
                             wharf_stream stream,
                             wharf_results *results);

// As wharf_fetch, with slots from other memory of the device: `sources` has an address for each
// slot, or 0 for the slot's own. A source that is another than in the last fetch of a ring slot
// costs a driver call.
//
// Thread-safe.
//
// # Safety
//
// * `sources` has `source_count` elements; each holds the slot's elements of the padded step until
//   the results are complete, and is written by nothing that is not ordered with the fetch.
// * `results` is NULL or can be written.
wharf_status wharf_fetch_from(wharf_outputs outputs,
                              size_t tokens,
                              size_t requests,
                              const uint64_t *sources,
                              size_t source_count,
                              wharf_stream stream,
                              wharf_results *results);

// Makes a pool.
//
// Thread-safe.
//
// # Safety
//
// `options` is NULL or as its `struct_size` says; `pool` is NULL or can be written. `on_pressure`
// can be called with `user` as long as there is the pool, or a block of it.
wharf_status wharf_pool_create(wharf_context context,
                               const wharf_pool_options *options,
                               wharf_pool *pool);

// Ends a pool: waits for the device to finish with freed blocks, and gives the memory back. Blocks
// that are handed out then, that a graph keeps, or that the device still uses are leaked. That is
// WHARF_STATUS_WOULD_BLOCK with their list; the handle is released in any case. So destroy graphs
// before, and call wharf_wait_deferred.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle meanwhile.
wharf_status wharf_pool_close(wharf_pool pool, uint64_t timeout_ms);

// Gives back to the driver what has been free for `idle_ms`, but for `keep` bytes; writes how many
// bytes were given back, where `released` is not NULL. Does not wait for the device.
//
// Thread-safe.
//
// # Safety
//
// `released` is NULL or can be written.
wharf_status wharf_pool_trim(wharf_pool pool, uint64_t idle_ms, size_t keep, size_t *released);

// Writes which kind of memory a pool is of.
//
// Thread-safe.
//
// # Safety
//
// `kind` is NULL or can be written.
wharf_status wharf_pool_get_kind(wharf_pool pool, wharf_kind *kind);

// Writes what a pool holds. Not for hot paths.
//
// Thread-safe.
//
// # Safety
//
// `stats` is NULL, or as its `struct_size` says and can be written.
wharf_status wharf_pool_get_stats(wharf_pool pool, wharf_pool_stats *stats);

// Writes a report of a pool as JSON, with a zero at the end, into `text` of `capacity` bytes, and
// its size with the zero to `needed`. With less room nothing is written to `text`, and the call is
// WHARF_STATUS_INVALID; ask with a `capacity` of 0.
//
// Thread-safe.
//
// # Safety
//
// `text` is NULL or has `capacity` bytes that can be written; `needed` is NULL or can be written.
wharf_status wharf_pool_report(wharf_pool pool, char *text, size_t capacity, size_t *needed);

// Begins a read of a submitted step's inputs on `stream`: what that is given from here on waits,
// on the device, for the inputs. The next step waits for what it is given until wharf_reader_end,
// and cannot be submitted before.
//
// There may be several at once, on one stream or on many. As wharf_step_wait_on and
// wharf_step_consumed_by together, for components that do not know of each other.
//
// Thread-safe.
//
// # Safety
//
// `reader` is NULL or can be written.
wharf_status wharf_reader_begin(wharf_step step, wharf_stream stream, wharf_reader *reader);

// Ends a read: what the stream is given from here on does not read the inputs. Two driver calls.
// The handle is released in any case.
//
// WHARF_STATUS_STALE with a stream that was released meanwhile: where that read ends is not known,
// so no step of the set can be submitted any more.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle meanwhile, or releases the stream.
wharf_status wharf_reader_end(wharf_reader reader);

// Writes whether the results are there. No driver call.
//
// Thread-safe.
//
// # Safety
//
// `complete` is NULL or can be written.
wharf_status wharf_results_is_complete(wharf_results results, bool *complete);

// Waits for the results, and for nothing that the stream was given behind the fetch.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handle meanwhile.
wharf_status wharf_results_wait(wharf_results results, uint64_t timeout_ms);

// Writes where a slot's elements are, in pinned memory, and how many bytes they have: as many
// elements as the step has. WHARF_STATUS_WOULD_BLOCK if the results are not there yet. The memory
// is good until wharf_results_release, and is only read.
//
// Thread-safe.
//
// # Safety
//
// `data` and `size` are NULL or can be written.
wharf_status wharf_results_read(wharf_results results,
                                size_t slot,
                                const void **data,
                                size_t *size);

// Makes what `writer` is given from here on wait, on the device, until the device memory has been
// read: for a step on another stream than the fetch's, which writes it again.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_results_source_free_on(wharf_results results, wharf_stream writer);

// Releases results: their memory may be overwritten, when the device has written it. Does not
// wait.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle meanwhile, or reads the memory from here on.
wharf_status wharf_results_release(wharf_results results);

// Returns the version of the library, as "0.1.0".
//
// Thread-safe.
const char *wharf_version(void);

// Returns the name of a status, as "WHARF_STATUS_STALE"; "unknown" for other numbers.
//
// Thread-safe.
const char *wharf_status_name(int32_t status);

// Returns the text of the calling thread's last failure: what was asked, what happened, what to
// do. Empty before the first; good until the thread's next failure.
//
// Thread-safe.
const char *wharf_last_error(void);

// Returns the CUresult that the driver returned in the calling thread's last failure; 0 if the
// failure was not the driver's.
//
// Thread-safe.
uint32_t wharf_last_driver_error(void);

// Sets the log of the process; NULL for none. `user` is given to each call of it.
// WHARF_STATUS_INVALID in the log itself, whose end it would wait for.
//
// Thread-safe. When it returns, no thread is inside the log before it.
//
// # Safety
//
// `log` can be called with `user` until another is set.
wharf_status wharf_set_log(wharf_log log, void *user);

// Begins a step: takes a ring slot that the device does not read any more, and waits for one until
// the set's deadline if need be.
//
// Thread-safe.
//
// # Safety
//
// `step` is NULL or can be written.
wharf_status wharf_begin(wharf_inputs inputs, size_t tokens, size_t requests, wharf_step *step);

// As wharf_begin; WHARF_STATUS_WOULD_BLOCK if no ring slot is free.
//
// Thread-safe.
//
// # Safety
//
// `step` is NULL or can be written.
wharf_status wharf_try_begin(wharf_inputs inputs, size_t tokens, size_t requests, wharf_step *step);

// As wharf_begin, padded to the bucket that holds `padded_tokens` and `padded_requests`, and not
// only to the one that holds the step: for ranks that run one model together. Such a step may have
// 0 tokens.
//
// Thread-safe.
//
// # Safety
//
// `step` is NULL or can be written.
wharf_status wharf_begin_padded(wharf_inputs inputs,
                                size_t tokens,
                                size_t requests,
                                size_t padded_tokens,
                                size_t padded_requests,
                                wharf_step *step);

// Writes where the host writes a slot's elements for this step, in pinned memory, and how many
// bytes they have. Their contents are left from earlier steps. The memory is the caller's until
// the step is submitted or abandoned.
//
// Thread-safe; several threads may write different slots.
//
// # Safety
//
// `data` and `size` are NULL or can be written.
wharf_status wharf_step_slot(wharf_step step, size_t slot, void **data, size_t *size);

// Sends a step to the device: one driver call, where the stream is that of the last step. A step
// that fails has not happened, and its ring slot is free.
//
// Steps of one set that two threads submit at once, to two streams, are ordered by neither: let
// one thread at a time submit, or give each thread a set.
//
// Thread-safe.
//
// # Safety
//
// No other thread writes the step's slots meanwhile.
wharf_status wharf_submit(wharf_step step, wharf_stream stream);

// Abandons a step that was not submitted: it has not happened.
//
// Thread-safe.
//
// # Safety
//
// No other thread writes the step's slots meanwhile.
wharf_status wharf_step_abandon(wharf_step step);

// Makes what `stream` is given from here on wait, on the device, for a submitted step's inputs.
// The next step waits for all work of `stream`, or for the point of wharf_step_consumed_by.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_step_wait_on(wharf_step step, wharf_stream stream);

// Declares that the work of `stream` up to this point reads a submitted step's inputs, and that
// later work does not: the next step waits, on the device, for this point.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handles meanwhile.
wharf_status wharf_step_consumed_by(wharf_step step, wharf_stream stream);

// Writes where the device finds a slot of a submitted step: for zero-copy slots, and for steps of
// packed layouts above the largest bucket, whose addresses are others in each step.
//
// Thread-safe.
//
// # Safety
//
// `address` is NULL or can be written.
wharf_status wharf_step_address(wharf_step step, size_t slot, uint64_t *address);

// Writes what a step is padded to: the place of its bucket among the set's, ascending, SIZE_MAX
// above the largest; and the tokens and requests whose elements are sent. For the engine's own
// table of graphs. Each pointer may be NULL.
//
// Thread-safe.
//
// # Safety
//
// `bucket`, `tokens` and `requests` are NULL or can be written.
wharf_status wharf_step_padded(wharf_step step, size_t *bucket, size_t *tokens, size_t *requests);

// Writes whether the device has read a submitted step's ring slot.
//
// Thread-safe.
//
// # Safety
//
// `complete` is NULL or can be written.
wharf_status wharf_step_is_complete(wharf_step step, bool *complete);

// Creates a stream that does not wait for the legacy default stream.
//
// Thread-safe.
//
// # Safety
//
// `stream` is NULL or can be written.
wharf_status wharf_stream_create(wharf_context context, wharf_stream *stream);

// Borrows a stream, a CUstream or cudaStream_t. NULL is the legacy default stream. Borrowing the
// same stream again is cheap, and is the same stream.
//
// Before the stream is destroyed, call wharf_stream_forget, or release every handle, pool and set
// that has seen it.
//
// Thread-safe.
//
// # Safety
//
// * `raw` is a stream of the context, and is not destroyed as long as the handle is used.
// * `stream` is NULL or can be written.
wharf_status wharf_stream_borrow(wharf_context context, void *raw, wharf_stream *stream);

// Forgets a borrowed stream that is about to be destroyed: handles of it are refused from here on,
// and a stream that gets the same raw handle later is another one.
//
// Thread-safe; no other thread is inside a call with the stream.
//
// # Safety
//
// `raw` is a stream of the context.
wharf_status wharf_stream_forget(wharf_context context, void *raw);

// Writes the raw handle, a CUstream.
//
// Thread-safe.
//
// # Safety
//
// `raw` is NULL or can be written.
wharf_status wharf_stream_raw(wharf_stream stream, void **raw);

// Waits until the device has done all work of the stream.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handle meanwhile.
wharf_status wharf_stream_synchronize(wharf_stream stream);

// Releases a stream; one that was created here is destroyed, without waiting for its work.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle meanwhile.
wharf_status wharf_stream_release(wharf_stream stream);

// Takes a ticket: the point behind all work that the stream was given by now.
//
// Thread-safe.
//
// # Safety
//
// `ticket` is NULL or can be written.
wharf_status wharf_stream_ticket(wharf_stream stream, wharf_ticket *ticket);

// Writes whether the device is past a ticket; asks the driver if need be, and does not wait.
//
// Thread-safe.
//
// # Safety
//
// `complete` is NULL or can be written.
wharf_status wharf_ticket_poll(wharf_ticket ticket, bool *complete);

// Waits until the device is past a ticket. WHARF_STATUS_TIMED_OUT says how far the stream is.
//
// Thread-safe.
//
// # Safety
//
// No other thread releases the handle meanwhile.
wharf_status wharf_ticket_wait(wharf_ticket ticket, uint64_t timeout_ms);

// Releases a ticket.
//
// Thread-safe.
//
// # Safety
//
// No other thread is inside a call with the handle meanwhile.
wharf_status wharf_ticket_release(wharf_ticket ticket);

// Allocates `size` bytes of a device for use on `stream`, a cudaStream_t; NULL if that fails,
// which the log is told of.
//
// Thread-safe.
//
// # Safety
//
// `stream` is NULL or a stream of the device's primary context that is never destroyed.
void *wharf_torch_malloc(ptrdiff_t size, int device, void *stream);

// Frees what wharf_torch_malloc returned, behind what `stream` was given by now. An address that
// is not handed out is told to the log, and nothing is freed.
//
// Thread-safe.
//
// # Safety
//
// As wharf_torch_malloc.
void wharf_torch_free(void *address, ptrdiff_t size, int device, void *stream);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WHARF_H */
