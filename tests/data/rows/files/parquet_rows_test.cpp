#include "data/rows/files/parquet/parquet_rows.h"

#include <cstdlib>

#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class ParquetFiles : public FileTest {
  protected:
    static std::vector<std::string> files(const std::string& folder, std::string_view begin) {
        std::vector<std::string> found;
        for (const auto& entry : fs::directory_iterator(folder))
            if (entry.path().extension() == ".parquet" && entry.path().filename().native().starts_with(begin))
                found.push_back(entry.path());
        std::sort(found.begin(), found.end());
        return found;
    }
    static std::string canonical(const std::string& row) {
        return parse_json(row, "row", {.non_finite = NonFinite::read}).dump();
    }
    /// Expects every file to have the rows of `lines`. Returns their number.
    static int64_t expect_rows(const std::string& lines, const std::vector<std::string>& parquet_files) {
        int64_t rows = 0;
        for (const std::string& file : parquet_files) {
            SCOPED_TRACE(file);
            const auto expected = open_rows(lines), found = open_rows(file);
            EXPECT_EQ(found->numbering(), Numbering::rows);
            const int64_t count = found->count();
            std::string expected_row, row;
            int64_t line = 0, number = 0;
            for (rows = 0; expected->next(expected_row, line); ++rows) {
                if (!found->next(row, number)) break;
                EXPECT_EQ(number, rows + 1);
                if (canonical(row) != canonical(expected_row)) {
                    ADD_FAILURE() << row << "\n  expected " << expected_row;
                    return rows;
                }
            }
            EXPECT_EQ(rows, count);
            EXPECT_FALSE(expected->next(expected_row, line));
            EXPECT_FALSE(found->next(row, number));
            EXPECT_EQ(found->progress(), 1.0);
        }
        return rows;
    }
    static void read_all(const std::string& file) {
        const auto rows = open_rows(file);
        std::string row;
        for (int64_t number = 0; rows->next(row, number);) {
        }
    }
};

TEST_F(ParquetFiles, HoldTheRowsThatPyarrowWrote) {
    const std::vector<std::string> found = files(golden_file("parquet"), "read_");
    EXPECT_EQ(found.size(), 16u);
    EXPECT_EQ(expect_rows(golden_file("parquet/rows.jsonl"), found), 40);
}

TEST_F(ParquetFiles, LargeOnesHoldTheirRows) {
    const char* folder = std::getenv("COLONNADE_PARQUET_FOLDER");
    if (!folder) GTEST_SKIP() << "COLONNADE_PARQUET_FOLDER is not set (tests/golden/make_parquet_golden.py --large)";
    EXPECT_GT(expect_rows(std::string(folder) + "/rows.jsonl", files(folder, "")), 0);
}

TEST_F(ParquetFiles, KeepEveryKindOfValue) {
    const auto rows = open_rows(golden_file("parquet/read_v2_delta_zstd.parquet"));
    std::string row, all;
    for (int64_t number = 0; rows->next(row, number);) all += row + "\n";
    for (const char* part : {"\"id\":9223372036854775807",
                             "\"id\":-9223372036854775808",
                             "\"large\":18446744073709551615",
                             "\"medium\":4294967295",
                             "\"single\":1.0",
                             "\"real\":NaN",
                             "\"real\":Infinity",
                             "\"real\":1e-07",
                             "\"flag\":true",
                             "\"messages\":null",
                             "\"messages\":[]",
                             "\"messages\":[null",
                             "\\u0001",
                             "\\\"quoted\\\"",
                             "back\\\\slash\\nnew",
                             "😀",
                             "\"day\":19782",
                             "\"time\":1709209800000000",
                             "\"inner\":{\"n\":null}",
                             "\"nothing\":null}"})
        EXPECT_NE(all.find(part), all.npos) << part;
}

TEST_F(ParquetFiles, AreRefusedByNameIfUnsupported) {
    const struct {
        const char *file, *part;
    } cases[] = {
        {"map",
         "refused_map.parquet: column 'facts' holds a map, which JSON rows cannot express; write the file without"},
        {"binary", "column 'image' holds binary values"},
        {"decimal", "column 'price' holds decimals"},
        {"int96", "column 'at' holds INT96 values"},
        {"brotli", "column 'text' is compressed by BROTLI; expected SNAPPY, ZSTD, GZIP or none"},
        {"lz4", "column 'text' is compressed by LZ4"},
    };
    for (const auto& [file, part] : cases)
        expect_error(Exit::data, part,
                     [&, &file = file] { read_all(golden_file(fmt::format("parquet/refused_{}.parquet", file))); });
}

TEST_F(ParquetFiles, TruncatedAreAnErrorAtAnyLength) {
    const std::string whole = slurp(golden_file("parquet/read_v2_gzip.parquet"));
    for (size_t size = 4; size < whole.size(); size += 97) {
        spill(path("cut.parquet"), whole.substr(0, size));
        expect_error(Exit::data, "cut.parquet: ", [&] { read_all(path("cut.parquet")); });
    }
}

TEST_F(ParquetFiles, WithPageChecksumsAreNeverReadWrong) {
    // Any byte of a page that changes is found; a change of the footer may be one that does not matter.
    const std::string whole = slurp(golden_file("parquet/read_gzip_checksum.parquet"));
    const auto first = whole.find('\x1F');  // of the first page of gzip data
    std::string changed = whole;
    changed[first + 20] ^= 0x10;
    spill(path("changed.parquet"), changed);
    expect_error(Exit::data, "damaged: column 'id': the checksum of a page is wrong",
                 [&] { read_all(path("changed.parquet")); });
}

TEST_F(ParquetFiles, DamagedAreAnErrorOrRowsButNeverWorse) {
    uint64_t state = 1;
    const auto draw = [&](size_t below) {
        state = state * 6364136223846793005 + 1442695040888963407;
        return static_cast<size_t>(state >> 33) % below;
    };
    int errors = 0;
    for (const std::string& file : files(golden_file("parquet"), "read_")) {
        const std::string whole = slurp(file);
        for (int round = 0; round < 150; ++round) {
            std::string damaged = whole;
            for (size_t i = 0; i < 1 + draw(4); ++i) {
                // Half of them in the footer.
                const size_t at = draw(2) ? draw(damaged.size()) : damaged.size() - 1 - draw(damaged.size() / 3);
                damaged[at] = static_cast<char>(draw(2) ? draw(256) : damaged[at] ^ (1 << draw(8)));
            }
            spill(path("damaged.parquet"), damaged);
            try {
                read_all(path("damaged.parquet"));
            } catch (const Error& e) {
                ++errors;
                EXPECT_EQ(static_cast<int>(e.exit()), static_cast<int>(Exit::data)) << e.what();
            }
        }
    }
    EXPECT_GT(errors, 500);
}

TEST_F(ParquetFiles, WithHostileFootersAreBounded) {
    using namespace std::string_literals;
    const std::string leaf = "\x15\x02\x25\0\x18\1a\0"s;                          // int32 a, required
    const std::string schema = "\x2C\x48\1s\x15\x02\0"s + leaf;                   // list of 2: group s of 1, leaf
    const std::string a_row_group_without_columns = "\x1C\x36\x02\0"s;            // list of 1: {rows: 1}
    const std::string elements = "\xFC\x81\x80\x04"s + std::string(65537, '\0');  // list of 65537 empty structs
    const struct {
        std::string fields, part;
    } cases[] = {
        {"\x59"s + std::string(1'000'000, '\x19'), "the footer is not Thrift data"},  // lists of lists of ...
        {"\x5C"s + std::string(1'000'000, '\x1C'), "the footer is not Thrift data"},  // structs of structs of ...
        {"\x06\xFE\xFF\x7F\0"s, "the footer is not Thrift data"},  // a field of a larger number than Thrift has
        {"\x29"s + elements, "a schema of more than 65536 elements"},
        {"\x29" + schema + "\x09\x04" + schema, "two schemas"},
        {"\x49" + a_row_group_without_columns + "\x09\x04" + schema, "row groups before the schema"},
        {"\x29" + schema + "\x29" + a_row_group_without_columns, "a row group without all columns"},
    };
    for (const auto& [fields, part] : cases) {
        const std::string footer = fields + '\0';
        std::string file = "PAR1" + footer;
        for (int byte = 0; byte < 4; ++byte) file += static_cast<char>(footer.size() >> 8 * byte);
        spill(path("hostile.parquet"), file + "PAR1");
        expect_error(Exit::data, part, [&] { read_all(path("hostile.parquet")); });
    }
}

TEST(ParquetEncodings, NoValuesNeedNoHeader) {
    // Some writers leave a page of nulls empty.
    for (const ParquetEncoding encoding :
         {ParquetEncoding::plain, ParquetEncoding::delta_length_byte_array, ParquetEncoding::delta_byte_array}) {
        ParquetValues values;
        EXPECT_TRUE(read_parquet_values(encoding, ParquetType::bytes, "", 0, values));
        EXPECT_EQ(values.size(), 0u);
        EXPECT_FALSE(read_parquet_values(encoding, ParquetType::bytes, "", 1, values));
    }
}

TEST(ParquetSchema, KnowsTheOldFormsOfLists) {
    // The examples of parquet-format's LogicalTypes.md, "Backward-compatibility rules".
    const ParquetElement root{.name = "schema", .children = 1};
    const auto group = [](const char* name, int64_t repetition, int64_t children, int64_t converted = -1) {
        return ParquetElement{.name = name, .repetition = repetition, .children = children, .converted = converted};
    };
    const auto leaf = [](const char* name, int64_t repetition) {
        return ParquetElement{.name = name, .type = 1, .repetition = repetition};
    };
    using Kind = ParquetField::Kind;
    const struct {
        std::vector<ParquetElement> elements;
        Kind element;
        int definition;
        const char* path;
    } cases[] = {
        {{root, group("l", 1, 1, 3), leaf("element", 2)}, Kind::leaf, 2, "l.element"},
        {{root, group("l", 1, 1, 3), group("element", 2, 2), leaf("a", 0), leaf("b", 0)},
         Kind::record,
         2,
         "l.element.a"},
        {{root, group("l", 1, 1, 3), group("array", 2, 1), leaf("a", 0)}, Kind::record, 2, "l.array.a"},
        {{root, group("l", 1, 1, 3), group("l_tuple", 2, 1), leaf("a", 0)}, Kind::record, 2, "l.l_tuple.a"},
        {{root, group("l", 1, 1, 3), group("list", 2, 1), leaf("element", 1)}, Kind::leaf, 3, "l.list.element"},
        {{root, group("l", 1, 1, 3), group("bag", 2, 1), group("e", 1, 1), leaf("a", 1)}, Kind::record, 4, "l.bag.e.a"},
        {{root, leaf("l", 2)}, Kind::leaf, 1, "l"},
        {{root, group("l", 2, 1), leaf("a", 1)}, Kind::record, 2, "l.a"},
    };
    for (const auto& [elements, kind, definition, leaf_path] : cases) {
        const ParquetSchema schema = parquet_schema(elements, "file");
        const ParquetField& list = schema.root.children.at(0);
        SCOPED_TRACE(leaf_path);
        EXPECT_EQ(list.kind, Kind::list);
        EXPECT_EQ(list.repeats, 1);
        EXPECT_EQ(list.children.at(0).kind, kind);
        EXPECT_EQ(schema.leaves.at(0).path, leaf_path);
        EXPECT_EQ(schema.leaves.at(0).definition, definition);
        EXPECT_EQ(schema.leaves.at(0).repetition, 1);
    }
}

TEST(ParquetSchema, RefusesWhatIsNoTree) {
    const ParquetElement leaf{.name = "a", .type = 1, .repetition = 0};
    const auto refused = [&](std::vector<ParquetElement> elements, const char* part) {
        expect_error(Exit::data, part, [&] { parquet_schema(elements, "file"); });
    };
    refused({}, "file: damaged: no schema");
    refused({{.name = "schema", .children = 2}, leaf}, "the schema ends within its tree");
    refused({{.name = "schema", .children = 1}, leaf, leaf}, "more elements than its tree");
    std::vector<ParquetElement> deep = {{.name = "schema", .children = 1}};
    for (int i = 0; i < 100'000; ++i) deep.push_back({.name = "g", .repetition = 1, .children = 1});
    refused(deep, "nested too deeply");
    refused({{.name = "schema", .children = 1}, {.name = std::string(5000, 'n'), .type = 1, .repetition = 0}},
            "a column whose path is longer than 4096 bytes");
}

}  // namespace
}  // namespace colonnade
