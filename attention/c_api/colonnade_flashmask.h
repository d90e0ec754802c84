/* FlashMask attention for other languages: a C interface to attention/flashmask.h (shared library
 * libcolonnade_flashmask.so.1). Formulas, shapes and masks are those of docs/attention.md, section 1.
 *
 *     1. a mask: fill a struct colonnade_mask by hand, or let colonnade_document_mask() and its siblings fill one
 *     2. on a GPU, a plan: colonnade_plan_bytes(), colonnade_build_plan(); once per batch, for all layers
 *     3. colonnade_flashmask_forward(), colonnade_flashmask_backward()
 *
 * Memory. The caller owns all of it; the library keeps no pointer after a call. On a GPU a call allocates no device
 * memory, never waits for the device and only enqueues kernels, so that it can be recorded in a CUDA graph (run each
 * kind of call once before). On the CPU a call allocates scratch of its own and builds the plan of its mask.
 *
 * Streams. GPU calls enqueue on the caller's stream, in its order. The stream's device is `device_index`; the calling
 * thread's current device is the same after a call as before.
 *
 * Threads. Any thread may call. Calls share no state; calls that use the same scratch must not run at the same time.
 *
 * Errors. Functions that return int return 0, or one of the codes below. colonnade_last_error() then has one line that
 * says what was found and what was expected. Arguments are checked before any work starts. An error of the device itself
 * may show at a later call. No C++ exception leaves the library.
 */
#ifndef COLONNADE_FLASHMASK_H
#define COLONNADE_FLASHMASK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COLONNADE_API __attribute__((visibility("default")))

/* Structs and functions of this header. A library with another number must not be used with it. */
#define COLONNADE_FLASHMASK_ABI 1
COLONNADE_API int colonnade_flashmask_abi(void);
/* The version of Colonnade, such as "0.1.0". */
COLONNADE_API const char* colonnade_flashmask_version(void);

enum {
    COLONNADE_OK = 0,
    COLONNADE_UNSUPPORTED = 2, /* no kernel for this device, dtype or head_dim */
    COLONNADE_BAD_MASK = 3,    /* the mask, or what it is made from, contradicts itself */
    COLONNADE_DEVICE_LOST = 5, /* a CUDA call failed */
    COLONNADE_NO_MEMORY = 8,
    COLONNADE_BAD_ARGUMENT = 9 /* a size, stride, pointer or dtype that does not fit the others */
};
/* The last error of the calling thread; "" if there was none. Valid until its next call of a function here. */
COLONNADE_API const char* colonnade_last_error(void);

enum { COLONNADE_CPU = 1, COLONNADE_CUDA = 2 };                    /* `device`, numbered as in DLPack */
enum { COLONNADE_F32 = 0, COLONNADE_F64 = 1, COLONNADE_BF16 = 2 }; /* `dtype` */

/* 0 if there are kernels. CPU: f32 and f64, head_dim 1 to 256. CUDA: bf16, head_dim 64, 96, 128, 256, if the library was
 * built with CUDA and the device exists and is sm_80 or newer. Otherwise COLONNADE_UNSUPPORTED, with the reason in
 * colonnade_last_error(). */
COLONNADE_API int colonnade_flashmask_runs(int64_t device, int64_t device_index, int64_t dtype, int64_t head_dim);

/* --- Masks ------------------------------------------------------------------------------------------------------- */

/* A column mask: query i may not see key j if lts[j] <= i < lte[j], or uts[j] <= i < ute[j], or, with `causal`,
 * j > i + (columns - rows). Vectors are [batch, heads, columns], contiguous. Null vectors: lts and lte are `rows`, uts and
 * ute are 0. Rules: entries are within [0, rows], lts <= lte, uts <= ute, and the upper range [uts, ute) ends before the
 * lower one begins; lte, uts and ute need lts; uts needs all four; causal with ute needs all four. */
struct colonnade_mask {
    int64_t batch;
    int64_t heads;         /* 1, or a divisor of the query heads */
    int64_t rows, columns; /* query and key length */
    int64_t causal;        /* 0 or 1 */
    const int32_t *lts, *lte, *uts, *ute;
};

/* Checks the rules in host memory, in O(entries). COLONNADE_BAD_MASK names the vector, batch, head and column. */
COLONNADE_API int colonnade_check_mask(const struct colonnade_mask* mask);

/* The functions below fill *mask, whose vectors then lie in `memory`: int32 [4, batch, heads, columns] of the caller.
 * The mask is valid as long as that memory is. heads is 1. */

/* One row of packed documents: cu_seqlens int32 [documents + 1] has their borders, 0 first, ascending. Tokens behind the
 * last document are padding, which sees nothing and which nothing sees. */
COLONNADE_API int colonnade_document_mask(struct colonnade_mask* mask, int32_t* memory, const int32_t* cu_seqlens,
                                          int64_t documents, int64_t length, int64_t causal);
/* Rows of packed documents: ids int32 [batch, length]. A document is a run of equal ids; a negative id is padding. An id
 * that comes back after another one is COLONNADE_BAD_MASK. */
COLONNADE_API int colonnade_document_id_mask(struct colonnade_mask* mask, int32_t* memory, const int32_t* ids,
                                             int64_t batch, int64_t length, int64_t causal);
/* One row of sequences that share beginnings, in the order of a walk of their trie: sequence s has its first shared[s]
 * tokens in common with sequence s - 1 and then own[s] columns of its own. Every token sees the tokens before it in its
 * sequences. Padding as above. */
COLONNADE_API int colonnade_tree_mask(struct colonnade_mask* mask, int32_t* memory, const int64_t* shared,
                                      const int64_t* own, int64_t sequences, int64_t length);
/* Also hides keys that are `window` or more rows before the query. The mask is causal and in host memory; `memory` may be
 * where its vectors are. COLONNADE_UNSUPPORTED if a column would need a third range. */
COLONNADE_API int colonnade_add_window(struct colonnade_mask* mask, int32_t* memory, int64_t window);

/* --- Plans of a GPU ---------------------------------------------------------------------------------------------- */

/* Bytes of the plan of a mask of these sizes; the vectors are not read. -1 if the sizes are wrong. For each batch and
 * head about 33 bytes per column and 1 bit per 32 x 32 pairs. */
COLONNADE_API int64_t colonnade_plan_bytes(const struct colonnade_mask* mask);
/* Makes the plan in device memory, 16-byte aligned. The mask's vectors are in device memory, too, and are read until
 * the stream has passed this call. Nobody checks them: ranges beyond the rows are cut, overlapping ones hide what either
 * hides. Passes need the plan, the sizes and `causal`, no longer the vectors. A graph that has recorded passes shows another
 * mask of the same sizes if its plan is copied into the memory of the first. */
COLONNADE_API int colonnade_build_plan(void* plan, int64_t plan_bytes, const struct colonnade_mask* mask,
                                       int64_t device_index, void* stream);

/* --- Attention --------------------------------------------------------------------------------------------------- */

/* A tensor [batch, tokens, heads, head_dim], strides in elements; the head_dim values of a head are contiguous. Any order
 * of the other dims: [batch, heads, tokens, head_dim] of other libraries, or slices of packed qkv rows. The token stride
 * is at least head_dim. CUDA: data and strides are multiples of 16 bytes, strides positive. */
struct colonnade_heads {
    void* data;
    int64_t batch_stride, token_stride, head_stride;
};

/* What both passes need. Query head h reads key/value head h / (heads / kv_heads). */
struct colonnade_problem {
    int64_t device, device_index; /* COLONNADE_CPU or _CUDA; the index of the GPU */
    int64_t dtype;                /* of all tensors but lse */
    int64_t heads, kv_heads, head_dim;
    double scale;               /* usually 1 / sqrt(head_dim); CUDA: > 0 */
    struct colonnade_mask mask; /* batch, rows and columns are those of q and k; vectors: CPU only, in host memory */
    const void* plan;           /* CUDA only: from colonnade_build_plan() for a mask of these sizes */
    int64_t plan_bytes;
    void* stream; /* CUDA only: a CUstream or cudaStream_t; null is the default stream */
};

struct colonnade_forward {
    struct colonnade_problem problem;
    struct colonnade_heads out;  /* written: [batch, rows, heads, head_dim] */
    void* lse;                   /* written: [batch, heads, rows], contiguous; f64 if dtype is f64, else f32 */
    struct colonnade_heads q;    /* [batch, rows, heads, head_dim] */
    struct colonnade_heads k, v; /* [batch, columns, kv_heads, head_dim] */
};
/* A row that sees no key has out = 0 and lse = -inf. */
COLONNADE_API int colonnade_flashmask_forward(const struct colonnade_forward* args);

struct colonnade_backward {
    struct colonnade_problem problem;
    struct colonnade_heads dq, dk, dv; /* written: shapes of q, k, v */
    struct colonnade_heads dout, out;
    const void* lse;
    struct colonnade_heads q, k, v;
    void* scratch; /* CUDA only: colonnade_scratch_bytes(), 256-byte aligned; contents do not matter */
    int64_t scratch_bytes;
    int64_t deterministic; /* 1: dq has the same bits in every run on a GPU, as all other results always have */
};
COLONNADE_API int colonnade_flashmask_backward(const struct colonnade_backward* args);

/* Bytes of colonnade_backward::scratch; 0 on the CPU. Of the mask, batch and rows count. -1 if a size is wrong. */
COLONNADE_API int64_t colonnade_scratch_bytes(const struct colonnade_problem* problem);

#ifdef __cplusplus
}
#endif

#endif
