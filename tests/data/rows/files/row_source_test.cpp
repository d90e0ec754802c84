#include "data/rows/files/row_source.h"

#include <zlib.h>
#include <zstd.h>

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

std::string gzip(std::string_view text) {
    z_stream stream{};
    deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&stream, text.size()) + 64, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    deflate(&stream, Z_FINISH);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

std::string zstd(std::string_view text) {
    std::string out(ZSTD_compressBound(text.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
    return out;
}

class RowSources : public FileTest {
  protected:
    /// "lines: 1 {...} 2 {...}"; white space in rows is dropped.
    std::string rows(std::string_view content, const std::string& name = "rows.json") const {
        spill(path(name), content);
        const auto source = open_rows(path(name));
        std::string text = source->numbering() == Numbering::lines ? "lines:" : "rows:", row;
        for (int64_t number = 0; source->next(row, number);) {
            std::erase_if(row, [](char c) { return c == ' ' || c == '\n' || c == '\r'; });
            text += fmt::format(" {} {}", number, row);
        }
        return text;
    }
    void refused(std::string_view content, const std::string& part) const {
        expect_error(Exit::data, part, [&] { rows(content); });
    }
};

const std::string limit_of_spaces(row_limit + 2, ' ');

TEST_F(RowSources, JsonOfEveryForm) {
    const struct {
        const char *text, *rows;
    } cases[] = {
        {"{\"a\": 1}\n\n  \r\n{\"a\": 2}\r\n", "lines: 1 {\"a\":1} 4 {\"a\":2}"},
        {"\xEF\xBB\xBF\n{\"a\": 1}", "lines: 2 {\"a\":1}"},
        {"[{\"a\": 1}, {\"a\": 2}]", "rows: 1 {\"a\":1} 2 {\"a\":2}"},
        {"\xEF\xBB\xBF [\n  {\n    \"a\": [1, {\"b\": \"]}\\\\\\\"{[\"}]\n  }\n  ,\n  {}\n]\n",
         "rows: 1 {\"a\":[1,{\"b\":\"]}\\\\\\\"{[\"}]} 2 {}"},
        {"[]", "rows:"},
        {"[1, \"a,]\", null,[2]]", "rows: 1 1 2 \"a,]\" 3 null 4 [2]"},
        {"{\n  \"a\": 1\n}\n{\n  \"a\": \"}\"\n}\n{\"a\": 3} {\"a\": 4}",
         "rows: 1 {\"a\":1} 2 {\"a\":\"}\"} 3 {\"a\":3} 4 {\"a\":4}"},
        // A first line that lacks its end is an error of that line, not the beginning of a large object.
        {"{\"a\": 1\n{\"a\": 2}\n", "lines: 1 {\"a\":1 2 {\"a\":2}"},
        {"{\"a\": 1", "lines: 1 {\"a\":1"},
        {"", "lines:"},
        {" \n \n", "lines:"},
        {"text", "lines: 1 text"},
    };
    for (const auto& [text, expected] : cases) {
        EXPECT_EQ(rows(text), expected) << text;
        EXPECT_EQ(rows(gzip(text), "named_otherwise.txt"), expected) << text;
        EXPECT_EQ(rows(zstd(text), "rows.jsonl.gz"), expected) << text;
    }
}

TEST_F(RowSources, ReadAcrossBlocksAndMembers) {
    // Rows of growing length cross the borders of all buffers, in each form and archive.
    std::string lines, list = "[", objects = "{\n\"first\": 1}\n";
    std::string expected;
    for (int i = 0; i < 3000; ++i) {
        const std::string row =
            fmt::format("{{\"n\":{},\"t\":\"{}\\\"\"}}", i, std::string(static_cast<size_t>(i) % 977, 'x'));
        lines += row + '\n';
        list += (i ? ",\n" : "") + row;
        objects += row + "\n\n";
        expected += fmt::format(" {} {}", i + 1, row);
    }
    list += ']';
    const size_t half = lines.find('\n', lines.size() / 2) - 7;
    EXPECT_EQ(rows(lines), "lines:" + expected);
    EXPECT_EQ(rows(list), "rows:" + expected);
    EXPECT_EQ(rows(gzip(lines.substr(0, half)) + gzip(lines.substr(half))), "lines:" + expected);
    EXPECT_EQ(rows(zstd(lines.substr(0, half)) + zstd(lines.substr(half))), "lines:" + expected);
    EXPECT_EQ(rows(zstd(list)), "rows:" + expected);
    EXPECT_TRUE(rows(objects).starts_with("rows: 1 {\"first\":1} 2 {\"n\":0,\"t\":\"\\\"\"} 3 {\"n\":1,"));
    EXPECT_EQ(open_rows(path("rows.json"))->count(), 3001);
}

TEST_F(RowSources, RefuseDamagedText) {
    refused("[{\"a\": 1} {\"a\": 2}]", "rows.json:1: found '{' after row 1 of the list, expected ',' or ']'");
    refused("[{\"a\": 1},\n{\"a\": 2},\n]", "rows.json:3: a row is missing between row 2, ',' and ']'");
    refused("[{\"a\": 1}\n", "rows.json:2: the file ends after row 1, expected ',' or ']': it is incomplete");
    refused("[{\"a\": 1}, {\"a\": 2", "rows.json: row 2: the file ends within the row that begins at line 1");
    refused("[{\"a\": 1}]\n[]", "rows.json:2: more text follows the list of rows");
    refused("{\n\"a\": 1}\nb", "rows.json:3: found 'b' after row 1, expected the next object");
    refused(
        "{\"data\": [{\"a\": 1}]}",
        "the rows are in a list under the key 'data'; expected a list alone, or one object per line: jq -c '.data[]'");
    EXPECT_EQ(rows("{\"messages\": [{\"a\": 1}]}"), "lines: 1 {\"messages\":[{\"a\":1}]}");
    refused("{\n  \"data\": [\n{\"a\": 1}]\n}\n \n", "the rows are in a list under the key 'data'");
    EXPECT_EQ(rows("{\"data\": [{\"a\": 1}]}\n\n{\"data\": [{}]}\n"),
              "lines: 1 {\"data\":[{\"a\":1}]} 3 {\"data\":[{}]}")
        << "lists under a key are no wrapper where every line has one";
    using namespace std::string_literals;
    refused("[{}\0{}]"s, "rows.json:1: found byte 0x00 after row 1 of the list");
    refused("[{}\xC3\xA9]", "rows.json:1: found byte 0xc3 after row 1 of the list");
}

TEST_F(RowSources, RefuseDamagedArchives) {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += fmt::format("{{\"n\": {}}}\n", i * 7919 % 100'003);
    for (const std::string& archive : {gzip(text), zstd(text)}) {
        const std::string kind = archive[0] == '\x1F' ? "gzip" : "zstd";
        refused(archive.substr(0, archive.size() / 2), "the file is incomplete");
        refused(archive.substr(0, archive.size() - 1), fmt::format("the {} data ends too early past line ", kind));
        refused(archive + "more", fmt::format("rows.json: unreadable {} data past line ", kind));
        std::string changed = archive;
        changed[changed.size() / 2] ^= 0x55;
        refused(changed, fmt::format("rows.json: unreadable {} data past line ", kind));
    }
    refused(gzip(gzip(text)), "compressed twice; unpack it once");
    refused(gzip("PAR1 and more"), "a Parquet file inside gzip");
    refused(zstd("PK\3\4"), "a zip archive inside zstd, which is not read; unpack it");
}

TEST_F(RowSources, NameWhatTheyDoNotRead) {
    using namespace std::string_literals;
    refused("\xFF\xFE{\0"s, "rows.json: UTF-16 text, which is not read; convert it: iconv -f UTF-16 -t UTF-8");
    refused("{\0\"\0"s, "iconv -f UTF-16LE");
    refused("\0[\0{"s, "iconv -f UTF-16BE");
    refused("\xFF\xFE\0\0{\0\0\0"s, "UTF-32");
    refused("ARROW1\0\0"s, "an Arrow file, which is not read; write it as Parquet");
    refused("PAR1", "a Parquet file without its end, 'PAR1': it is incomplete");
    refused("PARE", "an encrypted Parquet file");
    refused("BZh91AY", "bzip2 data");
    refused("version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the data itself, which is not read; get the data: git lfs pull");
    refused("a"s + std::string(256, '\0') + "ustar", "a tar archive");
    expect_error(Exit::data, "absent.json: cannot open: No such file", [&] { open_rows(path("absent.json")); });
    expect_error(Exit::data, "cannot read: Is a directory", [&] { open_rows(folder_); });
}

TEST_F(RowSources, AreBoundedForHostileText) {
    const std::string deep(row_limit + 2, '[');
    refused("[" + deep, "row 1: the row, at line 1, is longer than 16 MiB");
    refused(zstd("{\"a\": \"" + limit_of_spaces + "\"}"), "rows.json:1: the line is longer than 16 MiB");
    refused("{\"data\": [{\"a\": \"" + limit_of_spaces + "\"}]}", "the rows are in a list under the key 'data'");
    refused(zstd("[" + limit_of_spaces + "{}]"), "rows.json:1: more than 16 MiB of white space");
    refused(zstd("{\n\"a\": " + limit_of_spaces + "1}"), "row 1: the row, at line 1, is longer than 16 MiB");
    refused(zstd("{}\n" + std::string(row_limit + 2, '\n') + "{}"), "16 MiB of blank lines");
    // A window of 1 GiB would need that much memory.
    std::string window = zstd("{}\n");
    window = "\x28\xB5\x2F\xFD" + std::string(1, '\0') + std::string(1, static_cast<char>((30 - 10) << 3)) +
             std::string(3, '\0');
    refused(window, "unreadable zstd data: its window is larger than 128 MiB; compress it again without --long");
}

}  // namespace
}  // namespace colonnade
