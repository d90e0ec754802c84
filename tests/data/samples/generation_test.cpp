// What is learned of chats whose template has {% generation %}, against transformers' assistant masks
// (tests/golden/make_generation_golden.py).

#include <cstdlib>
#include <map>

#include "data/samples/encode.h"
#include "data/text/hugging_face_tokenizer.h"
#include "tests/support/chat_turns.h"
#include "tests/support/expect_error.h"
#include "tests/support/flat_sample.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

struct Counts {
    size_t equal = 0;
    std::map<std::string, size_t> refused;  ///< by template
};

Row row_of(const Json& golden) {
    Row row;
    row.messages = golden_messages(golden);
    if (!golden["tools"].is_null()) row.variables = {{"tools", golden["tools"]}};
    return row;
}

/// The first token has no weight: nothing predicts it.
std::vector<float> weights_of(const Json& mask) {
    auto weights = mask.get<std::vector<float>>();
    weights[0] = 0;
    return weights;
}

Counts compare(const std::string& path) {
    const Json golden = read_json_file(path);
    std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers;
    for (const auto& [name, json] : golden["tokenizers"].items()) {
        auto tokenizer = std::make_shared<HuggingFaceTokenizer>(json, path);
        tokenizer->set_roles({tokenizer->piece_id("<s>"), tokenizer->piece_id("</s>"), {}, {}});
        tokenizers[name] = tokenizer;
    }
    std::map<std::string, Encoder> encoders;
    for (const auto& [name, pair] : golden["templates"].items()) {
        const auto date = golden["date"].get<std::array<int, 3>>();
        ChatTemplate::Settings settings{.clock = {date[0], date[1], date[2]}};
        EncodeOptions options{
            .allow_spelled_out_markers = true, .max_length = 1 << 20, .history = History::as_rendered};
        options.chat_template = std::make_shared<const ChatTemplate>(name, pair[0].get<std::string>(), "", settings);
        encoders.emplace(name, Encoder(tokenizers.at(pair[1]), options));
    }
    Counts counts;
    for (const Json& chat : golden["cases"]) {
        const Encoder& encoder = encoders.at(chat["template"]);
        SCOPED_TRACE(chat["template"].get<std::string>() + " " + chat["chat"].get<std::string>());
        const auto ids = chat["ids"].get<std::vector<int32_t>>();
        const std::vector<float> weights = weights_of(chat["mask"]);
        Encoded found;
        try {
            found = encoder.encode(row_of(chat), "here");
        } catch (const Error& e) {
            EXPECT_NE(std::string(e.what()).find("leaves out"), std::string::npos) << e.what();
            ++counts.refused[chat["template"]];
            continue;
        }
        if (std::ranges::find(weights, 1.0f) == weights.end()) {
            EXPECT_TRUE(found.notes.has(RowNote::dropped_nothing_learned));
            continue;
        }
        const FlatSample sample = flat(found.sample);
        const bool equal = sample.tokens == ids && sample.weights == weights;
        counts.equal += equal ? 1 : 0;
        EXPECT_TRUE(equal) << "found    " << shown(*encoder.tokenizer(), sample.tokens, sample.weights) << "\nexpected "
                           << shown(*encoder.tokenizer(), ids, weights);
    }
    return counts;
}

TEST(Generation, LearnsWhatTransformersMarks) {
    const Counts counts = compare(golden_file("generation_golden.json"));
    EXPECT_EQ(counts.equal, 110u);
    EXPECT_EQ(counts.refused, (std::map<std::string, size_t>{{"last_only", 8}, {"macro", 8}, {"tail", 8}}))
        << "tools and reasoning, which these do not write";
}

TEST(Generation, LearnsWhatTrlMarks) {
    const char* folder = std::getenv("COLONNADE_TRL_MASKS");
    if (folder == nullptr) GTEST_SKIP() << "COLONNADE_TRL_MASKS names no folder";
    const Counts counts = compare(std::string(folder) + "/cases.json");
    std::printf("%zu equal\n", counts.equal);
    for (const auto& [name, count] : counts.refused) std::printf("%zu refused by %s\n", count, name.c_str());
    EXPECT_GT(counts.equal, 640u);
}

}  // namespace
}  // namespace colonnade
