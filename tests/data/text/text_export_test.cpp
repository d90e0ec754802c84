// Exported text folders: read again, they give the same tokens, whatever they were made of.

#include "tests/support/text_folder_file.h"

namespace colonnade {
namespace {

class TextExportFile : public TextFolderFile {
  protected:
    void SetUp() override {
        TextFolderFile::SetUp();
        std::filesystem::create_directory(out());
    }
    std::string out() const { return path("out"); }
    /// Exports the folder, or a file of it, and reads the export again.
    TextFolder exported(const std::string& source, const ChatTemplate* chat_template = nullptr) {
        const TextFolder text = read_text_folder(source);
        notices_ = export_text({source, out(), text.tokenizer.get(), chat_template});
        const TextFolder again = read_text_folder(out());
        expect_same_ids(*text.tokenizer, *again.tokenizer);
        return again;
    }
    std::vector<std::string> notices_;
};

TEST_F(TextExportFile, FolderWithATokenizerJsonIsCopied) {
    write_tokenizer();
    write("tokenizer_config.json", {{"bos_token", "<s>"},
                                    {"eos_token", "</s>"},
                                    {"added_tokens_decoder", {{"350", {{"content", "<new>"}, {"special", true}}}}},
                                    {"chat_template", "own"}});
    write("special_tokens_map.json", {{"pad_token", "<pad>"}});
    std::filesystem::create_directory(path("chat_templates"));
    spill(path("chat_templates/rag.jinja"), "R");
    const int32_t next = read_text_folder(path("tokenizer.json")).tokenizer->vocab_size();
    write("tokenizer_config.json",
          {{"bos_token", "<s>"},
           {"eos_token", "</s>"},
           {"added_tokens_decoder", {{std::to_string(next), {{"content", "<new>"}, {"special", true}}}}},
           {"chat_template", "own"}});
    EXPECT_EQ(exported(folder_).tokenizer->piece_id("<new>"), next);
    EXPECT_EQ(listing(out()), "chat_templates special_tokens_map.json tokenizer.json tokenizer_config.json");
    for (const char* name :
         {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_templates/rag.jinja"})
        EXPECT_EQ(slurp(path(name)), slurp(out() + "/" + name)) << name;
    EXPECT_TRUE(notices_.empty());
    // Another template replaces all that the source has, and nothing else.
    const auto other = ChatTemplate::built_in("chatml");
    const TextFolder changed = exported(folder_, other.get());
    ASSERT_EQ(changed.templates.size(), 1u);
    EXPECT_EQ(changed.templates[0].source, other->source());
    EXPECT_EQ(listing(out()), "special_tokens_map.json tokenizer.json tokenizer_config.json");
    EXPECT_EQ(slurp(path("tokenizer.json")), slurp(out() + "/tokenizer.json"));
    // Files of an older export do not stay.
    spill(out() + "/chat_template.jinja", "old");
    spill(out() + "/added_tokens.json", "{\"<old>\": 1}");
    exported(folder_);
    EXPECT_EQ(listing(out()), "chat_templates special_tokens_map.json tokenizer.json tokenizer_config.json");
}

TEST_F(TextExportFile, AddedTokensAreWritten) {
    const TokenAdditions additions{
        .roles = {{"pad_token", "<|pad|>"}}, .special = {"<|tool|>"}, .plain = {"<idea>", "a b"}};
    const auto check = [&](const std::string& source) {
        SCOPED_TRACE(source);
        const TextFolder text = read_text_folder(source, additions);
        export_text({source, out(), text.tokenizer.get(), nullptr, additions});
        const TextFolder again = read_text_folder(out());
        expect_same_ids(*text.tokenizer, *again.tokenizer);
        EXPECT_EQ(text.added.size(), 4u);
        for (const std::string& token : text.added)
            EXPECT_EQ(text.tokenizer->piece_id(token), again.tokenizer->piece_id(token)) << token;
        EXPECT_EQ(again.tokenizer->encode("x a b<|tool|>", Spelled::token),
                  text.tokenizer->encode("x a b<|tool|>", Spelled::token));
        EXPECT_EQ(roles_of(*again.tokenizer), roles_of(*text.tokenizer));
        EXPECT_TRUE(again.tokenizer->is_special(*again.tokenizer->piece_id("<|tool|>")));
        EXPECT_FALSE(again.tokenizer->is_special(*again.tokenizer->piece_id("<idea>")));
        EXPECT_TRUE(read_text_folder(out(), additions).added.empty()) << "a second run adds nothing";
    };
    write_tokenizer();
    check(path("tokenizer.json"));
    check(folder_);
    write("tokenizer_config.json", {{"pad_token", "<pad>"}, {"additional_special_tokens", {"<s>"}}});
    write("special_tokens_map.json", {{"pad_token", "<pad>"}});
    check(folder_);
    std::filesystem::remove(path("tokenizer.json"));
    std::filesystem::remove(path("special_tokens_map.json"));
    write_model();
    write("tokenizer_config.json", Json::object());
    check(folder_);
    check(path("tokenizer.model"));
}

TEST_F(TextExportFile, SentencePieceModelsGetATokenizerJson) {
    write_model();
    EXPECT_TRUE(exported(path("tokenizer.model")).tokenizer->path().ends_with("tokenizer.json"));
    EXPECT_EQ(listing(out()), "tokenizer.json tokenizer.model tokenizer_config.json");
    exported(folder_);
    const int32_t next = read().tokenizer->vocab_size();
    write("added_tokens.json", {{"<new>", next}});
    write("special_tokens_map.json", {{"eos_token", "<|im_end|>"}});
    EXPECT_EQ(exported(folder_).tokenizer->piece_id("<new>"), next);
    const Json cases[] = {
        {{"add_bos_token", false}},
        {{"add_bos_token", true}, {"bos_token", "<|im_start|>"}},
        {{"bos_token", nullptr}},
        {{"legacy", false}, {"tokenizer_class", "LlamaTokenizer"}, {"add_bos_token", false}, {"pad_token", "<unk>"}}};
    for (const Json& config : cases) {
        SCOPED_TRACE(config.dump());
        write("tokenizer_config.json", config);
        exported(folder_);
    }
    write("tokenizer_config.json",
          {{"added_tokens_decoder", {{std::to_string(next), {{"content", "<new>"}, {"special", true}}}}}});
    EXPECT_TRUE(exported(folder_).tokenizer->is_special(next));
}

TEST_F(TextExportFile, GgufFilesBecomeFolders) {
    const Json json = small_tokenizer_json({});
    std::vector<std::string> tokens, merges;
    std::vector<int32_t> types;
    const auto set = [&](size_t id, const std::string& text, int32_t type) {
        if (tokens.size() <= id) tokens.resize(id + 1), types.resize(id + 1, 5);
        tokens[id] = text, types[id] = type;
    };
    for (const auto& [piece, id] : json["model"]["vocab"].items()) set(id, piece, 1);
    for (const Json& token : json["added_tokens"]) set(token["id"], token["content"], token["special"] == true ? 3 : 4);
    for (const Json& merge : json["model"]["merges"])
        merges.push_back(merge.is_string() ? merge.get<std::string>()
                                           : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    const auto id_of = [&](const std::string& piece) {
        return static_cast<uint32_t>(std::ranges::find(tokens, piece) - tokens.begin());
    };
    spill(path("a.gguf"),
          gguf_file({gguf_pair("tokenizer.ggml.model", "gpt2"), gguf_pair("tokenizer.ggml.pre", "qwen2"),
                     gguf_pair("tokenizer.ggml.tokens", GgufKind::string, tokens),
                     gguf_pair("tokenizer.ggml.token_type", GgufKind::i32, types),
                     gguf_pair("tokenizer.ggml.merges", GgufKind::string, merges),
                     gguf_pair("tokenizer.ggml.bos_token_id", GgufKind::u32, id_of("<s>")),
                     gguf_pair("tokenizer.ggml.eos_token_id", GgufKind::u32, id_of("<|im_end|>")),
                     gguf_pair("tokenizer.ggml.add_bos_token", GgufKind::boolean, uint8_t{1}),
                     gguf_pair("tokenizer.chat_template", "G{{ eos_token }}")}));
    const TextFolder text = read_text_folder(path("a.gguf"));
    EXPECT_EQ(roles_of(*text.tokenizer), "<s> <|im_end|> none none");
    EXPECT_EQ(text.tokenizer->document_prefix(), std::vector<int32_t>{*text.tokenizer->bos()});
    ASSERT_EQ(text.templates.size(), 1u);
    EXPECT_EQ(text.templates[0].source, "G{{ eos_token }}");
    for (const std::string plain : kTexts) {
        if (plain.find("[X]") != plain.npos) continue;  // a GGUF file has no flags such as single_word
        EXPECT_EQ(text.tokenizer->encode(plain, Spelled::token), small_tokenizer({})->encode(plain, Spelled::token))
            << plain;
    }
    const TextFolder again = exported(path("a.gguf"));
    EXPECT_EQ(listing(out()), "tokenizer.json tokenizer_config.json");
    ASSERT_EQ(again.templates.size(), 1u);
    EXPECT_EQ(again.templates[0].source, "G{{ eos_token }}");
}

}  // namespace
}  // namespace colonnade
