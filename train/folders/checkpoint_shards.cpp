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

/// The bytes of `into` in one file: numbers from `first` on of the array, which holds the elements `wanted` one after the
/// other.
struct Piece {
    const StateArray& array;
    int64_t first;
    Tensor into;
};
std::vector<FileRegion> regions_in(const Shard& shard, const Piece& piece, const std::vector<Range>& wanted) {
    std::vector<FileRegion> regions;
    if (shard.size() == 0) return regions;
    const StateArray& array = piece.array;
    const uint64_t begin = shard.reader.offset(array.name);
    const size_t bytes = bytes_of(piece.into.dtype);
    int64_t to = 0;
    for (const Range& w : wanted) {
        int64_t from = 0;
        for (const Range& s : shard.slices) {
            const Range both{std::max(w.begin, s.begin), std::min(w.end, s.end)};
            const Range in_file = array.of({from + both.begin - s.begin, from + both.end - s.begin}),
                        in_array = array.of({to + both.begin - w.begin, to + both.end - w.begin});
            const int64_t first = std::max(in_array.begin, piece.first),
                          last = std::min(in_array.end, piece.first + piece.into.numel());
            if (both.begin < both.end && first < last)
                regions.push_back({begin + static_cast<uint64_t>(in_file.begin + first - in_array.begin) * bytes,
                                   piece.into.slice(0, first - piece.first, last - piece.first)});
            from += s.size();
        }
        to += w.size();
    }
    return regions;
}

void require_array(const Shard& shard, const StateArray& array) {
    const bool exists = shard.reader.has(array.name);
    if (!exists || shard.reader.dtype(array.name) != array.dtype)
        fail(Exit::data, "{}: '{}' is {}, expected {}{}", shard.path, array.name,
             exists ? name_of(shard.reader.dtype(array.name)) : "missing", array.dtype,
             array.name == "weights" ? "" : "; the state of another optimizer? Resume with the same optim");
    const int64_t found = shard.reader.count(array.name), expected = array.of({0, shard.size()}).end;
    if (found != expected)
        fail(Exit::data, "{}: '{}' has {} numbers, expected {}", shard.path, array.name, found, expected);
}

/// Numbers of an array that are in host memory at a time.
constexpr int64_t piece_size = int64_t{1} << 25;

/// Calls `apply` with the index of the first number of every piece, and the number of its numbers.
template <typename Apply>
void for_each_piece(int64_t count, Apply&& apply) {
    for (int64_t first = 0; first < count; first += piece_size) apply(first, std::min(piece_size, count - first));
}

}  // namespace

std::function<HostCopy()> collected_adapters(const Learner& learner) {
    const HostCopy whole = learner.all_weights();
    if (learner.sync().options().rank != 0) return {};
    // On the CPU `whole` is the learner's own memory.
    const HostCopy copy = HostCopy::blank(whole.tensor().dtype, whole.tensor().numel());
    std::memcpy(copy.tensor().data, whole.tensor().data, whole.tensor().bytes());
    return [copy] { return copy; };
}

std::vector<StateArray> arrays_of(const Learner& learner) {
    std::vector<StateArray> arrays = learner.optimizer_state();
    arrays.insert(arrays.begin(), learner.master_weights());
    return arrays;
}

LearnerState present_state(const Learner& learner) {
    LearnerState now{
        .gpu = learner.options().gpu, .arrays = arrays_of(learner), .adapters = {}, .updates = learner.updates()};
    if (!learner.options().lora) return now;
    if (learner.sync().sharded())
        now.adapters = collected_adapters(learner);
    else
        now.adapters = [&learner] { return learner.all_weights(); };
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
    for (const StateArray& array : saved.arrays)
        offsets.push_back(layout.reserve(array.name, array.dtype, array.of({0, n}).end));
    layout.write("slices", Tensor(slices.data(), DType::i64, {std::ssize(slices) / 2, 2}));
    layout.attribute("updates", saved.updates);
    layout.close();
    FilledFile file(path, threads);
    for (size_t i = 0; i < saved.arrays.size(); ++i) {
        const StateArray& array = saved.arrays[i];
        for_each_piece(array.size(), [&](int64_t first, int64_t count) {
            file.fill({offsets[i] + static_cast<uint64_t>(first) * bytes_of(array.dtype),
                       array.read(saved.gpu, {first, first + count}).tensor()});
        });
    }
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
    for (const StateArray& array : arrays_of(learner))
        for (const Shard& shard : shards) require_array(shard, array);
    const auto read = [&](const Piece& piece, const std::vector<Range>& slices) {
        for (const Shard& shard : shards) read_regions(shard.path, regions_in(shard, piece, slices));
    };
    const StateArray weights{.name = "weights"};
    learner.fill_weights([&](const Parameter& p, const Tensor& into) { read({weights, p.begin, into}, {{0, n}}); });
    for (const StateArray& array : learner.optimizer_state())
        for_each_piece(array.size(), [&](int64_t first, int64_t count) {
            const HostCopy host = HostCopy::blank(array.dtype, count);
            read({array, first, host.tensor()}, learner.sync().state());
            array.write(learner.options().gpu, first, host.tensor());
        });
    learner.set_updates(updates);
}

}  // namespace colonnade
