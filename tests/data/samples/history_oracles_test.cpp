// Chats turn by turn, against what transformers gives a model to read and to write for each answer
// (tests/golden/make_history_golden.py).

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "data/text/hugging_face_tokenizer.h"
#include "tests/support/chat_turns.h"
#include "tests/support/flat_sample.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

Row row_of(const Json& golden) {
    Row row;
    row.messages = golden_messages(golden);
    if (!golden["variables"].empty()) row.variables = golden["variables"];
    return row;
}

Encoder encoder_of(const Json& golden, const std::string& name, const std::shared_ptr<const Tokenizer>& tokenizer,
                   History history) {
    const auto date = golden["date"].get<std::array<int, 3>>();
    EncodeOptions options{.allow_spelled_out_markers = true, .max_length = 1 << 20, .history = history};
    const ChatTemplate::Settings settings{.clock = {date[0], date[1], date[2]}};
    const std::string source = golden["templates"][name][0];
    options.chat_template = std::make_shared<const ChatTemplate>(name, source, "", settings);
    return {tokenizer, options};
}

struct Golden {
    std::vector<TokenDraft> turns;
    std::vector<float> once;  ///< weights of the whole chat
    bool keeps_past = true;   ///< every turn is in the whole chat as it is by itself
    bool exact = true;        ///< every answer stands behind its prompt
};

Golden golden_of(const Json& json) {
    Golden golden;
    const auto once = json["once"].get<std::vector<int32_t>>();
    golden.once.assign(once.size(), 0.0f);
    for (const Json& turn : json["turns"]) {
        golden.exact = golden.exact && turn.contains("ids");
        if (!golden.exact) break;
        TokenDraft draft{.tokens = turn["ids"].get<std::vector<int32_t>>()};
        const auto begin = std::max<size_t>(turn["begin"].get<size_t>(), 1), end = turn["end"].get<size_t>();
        draft.weights.assign(draft.tokens.size(), 0.0f);
        for (size_t i = begin; i < end; ++i) {
            draft.weights[i] = 1;
            if (i < once.size()) golden.once[i] = 1;
        }
        golden.keeps_past = golden.keeps_past && end <= once.size() &&
                            std::equal(once.begin(), once.begin() + static_cast<int64_t>(end), draft.tokens.begin());
        if (begin < end) golden.turns.push_back(std::move(draft));
    }
    return golden;
}

class Comparison {
  public:
    enum class Ends { known, unknown };
    Comparison(const std::string& path, Ends ends) : ends_(ends), golden_(read_json_file(path)) {
        for (const auto& [name, json] : golden_["tokenizers"].items()) {
            auto tokenizer = std::make_shared<HuggingFaceTokenizer>(json, path);
            tokenizer->set_roles({tokenizer->piece_id("<s>"), tokenizer->piece_id("</s>"), {}, {}});
            tokenizers_[name] = tokenizer;
        }
        for (const auto& [name, pair] : golden_["templates"].items())
            for (const History history : {History::automatic, History::per_turn})
                encoders_[name].push_back(encoder_of(golden_, name, tokenizers_.at(pair[1]), history));
        for (const Json& json : golden_["cases"]) {
            SCOPED_TRACE(json["template"].get<std::string>() + " " + json["chat"].get<std::string>());
            compare(json);
        }
    }

    std::map<std::string, size_t> counts;

  private:
    void compare(const Json& json) {
        const Row row = row_of(json);
        const Golden golden = golden_of(json);
        const std::vector<Encoder>& encoders = encoders_.at(json["template"]);
        Encoded result;
        try {
            const Drafts drafts = turns_of(encoders[1], row, result);
            EXPECT_TRUE(golden.exact);
            expect_equal(*encoders[0].tokenizer(), drafts.value(), golden.turns);
            ++counts["equal"];
            if (encoders[0].chat_template().reads_forward()) expect_prefixes(*drafts, json["once"]);
        } catch (const Error& error) {
            const std::string text = error.what();
            const bool lost = text.find("leaves out") != text.npos;
            EXPECT_TRUE(lost || !golden.exact) << text;
            EXPECT_TRUE(lost || text.find("is not written as it would be generated") != text.npos) << text;
            ++counts[lost ? "lost" : "not exact"];
            return;
        }
        const Encoded chosen = encoders[0].encode(row, "here");
        const bool turn_by_turn = chosen.notes.has(RowNote::per_turn);
        if (ends_ == Ends::known) {
            EXPECT_EQ(turn_by_turn, !golden.keeps_past);
        }
        ++counts[turn_by_turn ? "turn by turn" : "one sequence"];
        if (turn_by_turn)
            expect_equal(*encoders[0].tokenizer(), drafts_of(chosen.sample), golden.turns);
        else if (golden.keeps_past)
            expect_once(json, golden, chosen.sample);
    }

    static std::vector<TokenDraft> drafts_of(const Sample& sample) {
        std::vector<TokenDraft> drafts;
        for (size_t i = 0; i < sample.sequences.size(); ++i)
            drafts.push_back({.tokens = sample.whole(i), .weights = weights_of(sample.sequences[i])});
        return drafts;
    }

    /// The end of an answer is a matter of the template; golden values know it for those whose markers are special.
    bool equal_weights(const std::vector<float>& found, const std::vector<float>& expected) const {
        if (ends_ == Ends::known) return found == expected;
        return std::ranges::find(found, 1.0f) - found.begin() == std::ranges::find(expected, 1.0f) - expected.begin();
    }

    void expect_equal(const Tokenizer& tokenizer, const std::vector<TokenDraft>& found,
                      const std::vector<TokenDraft>& expected) const {
        ASSERT_EQ(found.size(), expected.size());
        for (size_t i = 0; i < found.size(); ++i)
            EXPECT_TRUE(found[i].tokens == expected[i].tokens && equal_weights(found[i].weights, expected[i].weights))
                << "found    " << shown(tokenizer, found[i].tokens, found[i].weights) << "\nexpected "
                << shown(tokenizer, expected[i].tokens, expected[i].weights);
    }

    /// A template that reads forward: the whole chat has every turn as it is by itself.
    void expect_prefixes(const std::vector<TokenDraft>& drafts, const std::vector<int32_t>& once) {
        ++counts["read forward"];
        for (const TokenDraft& draft : drafts) {
            const auto learned = std::find(draft.weights.rbegin(), draft.weights.rend(), 1.0f);
            const auto end = static_cast<size_t>(draft.weights.rend() - learned);
            EXPECT_TRUE(end <= once.size() &&
                        std::equal(once.begin(), once.begin() + static_cast<int64_t>(end), draft.tokens.begin()));
        }
    }

    /// A template that keeps the past: the whole chat learns what its turns learn.
    void expect_once(const Json& json, const Golden& golden, const Sample& sample) {
        if (golden.turns.empty()) return;
        ASSERT_EQ(sample.sequences.size(), 1u);
        EXPECT_EQ(sample.sequences[0].tokens, json["once"].get<std::vector<int32_t>>());
        if (ends_ == Ends::known && weights_of(sample.sequences[0]) != golden.once)
            ++counts["one sequence, otherwise learned"];
    }

    Ends ends_;
    Json golden_;
    std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers_;
    std::map<std::string, std::vector<Encoder>> encoders_;
};

TEST(HistoryOracles, EveryTurnIsWhatTransformersReadsAndWrites) {
    const Comparison comparison(golden_file("history_golden.json"), Comparison::Ends::known);
    EXPECT_EQ(comparison.counts, (std::map<std::string, size_t>{{"equal", 176},
                                                                {"lost", 121},
                                                                {"not exact", 37},
                                                                {"one sequence", 138},
                                                                {"one sequence, otherwise learned", 6},
                                                                {"read forward", 59},
                                                                {"turn by turn", 38}}))
        << "lost: parts of chats that these templates do not write. Otherwise learned: OpenedLike's <think> in a "
           "content "
           "is learned although the prompt writes it, ContinuingLike's channel behind a tool is not";
}

TEST(HistoryOracles, EveryTurnOfTrlsTemplates) {
    const char* folder = std::getenv("COLONNADE_TRL_HISTORIES");
    if (folder == nullptr) GTEST_SKIP() << "COLONNADE_TRL_HISTORIES names no folder";
    const Comparison comparison(std::string(folder) + "/cases.json", Comparison::Ends::unknown);
    for (const auto& [name, count] : comparison.counts) std::printf("%zu %s\n", count, name.c_str());
}

}  // namespace
}  // namespace colonnade
