#include "data/text/word_cache.h"

#include "data/text/sentencepiece_check.h"
#include "data/text/tokenizer.h"
#include "data/text/tokenizer_training.h"
#include "engine/device/philox.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

// Fields to append to a model file (protobuf wire format, sizes and values below 128): a later field extends a repeated
// field and overrides a single one.
std::string field(int number, std::string_view content) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(content.size())} + std::string(content);
}
std::string value(int number, char content) {
    return {static_cast<char>(number << 3), content};
}
/// A piece of score 32, which is merged before any trained piece.
std::string piece(std::string_view text, char type = 1) {
    return field(1, field(1, text) + std::string("\x15\x00\x00\x00\x42", 5) + value(3, type));
}
std::string trainer(std::string_view fields) {
    return field(2, fields);
}
std::string normalizer(std::string_view fields) {
    return field(3, fields);
}

struct Variant {
    const char* name;
    std::string appended;
    bool words_stand_alone;
};
const Variant variants[] = {
    {"as it was trained", "", true},
    {"a symbol of the user's", piece("<|end|>", 4), true},
    {"a run of spaces", piece("\u2581\u2581\u2581"), true},
    {"no dummy prefix", normalizer(value(3, 0)), true},
    {"a piece that ends in a space", piece("e\u2581"), false},
    {"a symbol with a space inside", piece("the column", 4), false},
    {"an unused piece", piece("qz", 5), false},
    {"spaces that are dropped", normalizer(value(4, 1)), false},
    {"spaces that stay spaces", normalizer(value(5, 0)), false},
    {"unigram", trainer(value(3, 1)), false},
    {"spaces behind words", trainer("\xC0\x01\x01"), false},
};

class WordCacheFile : public FileTest {
  protected:
    std::string trained_model() const {
        std::string text;
        for (int i = 0; i < 300; ++i)
            text +=
                fmt::format("the column {} of {}rea{} holds  the roof\n", i, i % 7 ? "cor" : "du", i % 5 ? "m" : "");
        spill(path("text.txt"), text);
        TokenizerTraining options;
        options.text_files = {path("text.txt")};
        options.output = path("trained");
        options.vocab_size = 300;
        train_tokenizer(options);
        return slurp(path("trained.model"));
    }
};

/// Words, spaces in both spellings, symbols, control characters, bytes that are not UTF-8.
std::string random_text(uint64_t seed) {
    const Philox random{.seed = seed, .stream = 0};
    const char* parts[] = {" ",        "  ",      "\u2581", "the",    " column",    "e", "corea",
                           "\n",       "<|end|>", "\t",     "\u00e9", "\U0001f600", "7", "\xFF",
                           "\xE2\x96", "holds ",  "roof",   ".",      "qz"};
    std::string text;
    for (uint64_t i = 1; i <= random.below(0, 14); ++i) text += parts[random.below(i, std::size(parts))];
    return text;
}

TEST_F(WordCacheFile, ChangesNoIds) {
    const std::string trained = trained_model();
    for (const Variant& variant : variants) {
        SCOPED_TRACE(variant.name);
        spill(path("m.model"), trained + variant.appended);
        const auto tokenizer = Tokenizer::load(path("m.model"));
        TokenCache cache;
        for (uint64_t i = 0; i < 2000; ++i) {
            const std::string text = random_text(i);
            const TextStart start = i % 2 ? TextStart::document : TextStart::behind_token;
            ASSERT_EQ(tokenizer->encode(text, Spelled::text, start, cache).ids,
                      tokenizer->encode(text, Spelled::text, start))
                << '"' << text << '"';
        }
        EXPECT_EQ(cache.words.find(" column") != nullptr, variant.words_stand_alone);
    }
}

TEST_F(WordCacheFile, WordsStandAloneOnlyWhereNothingJoinsThem) {
    const std::string trained = trained_model();
    for (const Variant& variant : variants)
        EXPECT_EQ(words_stand_alone(trained + variant.appended), variant.words_stand_alone) << variant.name;
    // Without a piece of its own, the space is unknown and merges with unknown text before it.
    const std::string spaceless = piece("<unk>", 2) + piece("a") + trainer(value(3, 2)) + normalizer(value(4, 0));
    EXPECT_FALSE(words_stand_alone(spaceless));
    EXPECT_TRUE(words_stand_alone(spaceless + piece("\u2581")));
    EXPECT_FALSE(words_stand_alone("no model"));
}

TEST(WordCache, StaysBounded) {
    WordCache words;
    constexpr int many = 1 << 18;
    int held = 0;
    for (int i = 0; i < many; ++i) {
        words.add(std::to_string(i), {i});
        ASSERT_EQ(*words.find(std::to_string(i)), std::vector<int32_t>{i});
    }
    for (int i = 0; i < many; ++i) held += words.find(std::to_string(i)) != nullptr;
    EXPECT_LE(held, many / 2);
    words.add(std::string(1 << 20, 'x'), {1});
    EXPECT_EQ(words.find(std::string(1 << 20, 'x')), nullptr) << "long words are not worth keeping";
}

}  // namespace
}  // namespace colonnade
