#pragma once
#include <cstdint>
#include <vector>

/// Attention over causal documents that end at `ends`, for one head of width 64, on the CPU: [length, 64].
std::vector<float> document_attention(std::vector<float> q, std::vector<float> k, std::vector<float> v,
                                      const std::vector<int64_t>& ends);
