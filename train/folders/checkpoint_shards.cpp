#include "train/folders/checkpoint_shards.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "engine/io/hdf5.h"

namespace colonnade {
namespace {

/// A file, and where its share lies in the flat buffers.
struct Shard {
    std::string path;
    Hdf5Reader reader;
    std::vector<Range> slices;

    Shard(const std::string& file, int64_t elements) : path(file), reader(file), slices{{0, elements}} {
        if (!reader.has("slices")) return;
        const std::vector<int64_t> ends = reader.read_all<int64_t>("slices");
        slices.clear();
        for (size_t i = 0; i + 1 < ends.size(); i += 2) slices.push_back({ends[i], ends[i + 1]});
    }
    int64_t size() const {
        int64_t elements = 0;
        for (const Range& s : slices) elements += s.size();
        return elements;
    }
};

/// Throws unless the slices of all files are the elements [0, n), each once.
void require_all_elements(const std::deque<Shard>& shards, int64_t n) {
    std::vector<std::pair<Range, const Shard*>> slices;
    for (const Shard& shard : shards)
        for (const Range& s : shard.slices) {
            if (s.begin < 0 || s.begin > s.end || s.end > n)
                fail(Exit::data, "{}: holds elements {} to {}, but the model has {}", shard.path, s.begin, s.end, n);
            if (s.size() > 0) slices.emplace_back(s, &shard);
        }
    std::ranges::sort(slices, {}, [](const auto& slice) { return slice.first.begin; });
    int64_t at = 0;
    for (const auto& [slice, shard] : slices) {
        if (slice.begin != at)
            fail(Exit::data, "{}: holds elements from {} on, but those before end at {}", shard->path, slice.begin, at);
        at = slice.end;
    }
    if (at != n) fail(Exit::data, "{}: the files end at element {}, expected {}", shards.front().path, at, n);
}

/// The bytes of `into`, which holds the elements `wanted` one after the other, in one file.
std::vector<FileRegion> regions_in(const Shard& shard, const std::string& name, const Tensor& into,
                                   const std::vector<Range>& wanted) {
    std::vector<FileRegion> regions;
    if (shard.size() == 0) return regions;
    const uint64_t begin = shard.reader.offset(name);
    int64_t to = 0;
    for (const Range& w : wanted) {
        int64_t from = 0;
        for (const Range& s : shard.slices) {
            const Range both{std::max(w.begin, s.begin), std::min(w.end, s.end)};
            if (both.begin < both.end)
                regions.push_back({begin + static_cast<uint64_t>(from + both.begin - s.begin) * bytes_of(into.dtype),
                                   into.slice(0, to + both.begin - w.begin, to + both.end - w.begin)});
            from += s.size();
        }
        to += w.size();
    }
    return regions;
}

void require_array(const Shard& shard, const std::string& name, DType dtype) {
    const int64_t found = shard.reader.count(name);
    if (found != shard.size())
        fail(Exit::data, "{}: '{}' has {} numbers, expected {}", shard.path, name, found, shard.size());
    if (shard.reader.dtype(name) != dtype)
        fail(Exit::data, "{}: '{}' holds {}, expected {}", shard.path, name, shard.reader.dtype(name), dtype);
}

/// This rank's share of weights(), m() or v().
HostCopy share_of(const Learner& learner, const Tensor& state) {
    const GradientSync& sync = learner.sync();
    HostCopy all = HostCopy::of(learner.options().gpu, state);
    if (state.numel() == sync.state_size()) return all;
    // Weights are whole on every rank on the CPU.
    const HostCopy share = HostCopy::blank(all.tensor().dtype, sync.state_size());
    const auto element = bytes_of(all.tensor().dtype);
    auto* to = static_cast<char*>(share.tensor().data);
    for (const Range& s : sync.state()) {
        const auto bytes = static_cast<size_t>(s.size()) * element;
        std::memcpy(to, static_cast<const char*>(all.tensor().data) + static_cast<size_t>(s.begin) * element, bytes);
        to += bytes;
    }
    return share;
}

}  // namespace

std::function<HostCopy()> collected_adapters(const Learner& learner) {
    const HostCopy whole = learner.whole(learner.weights());
    if (learner.sync().options().rank != 0) return {};
    // On the CPU `whole` is the learner's own memory.
    const HostCopy copy = HostCopy::blank(whole.tensor().dtype, whole.tensor().numel());
    std::memcpy(copy.tensor().data, whole.tensor().data, whole.tensor().bytes());
    return [copy] { return copy; };
}

LearnerState present_state(const Learner& learner) {
    const auto share = [&learner](const Tensor& state) {
        return [&learner, state] { return share_of(learner, state); };
    };
    LearnerState now{.weights = share(learner.weights()),
                     .m = share(learner.m()),
                     .v = share(learner.v()),
                     .adapters = {},
                     .updates = learner.updates()};
    if (learner.options().lora) now.adapters = learner.sync().sharded() ? collected_adapters(learner) : now.weights;
    return now;
}

std::string shard_name(int rank, int ranks) {
    return fmt::format("state-{:05}-of-{:05}.h5", rank + 1, ranks);
}

bool is_shard_name(const std::string& name) {
    return name.starts_with("state-") && name.ends_with(".h5");
}

std::vector<FilePiece> write_shard(const std::string& folder, const Learner& learner, const LearnerState& saved,
                                   int threads) {
    const GradientSync& sync = learner.sync();
    const std::string path =
        folder + "/" + (sync.sharded() ? shard_name(sync.options().rank, sync.options().ranks) : shard_name(0, 1));
    const int64_t n = sync.state_size();
    std::vector<int64_t> slices;
    for (const Range& s : sync.state()) slices.insert(slices.end(), {s.begin, s.end});
    Hdf5Writer layout(path);
    const uint64_t weights = layout.reserve("weights", sum_dtype(learner.weights().dtype), n),
                   m = layout.reserve("adamw/m", sum_dtype(learner.m().dtype), n),
                   v = layout.reserve("adamw/v", sum_dtype(learner.v().dtype), n);
    layout.write("slices", Tensor(slices.data(), DType::i64, {std::ssize(slices) / 2, 2}));
    layout.attribute("updates", saved.updates);
    layout.close();
    FilledFile file(path, threads);
    file.fill({weights, saved.weights().tensor()});
    file.fill({m, saved.m().tensor()});
    file.fill({v, saved.v().tensor()});
    return file.finish();
}

void read_shards(const std::string& folder, const std::vector<std::string>& names, Learner& learner) {
    const int64_t n = learner.parameters().size();
    std::deque<Shard> shards;
    for (const std::string& name : names) shards.emplace_back(folder + "/" + name, n);
    if (shards.empty()) fail(Exit::data, "{}: has no file state-*.h5", folder);
    require_all_elements(shards, n);
    const int64_t updates = shards.front().reader.int_attribute("updates");
    for (const Shard& shard : shards)
        if (const int64_t other = shard.reader.int_attribute("updates"); other != updates)
            fail(Exit::data, "{}: {} updates, but {} has {}", shard.path, other, shards.front().path, updates);
    // All of it before anything of the learner changes. A learner for inference has no moments.
    for (const auto& [name, state] : {std::pair("weights", &learner.weights()), std::pair("adamw/m", &learner.m()),
                                      std::pair("adamw/v", &learner.v())})
        for (const Shard& shard : shards)
            if (learner.options().training || state == &learner.weights())
                require_array(shard, name, sum_dtype(state->dtype));
    const auto read = [&](const char* name, const Tensor& into, const std::vector<Range>& slices) {
        if (into.empty()) return;
        const HostCopy host = HostCopy::to_fill(learner.options().gpu, into);
        for (const Shard& shard : shards) read_regions(shard.path, regions_in(shard, name, host.tensor(), slices));
        host.store();
    };
    learner.fill_weights([&](const Tensor& weights) { read("weights", weights, {{0, n}}); });
    read("adamw/m", learner.m(), learner.sync().state());
    read("adamw/v", learner.v(), learner.sync().state());
    learner.set_updates(updates);
}

}  // namespace colonnade
