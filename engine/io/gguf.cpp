#include "engine/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>
#include <filesystem>
#include <span>

#include "engine/io/files.h"
#include "engine/io/gguf_blocks.h"
#include "engine/io/limits.h"

static_assert(std::endian::native == std::endian::little, "GGUF data is copied from file to memory as it is");

namespace colonnade {
namespace {

constexpr uint64_t header_limit = limits::gguf_header_bytes, pair_limit = limits::gguf_pairs;
constexpr uint64_t tensor_limit = limits::tensors, name_limit = limits::tensor_name_bytes;
constexpr uint64_t element_limit = limits::gguf_elements;
constexpr uint64_t rank_limit = limits::gguf_dimensions, alignment_limit = limits::gguf_alignment;
constexpr int64_t piece_elements = int64_t{1} << 16;  // a multiple of every block

// --- The header of one file ------------------------------------------------------------------------------------------

// Reads one file from its first byte to the end of the tensor table.
class GgufParser {
  public:
    explicit GgufParser(const std::string& path) : file_(path) {}

    void parse(GgufMetadata& metadata, std::vector<TensorInfo>& tensors) {
        const auto [tensor_count, pair_count] = frame();
        std::vector<GgufPair> pairs;
        for (uint64_t i = 0; i < pair_count; ++i) pairs.push_back(pair());
        const size_t first = tensors.size();
        for (uint64_t i = 0; i < tensor_count; ++i) tensors.push_back(tensor());
        header_.resize(at_);
        metadata = GgufMetadata(file_.path(), std::move(header_), pairs);
        place(std::span(tensors).subspan(first), alignment(metadata));
    }

  private:
    // Makes the next `bytes` bytes available and returns where they begin. `what` names them.
    size_t take(uint64_t bytes, std::string_view what) {
        if (bytes > file_.size() - at_)
            fail(Exit::data, "{}: {}: {} bytes at byte {}, the file has {} more", file_.path(), what, bytes, at_,
                 file_.size() - at_);
        if (bytes > header_limit - at_)
            fail(Exit::data, "{}: {}: {} bytes at byte {}, a header has at most {}", file_.path(), what, bytes, at_,
                 header_limit);
        const size_t begin = at_;
        at_ += bytes;
        if (at_ > header_.size()) {  // read ahead: as much again as there is
            const uint64_t wanted = std::max<uint64_t>({at_, 2 * header_.size(), uint64_t{1} << 16});
            const size_t old = header_.size();
            header_.resize(std::min({wanted, file_.size(), header_limit}));
            file_.read_at(old, header_.data() + old, header_.size() - old);
        }
        return begin;
    }

    template <typename T>
    T number(std::string_view what) {
        const size_t begin = take(sizeof(T), what);
        T value;
        std::memcpy(&value, header_.data() + begin, sizeof value);
        return value;
    }

    std::pair<uint64_t, uint64_t> frame() {
        const size_t magic = take(4, "the magic number");
        refuse_stand_in(file_.path(), header_);
        if (header_.substr(magic, 4) != "GGUF") fail(Exit::data, "{}: does not begin with 'GGUF'", file_.path());
        const auto version = number<uint32_t>("the version");
        if (version == 0x02000000u || version == 0x03000000u)
            fail(Exit::data, "{}: a big-endian file, expected a little-endian one", file_.path());
        if (version != 2 && version != 3)
            fail(Exit::data, "{}: version {} of GGUF, expected 2 or 3", file_.path(), version);
        const auto tensors = number<uint64_t>("the number of tensors"), pairs = number<uint64_t>("the number of pairs");
        if (tensors > tensor_limit)
            fail(Exit::data, "{}: {} tensors, expected at most {}", file_.path(), tensors, tensor_limit);
        if (pairs > pair_limit) fail(Exit::data, "{}: {} pairs, expected at most {}", file_.path(), pairs, pair_limit);
        return {tensors, pairs};
    }

    // A key or the name of a tensor.
    std::string_view name(std::string_view what) {
        const auto length = number<uint64_t>(what);
        const auto begin = take(length, what);
        const std::string_view text(header_.data() + begin, length);
        const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
        if (text.empty() || text.size() > name_limit || std::ranges::any_of(text, control))
            fail(Exit::data, "{}: {} of {} bytes, expected 1 to {} without control bytes", file_.path(), what, length,
                 name_limit);
        return text;
    }

    GgufKind kind(const std::string& where) {
        const auto id = number<uint32_t>(where);
        if (id >= gguf_kinds) fail(Exit::data, "{}: {}: unknown type {}", file_.path(), where, id);
        return static_cast<GgufKind>(id);
    }

    GgufPair pair() {
        const std::string key(name("a key"));
        const std::string where = fmt::format("key '{}'", key);
        GgufPair p{at_ - key.size(), at_, 0, 0, {}};
        p.value.kind = kind(where);
        if (p.value.kind == GgufKind::array) {
            p.value.array = true;
            p.value.kind = kind(where);
            if (p.value.kind == GgufKind::array)
                fail(Exit::data, "{}: {}: an array of arrays is not supported", file_.path(), where);
            p.value.count = number<uint64_t>(where);
            if (p.value.count > element_limit)
                fail(Exit::data, "{}: {}: an array of {} elements, expected at most {}", file_.path(), where,
                     p.value.count, element_limit);
        }
        p.begin = at_;
        values(p.value, where);
        p.end = at_;
        return p;
    }

    // Passes over the elements of a value and checks them.
    void values(const GgufValue& value, const std::string& where) {
        if (value.kind == GgufKind::string) {
            for (uint64_t i = 0; i < value.count; ++i) take(number<uint64_t>(where), where);
            return;
        }
        uint64_t bytes = 0;
        if (__builtin_mul_overflow(bytes_of(value.kind), value.count, &bytes))
            fail(Exit::data, "{}: {}: {} elements of {} bytes are too many", file_.path(), where, value.count,
                 bytes_of(value.kind));
        const size_t begin = take(bytes, where);
        if (value.kind != GgufKind::boolean) return;
        for (const char c : std::string_view(header_).substr(begin, bytes))
            if (c != 0 && c != 1)
                fail(Exit::data, "{}: {}: a bool is {}, expected 0 or 1", file_.path(), where,
                     static_cast<unsigned char>(c));
    }

    TensorInfo tensor() {
        TensorInfo info{std::string(name("a tensor name")), "", true, DType::f32, {}, file_.path(), 0, 0};
        const std::string where = fmt::format("{}: tensor '{}'", file_.path(), info.name);
        const auto rank = number<uint32_t>(where);
        if (rank > rank_limit) fail(Exit::data, "{}: {} dimensions, expected at most {}", where, rank, rank_limit);
        for (uint32_t i = 0; i < rank; ++i) {
            const auto size = number<uint64_t>(where);
            if (size > static_cast<uint64_t>(INT64_MAX))
                fail(Exit::data, "{}: a dimension of {}, expected at most 2^63 - 1", where, size);
            info.shape.insert(info.shape.begin(), static_cast<int64_t>(size));
        }
        const auto id = number<uint32_t>(where);
        const GgufType* type = find_gguf_type(id);
        if (!type) fail(Exit::data, "{}: unknown type {}", where, id);
        info.stored = type->name;
        info.readable = type->readable();
        info.dtype = type->dtype;
        info.begin = number<uint64_t>(where);
        const uint64_t bytes = bytes_of_tensor(info, *type, where);
        if (__builtin_add_overflow(info.begin, bytes, &info.end))
            fail(Exit::data, "{}: {} bytes at byte {} of the data are too many", where, bytes, info.begin);
        return info;
    }

    static uint64_t bytes_of_tensor(const TensorInfo& info, const GgufType& type, const std::string& where) {
        int64_t elements = 1;
        for (const int64_t n : info.shape)
            if (__builtin_mul_overflow(elements, n, &elements))
                fail(Exit::data, "{}: shape {} is too large", where, shape_text(info.shape));
        const int64_t row = info.shape.empty() ? 1 : info.shape.back();
        if (row % type.block != 0)
            fail(Exit::data, "{}: rows of {} elements, {} needs a multiple of {}", where, row, type.name, type.block);
        uint64_t bytes = 0;
        if (__builtin_mul_overflow(static_cast<uint64_t>(elements) / type.block, uint64_t{type.bytes}, &bytes))
            fail(Exit::data, "{}: shape {} is too large", where, shape_text(info.shape));
        return bytes;
    }

    uint64_t alignment(const GgufMetadata& metadata) const {
        const int64_t value = metadata.integer("general.alignment").value_or(32);
        const auto alignment = static_cast<uint64_t>(value);
        if (value < 1 || !std::has_single_bit(alignment) || alignment > alignment_limit)
            fail(Exit::data, "{}: general.alignment is {}, expected a power of two of at most {}", file_.path(), value,
                 alignment_limit);
        return alignment;
    }

    // Sorts the tensors by their data and makes their spans absolute. Each tensor must begin at the next multiple of
    // the alignment after the previous one; after the last one the file may have padding.
    void place(std::span<TensorInfo> tensors, uint64_t alignment) const {
        if (tensors.empty()) return;
        const auto padded = [&](uint64_t at) { return (at + alignment - 1) / alignment * alignment; };
        const uint64_t data_begin = padded(at_);
        const uint64_t data_bytes = file_.size() < data_begin ? 0 : file_.size() - data_begin;
        std::ranges::stable_sort(tensors, [](const auto& a, const auto& b) {
            return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
        });
        uint64_t next = 0;
        for (TensorInfo& info : tensors) {
            if (info.begin != padded(next))
                fail(Exit::data, "{}: tensor '{}' begins at byte {} of the data, expected {}: {}", file_.path(),
                     info.name, info.begin, padded(next),
                     info.begin < next ? "spans overlap" : "a hole or a wrong alignment");
            if (info.end > data_bytes)
                fail(Exit::data, "{}: tensor '{}' ends at byte {} of the data, the file has {}", file_.path(),
                     info.name, info.end, data_bytes);
            next = info.end;
        }
        if (data_bytes > padded(next))
            fail(Exit::data, "{}: the tensors span {} bytes, the file has {} of data", file_.path(), next, data_bytes);
        for (TensorInfo& info : tensors) info.begin += data_begin, info.end += data_begin;
    }

    const InputFile file_;
    std::string header_;
    size_t at_ = 0;
};

// --- Several files ---------------------------------------------------------------------------------------------------

// "name-00002-of-00003.gguf" of a shard that is numbered from 0.
std::string shard_path(const std::string& stem, int64_t number, int64_t count) {
    return fmt::format("{}-{:05}-of-{:05}.gguf", stem, number + 1, count);
}

void check_shard(const GgufMetadata& metadata, const std::string& path, int64_t number, int64_t count) {
    const auto says = [&](const char* key, int64_t expected) {
        const int64_t found = metadata.integer(key).value_or(0);
        if (found != expected) fail(Exit::data, "{}: {} is {}, expected {}", path, key, found, expected);
    };
    says("split.count", count);
    says("split.no", number);
}

// Adds the tensors of the other shards, if `path` is one of several. `first` becomes the metadata of the first shard.
void parse_shards(const std::string& path, GgufMetadata& first, std::vector<TensorInfo>& tensors) {
    const int64_t count = first.integer("split.count").value_or(1), own = first.integer("split.no").value_or(0);
    if (count <= 1) return;
    if (count > 99'999 || own < 0 || own >= count)
        fail(Exit::data, "{}: split.no is {} and split.count {}, expected a shard of at most 99999", path, own, count);
    const std::string suffix = shard_path("", own, count);
    if (!path.ends_with(suffix))
        fail(Exit::data, "{}: shard {} of {}, expected a name that ends with '{}'", path, own + 1, count, suffix);
    const std::string stem = path.substr(0, path.size() - suffix.size());
    tensors.clear();
    for (int64_t i = 0; i < count; ++i) {
        const std::string shard = shard_path(stem, i, count);
        GgufMetadata metadata;
        GgufParser(shard).parse(metadata, tensors);
        check_shard(metadata, shard, i, count);
        if (tensors.size() > tensor_limit)
            fail(Exit::data, "{}: {} tensors up to this shard, expected at most {}", shard, tensors.size(),
                 tensor_limit);
        if (i == 0) first = std::move(metadata);
    }
    const int64_t total = first.integer("split.tensors.count").value_or(std::ssize(tensors));
    if (total != std::ssize(tensors))
        fail(Exit::data, "{}: split.tensors.count is {}, the {} shards have {}", path, total, count, tensors.size());
}

}  // namespace

GgufReader::GgufReader(const std::string& path) : path_(path) {
    GgufParser(path).parse(metadata_, tensors_);
    parse_shards(path, metadata_, tensors_);
    for (size_t i = 0; i < tensors_.size(); ++i)
        if (!index_.emplace(tensors_[i].name, i).second)
            fail(Exit::data, "{}: two tensors are named '{}'", tensors_[i].file, tensors_[i].name);
}

const TensorInfo* GgufReader::find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

// --- Elements --------------------------------------------------------------------------------------------------------

namespace {

// Elements [begin, begin + count) of a tensor, decoded into `into`.
struct Piece {
    int64_t begin, count;
};
struct Decoder {
    const InputFile& file;
    const GgufType& type;
    uint64_t data;  // first byte of the tensor
    Tensor into;
    std::vector<uint8_t> stored{};
    std::vector<float> floats{};

    void run(Piece piece) {
        const int64_t blocks = piece.count / type.block;
        stored.resize(static_cast<size_t>(blocks) * type.bytes);
        file.read_at(data + static_cast<uint64_t>(piece.begin / type.block) * type.bytes, stored.data(), stored.size());
        if (into.dtype == DType::f32) return type.decode(stored.data(), blocks, into.as<float>() + piece.begin);
        floats.resize(static_cast<size_t>(piece.count));
        type.decode(stored.data(), blocks, floats.data());
        std::ranges::copy(floats, into.as<double>() + piece.begin);
    }
};

}  // namespace

void GgufReader::read(const TensorInfo& info, const Tensor& into) const {
    require(into.contiguous() && into.device == Device::cpu && into.numel() == info.numel(),
            "tensor '{}' of {} elements cannot be read into {}", info.name, info.numel(), into);
    const GgufType* type = find_gguf_type(info.stored.c_str());
    require(type, "tensor '{}' is of no GGUF file", info.name);
    const bool same = type->plain && type->dtype == into.dtype;
    const bool decoded = type->decode && (into.dtype == DType::f32 || into.dtype == DType::f64);
    if (!same && !decoded)
        fail(Exit::data, "{}: tensor '{}' is {}, which cannot be read as {}", info.file, info.name, info.stored,
             into.dtype);
    const InputFile file(info.file);
    if (same) return file.read_at(info.begin, into.data, into.bytes());

    const int64_t pieces = (info.numel() + piece_elements - 1) / piece_elements;
    std::exception_ptr failure;  // an exception must not leave the parallel region
#pragma omp parallel if (pieces > 1)
    {
        Decoder decoder{file, *type, info.begin, into};
#pragma omp for schedule(dynamic)
        for (int64_t p = 0; p < pieces; ++p) {
            const int64_t begin = p * piece_elements;
            try {
                decoder.run({begin, std::min(piece_elements, info.numel() - begin)});
            } catch (...) {
#pragma omp critical
                failure = std::current_exception();
            }
        }
    }
    if (failure) std::rethrow_exception(failure);
}

bool is_gguf_file(const std::string& path) {
    std::error_code none;
    if (!std::filesystem::is_regular_file(path, none)) return false;
    char magic[4] = {};
    InputFile(path).read(magic, sizeof magic);
    return std::memcmp(magic, "GGUF", sizeof magic) == 0 || path.ends_with(".gguf");
}

}  // namespace colonnade
