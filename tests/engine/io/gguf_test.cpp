#include "engine/io/gguf.h"

#include <sys/resource.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "engine/io/gguf_blocks.h"
#include "engine/io/json.h"
#include "engine/io/sha256.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

// The bytes of a file, front to back.
class Bytes {
  public:
    template <typename T>
    Bytes& add(T value) {
        bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
        return *this;
    }
    Bytes& raw(std::string_view bytes) {
        bytes_.append(bytes);
        return *this;
    }
    Bytes& text(std::string_view text) { return add(uint64_t{text.size()}).raw(text); }
    Bytes& key(std::string_view name, GgufKind kind) { return text(name).add(kind); }
    Bytes& tensor(std::string_view name, std::initializer_list<uint64_t> sizes, uint32_t type, uint64_t offset) {
        text(name).add(static_cast<uint32_t>(sizes.size()));
        for (const uint64_t n : sizes) add(n);
        return add(type).add(offset);
    }
    // Padding to a multiple of 32, then `bytes` bytes of data.
    std::string data(size_t bytes) const {
        std::string file = bytes_;
        file.resize((file.size() + 31) / 32 * 32);
        return file.append(bytes, 'd');
    }
    operator std::string() const { return bytes_; }

  private:
    std::string bytes_;
};

Bytes header(uint64_t tensors, uint64_t pairs, uint32_t version = 3) {
    return Bytes().raw("GGUF").add(version).add(tensors).add(pairs);
}

constexpr uint32_t f32 = 0, q8_0 = 8, q4_k = 12;
constexpr uint64_t top = uint64_t{1} << 63, huge = ~uint64_t{0};

class Gguf : public FileTest {
  protected:
    template <typename T>
    static std::vector<T> read(const GgufReader& reader, const std::string& name) {
        const TensorInfo* info = reader.find(name);
        require(info, "no tensor '{}'", name);
        std::vector<T> values(static_cast<size_t>(info->numel()));
        reader.read(*info, Tensor(values.data(), dtype_of<T>(), {info->numel()}));
        return values;
    }
    // Compares each tensor X with X.f32, bit for bit; returns the number of elements.
    static size_t compare_with_f32(const GgufReader& reader) {
        size_t compared = 0;
        for (const TensorInfo& info : reader.tensors()) {
            if (!reader.find(info.name + ".f32")) continue;
            const auto found = read<float>(reader, info.name), expected = read<float>(reader, info.name + ".f32");
            EXPECT_EQ(found.size(), expected.size()) << info.name;
            size_t different = 0;
            for (size_t i = 0; i < found.size(); ++i)
                different += std::bit_cast<uint32_t>(found[i]) != std::bit_cast<uint32_t>(expected[i]);
            EXPECT_EQ(different, 0u) << info.name;
            compared += found.size();
        }
        return compared;
    }
    void refuses(const std::string& file, const std::string& part) const {
        spill(path("bad.gguf"), file);
        SCOPED_TRACE(part);
        const std::string message = expect_error(Exit::data, part, [&] { GgufReader(path("bad.gguf")); });
        EXPECT_NE(message.find("bad.gguf: "), std::string::npos) << message;
    }
};

struct BadFile {
    std::string file, part;
};

TEST_F(Gguf, RefusesMalformedFrames) {
    const BadFile rows[] = {
        {"", "the magic number: 4 bytes at byte 0, the file has 0 more"},
        {"GGU", "the file has 3 more"},
        {"GGML0000", "does not begin with 'GGUF'"},
        {"GGUF", "the version: 4 bytes at byte 4, the file has 0 more"},
        {header(0, 0, 1), "version 1 of GGUF, expected 2 or 3"},
        {header(0, 0, 4), "version 4 of GGUF"},
        {header(0, 0, 0x03000000), "a big-endian file"},
        {std::string(header(0, 0)).substr(0, 23), "the number of pairs: 8 bytes at byte 16, the file has 7 more"},
        {header(huge, 0), "18446744073709551615 tensors, expected at most 65536"},
        {header(65'537, 0), "65537 tensors, expected at most 65536"},
        {header(0, huge), "18446744073709551615 pairs, expected at most 65536"},
        {header(0, 65'536), "a key: 8 bytes at byte 24, the file has 0 more"},
        {header(65'536, 0), "a tensor name: 8 bytes at byte 24, the file has 0 more"},
    };
    for (const BadFile& row : rows) refuses(row.file, row.part);
}

TEST_F(Gguf, RefusesMalformedPairs) {
    const auto pair = [] { return header(0, 1); };
    const BadFile rows[] = {
        {pair().add(huge), "a key: 18446744073709551615 bytes at byte 32, the file has 0 more"},
        {pair().add(top).raw("key"), "9223372036854775808 bytes at byte 32, the file has 3 more"},
        {pair().text("").add(uint32_t{0}).add(uint8_t{0}), "a key of 0 bytes, expected 1 to 1024"},
        {pair().text(std::string(1025, 'k')).add(uint32_t{0}).add(uint8_t{0}), "a key of 1025 bytes"},
        {pair().text("a\nb").add(uint32_t{0}).add(uint8_t{0}), "without control bytes"},
        {pair().text("k").add(uint32_t{13}).add(uint8_t{0}), "key 'k': unknown type 13"},
        {pair().text("k").add(~uint32_t{0}), "key 'k': unknown type 4294967295"},
        {pair().key("k", GgufKind::u64).add(uint32_t{1}), "key 'k': 8 bytes at byte 37, the file has 4 more"},
        {pair().key("k", GgufKind::boolean).add(uint8_t{2}), "key 'k': a bool is 2, expected 0 or 1"},
        {pair().key("k", GgufKind::string).add(huge).raw("x"), "18446744073709551615 bytes at byte 45"},
        {pair().key("k", GgufKind::array).add(GgufKind::u8).add(huge),
         "key 'k': an array of 18446744073709551615 elements"},
        {pair().key("k", GgufKind::array).add(GgufKind::u64).add(top),
         "an array of 9223372036854775808 elements, expected at most"},
        {pair().key("k", GgufKind::array).add(GgufKind::u32).add(uint64_t{3}).add(uint64_t{0}), "12 bytes at byte 49"},
        {pair().key("k", GgufKind::array).add(GgufKind::string).add(uint64_t{9}).text("a").text("b"),
         "the file has 0 more"},
        {pair().key("k", GgufKind::array).add(GgufKind::boolean).add(uint64_t{2}).add(uint16_t{0x300}), "a bool is 3"},
        {pair().key("k", GgufKind::array).add(GgufKind::array).add(uint64_t{1}), "an array of arrays is not supported"},
        {header(0, 2).key("k", GgufKind::u8).add('a').key("k", GgufKind::u8).add('b'), "duplicate key 'k'"},
        {pair().key("general.alignment", GgufKind::u32).add(uint32_t{0}), "general.alignment is 0, expected a power"},
        {pair().key("general.alignment", GgufKind::u32).add(uint32_t{48}), "general.alignment is 48"},
        {pair().key("general.alignment", GgufKind::i32).add(int32_t{-32}), "general.alignment is -32"},
        {pair().key("general.alignment", GgufKind::u64).add(uint64_t{1} << 62), "expected a power of two of at most"},
        {pair().key("general.alignment", GgufKind::u64).add(top), "expected at most 2^63 - 1"},
        {pair().key("general.alignment", GgufKind::string).text("32"), "is string, expected an integer"},
        {pair().key("split.count", GgufKind::u16).add(uint16_t{2}), "expected a name that ends with '-00001-of-00002"},
        {header(0, 2)
             .key("split.count", GgufKind::u16)
             .add(uint16_t{2})
             .key("split.no", GgufKind::u16)
             .add(uint16_t{2}),
         "split.no is 2 and split.count 2"},
    };
    for (const BadFile& row : rows) refuses(row.file, row.part);
}

TEST_F(Gguf, RefusesMalformedTensors) {
    const auto one = [](std::initializer_list<uint64_t> sizes, uint32_t type, uint64_t offset, size_t bytes) {
        return header(1, 0).tensor("a", sizes, type, offset).data(bytes);
    };
    const auto two = [](uint64_t offset, const char* name = "b") {
        return header(2, 0).tensor("a", {3}, f32, 0).tensor(name, {2}, f32, offset).data(40);
    };
    const BadFile rows[] = {
        {header(1, 0).text("").data(99), "a tensor name of 0 bytes"},
        {header(1, 0).text(std::string(1025, 'n')).data(99), "a tensor name of 1025 bytes"},
        {header(1, 0).add(huge), "a tensor name: 18446744073709551615 bytes"},
        {one({1, 1, 1, 1, 1}, f32, 0, 4), "tensor 'a': 5 dimensions, expected at most 4"},
        {header(1, 0).text("a").add(~uint32_t{0}), "4294967295 dimensions"},
        {header(1, 0).text("a").add(uint32_t{2}).add(uint64_t{1}), "the file has 0 more"},
        {one({top}, f32, 0, 4), "a dimension of 9223372036854775808"},
        {one({uint64_t{1} << 32, uint64_t{1} << 32}, f32, 0, 4), "shape [4294967296, 4294967296] is too large"},
        {one({0, uint64_t{1} << 62, uint64_t{1} << 62}, f32, 0, 0), "is too large"},
        {one({uint64_t{1} << 62}, f32, 0, 4), "is too large"},
        {one({2}, 4, 0, 8), "tensor 'a': unknown type 4"},  // Q4_2, which ggml has removed
        {one({2}, 1000, 0, 8), "unknown type 1000"},
        {one({31}, q8_0, 0, 34), "rows of 31 elements, Q8_0 needs a multiple of 32"},
        {one({128, 2}, q4_k, 0, 144), "rows of 128 elements, Q4_K needs a multiple of 256"},
        {one({}, q8_0, 0, 34), "rows of 1 elements"},
        {one({2}, f32, huge, 8), "8 bytes at byte 18446744073709551615 of the data are too many"},
        {one({2}, f32, 32, 40), "begins at byte 32 of the data, expected 0: a hole"},
        {one({2}, f32, 0, 7), "ends at byte 8 of the data, the file has 7"},
        {header(1, 0).tensor("a", {2}, f32, 0), "the file has 0"},
        {one({2}, f32, 0, 33), "the tensors span 8 bytes, the file has 33 of data"},
        {one({uint64_t{1} << 40}, f32, 0, 8), "ends at byte 4398046511104 of the data"},
        {two(12), "begins at byte 12 of the data, expected 32: a hole or a wrong alignment"},
        {two(0), "begins at byte 0 of the data, expected 32: spans overlap"},
        {two(8), "begins at byte 8 of the data, expected 32: spans overlap"},
        {two(64), "begins at byte 64 of the data, expected 32"},
        {two(32, "a"), "two tensors are named 'a'"},
    };
    for (const BadFile& row : rows) refuses(row.file, row.part);
    spill(path("good.gguf"), two(32));
    EXPECT_EQ(GgufReader(path("good.gguf")).tensors().size(), 2u);
    for (size_t n = 0; n < two(32).size(); ++n) refuses(two(32).substr(0, n), "the file has");
}

// Random bytes over a good file: the reader refuses or accepts it, and never reads outside it.
TEST_F(Gguf, SurvivesRandomDamage) {
    const std::string good = slurp(golden_file("gguf/types.gguf"));
    uint32_t state = 1;
    const auto draw = [&](size_t below) { return (state = state * 1664525u + 1013904223u) % below; };
    size_t refused = 0;
    for (int i = 0; i < 2000; ++i) {
        std::string bad = good.substr(0, 2400);
        for (size_t n = 1 + draw(3); n > 0; --n) bad[draw(bad.size())] = static_cast<char>(draw(256));
        bad += good.substr(bad.size());
        spill(path("bad.gguf"), bad);
        try {
            const GgufReader reader(path("bad.gguf"));
            for (const TensorInfo& info : reader.tensors())
                if (find_gguf_type(info.stored.c_str())->decode) read<float>(reader, info.name);
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), Exit::data) << e.what();
            ++refused;
        }
    }
    EXPECT_GT(refused, 1000u);
}

// Files of many small parts, refused at their ends, in a process that may use little memory.
TEST_F(Gguf, BoundsMemoryOfWhatItRefuses) {
    std::string pairs = header(0, 65'536), strings = header(0, 1), tensors = header(65'536, 0);
    for (int i = 0; i < 65'535; ++i) {
        pairs += Bytes().key(fmt::format("{}", i), GgufKind::u8).add('v');
        tensors += Bytes().tensor(fmt::format("{}", i), {}, f32, 0);
    }
    strings += Bytes().key("k", GgufKind::array).add(GgufKind::string).add(huge);
    strings.resize(size_t{70} << 20);  // empty strings
    for (const std::string& file : {pairs, strings, tensors}) {
        spill(path("many.gguf"), file);
        const int exit = exit_of_child([&] {
            rusage before{}, after{};
            getrusage(RUSAGE_SELF, &before);
            int result = 0;
            try {
                GgufReader reader(path("many.gguf"));
            } catch (const Error& e) {
                result = static_cast<int>(e.exit());
            }
            getrusage(RUSAGE_SELF, &after);
            EXPECT_LT(after.ru_maxrss, (int64_t{256} << 10) + before.ru_maxrss);  // KiB
            return after.ru_maxrss < (int64_t{256} << 10) + before.ru_maxrss ? result : 50;
        });
        EXPECT_EQ(exit, static_cast<int>(Exit::data));
    }
}

TEST_F(Gguf, ReadsMetadataOfEveryType) {
    const GgufReader reader(golden_file("gguf/types.gguf"));
    const GgufMetadata& m = reader.metadata();
    EXPECT_EQ(m.text("general.architecture"), "llama");
    EXPECT_EQ(m.integer("one.UINT8"), 200);
    EXPECT_EQ(m.integer("one.INT8"), -100);
    EXPECT_EQ(m.integer("one.UINT16"), 60000);
    EXPECT_EQ(m.integer("one.INT16"), -30000);
    EXPECT_EQ(m.integer("one.UINT32"), 4000000000);
    EXPECT_EQ(m.integer("one.INT32"), -2000000000);
    EXPECT_EQ(m.integer("one.UINT64"), INT64_MAX);
    EXPECT_EQ(m.integer("one.INT64"), -(int64_t{1} << 62));
    EXPECT_EQ(m.number("one.UINT8"), 200.0);
    EXPECT_EQ(m.number("one.FLOAT32"), double{1e-5f});
    EXPECT_EQ(m.shortest_number("one.FLOAT32"), 1e-5);
    EXPECT_EQ(m.number("one.FLOAT64"), 1e-300);
    EXPECT_EQ(m.shortest_number("one.FLOAT64"), 1e-300);
    EXPECT_EQ(m.boolean("one.BOOL"), true);
    EXPECT_EQ(m.text("one.STRING"), std::string("na\xc3\xafve\0text", 11));
    EXPECT_EQ(m.texts("many.strings"), (std::vector<std::string_view>{"a", "",
                                                                      "\xe2\x96\x81"
                                                                      "b"}));
    EXPECT_EQ(m.integers("many.integers"), (std::vector<int64_t>{1, -2, 3}));
    EXPECT_EQ(m.numbers("many.integers"), (std::vector<double>{1, -2, 3}));
    EXPECT_EQ(m.numbers("many.floats"), (std::vector<double>{0.5, -2, double{1e30f}}));
    EXPECT_EQ(m.values().at("many.bools").count, 3u);
    EXPECT_FALSE(m.has("absent"));
    EXPECT_EQ(m.integer("absent"), std::nullopt);
    EXPECT_EQ(m.texts("absent"), std::nullopt);
    expect_error(Exit::data, "key 'one.STRING' is string, expected an integer", [&] { m.integer("one.STRING"); });
    expect_error(Exit::data, "key 'one.FLOAT32' is f32, expected an integer", [&] { m.integer("one.FLOAT32"); });
    expect_error(Exit::data, "key 'one.BOOL' is bool, expected a number", [&] { m.number("one.BOOL"); });
    expect_error(Exit::data, "is an array of 3 string, expected a string", [&] { m.text("many.strings"); });
    expect_error(Exit::data, "key 'one.UINT8' is u8, expected an array of integers", [&] { m.integers("one.UINT8"); });
    expect_error(Exit::data, "expected an array of strings", [&] { m.texts("many.floats"); });
}

TEST_F(Gguf, DecodesEveryTypeExactly) {
    const GgufReader reader(golden_file("gguf/types.gguf"));
    EXPECT_EQ(compare_with_f32(reader), 8u * 2 * 512 + 2 * 3 * 16 + 5 * 7 + 3);
    EXPECT_EQ(reader.find("Q4_K")->shape, (std::vector<int64_t>{2, 512}));
    EXPECT_EQ(reader.find("F16")->shape, (std::vector<int64_t>{2, 3, 16}));
    EXPECT_EQ(reader.find("F16")->dtype, DType::f16);
    EXPECT_EQ(reader.find("Q4_K")->stored, "Q4_K");
    EXPECT_EQ(reader.find("Q4_K")->dtype, DType::f32);
    EXPECT_FALSE(reader.find("I8")->readable);
    for (const char* name : {"Q6_K", "BF16"}) {
        const auto narrow = read<float>(reader, name);
        EXPECT_EQ(read<double>(reader, name), std::vector<double>(narrow.begin(), narrow.end()));
    }
    EXPECT_EQ(read<double>(reader, "F64"), (std::vector<double>{0.1, -1e30, 3}));
    EXPECT_EQ(read<int32_t>(reader, "I32"), (std::vector<int32_t>{1, -2, 3, 1 << 30}));
    expect_error(Exit::data, "tensor 'I32' is I32, which cannot be read as f32", [&] { read<float>(reader, "I32"); });
    expect_error(Exit::data, "tensor 'I8' is I8, which cannot be read as u8", [&] { read<uint8_t>(reader, "I8"); });
    expect_error(Exit::data, "tensor 'Q4_K' is Q4_K, which cannot be read as i32",
                 [&] { read<int32_t>(reader, "Q4_K"); });
}

TEST_F(Gguf, RefusesToReadUnsupportedTypesByName) {
    const uint32_t iq4_xs = 23;
    spill(path("iq.gguf"), header(1, 0).tensor("a", {256}, iq4_xs, 0).data(136));
    const GgufReader reader(path("iq.gguf"));
    EXPECT_FALSE(reader.find("a")->readable);
    expect_error(Exit::data, "iq.gguf: tensor 'a' is IQ4_XS, which cannot be read as f32",
                 [&] { read<float>(reader, "a"); });
}

TEST_F(Gguf, ReportsAFileThatShrinks) {
    spill(path("a.gguf"), header(1, 0).tensor("a", {uint64_t{1} << 20}, 1, 0).data(size_t{2} << 20));
    const GgufReader reader(path("a.gguf"));
    std::filesystem::resize_file(path("a.gguf"), size_t{1} << 20);
    expect_error(Exit::data, "a.gguf", [&] { read<float>(reader, "a"); });
}

TEST_F(Gguf, ReadsShards) {
    const auto shard = [](uint16_t number, uint16_t count, int32_t total, const char* name, const char* data) {
        return header(1, 3)
                   .key("split.no", GgufKind::u16)
                   .add(number)
                   .key("split.count", GgufKind::u16)
                   .add(count)
                   .key("split.tensors.count", GgufKind::i32)
                   .add(total)
                   .tensor(name, {1}, f32, 0)
                   .data(0) +
               data;
    };
    spill(path("m-00001-of-00002.gguf"), shard(0, 2, 2, "a", "1234"));
    spill(path("m-00002-of-00002.gguf"), shard(1, 2, 2, "b", "5678"));
    for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
        const GgufReader reader(path(name));
        EXPECT_EQ(reader.tensors().size(), 2u);
        EXPECT_EQ(reader.metadata().integer("split.no"), 0);
        const float expected = read<float>(reader, "b")[0];
        EXPECT_EQ(std::memcmp(&expected, "5678", 4), 0);
    }
    const auto refuses = [&](const std::string& second, const std::string& part) {
        spill(path("m-00002-of-00002.gguf"), second);
        expect_error(Exit::data, part, [&] { GgufReader(path("m-00001-of-00002.gguf")); });
    };
    refuses(shard(0, 2, 2, "b", "5678"), "m-00002-of-00002.gguf: split.no is 0, expected 1");
    refuses(shard(1, 3, 2, "b", "5678"), "m-00002-of-00002.gguf: split.count is 3, expected 2");
    refuses(shard(1, 2, 2, "a", "5678"), "m-00002-of-00002.gguf: two tensors are named 'a'");
    refuses(header(0, 0), "split.count is 0, expected 2");
    spill(path("m-00001-of-00002.gguf"), shard(0, 2, 3, "a", "1234"));
    refuses(shard(1, 2, 3, "b", "5678"), "split.tensors.count is 3, the 2 shards have 2");
    std::filesystem::remove(path("m-00002-of-00002.gguf"));
    expect_error(Exit::data, "m-00002-of-00002.gguf", [&] { GgufReader(path("m-00001-of-00002.gguf")); });
}

// Large files and the sums of their tensors, by tests/golden/make_gguf_golden.py --blocks and --sums.
TEST_F(Gguf, EqualsThePythonPackageOnAFolderOfFiles) {
    const char* folder = std::getenv("COLONNADE_GGUF_FOLDER");
    if (!folder) GTEST_SKIP() << "COLONNADE_GGUF_FOLDER is not set";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() != ".gguf") continue;
        const GgufReader reader(entry.path());
        const size_t elements = compare_with_f32(reader);
        size_t equal = 0;
        const std::string sums_path = entry.path().string() + ".sums.json";
        const Json sums = std::filesystem::exists(sums_path) ? read_json_file(sums_path) : Json::object();
        for (const auto& [name, sum] : sums.items()) {
            const auto values = read<float>(reader, name);
            const std::string_view bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
            EXPECT_EQ(sha256(bytes), sum.get<std::string>()) << name;
            ++equal;
        }
        fmt::print("{}: {} elements equal X.f32, {} of {} tensors equal their sums\n", entry.path().string(), elements,
                   equal, reader.tensors().size());
    }
}

}  // namespace
}  // namespace colonnade
