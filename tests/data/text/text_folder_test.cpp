#include "data/text/text_folder.h"

#include <sys/stat.h>

#include <sstream>

#include "data/text/choose_template.h"
#include "engine/io/files.h"
#include "tests/support/file_test.h"
#include "tests/support/gguf_file.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

const char* const kTexts[] = {"",
                              "x",
                              " leading",
                              "two  spaces\n\n\tand 123",
                              "Größe 你好 👩‍👩‍👧",
                              "a<s>b",
                              "<s>",
                              "</s> </s>",
                              "<|im_start|>user\nHi<|im_end|>",
                              "<new> x <new>",
                              "ends ",
                              "<|im_end|>\n",
                              "\n\n\n\n",
                              "[X]word[X]"};

class TextFolderFile : public FileTest {
  protected:
    void write(const std::string& name, const Json& json) const { spill(path(name), json.dump()); }
    /// A folder with the golden SentencePiece model.
    void write_model() const {
        std::filesystem::copy_file(golden_file("template_golden.model"), path("tokenizer.model"));
    }
    void write_tokenizer(const SmallTokenizer& wanted = {}) const {
        write("tokenizer.json", small_tokenizer_json(wanted));
    }
    TextFolder read() const { return read_text_folder(folder_); }
    std::string notices() const { return fmt::format("{}", fmt::join(read().notices, "\n")); }
    void refuses(const std::string& part) const {
        expect_error(Exit::data, part, [&] { read(); });
    }
    /// Names and first characters of the templates: "default=A tool_use=B".
    std::string templates() const {
        std::string text;
        for (const auto& found : read().templates) text += fmt::format("{}={} ", found.name, found.source.substr(0, 1));
        return text.empty() ? text : text.substr(0, text.size() - 1);
    }
    std::string chosen(const std::string& choice, const Json& tools = {}) const {
        const auto chat_template = choose_template(read(), choice, {});
        return chat_template->render({{"messages", Json::array()}, {"bos_token", "<s>"}}, !tools.is_null(), "here")
            .text.bytes();
    }
};

std::string piece_of(const Tokenizer& tokenizer, std::optional<int32_t> id) {
    return id ? tokenizer.piece(*id) : "none";
}
std::string roles_of(const Tokenizer& t) {
    return fmt::format("{} {} {} {}", piece_of(t, t.bos()), piece_of(t, t.eos()), piece_of(t, t.pad()),
                       piece_of(t, t.unk()));
}

/// Both give the same ids for documents, for text behind a token, and for spelled tokens.
void expect_same_ids(const Tokenizer& a, const Tokenizer& b) {
    EXPECT_EQ(a.document_prefix(), b.document_prefix());
    EXPECT_EQ(roles_of(a), roles_of(b));
    for (const std::string text : kTexts)
        for (const Spelled spelled : {Spelled::text, Spelled::token})
            for (const TextStart start : {TextStart::document, TextStart::behind_token})
                EXPECT_EQ(a.encode(text, spelled, start), b.encode(text, spelled, start))
                    << text << static_cast<int>(spelled) << static_cast<int>(start);
}

TEST_F(TextFolderFile, TokenizerJsonDecidesBesideAModel) {
    write_model();
    EXPECT_TRUE(read().tokenizer->path().ends_with("/tokenizer.model"));
    EXPECT_TRUE(read().notices.empty());
    write_tokenizer();
    EXPECT_TRUE(read().tokenizer->path().ends_with("/tokenizer.json"));
    EXPECT_EQ(notices(), folder_ + ": tokenizer.json decides the ids; tokenizer.model beside it is not used");
    EXPECT_TRUE(has_tokenizer(folder_));
    EXPECT_TRUE(has_tokenizer(path("tokenizer.json")));
    EXPECT_FALSE(has_tokenizer(path("nothing")));
}

TEST_F(TextFolderFile, FoldersWithoutATokenizer) {
    refuses(folder_ + ": contains neither tokenizer.json nor tokenizer.model; rows of token ids");
    for (const char* name : {"vocab.txt", "tiktoken.model", "qwen.tiktoken", "tekken.json", "vocab.json"}) {
        spill(path(name), "{}");
        refuses(fmt::format("nor tokenizer.model but {}; transformers writes a tokenizer.json from it: AutoTokenizer",
                            name));
    }
    EXPECT_FALSE(has_tokenizer(folder_));
    expect_error(Exit::data, path("nothing"), [&] { read_text_folder(path("nothing")); });
}

TEST_F(TextFolderFile, TokensOfTheConfigThatTokenizerJsonLacks) {
    write_tokenizer();
    const int32_t next = read().tokenizer->vocab_size();
    const std::string hash = read().tokenizer->content_hash();
    write("tokenizer_config.json",
          {{"added_tokens_decoder",
            {{std::to_string(next), {{"content", "<new>"}, {"special", true}, {"lstrip", true}}},
             {std::to_string(next + 1), {{"content", "word"}, {"single_word", true}}},
             {std::to_string(*read().tokenizer->piece_id("<s>")), {{"content", "<s>"}, {"special", true}}}}}});
    const auto tokenizer = read().tokenizer;
    EXPECT_EQ(tokenizer->vocab_size(), next + 2);
    EXPECT_EQ(tokenizer->piece_id("<new>"), next);
    EXPECT_TRUE(tokenizer->is_special(next));
    EXPECT_FALSE(tokenizer->is_special(next + 1));
    EXPECT_NE(tokenizer->content_hash(), hash) << "the added tokens decide ids";
    EXPECT_EQ(tokenizer->encode("  <new>", Spelled::token), std::vector<int32_t>{next}) << "lstrip";
    EXPECT_EQ(tokenizer->encode("word", Spelled::token), std::vector<int32_t>{next + 1});
    EXPECT_NE(tokenizer->encode("words", Spelled::token).front(), next + 1) << "single_word";
    // An id that the tokenizers package would not give is no id of this file.
    write("tokenizer_config.json", {{"added_tokens_decoder", {{"4000", {{"content", "<new>"}}}}}});
    refuses(fmt::format("'<new>': id 4000: the tokenizers package would use {}", next));
}

TEST_F(TextFolderFile, AddedTokensOfASentencePieceModel) {
    write_model();
    const int32_t next = read().tokenizer->vocab_size();
    const std::string hash = read().tokenizer->content_hash();
    write("added_tokens.json", {{"<new>", next}, {"<s>", 1}});
    EXPECT_EQ(read().tokenizer->vocab_size(), next + 1);
    EXPECT_NE(read().tokenizer->content_hash(), hash);
    EXPECT_EQ(read().tokenizer->encode("<new>", Spelled::token), std::vector<int32_t>{next});
    EXPECT_EQ(read().tokenizer->decode({next}, SpecialTokens::keep), "<new>");
    EXPECT_FALSE(read().tokenizer->is_special(next));
    // The flags of added_tokens_decoder win over the bare list.
    write("tokenizer_config.json",
          {{"added_tokens_decoder", {{std::to_string(next), {{"content", "<new>"}, {"special", true}}}}}});
    EXPECT_TRUE(read().tokenizer->is_special(next));
    // A token cannot take the id of a piece.
    write("tokenizer_config.json", {{"added_tokens_decoder", {{"300", {{"content", "<other>"}}}}}});
    refuses("'<other>': id 300 belongs to the piece '");
}

TEST_F(TextFolderFile, MalformedFilesNameFileAndKey) {
    write_tokenizer();
    const auto config_refuses = [&](const Json& config, const std::string& part) {
        write("tokenizer_config.json", config);
        refuses(part);
        std::filesystem::remove(path("tokenizer_config.json"));
    };
    config_refuses(Json::array(), path("tokenizer_config.json") + ": expected an object, found array");
    config_refuses({{"bos_token", 7}}, "bos_token: expected a token, found 7");
    config_refuses({{"eos_token", {{"lstrip", true}}}}, "eos_token: expected a token, found {\"lstrip\":true}");
    config_refuses({{"added_tokens_decoder", {{"x", {{"content", "a"}}}}}},
                   path("tokenizer_config.json") + ": added_tokens_decoder: 'x': expected an id with a token");
    config_refuses({{"added_tokens_decoder", {{"999999999999", {{"content", "a"}}}}}}, "expected an id with a token");
    config_refuses({{"added_tokens_decoder", {{"400", "a"}}}}, "'400': expected an id with a token");
    config_refuses({{"added_tokens_decoder", {{"400", {{"content", 7}}}}}}, "expected a token, found {\"content\":7}");
    config_refuses({{"chat_template", 7}},
                   path("tokenizer_config.json") + ": chat_template: expected a text, or a list");
    config_refuses({{"chat_template", {{{"name", "a"}}}}},
                   "chat_template: expected a text, or a list of {name, template}");
    spill(path("tokenizer_config.json"), "{\"a\": }");
    refuses(path("tokenizer_config.json") + ": column 7: invalid JSON");
    std::filesystem::remove(path("tokenizer_config.json"));
    write("special_tokens_map.json", "text");
    refuses(path("special_tokens_map.json") + ": expected an object, found string");
    std::filesystem::remove(path("special_tokens_map.json"));
    write("added_tokens.json", {{"<new>", "seven"}});
    refuses(path("added_tokens.json") + ": '<new>': expected an id, found \"seven\"");
    std::filesystem::remove(path("added_tokens.json"));
    write("generation_config.json", {{"eos_token_id", "</s>"}});
    refuses(path("generation_config.json") + ": eos_token_id: expected an id or a list of ids, found \"</s>\"");
    std::filesystem::remove(path("generation_config.json"));
    spill(path("chat_template.jinja"), std::string((1 << 20) + 1, 'x'));
    refuses(path("chat_template.jinja"));
    std::filesystem::remove(path("chat_template.jinja"));
    spill(path("tokenizer.json"), "[]");
    refuses(path("tokenizer.json"));
    spill(path("tokenizer.json"), "");
    refuses(path("tokenizer.json"));
    std::filesystem::remove(path("tokenizer.json"));
    spill(path("tokenizer.model"), "no model");
    refuses(path("tokenizer.model"));
}

/// A FIFO must not make anybody wait, and a file of somebody else must not get into an export.
TEST_F(TextFolderFile, RefusesFifosAndForeignLinks) {
    write_tokenizer();
    ASSERT_EQ(mkfifo(path("tokenizer_config.json").c_str(), 0600), 0);
    refuses(path("tokenizer_config.json") + ": is a FIFO (named pipe), expected a file");
    std::filesystem::remove(path("tokenizer_config.json"));
    const std::string secret = folder_ + "-secret";
    spill(secret, "{}");
    std::filesystem::create_directory(path("chat_templates"));
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
                             "merges.txt", "chat_template.jinja", "generation_config.json", "chat_templates/x.jinja"}) {
        std::filesystem::create_symlink(secret, path(name));
        refuses(fmt::format("{}: is a symbolic link to {}, which lies outside", path(name), secret));
        std::filesystem::remove(path(name));
    }
    std::filesystem::remove(path("tokenizer.json"));
    std::filesystem::create_symlink(secret, path("tokenizer.json"));
    refuses(path("tokenizer.json") + ": is a symbolic link to");
    std::filesystem::remove(secret);
}

TEST_F(TextFolderFile, RolesAreThoseOfTheConfigThenOfTheMap) {
    write_model();
    EXPECT_EQ(roles_of(*read().tokenizer), "<s> </s> <pad> <unk>");
    write("special_tokens_map.json", {{"eos_token", "<|im_end|>"}, {"pad_token", {{"content", "<unk>"}}}});
    EXPECT_EQ(roles_of(*read().tokenizer), "<s> <|im_end|> <unk> <unk>");
    write("tokenizer_config.json",
          {{"bos_token", nullptr}, {"eos_token", {{"content", "<|eot_id|>"}, {"lstrip", false}}}});
    EXPECT_EQ(roles_of(*read().tokenizer), "none <|eot_id|> <unk> <unk>");
    EXPECT_TRUE(read().tokenizer->document_prefix().empty()) << "no BOS, no prefix";
    EXPECT_TRUE(read().notices.empty());
    write("tokenizer_config.json", {{"pad_token", "[PAD]"}, {"additional_special_tokens", {"<|im_end|>", "<image>"}}});
    EXPECT_EQ(roles_of(*read().tokenizer), "<s> <|im_end|> none <unk>");
    EXPECT_EQ(notices(), folder_ + ": pad_token '[PAD]' is no token of the tokenizer; it is not used\n" + folder_ +
                             ": additional_special_tokens '<image>' is no token of the tokenizer; it is not used");
}

TEST_F(TextFolderFile, AddBosTokenDecidesThePrefix) {
    const Json without = {{"add_bos_token", false}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
    Json with = without;
    with["add_bos_token"] = true;
    const auto prefix = [&] {
        std::string text;
        const auto tokenizer = read().tokenizer;
        for (const int32_t id : tokenizer->document_prefix()) text += tokenizer->piece(id);
        return text;
    };
    write_model();
    EXPECT_EQ(prefix(), "<s>");
    write("tokenizer_config.json", without);
    EXPECT_EQ(prefix(), "");
    write("tokenizer_config.json", {{"add_bos_token", true}, {"bos_token", "<|im_start|>"}});
    EXPECT_EQ(prefix(), "<|im_start|>");
    std::filesystem::remove(path("tokenizer.model"));
    std::filesystem::remove(path("tokenizer_config.json"));
    write_tokenizer();
    EXPECT_EQ(prefix(), "");
    write("tokenizer_config.json", with);
    EXPECT_EQ(prefix(), "<s>");
    Json json = small_tokenizer_json({});
    const int32_t bos = *read().tokenizer->piece_id("<s>");
    json["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair", Json::array()},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {bos}}, {"tokens", {"<s>"}}}}}}};
    spill(path("tokenizer.json"), json.dump());
    std::filesystem::remove(path("tokenizer_config.json"));
    EXPECT_EQ(prefix(), "<s>");
    write("tokenizer_config.json", without);
    EXPECT_EQ(prefix(), "");
}

TEST_F(TextFolderFile, WhichTemplateCounts) {
    write_tokenizer();
    EXPECT_EQ(templates(), "");
    write("tokenizer_config.json", {{"chat_template", "A"}});
    EXPECT_EQ(templates(), "default=A");
    write("tokenizer_config.json",
          {{"chat_template", {{{"name", "tool_use"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}}}});
    EXPECT_EQ(templates(), "default=D tool_use=T");
    spill(path("chat_template.jinja"), "J");
    EXPECT_EQ(templates(), "default=J") << "the file wins over the config";
    std::filesystem::create_directory(path("chat_templates"));
    spill(path("chat_templates/rag.jinja"), "R");
    spill(path("chat_templates/notes.txt"), "N");
    spill(path("chat_templates/tool_use.jinja"), "U");
    EXPECT_EQ(templates(), "default=J rag=R tool_use=U");
    EXPECT_EQ(read().templates[1].file, path("chat_templates/rag.jinja"));
}

TEST_F(TextFolderFile, EndTokensOfTheModel) {
    write_tokenizer();
    write("config.json", {{"eos_token_id", 5}});
    EXPECT_EQ(read().end_ids, std::vector<int32_t>{5});
    write("generation_config.json", {{"eos_token_id", {2, 7}}});
    EXPECT_EQ(read().end_ids, (std::vector<int32_t>{2, 7}));
    write("generation_config.json", {{"eos_token_id", nullptr}});
    EXPECT_EQ(read().end_ids, std::vector<int32_t>{5});
    EXPECT_TRUE(read().notices.empty());
    write("generation_config.json", {{"eos_token_id", {2, 128009, -1}}});
    EXPECT_EQ(read().end_ids, std::vector<int32_t>{2});
    EXPECT_EQ(notices(),
              fmt::format("{}: eos_token_id {} is no token of the tokenizer; it is not used\n{}: eos_token_id {} is "
                          "no token of the tokenizer; it is not used",
                          path("generation_config.json"), 128009, path("generation_config.json"), -1));
}

TEST_F(TextFolderFile, ChoosesTheTemplate) {
    write_tokenizer();
    EXPECT_EQ(choose_template(read(), "auto", {})->source(), ChatTemplate::built_in("chatml")->source());
    EXPECT_FALSE(choose_template(read(), "auto", {})->is_of_model());
    write("tokenizer_config.json", {{"chat_template",
                                     {{{"name", "default"}, {"template", "D{{ bos_token }}"}},
                                      {{"name", "tool_use"}, {"template", "T"}},
                                      {{"name", "rag"}, {"template", "R"}}}}});
    EXPECT_EQ(chosen("auto"), "D<s>");
    EXPECT_EQ(chosen("auto", Json::array({1})), "T") << "chats with tools";
    EXPECT_EQ(chosen("rag"), "R");
    EXPECT_EQ(chosen("rag", Json::array({1})), "R");
    EXPECT_TRUE(choose_template(read(), "auto", {})->is_of_model());
    EXPECT_EQ(choose_template(read(), "rag", {})->name(), path("tokenizer_config.json") + " (rag)");
    EXPECT_TRUE(choose_template(read(), "llama3", {})->is_built_in());
    EXPECT_FALSE(choose_template(read(), "llama3", {})->is_of_model());
    EXPECT_EQ(chosen("X{{ bos_token }}"), "X<s>");
    EXPECT_EQ(chosen("X{% if true %}Y{% endif %}"), "XY");
    spill(path("mine.jinja"), "F{{ bos_token }}");
    EXPECT_EQ(chosen(path("mine.jinja")), "F<s>");
    EXPECT_EQ(choose_template(read(), path("mine.jinja"), {})->name(), path("mine.jinja"));
    expect_error(
        Exit::config,
        "chat_template 'no.jinja': no such file; expected auto (the model's own), one of plain, chatml, llama2, "
        "llama3, mistral, zephyr, gemma, a template of the model (default, tool_use, rag), a Jinja file, or Jinja text",
        [&] { chosen("no.jinja"); });
    expect_error(Exit::config, "in the config:1:5: the template ends", [&] { chosen("{{ x"); });
    expect_error(Exit::config, "no such file", [&] { chosen(folder_); });
    write("tokenizer_config.json", {{"chat_template", "{% nope %}"}});
    expect_error(Exit::config, path("tokenizer_config.json") + ":1:", [&] { chosen("auto"); });
}

// --- Added tokens ---

TokenAdditions additions_of(const Json& golden) {
    return {.roles = golden.at("roles").get<std::map<std::string, std::string>>(),
            .special = golden.at("special").get<std::vector<std::string>>(),
            .plain = golden.at("plain").get<std::vector<std::string>>()};
}

// transformers added the same tokens (tests/golden/make_added_tokens_golden.py).
TEST_F(TextFolderFile, AddedTokensAreThoseOfTransformers) {
    std::istringstream lines(slurp(golden_file("added_tokens_golden.jsonl")));
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
        const Json golden = parse_json(line, "golden");
        const std::string name = golden.at("tokenizer");
        SCOPED_TRACE(name);
        const TokenAdditions additions = additions_of(golden);
        const TextFolder text = read_text_folder(golden_file("tokenizers/" + name + "/tokenizer.json"), additions);
        EXPECT_EQ(text.tokenizer->vocab_size(), golden.at("size"));
        EXPECT_EQ(text.tokenizer->pad(), text.tokenizer->piece_id("<|pad|>"));
        EXPECT_EQ(text.tokenizer->eos(), text.tokenizer->piece_id("<|im_end|>"));
        for (size_t i = 0; i < golden.at("texts").size(); ++i) {
            const auto ids = text.tokenizer->encode(golden["texts"][i].get<std::string>(), Spelled::token);
            EXPECT_EQ(ids, golden["ids"][i].get<std::vector<int32_t>>()) << golden["texts"][i];
            EXPECT_EQ(text.tokenizer->decode(ids), golden["skip"][i].get<std::string>());
        }
    }
    EXPECT_EQ(count, 7);
}

TEST_F(TextFolderFile, AddedTokensThatExistKeepTheirIds) {
    write_tokenizer({.special = {"<|im_end|>"}});
    write("tokenizer_config.json", {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    const TextFolder plain = read();
    const TextFolder text = read_text_folder(
        folder_, {.roles = {{"eos_token", "<|im_end|>"}, {"pad_token", "<new>"}}, .special = {"<new>", "<s>"}});
    EXPECT_EQ(text.added, std::vector<std::string>{"<new>"});
    EXPECT_EQ(text.tokenizer->vocab_size(), plain.tokenizer->vocab_size() + 1);
    EXPECT_EQ(roles_of(*text.tokenizer), "<s> <|im_end|> <new> none");
    EXPECT_NE(text.tokenizer->content_hash(), plain.tokenizer->content_hash());
    EXPECT_TRUE(read_text_folder(folder_, {.roles = {{"eos_token", "<|im_end|>"}}}).added.empty());
}

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
