#include "data/rows/files/parquet/metadata.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "data/rows/files/parquet/thrift.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

using Field = ThriftReader::Field;

constexpr size_t tail_bytes = 8;  ///< u32 length of the footer, "PAR1"
constexpr size_t most_footer_bytes = limits::parquet_footer_bytes;
constexpr size_t most_elements = limits::parquet_schema_elements;  ///< of the schema

/// Reads a field into the integer that its id names; skips it if there is none.
void read_integers(ThriftReader& thrift, const Field& field,
                   std::initializer_list<std::pair<int64_t, int64_t*>> wanted) {
    for (const auto& [id, into] : wanted)
        if (field.id == id) {
            *into = thrift.integer(field);
            return;
        }
    thrift.skip(field);
}

class FooterReader {
  public:
    FooterReader(std::string_view bytes, const InputFile& file) : thrift_(bytes), file_(file), where_(file.path()) {}

    ParquetFooter read() {
        thrift_.fields([&](const Field& field) {
            switch (field.id) {
                case 2:
                    read_schema(field);
                    break;
                case 3:
                    footer_.rows = thrift_.integer(field);
                    break;
                case 4:
                    thrift_.list(field, [&](const Field& group) { footer_.row_groups.push_back(row_group(group)); });
                    break;
                case 8:
                    fail(Exit::data, "{}: encrypted, which is not read; write it without encryption", where_);
                default:
                    thrift_.skip(field);
            }
        });
        if (footer_.schema.leaves.empty()) damaged("no schema");
        int64_t rows = 0;
        for (const ParquetRowGroup& group : footer_.row_groups)
            if (__builtin_add_overflow(rows, group.rows, &rows)) damaged("too many rows");
        if (rows != footer_.rows)
            fail(Exit::data, "{}: damaged: {} rows in all, but {} in its row groups", where_, footer_.rows, rows);
        return std::move(footer_);
    }

  private:
    [[noreturn]] void damaged(const char* what) const { fail(Exit::data, "{}: damaged: {}", where_, what); }

    void read_schema(const Field& field) {
        if (!footer_.schema.leaves.empty()) damaged("two schemas");
        std::vector<ParquetElement> elements;
        thrift_.list(field, [&](const Field& item) {
            if (elements.size() == most_elements) damaged("a schema of more than 65536 elements");
            elements.push_back(element(item));
        });
        footer_.schema = parquet_schema(elements, where_);
    }

    ParquetElement element(const Field& item) {
        ParquetElement element;
        thrift_.structure(item, [&](const Field& field) {
            switch (field.id) {
                case 4:
                    element.name = thrift_.binary(field);
                    break;
                case 10:
                    thrift_.structure(field, [&](const Field& logical) { read_logical(element, logical); });
                    break;
                default:
                    read_integers(thrift_, field,
                                  {{1, &element.type},
                                   {3, &element.repetition},
                                   {5, &element.children},
                                   {6, &element.converted}});
            }
        });
        return element;
    }

    /// LogicalType is a union: its one field says which.
    void read_logical(ParquetElement& element, const Field& logical) {
        element.logical = logical.id;
        if (logical.id != 10) return thrift_.skip(logical);
        thrift_.structure(logical, [&](const Field& field) {
            if (field.id == 2)
                element.unsigned_int = !thrift_.boolean(field);
            else
                thrift_.skip(field);
        });
    }

    ParquetRowGroup row_group(const Field& item) {
        ParquetRowGroup group;
        thrift_.structure(item, [&](const Field& field) {
            if (field.id == 3)
                group.rows = thrift_.integer(field);
            else if (field.id == 1)
                thrift_.list(field, [&](const Field& chunk) { group.chunks.push_back(column(chunk, group)); });
            else
                thrift_.skip(field);
        });
        if (footer_.schema.leaves.empty()) damaged("row groups before the schema");
        if (group.chunks.size() != footer_.schema.leaves.size()) damaged("a row group without all columns");
        if (group.rows < 0) damaged("a negative number of rows");
        return group;
    }

    ParquetChunk column(const Field& item, const ParquetRowGroup& group) {
        if (group.chunks.size() == footer_.schema.leaves.size())
            damaged("a row group with more columns than the schema");
        const ParquetLeaf& leaf = footer_.schema.leaves[group.chunks.size()];
        ParquetChunk chunk;
        int64_t type = -1, data = -1, dictionary = 0;
        std::string path;
        thrift_.structure(item, [&](const Field& field) {
            if (field.id == 1)
                fail(Exit::data, "{}: column '{}' is in another file, which is not read", where_, leaf.path);
            if (field.id == 8) fail(Exit::data, "{}: column '{}' is encrypted, which is not read", where_, leaf.path);
            if (field.id != 3) return thrift_.skip(field);
            thrift_.structure(field, [&](const Field& meta) {
                switch (meta.id) {
                    case 3:
                        thrift_.list(meta, [&](const Field& part) {
                            path.append(path.empty() ? "" : ".").append(thrift_.binary(part));
                        });
                        break;
                    case 4:
                        chunk.codec = codec(thrift_.integer(meta), leaf);
                        break;
                    default:
                        read_integers(
                            thrift_, meta,
                            {{1, &type}, {5, &chunk.values}, {7, &chunk.bytes}, {9, &data}, {11, &dictionary}});
                }
            });
        });
        if (path != leaf.path || type != static_cast<int64_t>(leaf.type))
            fail(Exit::data, "{}: damaged: found column '{}' of type {}, the schema has '{}' of type {}", where_, path,
                 type, leaf.path, static_cast<int>(leaf.type));
        chunk.begin = dictionary > 0 && dictionary < data ? dictionary : data;
        const auto size = static_cast<int64_t>(file_.size());
        if (chunk.begin < 4 || chunk.bytes < 0 || chunk.bytes > size - chunk.begin || chunk.values < 0)
            fail(Exit::data, "{}: damaged: column '{}' is said to have {} bytes at {}, the file has {}", where_,
                 leaf.path, chunk.bytes, chunk.begin, size);
        return chunk;
    }

    ParquetCodec codec(int64_t value, const ParquetLeaf& leaf) const {
        constexpr const char* names[] = {"uncompressed", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW"};
        const auto codec = static_cast<ParquetCodec>(value);
        if (codec == ParquetCodec::uncompressed || codec == ParquetCodec::snappy || codec == ParquetCodec::gzip ||
            codec == ParquetCodec::zstd)
            return codec;
        fail(Exit::data,
             "{}: column '{}' is compressed by {}; expected SNAPPY, ZSTD, GZIP or none: "
             "pq.write_table(pq.read_table(OLD), NEW, compression='zstd')",
             where_, leaf.path, value >= 0 && value < 8 ? names[value] : fmt::format("codec {}", value));
    }

    ThriftReader thrift_;
    const InputFile& file_;
    const std::string& where_;
    ParquetFooter footer_;
};

}  // namespace

ParquetFooter read_parquet_footer(const InputFile& file) {
    const std::string& path = file.path();
    char tail[tail_bytes] = {};
    if (file.size() >= 4 + tail_bytes) file.read_at(file.size() - tail_bytes, tail, tail_bytes);
    if (std::memcmp(tail + 4, "PAR1", 4) != 0)
        fail(Exit::data, "{}: a Parquet file without its end, 'PAR1': it is incomplete", path);
    uint32_t bytes = 0;
    std::memcpy(&bytes, tail, sizeof bytes);
    if (bytes > file.size() - 4 - tail_bytes || bytes > most_footer_bytes)
        fail(Exit::data, "{}: damaged: a footer of {} bytes; the file has {}, a footer at most 64 MiB", path, bytes,
             file.size());
    std::string footer(bytes, '\0');
    file.read_at(file.size() - tail_bytes - bytes, footer.data(), bytes);
    try {
        return FooterReader(footer, file).read();
    } catch (const ThriftReader::Truncated&) {
        fail(Exit::data, "{}: damaged: the footer ends too early", path);
    } catch (const ThriftReader::Damaged&) {
        fail(Exit::data, "{}: damaged: the footer is not Thrift data of a Parquet file", path);
    }
}

ParquetPage read_parquet_page(std::string_view bytes, size_t& header_bytes) {
    ThriftReader thrift(bytes);
    ParquetPage page;
    thrift.fields([&](const Field& field) {
        switch (field.id) {
            case 4:
                page.crc = static_cast<uint32_t>(thrift.integer(field));
                break;
            case 5:
                thrift.structure(field, [&](const Field& of_data) {
                    read_integers(thrift, of_data,
                                  {{1, &page.values},
                                   {2, &page.encoding},
                                   {3, &page.definition_encoding},
                                   {4, &page.repetition_encoding}});
                });
                break;
            case 7:
                thrift.structure(field, [&](const Field& of_dictionary) {
                    read_integers(thrift, of_dictionary, {{1, &page.values}, {2, &page.encoding}});
                });
                break;
            case 8:
                thrift.structure(field, [&](const Field& of_data) {
                    if (of_data.id == 7)
                        page.compressed = thrift.boolean(of_data);
                    else
                        read_integers(thrift, of_data,
                                      {{1, &page.values},
                                       {4, &page.encoding},
                                       {5, &page.definition_bytes},
                                       {6, &page.repetition_bytes}});
                });
                break;
            default:
                read_integers(thrift, field, {{1, &page.type}, {2, &page.bytes}, {3, &page.compressed_bytes}});
        }
    });
    header_bytes = thrift.position();
    return page;
}

}  // namespace colonnade
