#include "train/model/safetensors_weights.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "engine/device/float16.h"
#include "engine/io/file_pieces.h"
#include "engine/io/files.h"
#include "engine/io/json_keys.h"
#include "layers/quantised_matrix.h"

namespace colonnade {
namespace {

constexpr std::string_view state_marker = ".quant_state.bitsandbytes__", scale_suffix = "_scale_inv";
constexpr const char* parts_of_four_bits[] = {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"};

HostCopy bytes_of(const TensorInfo& info) {
    HostCopy bytes = HostCopy::blank(DType::u8, static_cast<int64_t>(info.end - info.begin));
    read_regions(info.file, {{.begin = info.begin, .data = bytes.tensor()}});
    return bytes;
}

[[noreturn]] void refuse(const TensorInfo& info, const std::string& what) {
    fail(Exit::data, "{}: tensor '{}': {}", info.file, info.name, what);
}

/// Rounds to the type that weights were quantised from.
float (*rounding_to(const std::string& dtype))(float) {
    if (dtype == "bfloat16") return [](float x) { return float_from_bf16(bf16_from_float(x)); };
    if (dtype == "float16") return [](float x) { return float_from_f16(f16_from_float(x)); };
    if (dtype == "float32") return [](float x) { return x; };
    return nullptr;
}

int64_t blocks_of(int64_t elements, int64_t block) {
    return (elements + block - 1) / block;
}

/// {rows, columns} of weight_block_size in the folder's config.json.
std::array<int64_t, 2> block_size_of(const std::string& path) {
    const std::string file = path + "/config.json";
    if (!is_folder(path) || !path_exists(file)) return {128, 128};
    const Json config = read_json_file(file);
    const Json found = config.is_object() ? config.value("quantization_config", Json()) : Json();
    const Json size = found.is_object() ? found.value("weight_block_size", Json()) : Json();
    if (size.is_null()) return {128, 128};
    const auto is_size = [](const Json& n) { return n.is_number_unsigned() && n > 0 && n < (1 << 20); };
    if (!size.is_array() || size.size() != 2 || !is_size(size[0]) || !is_size(size[1]))
        fail(Exit::data, "{}: quantization_config: weight_block_size should be two integers >= 1, found {:.60}", file,
             size.dump());
    return {size[0].get<int64_t>(), size[1].get<int64_t>()};
}

}  // namespace

std::string check_quantization(const JsonKeys& config) {
    const Json* found = config.find("quantization_config");
    if (!found) return {};
    const JsonKeys keys(*found, config.where() + ": quantization_config");
    const std::string method = keys.text("quant_method", "");
    const bool four_bits = method == "bitsandbytes" && keys.boolean("load_in_4bit", false);
    if (!four_bits && !(method == "fp8" && keys.find("weight_block_size")))
        fail(Exit::data,
             "{}: the weights are quantised in a way that is not read (quant_method '{}'); expected bitsandbytes with "
             "load_in_4bit, fp8 with weight_block_size, or weights of 16 or 32 bits",
             config.where(), method);
    return fmt::format(
        "{}: the weights are stored in {} bits; they are widened to 16 bits when they are read, and saved so. "
        "base_quantization keeps the frozen base of adapters in fewer bits",
        config.where(), four_bits ? 4 : 8);
}

SafetensorsWeights::SafetensorsWeights(const std::string& path) : file_(path) {
    std::optional<Blocks> size;
    for (const TensorInfo& info : file_.tensors()) {
        if (info.name.find(state_marker) != info.name.npos) {
            find_four_bits(info);
        } else if (info.name.ends_with(scale_suffix)) {
            if (!size) {
                const auto [rows, columns] = block_size_of(path);
                size = Blocks{rows, columns};
            }
            find_blocks(info, *size);
        }
    }
    const auto is_part = [&](const std::string& name) {
        if (name.find(state_marker) != name.npos) return true;
        for (const char* end : parts_of_four_bits)
            if (name.ends_with(end) && four_bits_.contains(name.substr(0, name.size() - std::strlen(end)))) return true;
        return name.ends_with(scale_suffix) && blocks_.contains(name.substr(0, name.size() - scale_suffix.size()));
    };
    for (const TensorInfo& info : file_.tensors()) {
        if (is_part(info.name)) continue;
        index_[info.name] = tensors_.size();
        TensorInfo& shown = tensors_.emplace_back(info);
        const auto four_bits = four_bits_.find(info.name);
        const bool in_blocks = blocks_.contains(info.name);
        if (four_bits == four_bits_.end() && !in_blocks) continue;
        if (!in_blocks) shown.shape = four_bits->second.shape;
        shown.stored = in_blocks ? "F8_E4M3 in blocks" : "4 bits";
        shown.readable = true, shown.dtype = DType::bf16;
    }
}

const TensorInfo* SafetensorsWeights::find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

/// A part of a matrix, which must be there with this type and number of elements.
void SafetensorsWeights::require_part(const std::string& name, const std::string& stored, int64_t count) const {
    const TensorInfo* found = file_.find(name);
    if (!found)
        fail(Exit::data, "{}: tensor '{}' is missing, without which a matrix in fewer bits cannot be read",
             file_.tensors().front().file, name);
    if (found->stored != stored || found->numel() != count)
        refuse(*found, fmt::format("expected {} x {}, found {} x {}", count, stored, found->numel(), found->stored));
}

void SafetensorsWeights::find_four_bits(const TensorInfo& state) {
    const std::string name = state.name.substr(0, state.name.find(state_marker));
    constexpr uint64_t most_bytes = 64 << 10;
    if (state.end - state.begin > most_bytes)
        refuse(state, fmt::format("expected JSON of {} bytes at most, found {}", most_bytes, state.end - state.begin));
    const HostCopy bytes = bytes_of(state);
    const Json json = parse_json({static_cast<const char*>(bytes.tensor().data), bytes.tensor().bytes()},
                                 fmt::format("{}: tensor '{}'", state.file, state.name));
    const JsonKeys keys(json, fmt::format("{}: tensor '{}'", state.file, state.name));
    constexpr JsonRange sizes{1, 1 << 20};
    FourBits how{
        .shape = {}, .block = keys.integer("blocksize", {}, sizes), .rounded = rounding_to(keys.text("dtype"))};
    if (!how.rounded) keys.refuse("dtype", "bfloat16, float16 or float32");
    const Json* const shape = keys.find("shape");
    if (shape && shape->is_array())
        for (const Json& n : *shape)
            if (n.is_number_unsigned() && n > 0 && n < (int64_t{1} << 31)) how.shape.push_back(n);
    if (how.shape.size() != 2 || shape->size() != 2) keys.refuse("shape", "two integers >= 1");
    const int64_t count = how.shape[0] * how.shape[1], blocks = blocks_of(count, how.block);
    const bool nested = keys.find("nested_blocksize") != nullptr;
    require_part(name, "U8", blocks_of(count, 2));
    require_part(name + ".quant_map", "F32", 16);
    require_part(name + ".absmax", nested ? "U8" : "F32", blocks);
    if (nested) {
        how.nested_block = keys.integer("nested_blocksize", {}, sizes);
        how.offset = static_cast<float>(keys.number("nested_offset", {}, {-1e30, 1e30}));
        require_part(name + ".nested_absmax", "F32", blocks_of(blocks, how.nested_block));
        require_part(name + ".nested_quant_map", "F32", 256);
    }
    four_bits_[name] = std::move(how);
}

void SafetensorsWeights::find_blocks(const TensorInfo& scales, const Blocks& size) {
    const std::string name = scales.name.substr(0, scales.name.size() - scale_suffix.size());
    const TensorInfo* const matrix = file_.find(name);
    if (!matrix || matrix->stored != "F8_E4M3" || matrix->shape.size() != 2)
        refuse(scales, fmt::format("expected a matrix '{}' in F8_E4M3 beside it", name));
    const std::vector<int64_t> expected = {blocks_of(matrix->shape[0], size.rows),
                                           blocks_of(matrix->shape[1], size.columns)};
    if (scales.shape != expected)
        refuse(scales, fmt::format("expected {} for blocks of {} x {}, found {}", shape_text(expected), size.rows,
                                   size.columns, shape_text(scales.shape)));
    blocks_[name] = size;
}

std::vector<float> SafetensorsWeights::floats(const std::string& name) const {
    const TensorInfo& info = *file_.find(name);
    std::vector<float> values(static_cast<size_t>(info.numel()));
    file_.read(info, Tensor(values.data(), DType::f32, {std::ssize(values)}));
    return values;
}

void SafetensorsWeights::read(const TensorInfo& info, const Tensor& into) const {
    if (const auto how = four_bits_.find(info.name); how != four_bits_.end())
        read_four_bits(info, how->second, into);
    else if (const auto size = blocks_.find(info.name); size != blocks_.end())
        read_blocks(info, size->second, into);
    else
        file_.read(info, into);
}

void SafetensorsWeights::read_four_bits(const TensorInfo& info, const FourBits& how, const Tensor& into) const {
    const HostCopy bytes = bytes_of(info);
    const auto* const codes = bytes.tensor().as<uint8_t>();
    const std::vector<float> map = floats(info.name + ".quant_map");
    std::vector<float> scales;
    if (how.nested_block > 0) {
        const HostCopy narrow = bytes_of(*file_.find(info.name + ".absmax"));
        const std::vector<float> nested = floats(info.name + ".nested_absmax"),
                                 numbers = floats(info.name + ".nested_quant_map");
        for (int64_t i = 0; i < narrow.tensor().numel(); ++i)
            scales.push_back(numbers[narrow.tensor().as<uint8_t>()[i]] *
                                 nested[static_cast<size_t>(i / how.nested_block)] +
                             how.offset);
    } else {
        scales = floats(info.name + ".absmax");
    }
    const int64_t count = into.numel(), blocks = std::ssize(scales);
    dispatch_float(into.dtype, [&]<typename T>() {
        T* const out = into.as<T>();
#pragma omp parallel for schedule(static)
        for (int64_t b = 0; b < blocks; ++b) {
            T values[16];  // that codes stand for in this block
            for (size_t k = 0; k < 16; ++k)
                values[k] = static_cast<T>(how.rounded(map[k] * scales[static_cast<size_t>(b)]));
            const int64_t end = std::min(count, (b + 1) * how.block);
            for (int64_t i = b * how.block; i < end; ++i) out[i] = values[codes[i / 2] >> (i % 2 ? 0 : 4) & 15];
        }
    });
}

void SafetensorsWeights::read_blocks(const TensorInfo& info, const Blocks& size, const Tensor& into) const {
    const HostCopy bytes = bytes_of(info);
    const auto* const codes = bytes.tensor().as<uint8_t>();
    const std::vector<float> scales = floats(info.name + std::string(scale_suffix));
    std::array<float, 256> values{};
    for (size_t k = 0; k < values.size(); ++k) values[k] = float_from_e4m3(static_cast<uint8_t>(k));
    const int64_t rows = info.shape[0], columns = info.shape[1], across = blocks_of(columns, size.columns);
    dispatch_float(into.dtype, [&]<typename T>() {
        T* const out = into.as<T>();
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t b = 0; b < across; ++b) {
                const float scale = scales[static_cast<size_t>(r / size.rows * across + b)];
                const int64_t begin = r * columns + b * size.columns;
                const int64_t end = std::min(begin + size.columns, (r + 1) * columns);
                for (int64_t i = begin; i < end; ++i)
                    out[i] = static_cast<T>(float_from_bf16(bf16_from_float(values[codes[i]] * scale)));
            }
    });
}

}  // namespace colonnade
