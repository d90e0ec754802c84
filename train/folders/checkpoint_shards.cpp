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
std::vector<FileRegion> regions_in(const Shard& shard, const OptimizerArray& into, const std::vector<Range>& wanted) {
    std::vector<FileRegion> regions;
    if (shard.size() == 0) return regions;
    const uint64_t begin = shard.reader.offset(into.name);
    const size_t bytes = bytes_of(into.values.dtype);
    int64_t to = 0;
    for (const Range& w : wanted) {
        int64_t from = 0;
        for (const Range& s : shard.slices) {
            const Range both{std::max(w.begin, s.begin), std::min(w.end, s.end)};
            const Range in_file = into.of({from + both.begin - s.begin, from + both.end - s.begin}),
                        in_memory = into.of({to + both.begin - w.begin, to + both.end - w.begin});
            if (both.begin < both.end)
                regions.push_back({begin + static_cast<uint64_t>(in_file.begin) * bytes,
                                   into.values.slice(0, in_memory.begin, in_memory.end)});
            from += s.size();
        }
        to += w.size();
    }
    return regions;
}

void require_array(const Shard& shard, const OptimizerArray& array) {
    const DType dtype = sum_dtype(array.values.dtype);
    const bool exists = shard.reader.has(array.name);
    if (!exists || shard.reader.dtype(array.name) != dtype)
        fail(Exit::data, "{}: '{}' is {}, expected {}{}", shard.path, array.name,
             exists ? name_of(shard.reader.dtype(array.name)) : "missing", dtype,
             array.name == "weights" ? "" : "; the state of another optimizer? Resume with the same optim");
    const int64_t found = shard.reader.count(array.name), expected = array.of({0, shard.size()}).end;
    if (found != expected)
        fail(Exit::data, "{}: '{}' has {} numbers, expected {}", shard.path, array.name, found, expected);
}

/// The arrays of a file: weights, and the optimizer's state if there is any.
std::vector<OptimizerArray> arrays_of(const Learner& learner) {
    std::vector<OptimizerArray> arrays = learner.optimizer_state();
    arrays.insert(arrays.begin(), {.name = "weights", .values = learner.weights()});
    return arrays;
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
    LearnerState now{
        .weights = share(learner.weights()), .optimizer = {}, .adapters = {}, .updates = learner.updates()};
    for (const OptimizerArray& array : learner.optimizer_state())
        now.optimizer.push_back(
            [&learner, values = array.values] { return HostCopy::of(learner.options().gpu, values); });
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
    std::vector<uint64_t> offsets;
    for (const OptimizerArray& array : arrays_of(learner))
        offsets.push_back(layout.reserve(array.name, sum_dtype(array.values.dtype), array.of({0, n}).end));
    layout.write("slices", Tensor(slices.data(), DType::i64, {std::ssize(slices) / 2, 2}));
    layout.attribute("updates", saved.updates);
    layout.close();
    FilledFile file(path, threads);
    file.fill({offsets[0], saved.weights().tensor()});
    for (size_t i = 0; i < saved.optimizer.size(); ++i) file.fill({offsets[i + 1], saved.optimizer[i]().tensor()});
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
    // All of it before anything of the learner changes.
    for (const OptimizerArray& array : arrays_of(learner))
        for (const Shard& shard : shards) require_array(shard, array);
    const auto read = [&](const OptimizerArray& into, const std::vector<Range>& slices) {
        for (const Shard& shard : shards) read_regions(shard.path, regions_in(shard, into, slices));
    };
    learner.fill_weights([&](const Tensor& weights) { read({.name = "weights", .values = weights}, {{0, n}}); });
    for (OptimizerArray& array : learner.optimizer_state()) {
        const HostCopy host = HostCopy::to_fill(learner.options().gpu, array.values);
        array.values = host.tensor();
        read(array, learner.sync().state());
        host.store();
    }
    learner.set_updates(updates);
}

}  // namespace colonnade
