// Tokenizers of GGUF files: the vocabularies of golden tokenizer.json files, stored as GGUF stores them, give the
// golden ids of those files again.
//
// COLONNADE_GGUF_TOKENIZER=model.gguf and COLONNADE_GGUF_LINES=golden.jsonl compare a whole file with lines of the
// form that hugging_face_tokenizer_test.cpp describes.

#include "data/text/gguf_tokenizer.h"

#include <cstdlib>

#include "data/text/hugging_face_tokenizer.h"
#include "tests/support/base64.h"
#include "tests/support/file_test.h"
#include "tests/support/gguf_file.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

constexpr int normal = 1, control = 3, user_defined = 4, unused = 5;

// The lists of a vocabulary.
struct Lists {
    std::vector<std::string> tokens, merges;
    std::vector<int32_t> types;
};

Lists lists_of(const Json& json) {
    Lists lists;
    const auto set = [&](size_t id, const std::string& text, int32_t type) {
        for (size_t next = lists.tokens.size(); next <= id; ++next) {
            lists.tokens.push_back(fmt::format("[PAD{}]", next));
            lists.types.push_back(unused);
        }
        lists.tokens[id] = text, lists.types[id] = type;
    };
    for (const auto& [piece, id] : json["model"]["vocab"].items()) set(id, piece, normal);
    for (const Json& token : json["added_tokens"])
        set(token["id"], token["content"], token["special"] == true ? control : user_defined);
    for (const Json& merge : json["model"]["merges"])
        lists.merges.push_back(merge.is_string() ? merge.get<std::string>()
                                                 : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    return lists;
}

class GgufTokenizerFile : public FileTest {
  protected:
    // `changes` replace pairs of the same keys or join them.
    GgufTokenizer make(std::vector<GgufTextPair> pairs, const std::vector<GgufTextPair>& changes = {}) const {
        std::erase_if(pairs, [&](const GgufTextPair& p) {
            return std::ranges::find(changes, p.key, &GgufTextPair::key) != changes.end();
        });
        pairs.insert(pairs.end(), changes.begin(), changes.end());
        spill(path("a.gguf"), gguf_file(pairs));
        return gguf_tokenizer(GgufReader(path("a.gguf")));
    }
    static std::vector<GgufTextPair> byte_pairs(const Lists& lists, const std::string& pre) {
        return {gguf_pair("tokenizer.ggml.model", "gpt2"), gguf_pair("tokenizer.ggml.pre", pre),
                gguf_pair("tokenizer.ggml.tokens", GgufKind::string, lists.tokens),
                gguf_pair("tokenizer.ggml.token_type", GgufKind::i32, lists.types),
                gguf_pair("tokenizer.ggml.merges", GgufKind::string, lists.merges)};
    }
    static std::vector<GgufTextPair> small() {
        return byte_pairs({.tokens = {"<s>", "a", "b", "ab", "</s>"}, .merges = {"a b"}, .types = {3, 1, 1, 1, 3}},
                          "gpt-2");
    }
    static std::vector<GgufTextPair> sentence_pairs() {
        return {gguf_pair("tokenizer.ggml.model", "llama"),
                gguf_pair("tokenizer.ggml.tokens", GgufKind::string,
                          std::vector<std::string>{"<unk>", "<s>", "\u2581", "a", "b", "ab", "\u2581a", "<tool>"}),
                gguf_pair("tokenizer.ggml.scores", GgufKind::f32, std::vector<float>{0, 0, -9, -8, -7, -1, -2, 0}),
                gguf_pair("tokenizer.ggml.token_type", GgufKind::i32, std::vector<int32_t>{2, 3, 1, 1, 1, 1, 1, 4}),
                gguf_pair("tokenizer.ggml.bos_token_id", GgufKind::u32, uint32_t{1})};
    }
    void refuses(const std::vector<GgufTextPair>& changes, const std::string& part) const {
        expect_error(Exit::data, path("a.gguf") + ": " + part, [&] { make(small(), changes); });
    }
};

TEST_F(GgufTokenizerFile, GivesTheIdsOfTheModelsOwnFile) {
    for (const auto& [folder, pre] : {std::pair{"llama3", "llama-bpe"},
                                      {"qwen2", "qwen2"},
                                      {"qwen3_5", "qwen35"},
                                      {"tekken", "tekken"},
                                      {"gpt4o", "gpt-4o"}}) {
        const std::string at = golden_file(fmt::format("tokenizers/{}/", folder));
        const Json json = read_json_file(at + "tokenizer.json");
        const GgufTokenizer made = make(byte_pairs(lists_of(json), pre));
        EXPECT_EQ(made.tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"],
                  json["pre_tokenizer"]["pretokenizers"][0]["pattern"]);
        const HuggingFaceTokenizer tokenizer(made.tokenizer, "a.gguf");
        TokenCache cache;
        std::ifstream file(at + "golden.jsonl");
        int lines = 0;
        for (std::string text; std::getline(file, text);) {
            const Json line = parse_json(text, at);
            const std::string document = from_base64(line["b64"].get<std::string>());
            // "[X]" is a token with the flag single_word, which GGUF cannot say.
            if (line.contains("error") || document.find("[X]") != document.npos) continue;
            EXPECT_EQ(tokenizer.encode_document(document, cache, PostProcess::no),
                      line["ids"].get<std::vector<int32_t>>())
                << folder << " " << line["name"];
            ++lines;
        }
        EXPECT_GT(lines, 40);
    }
}

TEST_F(GgufTokenizerFile, KeepsSpecialTokensAndTemplates) {
    GgufTokenizer made = make(small(), {gguf_pair("tokenizer.ggml.bos_token_id", GgufKind::u32, uint32_t{0}),
                                        gguf_pair("tokenizer.ggml.eos_token_id", GgufKind::u32, uint32_t{4}),
                                        gguf_pair("tokenizer.ggml.padding_token_id", GgufKind::u32, UINT32_MAX),
                                        gguf_pair("tokenizer.ggml.add_bos_token", GgufKind::boolean, true),
                                        gguf_pair("tokenizer.chat_template", "{{ messages }}")});
    EXPECT_EQ(made.config, (Json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                                 {"clean_up_tokenization_spaces", false},
                                 {"bos_token", "<s>"},
                                 {"eos_token", "</s>"},
                                 {"add_bos_token", true},
                                 {"chat_template", "{{ messages }}"}}));
    const HuggingFaceTokenizer tokenizer(made.tokenizer, "a.gguf");
    TokenCache cache;
    EXPECT_EQ(tokenizer.encode_document("ab</s>b", cache, PostProcess::yes), (std::vector<int32_t>{0, 3, 4, 2}));
    made =
        make(small(), {gguf_pair("tokenizer.chat_template", "a"), gguf_pair("tokenizer.chat_template.tool_use", "b")});
    EXPECT_EQ(made.config["chat_template"],
              (Json::array({{{"name", "default"}, {"template", "a"}}, {{"name", "tool_use"}, {"template", "b"}}})));
    EXPECT_EQ(made.config["add_bos_token"], false);
}

TEST_F(GgufTokenizerFile, ReadsSentencePieces) {
    const GgufTokenizer made = make(sentence_pairs());
    const HuggingFaceTokenizer tokenizer(made.tokenizer, "a.gguf");
    TokenCache cache;
    // "ab" has a better score than "_a".
    EXPECT_EQ(tokenizer.encode_document("ab a<tool>a", cache, PostProcess::yes),
              (std::vector<int32_t>{1, 2, 5, 6, 7, 3}));
    EXPECT_EQ(made.config["add_bos_token"], true);
    const auto refuse = [&](const GgufTextPair& change, const char* message) {
        expect_error(Exit::data, message, [&] { make(sentence_pairs(), {change}); });
    };
    refuse(gguf_pair("tokenizer.ggml.scores", GgufKind::f32, std::vector<float>(8, -1000.0f)),
           "the tokenizer cannot be used: pieces '\u2581a' and 'ab' have the same score -1000; give "
           "tokenizer_name_or_path");
    refuse(gguf_pair("tokenizer.ggml.scores", GgufKind::f32, std::vector<float>(7)), "has 7 entries for 8 tokens");
    refuse(gguf_pair("tokenizer.ggml.remove_extra_whitespaces", GgufKind::boolean, true), "which is not supported");
}

TEST_F(GgufTokenizerFile, RefusesWhatItDoesNotKnow) {
    refuses({gguf_pair("tokenizer.ggml.pre", "superbpe")},
            "tokenizer.ggml.pre 'superbpe' does not say how text is split; expected one of llama-bpe, llama3,");
    for (const char* pre : {"default", ""})
        refuses({gguf_pair("tokenizer.ggml.pre", pre)}, fmt::format("tokenizer.ggml.pre '{}' does not say", pre));
    refuses({gguf_pair("tokenizer.ggml.model", "t5")},
            "tokenizer.ggml.model is 't5', expected gpt2 or llama; give tokenizer_name_or_path");
    refuses({gguf_pair("tokenizer.ggml.tokens", GgufKind::string, std::vector<std::string>{})},
            "key 'tokenizer.ggml.tokens': expected 1 to 16777216 tokens, found 0");
    refuses({gguf_pair("tokenizer.ggml.tokens", GgufKind::string, std::vector<std::string>{"a", "b", "b", "c", "d"})},
            "key 'tokenizer.ggml.tokens': token 2 is a duplicate");
    refuses({gguf_pair("tokenizer.ggml.tokens", GgufKind::string,
                       std::vector<std::string>{"a", "b", std::string(1025, 'c'), "c", "d"})},
            "key 'tokenizer.ggml.tokens': token 2 is longer than 1024 bytes");
    refuses({gguf_pair("tokenizer.ggml.tokens", GgufKind::string,
                       std::vector<std::string>{"<s>", "a", "\u2581b", "c", "d"})},
            "key 'tokenizer.ggml.tokens': token 2, '\u2581b', is not spelled in byte characters");
    refuses({gguf_pair("tokenizer.ggml.token_type", GgufKind::i32, std::vector<int32_t>{1, 1})},
            "key 'tokenizer.ggml.token_type' has 2 entries for 5 tokens");
    refuses({gguf_pair("tokenizer.ggml.token_type", GgufKind::i32, std::vector<int32_t>{1, 1, 1, 7, 1})},
            "key 'tokenizer.ggml.token_type': token 3 has type 7, expected 1 to 6");
    refuses({gguf_pair("tokenizer.ggml.merges", GgufKind::string, std::vector<std::string>{"ab"})},
            "key 'tokenizer.ggml.merges': 'ab': expected two pieces and a space");
    refuses({gguf_pair("tokenizer.ggml.bos_token_id", GgufKind::u32, uint32_t{5})},
            "key 'tokenizer.ggml.bos_token_id' is 5, but there are 5 tokens");
}

TEST(GgufTokenizer, EqualsLinesOfALargeFile) {
    const char *path = std::getenv("COLONNADE_GGUF_TOKENIZER"), *golden = std::getenv("COLONNADE_GGUF_LINES");
    if (!path || !golden) GTEST_SKIP() << "no file in COLONNADE_GGUF_TOKENIZER and COLONNADE_GGUF_LINES";
    const GgufTokenizer made = gguf_tokenizer(GgufReader(path));
    const HuggingFaceTokenizer tokenizer(made.tokenizer, path);
    TokenCache cache;
    std::ifstream file(golden);
    int lines = 0, different = 0;
    for (std::string text; std::getline(file, text); ++lines) {
        const Json line = parse_json(text, golden);
        if (line.contains("error")) continue;
        const auto ids = tokenizer.encode_document(from_base64(line["b64"].get<std::string>()), cache, PostProcess::no);
        different += ids != line["ids"].get<std::vector<int32_t>>();
    }
    EXPECT_EQ(different, 0) << "of " << lines;
    EXPECT_GT(lines, 100);
}

}  // namespace
}  // namespace colonnade
