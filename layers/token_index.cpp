#include "layers/token_index.h"

#include <algorithm>
#include <utility>

#include "engine/device/device_memory.h"

namespace colonnade {

HostTokenIndex make_token_index(std::span<const int32_t> tokens) {
    HostTokenIndex index;
    if (tokens.empty()) return index;
    // Counting sort: `place` first counts each token, then holds the slot of its next position.
    std::vector<int32_t> place(static_cast<size_t>(*std::ranges::max_element(tokens)) + 1);
    for (const int32_t token : tokens) ++place[static_cast<size_t>(token)];
    int32_t begin = 0;
    for (size_t id = 0; id < place.size(); ++id) {
        if (place[id] == 0) continue;
        index.ids.push_back(static_cast<int32_t>(id));
        index.begins.push_back(begin);
        begin += std::exchange(place[id], begin);
    }
    index.begins.push_back(begin);
    index.order.resize(tokens.size());
    for (size_t t = 0; t < tokens.size(); ++t)
        index.order[static_cast<size_t>(place[static_cast<size_t>(tokens[t])]++)] = static_cast<int32_t>(t);
    return index;
}

TokenIndex TokenIndex::lay_out(Arena& arena, const std::string& group, int64_t tokens) {
    const auto i32 = [&](int64_t count) { return arena.tensor(group, DType::i32, {count}); };
    return {.order = i32(tokens), .begins = i32(tokens + 1), .ids = i32(tokens)};
}

void fill_token_index(const Context& ctx, TokenIndex& index, std::span<const int32_t> tokens) {
    HostTokenIndex host = make_token_index(tokens);
    index.distinct = std::ssize(host.ids);
    host.begins.resize(static_cast<size_t>(index.begins.numel()), static_cast<int32_t>(std::ssize(tokens)));
    put(ctx, index.order.slice(0, 0, std::ssize(host.order)), host.order);
    put(ctx, index.begins, host.begins);
    put(ctx, index.ids.slice(0, 0, std::ssize(host.ids)), host.ids);
}

}  // namespace colonnade
