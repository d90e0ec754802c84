// Tokenizers in GGUF files that are written: a vocabulary that is read back gives the same ids, and what llama.cpp does
// otherwise is said. tests/llama_cpp/check_export.py compares ids with those of a llama.cpp.

#include "data/text/gguf_text.h"

#include "data/text/gguf_tokenizer.h"
#include "data/text/gguf_vocabulary.h"
#include "data/text/tokenizer_training.h"
#include "tests/support/base64.h"
#include "tests/support/text_folder_file.h"

namespace colonnade {
namespace {

class GgufTextFile : public TextFolderFile {
  protected:
    // Writes the pairs for the tokenizer of a folder or file, and returns the notices.
    std::vector<std::string> write_text(GgufText text) const {
        if (!text.tokenizer) text.tokenizer = Tokenizer::load(text.source);
        if (text.vocab_size == 0) text.vocab_size = text.tokenizer->vocab_size();
        GgufPairs pairs;
        std::vector<std::string> notices = add_text_pairs(text, pairs);
        GgufWriter(path("a.gguf"), pairs, {}).commit();
        return notices;
    }
    GgufReader written() const { return GgufReader(path("a.gguf")); }
    std::string value(const char* key) const { return written().metadata().text(key).value_or("none"); }
};

// The golden tokenizers of the goldens of hugging_face_tokenizer_test.cpp, with all their texts.
TEST_F(GgufTextFile, GivesTheIdsOfTheTokenizerThatItWasMadeOf) {
    for (const auto& [folder, pre] : {std::pair{"llama3", "llama-bpe"},
                                      {"qwen2", "qwen2"},
                                      {"qwen3_5", "qwen35"},
                                      {"tekken", "tekken"},
                                      {"gpt4o", "gpt-4o"}}) {
        const std::string at = golden_file(fmt::format("tokenizers/{}", folder));
        const auto source = Tokenizer::load(at);
        const std::vector<std::string> notices = write_text({.source = at, .vocab_size = source->vocab_size() + 3});
        EXPECT_EQ(value("tokenizer.ggml.pre"), pre);
        const std::string all = fmt::format("{}", fmt::join(notices, "\n"));
        EXPECT_NE(all.find("cannot say how these tokens are found in a text: '[X]' (single_word)"), all.npos) << all;
        const auto tokens = written().metadata().texts("tokenizer.ggml.tokens");
        EXPECT_EQ(tokens->back(), fmt::format("[PAD{}]", tokens->size() - 1));
        const auto found = Tokenizer::load(path("a.gguf"));
        EXPECT_EQ(found->document_prefix(), source->document_prefix());
        std::ifstream lines(at + "/golden.jsonl");
        int compared = 0;
        for (std::string line; std::getline(lines, line);) {
            const Json json = parse_json(line, at);
            const std::string text = from_base64(json["b64"].get<std::string>());
            if (json.contains("error") || text.find("[X]") != text.npos) continue;
            for (const Spelled spelled : {Spelled::text, Spelled::token})
                EXPECT_EQ(found->encode(text, spelled), source->encode(text, spelled)) << folder << " " << json["name"];
            ++compared;
        }
        EXPECT_GT(compared, 40);
    }
}

TEST_F(GgufTextFile, WritesRolesEndsAndTemplates) {
    write_tokenizer({.special = {"<|im_start|>", "<|im_end|>", "<|eom|>", "<|more|>"}});
    write("tokenizer_config.json", {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}});
    const TextFolder folder = read();
    const auto id = [&](const char* piece) { return *folder.tokenizer->piece_id(piece); };
    const std::vector<std::string> notices =
        write_text({.source = folder_,
                    .tokenizer = folder.tokenizer,
                    .templates = {{"default", "A", ""}, {"tool_use", "B", ""}},
                    .end_ids = {id("<|im_end|>"), id("</s>"), id("<|eom|>"), id("<|more|>")}});
    const GgufReader file = written();
    const GgufMetadata& found = file.metadata();
    EXPECT_EQ(found.integer("tokenizer.ggml.bos_token_id"), id("<s>"));
    EXPECT_EQ(found.integer("tokenizer.ggml.eos_token_id"), id("</s>"));
    EXPECT_EQ(found.integer("tokenizer.ggml.eot_token_id"), id("<|im_end|>"));
    EXPECT_EQ(found.integer("tokenizer.ggml.eom_token_id"), id("<|eom|>"));
    EXPECT_EQ(found.integer("tokenizer.ggml.padding_token_id"), id("<pad>"));
    EXPECT_EQ(found.boolean("tokenizer.ggml.add_bos_token"), false);
    EXPECT_EQ(found.texts("tokenizer.chat_templates"), std::vector<std::string_view>{"tool_use"});
    const std::string all = fmt::format("{}", fmt::join(notices, "\n"));
    EXPECT_NE(all.find("names three tokens that end an answer; it does not name token"), all.npos) << all;
    const TextFolder again = read_text_folder(path("a.gguf"));
    EXPECT_EQ(roles_of(*again.tokenizer), roles_of(*folder.tokenizer));
    ASSERT_EQ(again.templates.size(), 2u);
    EXPECT_EQ(again.templates[1].source, "B");
}

TEST_F(GgufTextFile, AddsTheTokensOfARun) {
    write_tokenizer();
    const TokenAdditions additions{.roles = {{"eos_token", "<|end|>"}}, .plain = {"<word>"}};
    const TextFolder folder = read_text_folder(folder_, additions);
    write_text({.source = folder_, .tokenizer = folder.tokenizer, .additions = additions});
    const auto found = Tokenizer::load(path("a.gguf"));
    for (const char* token : {"<|end|>", "<word>"}) {
        ASSERT_TRUE(found->piece_id(token)) << token;
        EXPECT_EQ(found->piece_id(token), folder.tokenizer->piece_id(token));
        EXPECT_EQ(found->is_special(*found->piece_id(token)), folder.tokenizer->is_special(*found->piece_id(token)));
    }
    EXPECT_EQ(found->eos(), found->piece_id("<|end|>"));
}

TEST_F(GgufTextFile, KeepsSentencePieces) {
    // Llama 2's kind of tokenizer.json has no scores; the order of its merges gives them.
    const std::string llama2 = golden_file("tokenizers/llama2");
    write_text({.source = llama2});
    EXPECT_EQ(value("tokenizer.ggml.model"), "llama");
    EXPECT_EQ(written().metadata().boolean("tokenizer.ggml.add_space_prefix"), true);
    const auto source = Tokenizer::load(llama2), found = Tokenizer::load(path("a.gguf"));
    for (const std::string text : kTexts) EXPECT_EQ(found->encode(text), source->encode(text)) << text;
    write_text({.source = golden_file("tokenizers/gemma")});
    EXPECT_EQ(written().metadata().boolean("tokenizer.ggml.add_space_prefix"), false);
    // A GGUF file's own lists are copied.
    std::filesystem::rename(path("a.gguf"), path("source.gguf"));
    write_text({.source = path("source.gguf")});
    const GgufReader before(path("source.gguf"));
    for (const char* key : {"tokenizer.ggml.scores", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"})
        EXPECT_TRUE(written().metadata().values().at(key).data == before.metadata().values().at(key).data) << key;
}

// SentencePiece puts a space in front of a document, llama.cpp also behind every special token.
TEST_F(GgufTextFile, GivesChatsTheIdsOfTraining) {
    write_model();
    const TextFolder folder = read();
    const auto& tokenizer = *folder.tokenizer;
    const std::string text = "<s>user</s>user";
    EXPECT_EQ(llama_cpp_ids(tokenizer, text, false), tokenizer.encode(text, Spelled::token));
    EXPECT_NE(llama_cpp_ids(tokenizer, text, true), tokenizer.encode(text, Spelled::token));
    const auto write_with = [&](const char* name, const char* source) {
        return write_text({.source = folder_,
                           .tokenizer = folder.tokenizer,
                           .chat = std::make_shared<const ChatTemplate>(name, source, "", ChatTemplate::Settings{})});
    };
    EXPECT_EQ(write_text({.source = folder_}), std::vector<std::string>{});
    EXPECT_EQ(written().metadata().boolean("tokenizer.ggml.add_space_prefix"), true);
    const std::vector<std::string> markers =
        write_with("markers",
                   "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
                   "{% if add_generation_prompt %}<s>assistant\n{% endif %}");
    EXPECT_EQ(written().metadata().boolean("tokenizer.ggml.add_space_prefix"), false);
    ASSERT_EQ(markers.size(), 1u);
    EXPECT_TRUE(markers[0].starts_with("add_space_prefix is false: llama.cpp then puts no space behind the special"));
    const std::vector<std::string> both =
        write_with("both",
                   "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
                   "{% if add_generation_prompt %}assistant:{% endif %}");
    EXPECT_EQ(written().metadata().boolean("tokenizer.ggml.add_space_prefix"), true);
    ASSERT_EQ(both.size(), 1u);
    EXPECT_NE(both[0].find("ids of a short chat differ in llama.cpp"), both[0].npos) << both[0];
}

TEST_F(GgufTextFile, RefusesWhatLlamaCppHasNoRuleFor) {
    const auto refuses = [&](const char* family, const std::string& part, const std::function<void(Json&)>& edit = {}) {
        Json json = read_json_file(golden_file(fmt::format("tokenizers/{}/tokenizer.json", family)));
        if (edit) edit(json);
        write("tokenizer.json", json);
        expect_error(Exit::data, path("tokenizer.json") + ": " + part, [&] { write_text({.source = folder_}); });
    };
    refuses("deepseek_coder", "pre_tokenizer [");
    refuses("gpt2_nfkc", "pre_tokenizer [");
    refuses("unigram", "the tokenizer's model is Unigram, expected BPE");
    refuses("bert_cased", "the tokenizer's model is WordPiece, expected BPE");
    refuses("llama2", "normalizer {\"type\":\"NFKC\"}", [](Json& json) { json["normalizer"] = {{"type", "NFKC"}}; });
    refuses("llama2", "token '", [](Json& json) { json["model"]["merges"].erase(0); });
    write_tokenizer();
    expect_error(Exit::data, "the model embeds only 10", [&] { write_text({.source = folder_, .vocab_size = 10}); });
}

TEST_F(GgufTextFile, SaysThatAFileWithoutATokenizerTakesIds) {
    GgufPairs pairs;
    const std::vector<std::string> notices = add_text_pairs({.end_ids = {2}, .bos = 1}, pairs);
    EXPECT_EQ(notices, std::vector<std::string>{"without a tokenizer the file takes and gives token ids alone"});
    for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"})
        EXPECT_TRUE(pairs.has(key)) << key;
}

}  // namespace
}  // namespace colonnade
