#pragma once
// Whole runs on a GPU, with heads that its kernels take.

#include "engine/device/device.h"
#include "tests/support/tiny_run.h"

namespace colonnade {

struct Heads {
    int64_t heads, kv_heads, head_dim;
};

/// Skipped without a GPU.
class GpuRunTest : public RunTest {
  protected:
    void SetUp() override {
        if (cuda_devices().empty()) GTEST_SKIP() << "no GPU";
        RunTest::SetUp();
        spill(path("train.jsonl"), chain_rows(2000));
    }
    /// `packing_length` in tokens. Four layers with heads that the kernels of every GPU take.
    void write_gpu_config(const Heads& shape, int64_t hidden, const std::string& settings) const {
        spill(path("config.yaml"),
              fmt::format("model:\n  hidden_size: {}\n  intermediate_size: {}\n  num_hidden_layers: 4\n"
                          "  num_attention_heads: {}\n  num_key_value_heads: {}\n  head_dim: {}\n  vocab_size: {}\n"
                          "datasets:\n  - path: {}\nmax_length: 48\nprepared_path: {}\nthreads: 1\n"
                          "report_to: [jsonl]\ndevice: cuda\ndeterministic: true\n{}",
                          hidden, 2 * hidden, shape.heads, shape.kv_heads, shape.head_dim, chain_vocab,
                          path("train.jsonl"), path("prepared"), settings));
    }
};

}  // namespace colonnade
