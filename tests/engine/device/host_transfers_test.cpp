// Copies between the device's memory and the host's, on each device.

#include "engine/device/host_transfers.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/device/arena.h"
#include "engine/device/device_memory.h"
#include "engine/device/host_copy.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_gpu.h"

namespace colonnade {
namespace {

class HostTransfersTest : public testing::TestWithParam<Device> {
  protected:
    void SetUp() override {
        if (GetParam() == Device::cuda && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    Gpu* gpu() const { return GetParam() == Device::cuda ? test_gpu() : nullptr; }
    Context context() const { return {.device = GetParam(), .gpu = gpu()}; }
    static std::vector<int32_t> numbers(int64_t count, int32_t first) {
        std::vector<int32_t> values(static_cast<size_t>(count));
        std::iota(values.begin(), values.end(), first);
        return values;
    }
    std::vector<int32_t> read(const Tensor& t) const {
        const HostCopy copy = HostCopy::of(gpu(), t);
        return {copy.tensor().as<int32_t>(), copy.tensor().as<int32_t>() + t.numel()};
    }
};

// Two places on the device hold the numbers of forty tensors in turn, there and back: every one comes back as it was sent.
// There are more copies than the transfers have events.
TEST_P(HostTransfersTest, TwoPlacesOnTheDeviceServeManyTensors) {
    constexpr int64_t n = 1 << 18, count = 40, places = 2;
    Arena device(GetParam(), places * (n * 4 + Arena::alignment));
    const Tensor place[places] = {device.tensor("a", DType::i32, {n}), device.tensor("b", DType::i32, {n})};
    Arena host = Arena::in_host_memory(gpu(), count * n * 4);
    const Tensor kept = host.tensor("kept", DType::i32, {count, n});
    const auto row = [&](int64_t i) { return kept.slice(0, i, i + 1).view({n}); };
    HostTransfers transfers(gpu());
    HostTransfers::Ticket sent[places];
    for (int64_t i = 0; i < count; ++i) {
        transfers.await(sent[i % places]);
        put(context(), place[i % places], numbers(n, static_cast<int32_t>(i)));
        sent[i % places] = transfers.to_host(row(i), place[i % places]);
    }
    for (const auto& ticket : sent) transfers.await(ticket);
    HostTransfers::Ticket back = transfers.to_device(place[(count - 1) % places], row(count - 1));
    for (int64_t i = count - 1; i >= 0; --i) {
        transfers.await(back);
        if (i > 0) back = transfers.to_device(place[(i - 1) % places], row(i - 1));
        ASSERT_EQ(read(place[i % places]), numbers(n, static_cast<int32_t>(i))) << i;
        clear(context(), place[i % places]);
    }
}

// The copy back starts after the copy that it names, which goes in the other direction, although nothing on the stream
// waits for either.
TEST_P(HostTransfersTest, ACopyFollowsTheOneThatItIsTold) {
    constexpr int64_t n = 1 << 22;
    Arena device(GetParam(), 2 * (n * 4 + Arena::alignment));
    const Tensor from = device.tensor("from", DType::i32, {n}), to = device.tensor("to", DType::i32, {n});
    Arena host = Arena::in_host_memory(gpu(), n * 4);
    const Tensor kept = host.tensor("kept", DType::i32, {n});
    put(context(), from, numbers(n, 3));
    HostTransfers transfers(gpu());
    transfers.await(transfers.to_device(to, kept, transfers.to_host(kept, from)));
    EXPECT_EQ(read(to), numbers(n, 3));
}

TEST_P(HostTransfersTest, RefusesTensorsOfDifferentSizes) {
    Arena device(GetParam(), 4096);
    Arena host = Arena::in_host_memory(gpu(), 4096);
    HostTransfers transfers(gpu());
    expect_error(Exit::internal, "a copy of",
                 [&] { transfers.to_host(host.tensor("b", DType::i32, {3}), device.tensor("a", DType::i32, {4})); });
}

INSTANTIATE_TEST_SUITE_P(On, HostTransfersTest, testing::Values(Device::cpu, Device::cuda),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace colonnade
