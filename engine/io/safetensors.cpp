#include "engine/io/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <set>
#include <span>

#include "engine/device/float16.h"
#include "engine/io/file_pieces.h"
#include "engine/io/files.h"
#include "engine/io/json.h"
#include "engine/io/limits.h"

static_assert(std::endian::native == std::endian::little,
              "safetensors data is copied between file and memory as it is");

namespace colonnade {
namespace {

constexpr size_t most_header_bytes = limits::safetensors_header_bytes;
constexpr size_t most_tensors = limits::tensors, most_name_bytes = limits::tensor_name_bytes;
constexpr size_t most_axes = limits::safetensors_dimensions;
constexpr int most_levels = limits::safetensors_depth;
constexpr size_t read_elements = size_t{1} << 18;  // that a thread reads at a time

struct StoredType {
    const char* name;
    uint64_t bits;
    bool readable;
    DType dtype;
};
constexpr StoredType stored_types[] = {
    {"F64", 64, true, DType::f64},   {"F32", 32, true, DType::f32}, {"F16", 16, true, DType::f16},
    {"BF16", 16, true, DType::bf16}, {"I64", 64, true, DType::i64}, {"I32", 32, true, DType::i32},
    {"U8", 8, true, DType::u8},      {"BOOL", 8, false, {}},        {"I8", 8, false, {}},
    {"I16", 16, false, {}},          {"U16", 16, false, {}},        {"U32", 32, false, {}},
    {"U64", 64, false, {}},          {"C64", 64, false, {}},        {"F8_E4M3", 8, false, {}},
    {"F8_E5M2", 8, false, {}},       {"F8_E8M0", 8, false, {}},     {"F6_E2M3", 6, false, {}},
    {"F6_E3M2", 6, false, {}},       {"F4", 4, false, {}},
};

const char* stored_name(DType dtype) {
    return std::ranges::find_if(stored_types, [&](const auto& t) { return t.readable && t.dtype == dtype; })->name;
}

// --- The header of one file, entry by entry --------------------------------------------------------------------------

std::string read_header(const InputFile& file) {
    uint64_t length = 0;
    if (file.size() < sizeof length)
        fail(Exit::data, "{}: {} bytes, a safetensors file has at least 8", file.path(), file.size());
    std::string head(std::min<size_t>(file.size(), 32), '\0');
    file.read_at(0, head.data(), head.size());
    refuse_stand_in(file.path(), head);
    file.read_at(0, &length, sizeof length);
    // Not 8 + length > size, because 8 + length may wrap.
    if (length > file.size() - sizeof length)
        fail(Exit::data, "{}: header of {} bytes, the file has {} after its first 8", file.path(), length,
             file.size() - sizeof length);
    if (length > most_header_bytes)
        fail(Exit::data, "{}: header of {} bytes, expected at most {}", file.path(), length, most_header_bytes);
    std::string header(length, '\0');
    file.read_at(sizeof length, header.data(), length);
    if (!header.starts_with('{')) fail(Exit::data, "{}: the header does not begin with '{{'", file.path());
    return header;
}

// An integer in [0, 2^63) in integer notation: 1e3, 1.0, -1 and larger numbers are refused.
uint64_t checked_integer(const Json& value, const std::string& where) {
    const auto* number = value.get_ptr<const Json::number_unsigned_t*>();
    if (!number || *number > static_cast<uint64_t>(INT64_MAX))
        fail(Exit::data, "{}: {:.40}, expected an integer of 0 to 2^63 - 1", where, value.dump());
    return *number;
}

const Json& checked_array(const Json& entry, const char* key, const std::string& where) {
    const auto found = entry.find(key);
    if (found == entry.end() || !found->is_array()) fail(Exit::data, "{}: no array '{}'", where, key);
    return *found;
}

const StoredType& checked_type(const Json& entry, const std::string& where) {
    const auto found = entry.find("dtype");
    if (found == entry.end() || !found->is_string()) fail(Exit::data, "{}: no string 'dtype'", where);
    const auto& name = found->get_ref<const std::string&>();
    const auto type = std::ranges::find_if(stored_types, [&](const auto& t) { return name == t.name; });
    if (type == std::end(stored_types)) fail(Exit::data, "{}: unknown dtype '{:.40}'", where, name);
    return *type;
}

void check_name(const std::string& name, const std::string& path) {
    const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
    if (name.empty() || name.size() > most_name_bytes || std::ranges::any_of(name, control))
        fail(Exit::data, "{}: a tensor name of {} bytes, expected 1 to {} without control bytes", path, name.size(),
             most_name_bytes);
}

// One entry; its span is counted from the first byte of data.
TensorInfo parse_entry(const std::string& name, const Json& entry, const std::string& path) {
    check_name(name, path);
    const std::string where = fmt::format("{}: tensor '{}'", path, name);
    if (!entry.is_object()) fail(Exit::data, "{}: not an object", where);
    const StoredType& type = checked_type(entry, where);
    TensorInfo info{name, type.name, type.readable, type.dtype, {}, path, 0, 0};

    const Json& shape = checked_array(entry, "shape", where);
    if (shape.size() > most_axes)
        fail(Exit::data, "{}: {} dimensions, expected at most {}", where, shape.size(), most_axes);
    uint64_t bits = type.bits;
    for (const Json& size : shape) {
        const uint64_t n = checked_integer(size, where + ": shape");
        if (__builtin_mul_overflow(bits, n, &bits)) fail(Exit::data, "{}: shape {} is too large", where, shape.dump());
        info.shape.push_back(static_cast<int64_t>(n));
    }
    if (bits % 8 != 0) fail(Exit::data, "{}: {} bits, not a whole number of bytes", where, bits);

    const Json& offsets = checked_array(entry, "data_offsets", where);
    if (offsets.size() != 2) fail(Exit::data, "{}: {} data_offsets, expected 2", where, offsets.size());
    info.begin = checked_integer(offsets[0], where + ": data_offsets");
    info.end = checked_integer(offsets[1], where + ": data_offsets");
    if (info.end < info.begin || info.end - info.begin != bits / 8)
        fail(Exit::data, "{}: data_offsets {} do not span the {} bytes of {} {}", where, offsets.dump(), bits / 8,
             type.name, shape.dump());
    return info;
}

void parse_metadata(const Json& metadata, const std::string& path, std::map<std::string, std::string>& into) {
    if (!metadata.is_object()) fail(Exit::data, "{}: __metadata__ is not an object", path);
    for (const auto& [key, value] : metadata.items()) {
        if (!value.is_string()) fail(Exit::data, "{}: __metadata__ '{:.100}' is not a string", path, key);
        into[key] = value.get<std::string>();
    }
}

// Sorts the tensors by their data. Each span must begin at the end of the previous one, and the last must end with the
// file.
void check_spans(std::vector<TensorInfo>& tensors, uint64_t data_begin, const InputFile& file) {
    std::ranges::stable_sort(
        tensors, [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
    uint64_t next = 0;
    for (TensorInfo& info : tensors) {
        if (info.begin != next)
            fail(Exit::data, "{}: tensor '{}' begins at byte {} of the data, expected {}: {}", file.path(), info.name,
                 info.begin, next, info.begin < next ? "spans overlap" : "a hole between spans");
        next = info.end;
    }
    if (next != file.size() - data_begin)
        fail(Exit::data, "{}: the tensors span {} bytes, the file has {} of data", file.path(), next,
             file.size() - data_begin);
    for (TensorInfo& info : tensors) info.begin += data_begin, info.end += data_begin;
}

std::vector<TensorInfo> parse_file(const std::string& path, std::map<std::string, std::string>& metadata) {
    const InputFile file(path);
    const std::string header = read_header(file);
    const Json entries = parse_json(header, path + ": header", {most_header_bytes, most_levels});
    if (entries.size() > most_tensors)
        fail(Exit::data, "{}: {} tensors, expected at most {}", path, entries.size(), most_tensors);
    std::vector<TensorInfo> tensors;
    for (const auto& [name, entry] : entries.items()) {
        if (name == "__metadata__")
            parse_metadata(entry, path, metadata);
        else
            tensors.push_back(parse_entry(name, entry, path));
    }
    check_spans(tensors, sizeof(uint64_t) + header.size(), file);
    return tensors;
}

// --- Sharded folders -------------------------------------------------------------------------------------------------

// Map from tensor to shard, from model.safetensors.index.json.
std::map<std::string, std::string> parse_index(const std::string& path) {
    const Json index =
        read_json_file(path, {.bytes = limits::safetensors_index_bytes, .depth = limits::safetensors_depth});
    const auto found = index.find("weight_map");
    if (found == index.end() || !found->is_object()) fail(Exit::data, "{}: no object 'weight_map'", path);
    std::map<std::string, std::string> shard_of;
    for (const auto& [tensor, shard] : found->items()) {
        const auto* name = shard.get_ptr<const std::string*>();
        if (!name || name->empty() || *name == "." || *name == ".." || name->find_first_of("/\\") != name->npos)
            fail(Exit::data, "{}: tensor '{:.100}' in shard {:.100}, expected a plain file name", path, tensor,
                 shard.dump());
        shard_of[tensor] = *name;
    }
    return shard_of;
}

std::vector<TensorInfo> parse_shards(const std::string& folder, const std::string& index_path,
                                     std::map<std::string, std::string>& metadata) {
    const std::map<std::string, std::string> shard_of = parse_index(index_path);
    std::set<std::string> shards, seen;
    for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
    std::vector<TensorInfo> all;
    for (const std::string& shard : shards) {
        for (TensorInfo& info : parse_file(folder + "/" + shard, metadata)) {
            const auto listed = shard_of.find(info.name);
            if (listed == shard_of.end() || listed->second != shard)
                fail(Exit::data, "{}: tensor '{}' is in {}, listed {}", index_path, info.name, shard,
                     listed == shard_of.end() ? "nowhere" : "in " + listed->second);
            seen.insert(info.name);
            all.push_back(std::move(info));
        }
    }
    for (const auto& [tensor, shard] : shard_of)
        if (!seen.contains(tensor)) fail(Exit::data, "{}: tensor '{:.100}' is not in {}", index_path, tensor, shard);
    return all;
}

// --- Elements --------------------------------------------------------------------------------------------------------

template <typename To>
void widen(DType from, const void* source, To* to, size_t n) {
    const auto each = [&](auto* elements, auto convert) {
        for (size_t i = 0; i < n; ++i) to[i] = static_cast<To>(convert(elements[i]));
    };
    const auto same = [](auto x) { return x; };
    switch (from) {
        case DType::f16:
            return each(static_cast<const uint16_t*>(source), float_from_f16);
        case DType::bf16:
            return each(static_cast<const uint16_t*>(source), float_from_bf16);
        case DType::f32:
            return each(static_cast<const float*>(source), same);
        default:
            return each(static_cast<const double*>(source), same);
    }
}

// Elements [begin, begin + n) of a float tensor as `stored`, into `buffer`.
void narrow(const Tensor& from, size_t begin, size_t n, DType stored, std::vector<char>& buffer) {
    buffer.resize(n * bytes_of(stored));
    if (from.dtype == DType::f64) {
        std::copy_n(from.as<double>() + begin, n, reinterpret_cast<float*>(buffer.data()));
        return;
    }
    const float* source = from.as<float>() + begin;
    auto* to = reinterpret_cast<uint16_t*>(buffer.data());
    if (stored == DType::f16)
        std::transform(source, source + n, to, f16_from_float);
    else
        std::transform(source, source + n, to, [](float x) { return split_float(std::bit_cast<uint32_t>(x)).top; });
}

bool is_float(DType dtype) {
    return dtype != DType::u8 && dtype != DType::i16 && dtype != DType::i32 && dtype != DType::i64;
}

DType dtype_in_file(const NamedTensor& named, DType stored) {
    const DType own = named.tensor.dtype;
    if (own != DType::f32 && own != DType::f64) return own;
    const bool known = own == DType::f32 ? stored == DType::f32 || stored == DType::f16 || stored == DType::bf16
                                         : stored == DType::f32;
    require(known, "tensor '{}' of {} cannot be stored as {}", named.name, own, stored);
    return stored;
}

size_t bytes_in_file(const NamedTensor& named, DType stored) {
    return static_cast<size_t>(named.tensor.numel()) * bytes_of(dtype_in_file(named, stored));
}

/// Elements of a tensor that one thread writes at a time, and their place in the file.
struct Part {
    const NamedTensor* named;
    DType stored;
    size_t begin, count;
    uint64_t offset;
};

void cut(std::vector<Part>& parts, Part whole) {
    constexpr size_t most = size_t{1} << 22;
    const size_t end = whole.begin + whole.count;
    while (whole.begin < end) {
        whole.count = std::min(most, end - whole.begin);
        parts.push_back(whole);
        whole.begin += whole.count;
        whole.offset += whole.count * bytes_of(whole.stored);
    }
}

void write_part(const OverwrittenFile& file, const Part& part) {
    const Tensor& tensor = part.named->tensor;
    const size_t bytes = part.count * bytes_of(part.stored);
    if (tensor.dtype == part.stored)
        return file.write_at(part.offset, static_cast<const char*>(tensor.data) + part.begin * bytes_of(part.stored),
                             bytes);
    std::vector<char> buffer;
    narrow(tensor, part.begin, part.count, part.stored, buffer);
    file.write_at(part.offset, buffer.data(), bytes);
}

void check_tensors(std::span<const NamedTensor> tensors) {
    for (const NamedTensor& t : tensors) {
        const int64_t count = std::accumulate(t.shape.begin(), t.shape.end(), int64_t{1}, std::multiplies<>());
        require(t.tensor.contiguous() && t.tensor.device == Device::cpu && count == t.tensor.numel(),
                "tensor '{}': {} is not {} contiguous elements on the CPU", t.name, t.tensor, count);
    }
}

void write_file(const std::string& path, std::span<const NamedTensor> named, DType stored) {
    std::vector<HostCopy> loaded;
    std::vector<NamedTensor> tensors(named.begin(), named.end());
    for (NamedTensor& t : tensors) t.tensor = loaded.emplace_back(t.load()).tensor();
    // Wide elements first, so that each tensor is aligned to its element size.
    std::vector<const NamedTensor*> order;
    for (const NamedTensor& t : tensors) order.push_back(&t);
    std::ranges::stable_sort(order, std::greater<>(),
                             [&](const auto* t) { return bytes_of(dtype_in_file(*t, stored)); });

    Json header = {{"__metadata__", {{"format", "pt"}}}};
    size_t offset = 0;
    for (const NamedTensor* t : order) {
        const size_t end = offset + bytes_in_file(*t, stored);
        const auto added = header.emplace(t->name, Json{{"dtype", stored_name(dtype_in_file(*t, stored))},
                                                        {"shape", t->shape},
                                                        {"data_offsets", {offset, end}}});
        require(added.second, "two tensors are named '{}'", t->name);
        offset = end;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t length = text.size();

    std::vector<Part> parts;
    uint64_t at = sizeof length + length;
    for (const NamedTensor* t : order) {
        const DType dtype = dtype_in_file(*t, stored);
        cut(parts, {t, dtype, 0, static_cast<size_t>(t->tensor.numel()), at});
        at += bytes_in_file(*t, stored);
    }
    OutputFile head(path);
    head.write(&length, sizeof length);
    head.write(text);
    head.close();
    try {
        OverwrittenFile file(path);
        in_parallel(parts.size(), all_cores(), [&](size_t i) { write_part(file, parts[i]); });
        file.close();
    } catch (...) {
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
        throw;
    }
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

int64_t TensorInfo::numel() const {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

SafetensorsReader::SafetensorsReader(const std::string& path) {
    const std::string single = path + "/model.safetensors", index = single + ".index.json";
    std::error_code none;  // ignored: opening the file reports the reason
    if (!std::filesystem::is_directory(path, none))
        tensors_ = parse_file(path, metadata_);
    else if (std::filesystem::exists(single, none))
        tensors_ = parse_file(single, metadata_);
    else if (std::filesystem::exists(index, none))
        tensors_ = parse_shards(path, index, metadata_);
    else
        fail(Exit::data, "{}: neither model.safetensors nor model.safetensors.index.json in this folder", path);
    for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
}

const TensorInfo* SafetensorsReader::find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

void SafetensorsReader::read(const TensorInfo& info, const Tensor& into) const {
    require(into.contiguous() && into.device == Device::cpu && into.numel() == info.numel(),
            "tensor '{}' of {} elements cannot be read into {}", info.name, info.numel(), into);
    const bool same = info.readable && info.dtype == into.dtype;
    const bool widened =
        info.readable && is_float(info.dtype) && (into.dtype == DType::f32 || into.dtype == DType::f64);
    if (!same && !widened)
        fail(Exit::data, "{}: tensor '{}' is {}, which cannot be read as {}", info.file, info.name, info.stored,
             into.dtype);
    const InputFile file(info.file);
    const size_t count = static_cast<size_t>(info.numel()), width = bytes_of(info.dtype);
    in_parallel((count + read_elements - 1) / read_elements, all_cores(), [&](size_t i) {
        const size_t begin = i * read_elements, n = std::min(read_elements, count - begin);
        const uint64_t at = info.begin + begin * width;
        if (same) return file.read_at(at, static_cast<char*>(into.data) + begin * width, n * width);
        const auto buffer = std::make_unique_for_overwrite<char[]>(n * width);
        file.read_at(at, buffer.get(), n * width);
        dispatch_float(into.dtype, [&]<typename T>() { widen(info.dtype, buffer.get(), into.as<T>() + begin, n); });
    });
}

void write_safetensors_file(const std::string& path, const std::vector<NamedTensor>& tensors, DType stored) {
    check_tensors(tensors);
    write_file(path, tensors, stored);
}

void write_safetensors(const std::string& folder, const std::vector<NamedTensor>& tensors, DType stored,
                       size_t shard_bytes) {
    check_tensors(tensors);
    std::vector<size_t> first{0};  // first tensor of each shard
    size_t filled = 0, total = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
        const size_t bytes = bytes_in_file(tensors[i], stored);
        if (filled > 0 && bytes > shard_bytes - filled) first.push_back(i), filled = 0;
        filled = std::min(filled + bytes, shard_bytes);
        total += bytes;
    }
    const size_t shards = first.size();
    if (shards == 1) return write_file(folder + "/model.safetensors", tensors, stored);

    first.push_back(tensors.size());
    std::map<std::string, std::string> weight_map;
    for (size_t s = 0; s < shards; ++s) {
        const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards);
        const std::span<const NamedTensor> shard(tensors.data() + first[s], first[s + 1] - first[s]);
        write_file(folder + "/" + name, shard, stored);
        for (const NamedTensor& t : shard)
            require(weight_map.emplace(t.name, name).second, "two tensors are named '{}'", t.name);
    }
    const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
    OutputFile file(folder + "/model.safetensors.index.json");
    file.write(index.dump(2) + "\n");
    file.close();
}

}  // namespace colonnade
