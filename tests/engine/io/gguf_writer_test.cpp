// The writer of GGUF files: its bytes are those of the Python package gguf; what it does not finish leaves nothing.

#include "engine/io/gguf_writer.h"

#include <cmath>

#include "engine/io/gguf.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

class GgufFile : public FileTest {
  protected:
    static std::vector<float> values_of(const GgufReader& file, const std::string& name) {
        const TensorInfo* info = file.find(name);
        require(info, "no tensor '{}'", name);
        std::vector<float> values(static_cast<size_t>(info->numel()));
        file.read(*info, view_of(values));
        return values;
    }
    // One tensor "w" of a row; returns what is read back.
    std::vector<float> stored(const std::vector<float>& values, const char* type) const {
        GgufWriter writer(path("one.gguf"), {}, {{"w", {std::ssize(values)}, find_gguf_type(type)}});
        writer.write(view_of(values));
        writer.commit();
        return values_of(GgufReader(path("one.gguf")), "w");
    }
};

// encoded.gguf holds the floats beside what the package made of them, so that its source is the file itself.
TEST_F(GgufFile, HasTheBytesOfThePackage) {
    const std::string golden = golden_file("gguf/encoded.gguf");
    const GgufReader source(golden);
    GgufPairs pairs;
    pairs.text("general.architecture", "llama");
    pairs.integer("an.integer", 4'000'000'000);
    pairs.number("a.number", 1e-5);
    pairs.boolean("a.bool", true);
    pairs.text("a.text", {"na\u00efve\0text", 11});
    pairs.texts("many.texts", {"a", "", "\u2581b"});
    pairs.numbers("many.numbers", {0.5, -2.0, 1e30f});
    pairs.integers("many.integers", {1, -2, 3});
    std::vector<GgufTensor> tensors;
    for (const TensorInfo& info : source.tensors())
        tensors.push_back({info.name, info.shape, find_gguf_type(info.stored.c_str())});
    GgufWriter writer(path("a.gguf"), pairs, tensors);
    for (const TensorInfo& info : source.tensors()) {
        const std::string floats = info.name + ".f32";
        const std::vector<float> values = values_of(source, source.find(floats) ? floats : info.name);
        writer.write(view_of(values));
    }
    EXPECT_EQ(listing(folder_), fmt::format("a.gguf.tmp-{}", getpid()));
    writer.commit();
    EXPECT_EQ(listing(folder_), "a.gguf");
    EXPECT_TRUE(slurp(path("a.gguf")) == slurp(golden));
}

TEST_F(GgufFile, CopiesValuesOfAnotherFile) {
    const GgufReader source(golden_file("gguf/types.gguf"));
    GgufPairs pairs;
    for (const auto& [key, value] : source.metadata().values())
        if (key != "general.alignment") pairs.copy(key, value);
    GgufWriter(path("a.gguf"), pairs, {}).commit();
    const GgufReader copy(path("a.gguf"));
    EXPECT_EQ(copy.metadata().values().size() + 1, source.metadata().values().size());
    for (const auto& [key, value] : copy.metadata().values()) {
        const GgufValue& expected = source.metadata().values().at(key);
        EXPECT_EQ(value.kind, expected.kind) << key;
        EXPECT_EQ(value.count, expected.count) << key;
        EXPECT_TRUE(value.array == expected.array && value.data == expected.data) << key;
    }
}

TEST_F(GgufFile, WritesLargeTensorsInPieces) {
    std::vector<float> values((size_t{1} << 22) + 96);  // more than a piece
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = i % 32 == 0 ? 127.0f : static_cast<float>(static_cast<int>(37 * i % 255) - 127);
    EXPECT_TRUE(stored(values, "Q8_0") == values) << "steps of 1 are exact";
    EXPECT_TRUE(stored(values, "BF16") == values);
}

TEST_F(GgufFile, LeavesNothingUnlessAllIsWritten) {
    const std::vector<float> one(32, 1.0f);
    {
        GgufWriter writer(path("a.gguf"), {}, {{"w", {32}, find_gguf_type("F32")}, {"v", {32}, find_gguf_type("F32")}});
        writer.write(view_of(one));
        EXPECT_ANY_THROW(writer.commit()) << "a tensor is missing";
    }
    EXPECT_EQ(listing(folder_), "");
    EXPECT_ANY_THROW(GgufWriter(path("a.gguf"), {}, {{"w", {16}, find_gguf_type("Q8_0")}})) << "half a block";
    EXPECT_ANY_THROW(GgufWriter(path("a.gguf"), {}, {{"w", {256}, find_gguf_type("Q4_K")}})) << "no encoder";
    EXPECT_EQ(listing(folder_), "");
    GgufPairs pairs;
    pairs.integer("a", 1);
    EXPECT_ANY_THROW(pairs.integer("a", 2));
    EXPECT_ANY_THROW(pairs.integer("b", -1));
}

TEST_F(GgufFile, RefusesWhatATypeCannotHold) {
    std::vector<float> values(32, 1.0f);
    values[7] = 70'000, values[8] = -80'000;
    expect_error(Exit::numerics,
                 "tensor 'w': 2 elements are beyond F16, which ends at 65504; the largest is 80000; give bfloat16 or "
                 "float32",
                 [&] { stored(values, "F16"); });
    EXPECT_NEAR(stored(values, "Q8_0")[8], -80'000, 80'000.0 / 2048)
        << "the scale of a block has a limit, not the elements";
    values[7] = 0, values[8] = 1e7f;
    expect_error(Exit::numerics, "tensor 'w': 1 elements are beyond Q8_0, which ends at 8.31901e+06",
                 [&] { stored(values, "Q8_0"); });
    for (const float odd : {INFINITY, -INFINITY, NAN}) {
        values[8] = odd;
        expect_error(Exit::numerics, "are beyond Q8_0", [&] { stored(values, "Q8_0"); });
        const float found = stored(values, "F16")[8];
        EXPECT_TRUE(std::isnan(odd) ? std::isnan(found) : found == odd);
    }
    EXPECT_EQ(listing(folder_), "one.gguf");
}

}  // namespace
}  // namespace colonnade
