// The text of an answer in pieces: whole characters, nothing of a stop string, and together what the tokenizer makes of
// all tokens.

#include "train/generation/answer_text.h"

#include <gtest/gtest.h>

#include "data/text/text_folder.h"
#include "data/text/unicode.h"
#include "engine/device/philox.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

std::shared_ptr<const Tokenizer> tokenizer(const std::string& name) {
    return Tokenizer::load(golden_file("tokenizers/" + name + "/tokenizer.json"));
}

std::vector<std::string> pieces_of(const Tokenizer& t, const std::vector<int32_t>& ids,
                                   std::vector<std::string> stops = {}) {
    AnswerText text(t, std::move(stops));
    std::vector<std::string> pieces;
    for (const int32_t id : ids) {
        pieces.push_back(text.add(id));
        if (text.stopped()) break;
    }
    pieces.push_back(text.finish());
    return pieces;
}

std::string joined(const std::vector<std::string>& pieces) {
    std::string all;
    for (const std::string& piece : pieces) all += piece;
    return all;
}

const std::vector<std::string> texts = {"Hello, world! 1234",
                                        "Größe: 你好 👩‍👩‍👧 naïve",
                                        "  two  spaces\n\n\ttab\n",
                                        "\xF0\x9F\x98\x80\xF0\x9F\x98\x81",
                                        "ab abc abcd",
                                        "e\xCC\x81"};

TEST(AnswerText, PiecesAreWholeCharactersAndGiveTheWholeText) {
    for (const char* name : {"qwen2", "llama3", "llama2", "gpt4o", "tekken", "unigram", "gemma", "metaspace_first"}) {
        const auto t = tokenizer(name);
        for (const std::string& text : texts) {
            const std::vector<int32_t> ids = t->encode(text);
            const std::vector<std::string> pieces = pieces_of(*t, ids);
            EXPECT_EQ(joined(pieces), t->decode(ids)) << name;
            for (const std::string& piece : pieces)
                EXPECT_EQ(well_formed_prefix(piece), piece.size()) << name << ": " << piece;
        }
    }
}

TEST(AnswerText, GivesTheTextOfAnyTokens) {
    for (const char* name : {"qwen2", "llama2", "gpt4o"}) {
        const auto t = tokenizer(name);
        const Philox random{3, 0};
        uint64_t draws = 0;
        for (int n = 0; n < 200; ++n) {
            std::vector<int32_t> ids;
            while (ids.size() < 20) {
                const auto id = static_cast<int32_t>(random.below(draws++, static_cast<uint64_t>(t->vocab_size())));
                try {
                    t->decode({id});
                    ids.push_back(id);
                } catch (const Error&) {  // a hole in the vocabulary
                }
            }
            EXPECT_EQ(joined(pieces_of(*t, ids)), t->decode(ids)) << name;
        }
    }
}

TEST(AnswerText, EndsBeforeAStopStringAcrossTokens) {
    const auto t = tokenizer("qwen2");
    const std::string text = "One. Two.\nUser: three";
    for (const auto& [stops, expected] : std::vector<std::pair<std::vector<std::string>, std::string>>{
             {{"\nUser:"}, "One. Two."},
             {{"Two.\nUser: th"}, "One. "},
             {{"three", "wo"}, "One. T"},
             {{"User", "\nUser: three"}, "One. Two.\n"},
             {{"four"}, text},
             {{""}, text},
             {{"threefold", "three!"}, text},  // begun, never complete
             {{"O"}, ""}}) {
        const std::vector<std::string> pieces = pieces_of(*t, t->encode(text), stops);
        EXPECT_EQ(joined(pieces), expected) << stops.front();
    }
    AnswerText answer(*t, {"Two"});
    for (const int32_t id : t->encode(text)) answer.add(id);
    EXPECT_TRUE(answer.stopped());
    EXPECT_EQ(answer.finish(), "");
}

TEST(AnswerText, HoldsBackOnlyWhatMayBeginAStopString) {
    const auto t = tokenizer("qwen2");
    AnswerText answer(*t, {"abcdef"});
    std::string shown;
    for (const int32_t id : t->encode("xyz abc")) shown += answer.add(id);
    EXPECT_EQ(shown, "xyz ");
    for (const int32_t id : t->encode(" q")) shown += answer.add(id);
    EXPECT_EQ(shown, "xyz abc q");
    EXPECT_EQ(answer.finish(), "");
}

}  // namespace
}  // namespace colonnade
