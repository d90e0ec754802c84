// A tokenizer.json made from a SentencePiece model gives the ids of SentencePiece.
// tests/golden/check_sentencepiece_export.py compares the same json with the `tokenizers` package;
// COLONNADE_SENTENCEPIECE_JSON=FOLDER writes what it needs.

#include "data/text/sentencepiece_export.h"

#include <cstdlib>
#include <cstring>
#include <random>

#include "data/text/hugging_face_tokenizer.h"
#include "data/text/sentencepiece_check.h"
#include "data/text/tokenizer.h"
#include "data/text/tokenizer_training.h"
#include "engine/io/files.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

const std::vector<std::string> fragments = {" ",      "  ",         "    ",   "a",      "b",    "the ", " column",
                                            "column", "corbagil",   "7",      "19",     "\n",   "\t",   "\u00e9",
                                            "\u4e2d", "\U0001F600", "\u2581", ".",      "<s>",  "roof", "\u00a0",
                                            "x",      "holds the",  "of of",  "\u0e2a", "</s>", "[X]"};

/// A model in protobuf's wire format, for scores that no trainer would give: BPE, with text as it is.
std::string field(int number, std::string_view content) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(content.size())} + std::string(content);
}
std::string model_with(const std::vector<SentencePieces::Piece>& pieces) {
    std::string bytes;
    for (const auto& [text, score, type] : pieces) {
        std::string bits(sizeof score, '\0');
        std::memcpy(bits.data(), &score, sizeof score);
        bytes += field(1, field(1, text) + '\x15' + bits + '\x18' + static_cast<char>(type));
    }
    const std::string bpe = "\x18\x02", keep_spaces{"\x20\0", 2};
    return bytes + field(2, bpe) + field(3, keep_spaces);
}

std::string random_text(std::mt19937& random) {
    std::string text;
    for (size_t n = random() % 24; n > 0; --n) text += fragments[random() % fragments.size()];
    return text;
}

class SentencePieceExport : public FileTest {
  protected:
    std::string train(const std::string& name, const std::vector<std::string>& special_tokens = {},
                      const std::string& type = "bpe") const {
        const char* syllables[] = {"ba", "cor", "du", "fen", "gil", "hom", "is", "jat", "kle", "mur", "nop"};
        std::string text;
        for (int i = 0; i < 300; ++i)
            text += fmt::format("the column{:{}} {} of {}{}{} holds   the {}{} roof     and  {}\n", "", i % 9, i,
                                syllables[i % 11], syllables[i % 7], syllables[i * i % 11], syllables[i % 5],
                                syllables[i * 3 % 11], i * i);
        spill(path("text.txt"), text);
        TokenizerTraining options;
        options.special_tokens = special_tokens;
        options.model_type = type;
        options.text_files = {path("text.txt")};
        options.output = path(name);
        options.vocab_size = 400;
        train_tokenizer(options);
        return path(name + ".model");
    }
    // Compares ids on hard and random texts that begin with no user-defined piece.
    static void compare(const std::string& model, const std::vector<std::string>& user_defined = {}) {
        const auto expected = Tokenizer::load(model);
        const ExportedTokenizer made = tokenizer_json_of_model(read_file(model));
        ASSERT_EQ(made.obstacle, "");
        const HuggingFaceTokenizer tokenizer(made.json, "tokenizer.json");
        TokenCache cache;
        std::mt19937 random(14);
        std::vector<std::string> texts = {"",
                                          " ",
                                          "  x",
                                          "x  ",
                                          "\u2581",
                                          std::string(600, ' '),
                                          std::string(500, 'a'),
                                          "a" + std::string(37, ' ') + "b",
                                          std::string("a\0b", 3)};
        for (int n = 0; n < 70; ++n) texts.push_back("x" + std::string(n, ' ') + "the" + std::string(n / 2, ' '));
        for (int i = 0; i < 3000; ++i) texts.push_back(random_text(random));
        for (const std::string& text : texts) {
            const auto ids = tokenizer.encode(text, Spelled::text, TextStart::document, cache).ids;
            const bool begins_with_user_defined = std::ranges::any_of(user_defined, [&](const std::string& piece) {
                return text.starts_with(piece) && !looks_like_control(piece);
            });
            if (begins_with_user_defined)
                EXPECT_EQ(ids, expected->encode(text, Spelled::text, TextStart::behind_token)) << "'" << text << "'";
            else
                EXPECT_EQ(ids, expected->encode(text)) << "'" << text << "'";
            EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::keep), expected->decode(ids, SpecialTokens::keep))
                << "'" << text << "'";
        }
    }
};

TEST_F(SentencePieceExport, GivesTheIdsOfSentencePiece) {
    compare(train("plain"));
    compare(train("chat", {"[X]", "roof", "roofx"}), {"[X]", "roof", "roofx"});
    compare(golden_file("template_golden.model"));
}

// Llama 2 and Mistral give all runs of spaces one score.
TEST_F(SentencePieceExport, RunsOfOneScoreGrowFromTheLeft) {
    const SentencePieces::Piece base[] = {{"<unk>", 0, PieceType::unknown},
                                          {"<s>", 0, PieceType::control},
                                          {"</s>", 0, PieceType::control},
                                          {"\u2581", -10},
                                          {"a", -11},
                                          {"x", -12},
                                          {"\u2581a", -1},
                                          {"xx", -1e9f}};
    for (const std::vector<int>& lengths :
         {std::vector<int>{2, 3, 4, 5, 6, 7, 8}, {2, 4, 8, 16}, {4, 2, 3}, {2, 3, 5}, {3, 2, 7, 4}, {2, 6, 4}}) {
        std::vector<SentencePieces::Piece> pieces(std::begin(base), std::end(base));
        for (const int n : lengths) {
            pieces.push_back({"", -1e9f});
            for (int i = 0; i < n; ++i) pieces.back().text += "\u2581";
        }
        spill(path("runs.model"), model_with(pieces));
        const auto expected = Tokenizer::load(path("runs.model"));
        const HuggingFaceTokenizer tokenizer(tokenizer_json_of_model(model_with(pieces)).json, "tokenizer.json");
        TokenCache cache;
        for (int n = 0; n < 60; ++n)
            for (const std::string& text : {std::string(n, ' '), std::string(n, ' ') + "a" + std::string(60 - n, ' '),
                                            std::string(n, 'x') + std::string(n, ' ')})
                EXPECT_EQ(tokenizer.encode_document(text, cache, PostProcess::no), expected->encode(text)) << n;
    }
}

TEST_F(SentencePieceExport, PutsBosInFrontAndNamesSpecialTokens) {
    const std::string model = train("chat", {"<|im_end|>"});
    const ExportedTokenizer made = tokenizer_json_of_model(read_file(model));
    const HuggingFaceTokenizer tokenizer(made.json, "tokenizer.json");
    TokenCache cache;
    const auto ids = tokenizer.encode_document("a</s><|im_end|>", cache, PostProcess::yes);
    EXPECT_EQ(ids.front(), 1);
    EXPECT_EQ(ids[ids.size() - 2], 2);
    EXPECT_EQ(ids.back(), *tokenizer.piece_id("<|im_end|>"));
    EXPECT_TRUE(tokenizer.is_special(1) && tokenizer.is_special(2) && tokenizer.is_special(ids.back()));
}

TEST_F(SentencePieceExport, SaysWhatItCannotWrite) {
    EXPECT_EQ(tokenizer_json_of_model(read_file(train("unigram", {}, "unigram"))).obstacle, "it is not a BPE model");
    const auto obstacle = [](const std::vector<SentencePieces::Piece>& pieces) {
        const ExportedTokenizer made = tokenizer_json({.pieces = pieces});
        EXPECT_TRUE(made.json.is_null());
        return made.obstacle;
    };
    const SentencePieces::Piece unknown{"<unk>", 0, PieceType::unknown}, a{"a", -3}, b{"b", -4}, ab{"ab", -1};
    EXPECT_EQ(tokenizer_json({.pieces = {unknown, a, b, ab}}).obstacle, "");
    EXPECT_EQ(obstacle({a, b, ab}), "it has 0 unknown pieces");
    EXPECT_EQ(obstacle({unknown, a, b, ab, {"ba", -1}}), "pieces 'ab' and 'ba' have the same score -1");
    EXPECT_EQ(obstacle({unknown, a, ab}), "piece 'ab' has a character that is no piece");
    EXPECT_EQ(obstacle({unknown, a, {"b", 0, PieceType::unused}}),
              "piece 'b' is unused, which tokenizer.json cannot say");
    EXPECT_EQ(obstacle({unknown, a, {"b", 0, PieceType::control}}), "the character 'b' is a control piece");
    EXPECT_EQ(obstacle({unknown, {"\xC3", 0}}), "a piece is not valid UTF-8");
    EXPECT_EQ(obstacle({unknown, {"", 0}}), "a piece is empty");
}

TEST_F(SentencePieceExport, WritesFilesForTheGoldenScript) {
    const char* folder = std::getenv("COLONNADE_SENTENCEPIECE_JSON");
    if (!folder) GTEST_SKIP() << "no folder in COLONNADE_SENTENCEPIECE_JSON";
    std::filesystem::create_directories(folder);
    std::vector<std::string> models = {train("plain"), train("chat", {"[X]", "roof", "roofx"}),
                                       golden_file("template_golden.model")};
    if (const char* more = std::getenv("COLONNADE_SENTENCEPIECE_MODELS"))
        for (const auto& entry : std::filesystem::directory_iterator(more)) models.push_back(entry.path().string());
    for (const std::string& model : models) {
        const ExportedTokenizer made = tokenizer_json_of_model(read_file(model));
        EXPECT_EQ(made.obstacle, "") << model;
        if (made.json.is_null()) continue;
        const std::string stem = std::string(folder) + "/" + std::filesystem::path(model).stem().string();
        spill(stem + ".model", read_file(model));
        spill(stem + ".json", made.json.dump());
    }
}

}  // namespace
}  // namespace colonnade
