#include "engine/io/safetensors.h"

#include <sys/resource.h>

#include <bit>
#include <cstring>
#include <numeric>

#include "engine/device/float16.h"
#include "engine/device/philox.h"
#include "engine/io/json.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

std::string with_length(std::string_view header, uint64_t length) {
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    return file.append(header);
}

std::string file_of(std::string_view header, size_t data_bytes) {
    return with_length(header, header.size()) + std::string(data_bytes, 'd');
}

// A header with one tensor "a" with these fields.
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
}

class Safetensors : public FileTest {
  protected:
    template <typename T>
    std::vector<T> read(const SafetensorsReader& reader, const std::string& name) const {
        const TensorInfo* info = reader.find(name);
        require(info, "no tensor '{}'", name);
        std::vector<T> values(static_cast<size_t>(info->numel()));
        reader.read(*info, Tensor(values.data(), dtype_of<T>(), {info->numel()}));
        return values;
    }
};

struct BadFile {
    std::string file, part;
};

TEST_F(Safetensors, RefusesMalformedFiles) {
    const std::string good = one(R"("F32")", "[2]", "[0,8]");
    const uint64_t huge = ~uint64_t{0};
    const BadFile rows[] = {
        // the frame
        {"", "0 bytes, a safetensors file has at least 8"},
        {"1234567", "7 bytes, a safetensors file has at least 8"},
        {with_length("", 0), "does not begin with '{'"},
        {with_length(good, good.size() + 1), "the file has " + std::to_string(good.size()) + " after its first 8"},
        {with_length(good, huge), "header of 18446744073709551615 bytes"},
        {with_length(good, huge - 7), "header of 18446744073709551608 bytes"},  // 8 + length wraps to 0
        {with_length(good, uint64_t{1} << 63), "header of 9223372036854775808 bytes"},
        {file_of(" " + good, 8), "does not begin with '{'"},
        {file_of("[1]", 0), "does not begin with '{'"},
        {file_of(good, 7), "the tensors span 8 bytes, the file has 7 of data"},
        {file_of(good, 9), "the tensors span 8 bytes, the file has 9 of data"},
        // the JSON
        {file_of("{\"a\":", 0), "header: column 5: invalid JSON"},
        {file_of(good + "x", 8), "invalid JSON"},
        {file_of("{\"\xff\":1}", 0), "ill-formed UTF-8"},
        {file_of(
             R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
             0),
         "duplicate key 'a'"},
        {file_of(R"({"a":{"dtype":"U8","shape":[0],"shape":[1],"data_offsets":[0,0]}})", 0), "duplicate key 'shape'"},
        {file_of("{\"__metadata__\":" + std::string(50, '[') + std::string(50, ']') + "}", 0),
         "nested deeper than 8 levels"},
        {file_of(R"({"__metadata__":[]})", 0), "__metadata__ is not an object"},
        {file_of(R"({"__metadata__":{"format":1}})", 0), "__metadata__ 'format' is not a string"},
        // an entry
        {file_of(R"({"a":7})", 0), "tensor 'a': not an object"},
        {file_of(R"({"a":{"shape":[],"data_offsets":[0,4]}})", 4), "tensor 'a': no string 'dtype'"},
        {file_of(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), "tensor 'a': no array 'shape'"},
        {file_of(R"({"a":{"dtype":"F32","shape":[1]}})", 4), "tensor 'a': no array 'data_offsets'"},
        {file_of(one("32", "[2]", "[0,8]"), 8), "no string 'dtype'"},
        {file_of(one(R"("F31")", "[2]", "[0,8]"), 8), "tensor 'a': unknown dtype 'F31'"},
        {file_of(one(R"("f32")", "[2]", "[0,8]"), 8), "unknown dtype 'f32'"},
        {file_of(one(R"("F31")", "[2]", "[8,0]"), 8), "unknown dtype"},  // although the offsets are bad as well
        {file_of(one(R"("F32")", "2", "[0,8]"), 8), "no array 'shape'"},
        {file_of(one(R"("F32")", "[2]", "8"), 8), "no array 'data_offsets'"},
        {file_of(one(R"("F32")", "[2]", "[8]"), 8), "1 data_offsets, expected 2"},
        {file_of(one(R"("F32")", "[2]", "[0,8,8]"), 8), "3 data_offsets, expected 2"},
        {file_of(one(R"("U8")", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1), "9 dimensions, expected at most 8"},
        {file_of(one(R"("F4")", "[1]", "[0,0]"), 0), "4 bits, not a whole number of bytes"},
        // integers are integers
        {file_of(one(R"("F32")", "[-2]", "[0,8]"), 8), "shape: -2, expected an integer of 0 to 2^63 - 1"},
        {file_of(one(R"("F32")", "[2.0]", "[0,8]"), 8), "shape: 2.0, expected an integer"},
        {file_of(one(R"("U8")", "[1e3]", "[0,1000]"), 1000), "shape: 1000.0, expected an integer"},
        {file_of(one(R"("F32")", R"(["2"])", "[0,8]"), 8), "shape: \"2\", expected an integer"},
        {file_of(one(R"("F32")", "[true]", "[0,4]"), 4), "shape: true, expected an integer"},
        {file_of(one(R"("F32")", "[null]", "[0,4]"), 4), "shape: null, expected an integer"},
        {file_of(one(R"("F32")", "[2]", "[-8,0]"), 8), "data_offsets: -8, expected an integer"},
        {file_of(one(R"("F32")", "[2]", "[0,8.0]"), 8), "data_offsets: 8.0, expected an integer"},
        {file_of(one(R"("U8")", "[9223372036854775808]", "[0,0]"), 0),
         "shape: 9223372036854775808, expected an integer"},
        {file_of(one(R"("U8")", "[99999999999999999999999]", "[0,0]"), 0), "expected an integer"},
        // products that wrap
        {file_of(one(R"("F32")", "[4294967296,4294967296]", "[0,0]"), 0), "is too large"},  // 2^64 elements wrap to 0
        {file_of(one(R"("F32")", "[4611686018427387904]", "[0,0]"), 0), "is too large"},    // 2^62 floats: 2^64 bytes
        {file_of(one(R"("U8")", "[2305843009213693952]", "[0,0]"), 0), "is too large"},     // 2^61 bytes: 2^64 bits
        {file_of(one(R"("F32")", "[4294967297,4294967295,4294967297]", "[0,8]"), 8), "is too large"},
        {file_of(one(R"("F32")", "[1125899906842624,4]", "[0,8]"), 8),
         "do not span the 18014398509481984 bytes of F32"},
        // spans
        {file_of(one(R"("F32")", "[2]", "[8,0]"), 8), "data_offsets [8,0] do not span the 8 bytes"},
        {file_of(one(R"("F32")", "[2]", "[0,4]"), 8), "data_offsets [0,4] do not span the 8 bytes of F32 [2]"},
        {file_of(one(R"("F32")", "[2]", "[0,12]"), 12), "do not span the 8 bytes"},
        {file_of(one(R"("F32")", "[0]", "[0,8]"), 8), "do not span the 0 bytes"},
        {file_of(one(R"("F32")", "[2]", "[4,12]"), 12), "begins at byte 4 of the data, expected 0: a hole"},
        {file_of(one(R"("F32")", "[2]", "[100,108]"), 8), "begins at byte 100 of the data, expected 0"},
        {file_of(one(R"("F32")", "[2]", "[9223372036854775799,9223372036854775807]"), 8), "expected 0: a hole"},
        {file_of(
             R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
             4),
         "tensor 'b' begins at byte 0 of the data, expected 4: spans overlap"},
        {file_of(
             R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
             7),
         "spans overlap"},
        {file_of(
             R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}})",
             9),
         "a hole between spans"},
        {file_of(
             R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
             4),
         "spans overlap"},
        {file_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}})", 0), "expected 0: a hole"},
        // names
        {file_of(R"({"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0), "a tensor name of 0 bytes"},
        {file_of(R"({"a\n":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0), "without control bytes"},
        {file_of(R"({"a\u0000b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0), "without control bytes"},
        {file_of("{\"" + std::string(1025, 'n') + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0),
         "a tensor name of 1025 bytes"},
    };
    for (const BadFile& row : rows) {
        spill(path("x.safetensors"), row.file);
        const std::string message =
            expect_error(Exit::data, row.part, [&] { SafetensorsReader reader(path("x.safetensors")); });
        EXPECT_TRUE(message.starts_with(path("x.safetensors") + ":")) << message;
    }
}

// The limit is checked before the header is read. A sparse file replaces a large one.
TEST_F(Safetensors, RefusesLongHeader) {
    spill(path("x.safetensors"), with_length("{}", (size_t{4} << 20) + 1));
    std::filesystem::resize_file(path("x.safetensors"), (size_t{4} << 20) + 100);
    expect_error(Exit::data, "header of 4194305 bytes, expected at most 4194304",
                 [&] { SafetensorsReader reader(path("x.safetensors")); });
}

/// The largest header and index, of the JSON that takes the most memory, in a process that may use little.
TEST_F(Safetensors, BoundsMemoryOfWhatItRefuses) {
    std::filesystem::create_directory(path("sharded"));
    for (const std::string item : {"\"\",", "[],", "{},", "0,"}) {
        std::string header = "{\"a\":[";
        while (header.size() + item.size() + 3 < size_t{4} << 20) header += item;
        header += "0]}";
        spill(path("x.safetensors"), file_of(header, 0));
        spill(path("sharded/model.safetensors.index.json"), "{\"weight_map\":" + header.substr(5));
        for (const char* file : {"x.safetensors", "sharded"}) {
            const int exit = exit_of_child([&] {
                rusage before{}, after{};
                getrusage(RUSAGE_SELF, &before);
                int result = 0;
                try {
                    SafetensorsReader reader(path(file));
                } catch (const Error& e) {
                    result = static_cast<int>(e.exit());
                }
                getrusage(RUSAGE_SELF, &after);
                return after.ru_maxrss < (int64_t{256} << 10) + before.ru_maxrss ? result : 50;  // KiB
            });
            EXPECT_EQ(exit, static_cast<int>(Exit::data)) << file << " of " << item;
        }
    }
}

TEST_F(Safetensors, RefusesEveryTruncation) {
    const std::string whole = file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4);
    for (size_t length = 0; length < whole.size(); ++length) {
        spill(path("x.safetensors"), whole.substr(0, length));
        expect_error(Exit::data, "x.safetensors: ", [&] { SafetensorsReader reader(path("x.safetensors")); });
    }
}

TEST_F(Safetensors, AcceptsUnusualFiles) {
    const std::string scalar_and_empty =
        R"({"e":{"dtype":"F32","shape":[0,3],"data_offsets":[1,1]},"s":{"dtype":"U8","shape":[],"data_offsets":[0,1],"more":1}}   )";
    spill(path("x"), file_of(scalar_and_empty, 1));
    const SafetensorsReader reader(path("x"));
    EXPECT_EQ(read<uint8_t>(reader, "s"), std::vector<uint8_t>{'d'});
    EXPECT_TRUE(read<float>(reader, "e").empty());
    EXPECT_EQ(reader.tensors()[0].name, "s") << "in the order of the data";
    EXPECT_EQ(reader.find("none"), nullptr);
    spill(path("y"), file_of("{}", 0));
    EXPECT_TRUE(SafetensorsReader(path("y")).tensors().empty());
}

// Dtypes that we do not support are listed with their shapes, and refused only when read.
TEST_F(Safetensors, ListsForeignDtypes) {
    const struct {
        const char* name;
        int bits;
    } foreign[] = {{"BOOL", 8},    {"I8", 8},      {"U16", 16},    {"I16", 16},    {"U32", 32},
                   {"U64", 64},    {"C64", 64},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},
                   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
    for (const auto& type : foreign) {
        spill(path("x"),
              file_of(one(fmt::format("\"{}\"", type.name), "[3,4]", fmt::format("[0,{}]", 12 * type.bits / 8)),
                      static_cast<size_t>(12 * type.bits / 8)));
        const SafetensorsReader reader(path("x"));
        EXPECT_EQ(reader.tensors()[0].stored, type.name);
        EXPECT_FALSE(reader.tensors()[0].readable);
        EXPECT_EQ(reader.tensors()[0].numel(), 12);
        expect_error(Exit::data, fmt::format("x: tensor 'a' is {}, which cannot be read as f32", type.name),
                     [&] { read<float>(reader, "a"); });
        expect_error(Exit::data, "which cannot be read as u8", [&] { read<uint8_t>(reader, "a"); });
    }
    spill(path("x"), file_of(one("\"I64\"", "[1]", "[0,8]"), 8));
    expect_error(Exit::data, "tensor 'a' is I64, which cannot be read as f32",
                 [&] { read<float>(SafetensorsReader(path("x")), "a"); });
}

TEST_F(Safetensors, RoundTrip) {
    std::vector<float> a(600'000);  // more than one piece of conversion
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(Philox{1, 0}.normal(i));
    std::vector<int64_t> ids{INT64_MIN, -1, INT64_MAX};
    std::vector<int32_t> small{7, -7};
    std::vector<double> d{1.0, 1e-3};
    std::vector<uint8_t> bytes{1, 2, 255};
    const std::vector<NamedTensor> tensors = {
        {"odd", Tensor(bytes.data(), DType::u8, {3}), {3}},
        {"a \"quoted\" é", Tensor(a.data(), DType::f32, {600, 1000}), {6, 100, 1000, 1, 1}},
        {"small", Tensor(small.data(), DType::i32, {2}), {2}},
        {"ids", Tensor(ids.data(), DType::i64, {3}), {3, 1}},
        {"d", Tensor(d.data(), DType::f64, {2}), {2}},
        {"empty", Tensor(nullptr, DType::f32, {0, 5}), {0, 5}},
    };
    write_safetensors_file(path("x"), tensors);
    const SafetensorsReader reader(path("x"));
    EXPECT_EQ(reader.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
    EXPECT_EQ(reader.tensors().size(), tensors.size());
    EXPECT_EQ(reader.find("a \"quoted\" é")->shape, tensors[1].shape);
    EXPECT_EQ(read<float>(reader, "a \"quoted\" é"), a);
    EXPECT_EQ(read<double>(reader, "a \"quoted\" é"), std::vector<double>(a.begin(), a.end()));
    EXPECT_EQ(read<int64_t>(reader, "ids"), ids);
    EXPECT_EQ(read<int32_t>(reader, "small"), small);
    EXPECT_EQ(read<uint8_t>(reader, "odd"), bytes);
    EXPECT_EQ(read<float>(reader, "d"), (std::vector<float>{1.0f, 1e-3f}));
    for (const TensorInfo& info : reader.tensors())
        EXPECT_EQ(info.begin % bytes_of(info.dtype), 0u) << info.name << " is aligned";

    for (const DType stored : {DType::f16, DType::bf16}) {
        const std::string file = path(name_of(stored));
        write_safetensors_file(file, {tensors[1]}, stored);
        const auto values = read<float>(SafetensorsReader(file), tensors[1].name);
        for (size_t i = 0; i < a.size(); ++i)
            ASSERT_EQ(values[i], stored == DType::f16 ? float_from_f16(f16_from_float(a[i]))
                                                      : float_from_bf16(split_float(std::bit_cast<uint32_t>(a[i])).top))
                << i;
        EXPECT_EQ(read<double>(SafetensorsReader(file), tensors[1].name),
                  std::vector<double>(values.begin(), values.end()));
    }
    expect_error(Exit::storage, "x: cannot create: File exists", [&] { write_safetensors_file(path("x"), tensors); });
    expect_error(Exit::internal, "'d' of f64 cannot be stored as f16",
                 [&] { write_safetensors_file(path("z"), {tensors[4]}, DType::f16); });
    expect_error(Exit::internal, "two tensors are named 'd'", [&] {
        write_safetensors_file(path("z"), {tensors[4], tensors[4]});
    });
}

class ShardedSafetensors : public Safetensors {
  protected:
    void SetUp() override {
        Safetensors::SetUp();
        std::iota(values_.begin(), values_.end(), 0.0f);
        for (int i = 0; i < 5; ++i)
            tensors_.push_back({fmt::format("t{}", i), Tensor(values_.data() + 10 * i, DType::f32, {10}), {2, 5}});
    }
    void write_index(const std::string& weight_map) const {
        spill(path("model.safetensors.index.json"),
              R"({"metadata":{"total_size":200},"weight_map":)" + weight_map + "}");
    }
    std::vector<float> values_ = std::vector<float>(50);
    std::vector<NamedTensor> tensors_;
};

TEST_F(ShardedSafetensors, RoundTrip) {
    write_safetensors(folder_, tensors_, DType::f32, 80);  // two tensors of 40 bytes to a shard
    EXPECT_EQ(listing(folder_),
              "model-00001-of-00003.safetensors model-00002-of-00003.safetensors model-00003-of-00003.safetensors "
              "model.safetensors.index.json");
    EXPECT_EQ(read_json_file(path("model.safetensors.index.json"))["metadata"]["total_size"], 200);
    const SafetensorsReader reader(folder_);
    ASSERT_EQ(reader.tensors().size(), 5u);
    for (size_t i = 0; i < 5; ++i)
        EXPECT_EQ(read<float>(reader, fmt::format("t{}", i)),
                  std::vector<float>(values_.begin() + 10 * static_cast<int>(i),
                                     values_.begin() + 10 * static_cast<int>(i) + 10));
    EXPECT_EQ(reader.metadata().at("format"), "pt");
}

TEST_F(ShardedSafetensors, ShardSizes) {
    const struct {
        size_t shard_bytes;
        const char* last;
    } rows[] = {{200, "model.safetensors"},
                {199, "model-00002-of-00002.safetensors"},
                {40, "model-00005-of-00005.safetensors"},
                {1, "model-00005-of-00005.safetensors"}};
    for (const auto& row : rows) {
        const std::string folder = path(std::to_string(row.shard_bytes));
        std::filesystem::create_directory(folder);
        write_safetensors(folder, tensors_, DType::f32, row.shard_bytes);
        EXPECT_TRUE(std::filesystem::exists(folder + "/" + row.last)) << listing(folder);
        EXPECT_EQ(SafetensorsReader(folder).tensors().size(), 5u);
    }
}

TEST_F(ShardedSafetensors, RefusesMalformedFolders) {
    expect_error(Exit::data, folder_ + ": neither model.safetensors nor model.safetensors.index.json",
                 [&] { SafetensorsReader reader(folder_); });
    write_safetensors_file(path("one.safetensors"), {tensors_[0], tensors_[1]});
    write_safetensors_file(path("two.safetensors"), {tensors_[1], tensors_[2]});
    const BadFile rows[] = {
        {R"([])", "no object 'weight_map'"},
        {R"({"t0":7})", "tensor 't0' in shard 7, expected a plain file name"},
        {R"({"t0":""})", "expected a plain file name"},
        {R"({"t0":".."})", "expected a plain file name"},
        {R"({"t0":"../one.safetensors"})", "expected a plain file name"},
        {R"({"t0":"/one.safetensors"})", "expected a plain file name"},
        {R"({"t0":"a\\one.safetensors"})", "expected a plain file name"},
        {R"({"t0":"one.safetensors","t0":"two.safetensors"})", "duplicate key 't0'"},
        {R"({"t0":"none.safetensors"})", "none.safetensors: cannot open: No such file"},
        {R"({"t0":"one.safetensors"})", "tensor 't1' is in one.safetensors, listed nowhere"},
        {R"({"t0":"one.safetensors","t1":"one.safetensors","t3":"one.safetensors"})",
         "tensor 't3' is not in one.safetensors"},
        {R"({"t0":"one.safetensors","t1":"one.safetensors","t2":"two.safetensors"})",
         "tensor 't1' is in two.safetensors, listed in one.safetensors"},
        {R"({"t0":"one.safetensors","t1":"two.safetensors","t2":"two.safetensors"})",
         "tensor 't1' is in one.safetensors, listed in two.safetensors"},
    };
    for (const BadFile& row : rows) {
        write_index(row.file);
        expect_error(Exit::data, row.part, [&] { SafetensorsReader reader(folder_); });
    }
    write_index(R"({"t0":"one.safetensors","t1":"one.safetensors"})");
    EXPECT_EQ(SafetensorsReader(folder_).tensors().size(), 2u);
}

}  // namespace
}  // namespace colonnade
