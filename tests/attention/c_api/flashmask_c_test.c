/* The C interface from plain C: masks, attention and its gradients beside dense attention in double, and its errors. */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "colonnade_flashmask.h"

enum { length = 70, heads = 4, kv_heads = 2, dim = 8, queries = length * heads * dim, keys = length * kv_heads * dim };

static int failures = 0;
static void expect(int held, const char* what) {
    if (held) return;
    printf("failed: %s (last error: %s)\n", what, colonnade_last_error());
    ++failures;
}
static void expect_error(int code, int wanted, const char* part) {
    if (code == wanted && strstr(colonnade_last_error(), part) && !strchr(colonnade_last_error(), '\n')) return;
    printf("failed: expected code %d with '%s', found %d: %s\n", wanted, part, code, colonnade_last_error());
    ++failures;
}

static double q[queries], k[keys], v[keys], dout[queries], out[queries], lse[heads * length];
static double dq[queries], dk[keys], dv[keys];

static void draw(double* to, int count, unsigned seed) {
    for (int i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        to[i] = (double)(seed >> 8) / (1 << 24) * 4 - 2;
    }
}

static int sees(const struct colonnade_mask* m, int i, int j) {
    const int lts = m->lts ? m->lts[j] : length, lte = m->lte ? m->lte[j] : length;
    const int uts = m->uts ? m->uts[j] : 0, ute = m->ute ? m->ute[j] : 0;
    return !((lts <= i && i < lte) || (uts <= i && i < ute) || (m->causal && j > i));
}

/* The largest error of out, lse, dq, dk and dv against dense attention. */
static double worst_error(const struct colonnade_mask* m, double scale) {
    static double wanted_dk[keys], wanted_dv[keys];
    double worst = 0;
    memset(wanted_dk, 0, sizeof wanted_dk);
    memset(wanted_dv, 0, sizeof wanted_dv);
    for (int h = 0; h < heads; ++h)
        for (int i = 0; i < length; ++i) {
            const double* qi = q + (i * heads + h) * dim;
            const double* di = dout + (i * heads + h) * dim;
            const int kv = h / (heads / kv_heads);
            double p[length], sum = 0, o[dim] = {0}, product = 0, g[dim] = {0};
            for (int j = 0; j < length; ++j) {
                double s = 0;
                for (int d = 0; d < dim; ++d) s += qi[d] * k[(j * kv_heads + kv) * dim + d];
                p[j] = sees(m, i, j) ? exp(scale * s) : 0;
                sum += p[j];
            }
            for (int j = 0; j < length; ++j) {
                p[j] = sum > 0 ? p[j] / sum : 0;
                for (int d = 0; d < dim; ++d) o[d] += p[j] * v[(j * kv_heads + kv) * dim + d];
            }
            for (int d = 0; d < dim; ++d) product += di[d] * o[d];
            for (int j = 0; j < length; ++j) {
                double dp = 0;
                for (int d = 0; d < dim; ++d) dp += di[d] * v[(j * kv_heads + kv) * dim + d];
                const double ds = scale * p[j] * (dp - product);
                for (int d = 0; d < dim; ++d) {
                    g[d] += ds * k[(j * kv_heads + kv) * dim + d];
                    wanted_dk[(j * kv_heads + kv) * dim + d] += ds * qi[d];
                    wanted_dv[(j * kv_heads + kv) * dim + d] += p[j] * di[d];
                }
            }
            for (int d = 0; d < dim; ++d) {
                worst = fmax(worst, fabs(o[d] - out[(i * heads + h) * dim + d]));
                worst = fmax(worst, fabs(g[d] - dq[(i * heads + h) * dim + d]));
            }
            if (sum > 0)
                worst = fmax(worst, fabs(log(sum) - lse[h * length + i]));
            else
                expect(isinf(lse[h * length + i]) && lse[h * length + i] < 0, "lse of a row without keys is -inf");
        }
    for (int i = 0; i < keys; ++i) worst = fmax(worst, fmax(fabs(wanted_dk[i] - dk[i]), fabs(wanted_dv[i] - dv[i])));
    return worst;
}

static struct colonnade_heads of(double* data, int count) {
    const struct colonnade_heads view = {data, (int64_t)length * count * dim, (int64_t)count * dim, dim};
    return view;
}

static struct colonnade_forward forward_of(const struct colonnade_mask* mask) {
    struct colonnade_forward f;
    memset(&f, 0, sizeof f);
    f.problem.device = COLONNADE_CPU;
    f.problem.dtype = COLONNADE_F64;
    f.problem.heads = heads, f.problem.kv_heads = kv_heads, f.problem.head_dim = dim;
    f.problem.scale = 0.35;
    f.problem.mask = *mask;
    f.out = of(out, heads), f.lse = lse;
    f.q = of(q, heads), f.k = of(k, kv_heads), f.v = of(v, kv_heads);
    return f;
}

static void check_attention(const char* name, const struct colonnade_mask* mask) {
    const struct colonnade_forward f = forward_of(mask);
    struct colonnade_backward b;
    memset(&b, 0, sizeof b);
    b.problem = f.problem;
    b.dq = of(dq, heads), b.dk = of(dk, kv_heads), b.dv = of(dv, kv_heads);
    b.dout = of(dout, heads), b.out = f.out, b.lse = lse, b.q = f.q, b.k = f.k, b.v = f.v;
    expect(colonnade_flashmask_forward(&f) == COLONNADE_OK, name);
    expect(colonnade_flashmask_backward(&b) == COLONNADE_OK, name);
    const double worst = worst_error(mask, f.problem.scale);
    if (!(worst < 1e-12)) {
        printf("failed: %s differs from dense attention by %g\n", name, worst);
        ++failures;
    }
}

static void check_masks(void) {
    static int32_t memory[4 * length], again[4 * length];
    const int32_t borders[] = {0, 20, 20, 33, 60};
    struct colonnade_mask mask, same;
    int32_t ids[length];
    for (int i = 0; i < length; ++i) ids[i] = i < 20 ? 7 : i < 33 ? 2 : i < 60 ? 5 : -1;
    for (int causal = 0; causal < 2; ++causal) {
        expect(colonnade_document_mask(&mask, memory, borders, 4, length, causal) == 0, "documents");
        expect(mask.batch == 1 && mask.heads == 1 && mask.rows == length && mask.causal == causal, "sizes of a mask");
        check_attention("documents", &mask);
        expect(colonnade_document_id_mask(&same, again, ids, 1, length, causal) == 0, "document ids");
        for (int i = 0; i < length; ++i)
            for (int j = 0; j < length; ++j)
                expect(sees(&mask, i, j) == (ids[i] >= 0 && ids[i] == ids[j] && !(causal && j > i)),
                       "a document's pair");
        expect(memcmp(memory, again, sizeof(int32_t) * length * (causal ? 1 : 2)) == 0, "ids and borders agree");
    }
    expect(colonnade_add_window(&mask, memory, 5) == 0, "window");
    for (int i = 0; i < length; ++i)
        for (int j = 0; j < length; ++j)
            expect(sees(&mask, i, j) == (ids[i] >= 0 && ids[i] == ids[j] && j <= i && i - j < 5),
                   "a pair of the window");
    check_attention("window", &mask);

    const int64_t shared[] = {0, 10}, own[] = {25, 20}; /* a stem of 10 tokens with answers of 15 and 20 */
    expect(colonnade_tree_mask(&mask, memory, shared, own, 2, length) == 0, "tree");
    expect(sees(&mask, 30, 9) && !sees(&mask, 30, 12) && sees(&mask, 24, 12) && !sees(&mask, 50, 9), "pairs of a tree");
    check_attention("tree", &mask);

    const struct colonnade_mask full = {1, 1, length, length, 0, NULL, NULL, NULL, NULL};
    check_attention("full", &full);
    expect(colonnade_check_mask(&full) == COLONNADE_OK, "a full mask is valid");
    expect(colonnade_plan_bytes(&full) > 0, "bytes of a plan");
}

static void check_errors(void) {
    static int32_t memory[4 * length];
    const int32_t borders[] = {0, 40, 30}, late[] = {3, 40}, ids[] = {1, 1, 2, 1};
    int32_t lts[length];
    struct colonnade_mask mask;
    expect_error(colonnade_document_mask(&mask, memory, borders, 2, length, 1), COLONNADE_BAD_MASK, "ends at 30");
    expect_error(colonnade_document_mask(&mask, memory, late, 1, length, 1), COLONNADE_BAD_MASK, "begins with 3");
    expect_error(colonnade_document_id_mask(&mask, memory, ids, 1, 4, 1), COLONNADE_BAD_MASK,
                 "token 3: id 1 comes back");
    for (int i = 0; i < length; ++i) lts[i] = length;
    lts[3] = length + 5;
    const struct colonnade_mask wrong = {1, 1, length, length, 1, lts, NULL, NULL, NULL};
    const struct colonnade_mask odd = {1, 1, length, length, 1, lts, NULL, lts, NULL};
    const struct colonnade_mask full = {1, 1, length, length, 0, NULL, NULL, NULL, NULL};
    expect_error(colonnade_check_mask(&wrong), COLONNADE_BAD_MASK, "lts[batch 0, head 0, column 3] is 75");
    expect_error(colonnade_check_mask(&odd), COLONNADE_BAD_MASK, "vectors lts uts are given");
    struct colonnade_forward f = forward_of(&wrong);
    expect_error(colonnade_flashmask_forward(&f), COLONNADE_BAD_MASK, "column 3");
    f = forward_of(&full);
    f.problem.kv_heads = 3;
    expect_error(colonnade_flashmask_forward(&f), COLONNADE_BAD_ARGUMENT, "a multiple of the 3 kv_heads");
    f = forward_of(&full);
    f.q.data = NULL;
    expect_error(colonnade_flashmask_forward(&f), COLONNADE_BAD_ARGUMENT, "q is null");
    f = forward_of(&full);
    f.problem.dtype = COLONNADE_BF16;
    expect_error(colonnade_flashmask_forward(&f), COLONNADE_BAD_ARGUMENT, "no kernel for bf16 on device cpu");
    f.problem.device = 7;
    expect_error(colonnade_flashmask_forward(&f), COLONNADE_BAD_ARGUMENT, "device 7");
    expect_error(colonnade_flashmask_runs(COLONNADE_CPU, 0, COLONNADE_F32, 257), COLONNADE_UNSUPPORTED, "head_dim 257");
    expect_error(colonnade_flashmask_runs(COLONNADE_CPU, 0, COLONNADE_BF16, 64), COLONNADE_UNSUPPORTED, "bf16 on cpu");
    expect(colonnade_flashmask_runs(COLONNADE_CPU, 0, COLONNADE_F32, 80) == COLONNADE_OK, "f32 on the CPU");
    /* Without a GPU, or beyond the last one, there is one line. */
    const int code = colonnade_flashmask_runs(COLONNADE_CUDA, 99, COLONNADE_BF16, 128);
    expect(code != COLONNADE_OK && strlen(colonnade_last_error()) > 0, "no GPU 99");
}

int main(void) {
    expect(colonnade_flashmask_abi() == COLONNADE_FLASHMASK_ABI, "the header and the library agree");
    draw(q, queries, 1), draw(k, keys, 2), draw(v, keys, 3), draw(dout, queries, 4);
    check_masks();
    check_errors();
    if (failures == 0) printf("colonnade_flashmask %s: all as expected\n", colonnade_flashmask_version());
    return failures == 0 ? 0 : 1;
}
