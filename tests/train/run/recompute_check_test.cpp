// recompute_check_steps: a device that computes a wrong bit is found. This program's own cblas_sgemm replaces that of
// OpenBLAS: it calls the real one, and flips one bit of the result of the call that a test selects.

#include <cblas.h>
#include <dlfcn.h>

#include <cstring>

#include "tests/support/expect_error.h"
#include "tests/support/tiny_run.h"

namespace {

struct Fault {
    int64_t calls = 0, at = -1;  ///< index of the faulty call, counted from 0
    bool fired = false;
} fault;

void flip_a_bit(float& value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits ^= 1u << 20;  // an eighth of the value or less
    std::memcpy(&value, &bits, sizeof bits);
}

}  // namespace

extern "C" void cblas_sgemm(OPENBLAS_CONST enum CBLAS_ORDER order, OPENBLAS_CONST enum CBLAS_TRANSPOSE ta,
                            OPENBLAS_CONST enum CBLAS_TRANSPOSE tb, OPENBLAS_CONST blasint m, OPENBLAS_CONST blasint n,
                            OPENBLAS_CONST blasint k, OPENBLAS_CONST float alpha, OPENBLAS_CONST float* a,
                            OPENBLAS_CONST blasint lda, OPENBLAS_CONST float* b, OPENBLAS_CONST blasint ldb,
                            OPENBLAS_CONST float beta, float* c, OPENBLAS_CONST blasint ldc) {
    static const auto real = reinterpret_cast<decltype(&cblas_sgemm)>(dlsym(RTLD_NEXT, "cblas_sgemm"));
    real(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    if (fault.calls++ != fault.at) return;
    fault.fired = true;
    flip_a_bit(c[0]);
}

namespace colonnade {
namespace {

class RecomputeCheck : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(
            "device: cpu\nmax_steps: 4\nlogging_steps: 1\nsave_steps: 1\nsave_total_limit: 0\nlearning_rate: 0.01\n");
        fault = {};
    }
    /// Trains with a fault in a call; returns the number of calls.
    int64_t train_with(int64_t fault_at, const std::string& name, const std::string& setting) const {
        fault = {.at = fault_at};
        train(config(), {output(name), setting});
        return fault.calls;
    }
};

TEST_F(RecomputeCheck, ChangesNoBit) {
    const int64_t plain = train_with(-1, "plain", "recompute_check_steps=0");
    EXPECT_EQ(train_with(-1, "checked", "recompute_check_steps=1"), 3 * plain) << "each step twice more";
    EXPECT_GT(train_with(-1, "sometimes", "recompute_check_steps=3"), plain);
    for (const char* name : {"checked", "sometimes"}) {
        EXPECT_TRUE(result_of(path(name)).state == result_of(path("plain")).state) << name;
        EXPECT_EQ(result_of(path(name)).log, result_of(path("plain")).log) << name;
    }
}

/// A fault may have no effect, for example on a score that is masked. Whether it has one shows without the check.
TEST_F(RecomputeCheck, FindsEverySingleWrongBitThatMatters) {
    const int64_t calls = train_with(-1, "plain", "recompute_check_steps=0") / 4;
    ASSERT_GT(calls, 20);
    const std::string state = result_of(path("plain")).state;
    int64_t found = 0;
    for (int64_t call = 1; call < calls; call += calls / 12) {
        const std::string unnoticed = fmt::format("unnoticed-{}", call), checked = fmt::format("checked-{}", call);
        train_with(2 * calls + call, unnoticed, "recompute_check_steps=0");
        EXPECT_TRUE(fault.fired);
        if (result_of(path(unnoticed)).state == state) continue;
        ++found;
        // In the first or the second computation of step 3, behind two steps of three computations.
        const int64_t at = (6 + found % 2) * calls + call;
        expect_error(Exit::peer, "step 3: this machine computed a micro-step twice with different bits: the loss ",
                     [&] { train_with(at, checked, "recompute_check_steps=1"); });
        EXPECT_EQ(checkpoint_steps(path(checked)).back(), 2);
    }
    EXPECT_GE(found, 6);
}

}  // namespace
}  // namespace colonnade
