#include "data/rows/files/parquet/column.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "data/rows/files/inflater.h"
#include "data/rows/files/json_text.h"
#include "data/rows/files/parquet/thrift.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr size_t most_open_bytes = limits::parquet_open_bytes;
constexpr int64_t plain_page_bytes = limits::parquet_plain_page_bytes, most_compression = limits::parquet_compression;
constexpr int64_t most_page_values = limits::parquet_page_values;
constexpr size_t first_header_bytes = 4096, most_header_bytes = limits::parquet_page_header_bytes;

}  // namespace

ParquetColumn::ParquetColumn(const Source& source)
    : source_(source),
      next_byte_(source.chunk.begin),
      bytes_left_(source.chunk.bytes),
      values_left_(source.chunk.values) {
    load_page();
}

ParquetColumn::~ParquetColumn() {
    source_.open_bytes -= accounted_;
}

void ParquetColumn::damaged(const std::string& what) const {
    fail(Exit::data, "{}: damaged: column '{}': {}", source_.file.path(), source_.leaf.path, what);
}

/// Counts the memory that the column needs. Buffers keep the size of their largest page, so the count never falls.
void ParquetColumn::account(size_t bytes) {
    if (bytes <= accounted_) return;
    source_.open_bytes += bytes - accounted_;
    accounted_ = bytes;
    if (source_.open_bytes > most_open_bytes)
        fail(Exit::data,
             "{}: reading it needs more than 1 GiB of memory: its pages are too large; write it with smaller row "
             "groups: pq.write_table(pq.read_table(OLD), NEW, row_group_size=1000)",
             source_.file.path());
}

void ParquetColumn::write(std::string& json) const {
    const ParquetLeaf& leaf = source_.leaf;
    if (leaf.type == ParquetType::bytes) return write_json_text(values_.texts[value_], json);
    const uint64_t bits = values_.bits[value_];
    const auto out = std::back_inserter(json);
    if (leaf.type == ParquetType::boolean)
        json += bits ? "true" : "false";
    else if (leaf.type == ParquetType::real32 || leaf.type == ParquetType::real64)
        write_json_real(std::bit_cast<double>(bits), json);
    else if (leaf.unsigned_int)
        fmt::format_to(out, "{}", leaf.type == ParquetType::int32 ? static_cast<uint32_t>(bits) : bits);
    else
        fmt::format_to(out, "{}", static_cast<int64_t>(bits));
}

/// Goes to the next page with values, or to the end.
void ParquetColumn::load_page() {
    at_ = value_ = levels_ = 0;
    definitions_.clear();
    repetitions_.clear();
    while (levels_ == 0 && values_left_ > 0) {
        const ParquetPage page = next_page();
        if (page.type == ParquetPage::dictionary) {
            read_dictionary(page);
            continue;
        }
        if (page.type != ParquetPage::data && page.type != ParquetPage::data_v2) {  // an index: no values
            next_byte_ += page.compressed_bytes;
            bytes_left_ -= page.compressed_bytes;
            continue;
        }
        if (page.values < 0 || page.values > values_left_) damaged("more values in its pages than it is said to have");
        if (page.values > most_page_values) damaged(fmt::format("{} values in one page", page.values));
        read_page_bytes(page, page_);
        std::string_view bytes = page_;
        read_levels(page, bytes);
        read_values(page, bytes);
        levels_ = static_cast<size_t>(page.values);
        values_left_ -= page.values;
    }
}

/// Reads the header of the next page and leaves next_byte_ behind it.
ParquetPage ParquetColumn::next_page() {
    for (size_t size = first_header_bytes;; size *= 8) {
        const auto all = static_cast<size_t>(bytes_left_);
        const size_t window = std::min(size, all);
        if (window == 0) damaged(fmt::format("its pages end {} values too early", values_left_));
        compressed_.resize(window);
        source_.file.read_at(static_cast<uint64_t>(next_byte_), compressed_.data(), window);
        try {
            size_t header = 0;
            const ParquetPage page = read_parquet_page(compressed_, header);
            next_byte_ += static_cast<int64_t>(header);
            bytes_left_ -= static_cast<int64_t>(header);
            if (page.compressed_bytes < 0 || page.compressed_bytes > bytes_left_)
                damaged(fmt::format("a page of {} bytes at byte {}, the column has {} left", page.compressed_bytes,
                                    next_byte_, bytes_left_));
            if (page.bytes < 0 || page.bytes > static_cast<int64_t>(parquet_page_limit))
                damaged(fmt::format("a page of {} bytes, expected at most 512 MiB", page.bytes));
            if (page.bytes > plain_page_bytes && page.bytes / most_compression > page.compressed_bytes)
                damaged(fmt::format("a page of {} bytes that is compressed to {}", page.bytes, page.compressed_bytes));
            return page;
        } catch (const ThriftReader::Truncated&) {
            if (window == all || size >= most_header_bytes) damaged("the header of a page ends too early");
        } catch (const ThriftReader::Damaged&) {
            damaged(fmt::format("no page begins at byte {}", next_byte_));
        }
    }
}

/// Memory of the dictionary and of a page: its bytes, and 18 for the value and the levels of an entry.
size_t ParquetColumn::memory_of(const ParquetPage& page) const {
    return dictionary_page_.size() + 16 * dictionary_.size() + static_cast<size_t>(page.compressed_bytes) +
           static_cast<size_t>(page.bytes) + 18 * static_cast<size_t>(std::max<int64_t>(page.values, 0));
}

/// Reads a page, checks its sum, and decompresses it.
void ParquetColumn::read_page_bytes(const ParquetPage& page, std::string& into) {
    const auto size = static_cast<size_t>(page.compressed_bytes), bytes = static_cast<size_t>(page.bytes);
    account(memory_of(page));
    compressed_.resize(size);
    source_.file.read_at(static_cast<uint64_t>(next_byte_), compressed_.data(), size);
    next_byte_ += page.compressed_bytes;
    bytes_left_ -= page.compressed_bytes;
    if (page.crc && *page.crc != crc32_of(compressed_)) damaged("the checksum of a page is wrong");
    // Of version 2, the levels in front are not compressed.
    const bool v2 = page.type == ParquetPage::data_v2;
    size_t levels = 0;
    if (v2) {
        if (page.definition_bytes < 0 || page.repetition_bytes < 0 || page.definition_bytes > page.bytes ||
            page.repetition_bytes > page.bytes - page.definition_bytes)
            damaged("the levels of a page are longer than the page");
        levels = static_cast<size_t>(page.definition_bytes + page.repetition_bytes);
    }
    if (levels > std::min(size, bytes)) damaged("the levels of a page are longer than the page");
    if (source_.chunk.codec == ParquetCodec::uncompressed || (v2 && !page.compressed)) {
        if (size != bytes) damaged(fmt::format("a page of {} bytes, its header says {}", size, bytes));
        into.swap(compressed_);
        return;
    }
    into.resize(bytes);
    std::memcpy(into.data(), compressed_.data(), levels);
    decompress(std::string_view(compressed_).substr(levels), into, levels);
}

void ParquetColumn::decompress(std::string_view in, std::string& out, size_t begin) const {
    const size_t bytes = out.size() - begin;
    if (in.empty() && bytes == 0) return;
    const ParquetCodec codec = source_.chunk.codec;
    const auto inflate = codec == ParquetCodec::snappy ? inflate_snappy
                         : codec == ParquetCodec::gzip ? inflate_gzip
                                                       : inflate_zstd;
    if (!inflate(in, out.data() + begin, bytes)) damaged("a page that does not decompress to its size");
}

void ParquetColumn::read_dictionary(const ParquetPage& page) {
    if (has_dictionary_) damaged("two dictionaries");
    if (page.values < 0 || page.values > most_page_values) damaged("a dictionary of that many values");
    read_page_bytes(page, dictionary_page_);
    const auto encoding = static_cast<ParquetEncoding>(page.encoding);
    if ((encoding != ParquetEncoding::plain && encoding != ParquetEncoding::plain_dictionary) ||
        !read_parquet_values(ParquetEncoding::plain, source_.leaf.type, dictionary_page_,
                             static_cast<size_t>(page.values), dictionary_))
        damaged("a dictionary that does not hold its values");
    has_dictionary_ = true;
}

/// Takes the levels of a page of version 1 off its front: u32 length, then runs.
std::string_view ParquetColumn::level_bytes(int64_t encoding, std::string_view& bytes) const {
    if (encoding != static_cast<int64_t>(ParquetEncoding::rle))
        fail(Exit::data, "{}: column '{}': levels in the encoding {}; expected RLE", source_.file.path(),
             source_.leaf.path, parquet_encoding_name(encoding));
    uint32_t size = 0;
    if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
    if (bytes.size() < sizeof size || size > bytes.size() - sizeof size)
        damaged("the levels of a page are longer than the page");
    const std::string_view levels = bytes.substr(sizeof size, size);
    bytes.remove_prefix(sizeof size + size);
    return levels;
}

void ParquetColumn::read_levels(const ParquetPage& page, std::string_view& bytes) {
    const auto read = [&](int most, std::string_view levels, std::vector<uint8_t>& out) {
        const bool fits =
            read_rle(levels, std::bit_width(static_cast<unsigned>(most)), static_cast<size_t>(page.values), out);
        if (!fits || std::any_of(out.begin(), out.end(), [&](uint8_t level) { return level > most; }))
            damaged("levels that do not fit its values");
    };
    const auto take = [&](int64_t v2_bytes, int64_t encoding) {
        if (page.type == ParquetPage::data) return level_bytes(encoding, bytes);
        const std::string_view levels = bytes.substr(0, static_cast<size_t>(v2_bytes));
        bytes.remove_prefix(levels.size());
        return levels;
    };
    const ParquetLeaf& leaf = source_.leaf;
    if (leaf.repetition > 0)
        read(leaf.repetition, take(page.repetition_bytes, page.repetition_encoding), repetitions_);
    else if (page.type == ParquetPage::data_v2)
        bytes.remove_prefix(static_cast<size_t>(page.repetition_bytes));
    if (leaf.definition > 0)
        read(leaf.definition, take(page.definition_bytes, page.definition_encoding), definitions_);
    else if (page.type == ParquetPage::data_v2)
        bytes.remove_prefix(static_cast<size_t>(page.definition_bytes));
}

void ParquetColumn::read_values(const ParquetPage& page, std::string_view bytes) {
    const int full = source_.leaf.definition;
    const auto count = static_cast<size_t>(
        definitions_.empty() ? page.values : std::count(definitions_.begin(), definitions_.end(), full));
    const auto encoding = static_cast<ParquetEncoding>(page.encoding);
    if (encoding != ParquetEncoding::rle_dictionary && encoding != ParquetEncoding::plain_dictionary) {
        if (page.encoding < 0 || page.encoding > 9 || encoding == ParquetEncoding::bit_packed)
            fail(Exit::data, "{}: column '{}': encoding {} is not read", source_.file.path(), source_.leaf.path,
                 parquet_encoding_name(page.encoding));
        if (!read_parquet_values(encoding, source_.leaf.type, bytes, count, values_))
            damaged(fmt::format("a page that does not hold its {} values in encoding {}", count,
                                parquet_encoding_name(page.encoding)));
        account(memory_of(page) + values_.made.size());
        return;
    }
    if (!has_dictionary_) damaged("values of a dictionary that is missing");
    values_.bits.clear();
    values_.texts.clear();
    std::vector<uint32_t> entries;
    const int width = bytes.empty() ? 0 : static_cast<uint8_t>(bytes.front());
    if (!read_rle(bytes.substr(bytes.empty() ? 0 : 1), width, count, entries)) damaged("a page without its values");
    const bool text = source_.leaf.type == ParquetType::bytes;
    const size_t size = text ? dictionary_.texts.size() : dictionary_.bits.size();
    if (std::any_of(entries.begin(), entries.end(), [&](uint32_t entry) { return entry >= size; }))
        damaged(fmt::format("a value past the {} of its dictionary", size));
    const auto gather = [&](const auto& from, auto& into) {
        into.reserve(count);
        for (const uint32_t entry : entries) into.push_back(from[entry]);
    };
    text ? gather(dictionary_.texts, values_.texts) : gather(dictionary_.bits, values_.bits);
}

}  // namespace colonnade
